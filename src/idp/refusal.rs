//! Errors of the token endpoint as they go over the wire (RFC 6749 5.2), with OCI's `ecid`.

use http::{Response, StatusCode, header};

use super::ledger::RefusedToken;
use super::log::Outcome;
use super::server::{Body, full};

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}: {description}")]
pub(super) struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
    challenge: bool,
    token: Option<RefusedToken>,
}

impl Refusal {
    pub(super) fn new(error: &'static str, description: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description: description.into(),
            challenge: false,
            token: None,
        }
    }

    pub(super) fn invalid_request(description: &str) -> Self {
        Self::new("invalid_request", description)
    }

    /// RFC 6749 5.2: 401, with a challenge of the scheme that the client used.
    pub(super) fn invalid_client(description: &str, challenge: bool) -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Self { status, challenge, ..Self::new("invalid_client", description) }
    }

    pub(super) fn is_invalid_client(&self) -> bool {
        self.error == "invalid_client"
    }

    /// What the log keeps.
    pub(super) fn outcome(&self) -> Outcome {
        self.token.map_or(Outcome::Refused(self.error), Outcome::RefusedToken)
    }

    pub(super) fn response(&self) -> Response<Body> {
        let body = serde_json::json!({
            "error": self.error,
            "error_description": self.description,
            "ecid": ecid(),
        });
        let mut response = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, "application/json;charset=UTF-8")
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::PRAGMA, "no-cache");
        if self.challenge {
            response = response.header(header::WWW_AUTHENTICATE, "Basic realm=\"bearward try\"");
        }
        response.body(full(body.to_string())).expect("static headers are valid")
    }
}

impl From<RefusedToken> for Refusal {
    fn from(why: RefusedToken) -> Self {
        Self { token: Some(why), ..Self::new("invalid_grant", &why.to_string()) }
    }
}

/// An execution context id, as OCI puts into errors.
fn ecid() -> String {
    format!("{:016x}", fastrand::u64(..))
}
