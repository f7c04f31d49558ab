//! Failures of a token request and what each means for the refresh token.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::secret::Secret;

/// What a failure means (see the table in `docs/`): decides state and retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The refresh token is refused for good.
    GrantDead,
    /// Somebody must change something; the refresh token is kept.
    Configuration,
    /// The provider's trouble; the request was answered and not carried out.
    Transient,
    /// No byte of the request was written.
    Clean,
    /// The request was written and no complete answer came, or a 5xx that may hide a rotation.
    Ambiguous,
}

impl FailureClass {
    /// As the API, the metrics and the logs show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GrantDead => "grant_dead",
            Self::Configuration => "configuration",
            Self::Transient => "transient",
            Self::Clean => "clean",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// A failed token request. `Display` is one scrubbed line: class, error, description. Never a body, token or secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What it means.
    pub class: FailureClass,
    /// The OAuth `error` code, or a short word of our own (`timeout`, `connect`, `redirect`, `unreadable`).
    pub error: String,
    /// `error_description`, truncated and scrubbed.
    pub description: Option<String>,
    /// One line for a person: what happened, where, how to mend it where we know.
    pub message: String,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// `Retry-After` (or `X-Retry-After`), capped at 1 h.
    pub retry_after: Option<Duration>,
    /// A new refresh token that came with an unusable answer: it must be kept all the same.
    pub refresh_token: Option<Secret>,
    /// The `Date` of the answer, for the skew.
    pub date: Option<UnixTime>,
}
