//! The admin listener: liveness, readiness, metrics, status and actions; and the health listener, which
//! has the first three only.
//!
//! Owns: what an operator can ask and who may change something. State-changing calls need the token or the
//! Unix socket. Never on a data listener; never shows a secret.

pub mod access;
pub mod api;
pub mod metrics;
pub mod readiness;
pub mod serve;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, UnixTime};
use crate::credential::Credential;
use crate::listener::DataPlane;
use crate::names::Name;

/// What the admin listener tells about.
#[derive(Debug)]
pub struct Running {
    /// All credentials, in the order of the configuration.
    pub credentials: Vec<Credential>,
    /// Listeners, routes and their counters.
    pub data: Arc<DataPlane>,
    /// The clock of the control plane.
    pub clock: Clock,
    /// When the process was ready.
    pub started_at: UnixTime,
    /// Cancelled when stopping begins: readiness turns red.
    pub draining: CancellationToken,
}

impl Running {
    /// The credential of that name.
    pub fn credential(&self, name: &str) -> Option<&Credential> {
        self.credentials.iter().find(|credential| credential.cell().name().as_str() == name)
    }

    /// All names, for a message about an unknown one.
    pub fn credential_names(&self) -> Vec<Name> {
        self.credentials.iter().map(|credential| credential.cell().name().clone()).collect()
    }
}
