//! Credentials: tokens kept fresh in the background and read without waiting.
//!
//! Owns: the life of a token from seed to hard stop: states, schedule, the refresh task, the cell that the
//! data plane reads, and which origins a token may go to. Never runs on a data-plane thread, except for
//! [`cell::TokenReader`], which takes no lock, allocates nothing and awaits nothing.

mod adopt;
mod answer;
mod asking;
mod attempt;
pub mod binding;
pub mod cell;
pub mod injection;
pub mod login;
pub mod proof;
pub mod refresher;
pub mod removal;
mod saving;
pub mod schedule;
mod seed;
pub mod snapshot;
pub mod state;
mod static_token;
mod task;
pub mod users;

use std::time::Duration;

use crate::names::Name;
use crate::oauth::OAuthConfig;
use crate::origin::Origin;
pub use binding::{Binder, BindingError, BoundCredential};
pub use cell::{Published, Token, TokenCell, TokenReader, Unavailable};
pub use injection::{Extras, Injection};
pub use proof::{Nonces, Prover};
pub use refresher::Credential;
pub use seed::{identity, request_digest};
pub use snapshot::{Counts, DURATION_BOUNDS, ForcedRefresh, LastError, Snapshot};
pub use state::State;
pub use users::{BoundUsers, UserAsk, UserKey, UserRefused, Users};

/// One entry of `credentials:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialConfig {
    /// Its key in the map.
    pub name: Name,
    /// How it talks to its provider.
    pub oauth: OAuthConfig,
    /// `allowed_upstreams`, or the origins of the routes that name it.
    pub allowed_upstreams: Vec<Origin>,
    /// `inject`: where in a request the token stands.
    pub injection: Box<Injection>,
    /// `required`: `/readyz` is red without a usable token.
    pub required: bool,
    /// `revoke_on_removal`.
    pub revoke_on_removal: bool,
    /// `rotation.mode`.
    pub rotation: RotationMode,
    /// `rotation.grace`, else the preset's.
    pub grace: Duration,
    /// `refresh.at` in parts per million of the lifetime; `None`: by the lifetime.
    pub refresh_at_ppm: Option<u32>,
    /// `refresh.min_interval`, 5 s.
    pub min_interval: Duration,
    /// `lifetime.default`, 10 min.
    pub default_lifetime: Duration,
    /// `lifetime.refresh_token`, else the preset's.
    pub refresh_token_lifetime: Option<Duration>,
}

/// `rotation.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RotationMode {
    /// Single-use until observed otherwise.
    #[default]
    Auto,
    /// Every refresh token is spent by its use.
    SingleUse,
    /// A refresh token may be sent again.
    Reusable,
}
