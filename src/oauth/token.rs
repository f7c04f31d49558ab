//! The successful answer of a token endpoint (RFC 6749 5.1).

use std::time::Duration;

use crate::clock::UnixTime;
use crate::secret::Secret;

/// A usable answer.
#[derive(Debug, Clone)]
pub struct TokenResponse {
    /// Printable ASCII without spaces or controls: fit for a header.
    pub access_token: Secret,
    /// `expires_in`, clamped to 10 years; `None` where missing or null. Zero or negative is a failure.
    pub expires_in: Option<Duration>,
    /// A new refresh token; an empty one counts as none.
    pub refresh_token: Option<Secret>,
    /// `refresh_token_expires_in`, `refresh_expires_in`, `x_refresh_token_expires_in`.
    pub refresh_token_expires_in: Option<Duration>,
    /// `refresh_in`.
    pub refresh_in: Option<Duration>,
    /// `scope`, where the answer names one.
    pub scope: Option<String>,
    /// The `Date` of the answer, for the skew.
    pub date: Option<UnixTime>,
}
