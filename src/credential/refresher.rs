//! The refresher: one owned task a credential.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{CredentialConfig, TokenCell};
use crate::clock::{Clock, UnixTime};
use crate::oauth::SetupError;
use crate::shutdown::Shutdown;
use crate::store::Store;

/// A running credential: what the control plane holds of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Credential {
    cell: Arc<TokenCell>,
}

/// What is known of a credential now: the material of `/api/v1/status`, `/readyz` and the metrics.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The name.
    pub name: crate::names::Name,
    /// Where it stands now (a token past its hard stop is `expired` here even before the task wakes).
    pub state: super::State,
    /// Counts access tokens.
    pub generation: u64,
    /// When the access token dies.
    pub expires_at: Option<UnixTime>,
    /// Life left by the boot clock, seconds; negative never.
    pub expires_in_seconds: Option<u64>,
    /// When the next token request is due.
    pub refresh_at: Option<UnixTime>,
    /// When the refresh token dies.
    pub refresh_token_expires_at: Option<UnixTime>,
    /// When the last successful answer was taken.
    pub last_refresh_at: Option<UnixTime>,
    /// The last failure, until a success.
    pub last_error: Option<LastError>,
    /// Token requests that brought a token.
    pub refreshes_ok: u64,
    /// Token requests that failed.
    pub refreshes_failed: u64,
    /// The store's kind.
    pub store_kind: &'static str,
    /// Whether this process holds the lease or led last.
    pub leader: bool,
    /// `required` of the configuration.
    pub required: bool,
    /// Whether one attempt has ended (readiness waits for it).
    pub tried: bool,
    /// A rotated token that is not on disk yet: an alarm.
    pub unsaved: bool,
    /// What a person must do, in words, where somebody must (`bearward login primavera`).
    pub remedy: Option<String>,
}

/// The last failure as the API shows it.
#[derive(Debug, Clone)]
pub struct LastError {
    /// [`crate::oauth::FailureClass::as_str`], or `store`.
    pub class: &'static str,
    /// The OAuth code or our own word.
    pub error: String,
    /// Scrubbed description.
    pub description: Option<String>,
    /// When.
    pub at: UnixTime,
    /// When it is tried again, if it is.
    pub retry_at: Option<UnixTime>,
}

/// The answer to a forced refresh.
#[derive(Debug, Clone)]
pub enum ForcedRefresh {
    /// A new token of this generation is published.
    Refreshed(u64),
    /// The attempt failed; a message for a person.
    Failed(String),
    /// Not tried, with the reason (dead, awaiting login, minimum interval).
    Refused(String),
}

#[allow(clippy::todo, unused_variables, reason = "skeleton")]
impl Credential {
    /// Checks keys and secrets, then begins: reads the store, publishes what is still good and spawns the task.
    /// Sends nothing before the first turn of the task; returns when the store was read once, so that a
    /// persisted token is in the cell already.
    pub async fn start(
        config: CredentialConfig,
        store: Store,
        clock: Clock,
        shutdown: &Shutdown,
    ) -> Result<Self, SetupError> {
        todo!()
    }

    /// The cell that routes bind.
    pub fn cell(&self) -> &Arc<TokenCell> {
        &self.cell
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// Asks for a refresh now (`bearward refresh`).
    pub fn refresh(&self) -> oneshot::Receiver<ForcedRefresh> {
        todo!()
    }
}
