//! Failures of a token request and what each means for the refresh token.
//!
//! Owns: the classification. Never shows a body: only the OAuth error code and a scrubbed description.

use std::time::Duration;

use http::StatusCode;

use super::answer::{Answer, Body, Fields};
use super::preset::Preset;
use super::scrub::Scrubber;
use super::{Carried, CustomResponse, Grant};
use crate::clock::UnixTime;
use crate::secret::Secret;

/// What a failure means: decides state and retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The refresh token is refused for good.
    GrantDead,
    /// Somebody must change something; the refresh token is kept.
    Configuration,
    /// The provider's trouble; the request was answered and not carried out, or nothing is lost by repeating it.
    Transient,
    /// No byte of the request was written.
    Clean,
    /// A one-time refresh token was sent and no complete answer came, or a 5xx that may hide a rotation.
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

/// A failed token request. `Display` is one scrubbed line: what happened, where, and how to mend it. Never a body,
/// token or secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What it means.
    pub class: FailureClass,
    /// The OAuth `error` code, or a short word of our own: `dns`, `connect`, `tls`, `proxy`, `timeout`, `cut`,
    /// `too_large`, `redirect`, `unreadable`, `unusable`, `discovery`, `secret`, `http_<status>`.
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

impl Failure {
    /// A failure without an answer.
    pub(super) fn new(class: FailureClass, error: &str, message: String) -> Self {
        Self {
            class,
            error: error.to_owned(),
            description: None,
            message,
            status: None,
            retry_after: None,
            refresh_token: None,
            date: None,
        }
    }
}

/// What the request put at stake: decides what a lost answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stake {
    /// A refresh token that is good for one use.
    OneTimeToken,
    /// A refresh token that may be sent again.
    ReusableToken,
    /// No refresh token: the credential's own grant.
    OwnGrant,
}

impl Stake {
    /// What it means that the request was written and its outcome is not known.
    pub(super) fn outcome_unknown(self) -> FailureClass {
        match self {
            Self::OneTimeToken => FailureClass::Ambiguous,
            Self::ReusableToken | Self::OwnGrant => FailureClass::Transient,
        }
    }
}

/// What a judgement needs beside the answer.
pub(super) struct Judge<'a> {
    /// What was put at stake.
    pub(super) stake: Stake,
    /// Whose quirks apply.
    pub(super) preset: &'a Preset,
    /// Which grant is the credential's own.
    pub(super) grant: &'a Grant,
    /// The token endpoint as it may be shown.
    pub(super) endpoint: &'a str,
    /// Everything that was sent and must not come back in a message.
    pub(super) scrubber: &'a Scrubber,
    /// Where an answer that is not OAuth's has its token.
    pub(super) response: Option<&'a CustomResponse>,
    /// What of an answer goes with its token.
    pub(super) carried: &'a [Carried],
    /// Whether tokens must be bound by DPoP.
    pub(super) dpop: bool,
    /// The wall clock, for `Retry-After` dates.
    pub(super) now: UnixTime,
}

impl Judge<'_> {
    /// A failure that the answer's head belongs to.
    pub(super) fn failure(
        &self,
        answer: &Answer,
        class: FailureClass,
        error: &str,
        message: String,
    ) -> Failure {
        Failure {
            status: Some(answer.status.as_u16()),
            retry_after: answer.retry_after(self.now),
            date: answer.date(),
            ..Failure::new(class, error, message)
        }
    }

    /// Judges an answer that is no success by its status.
    pub(super) fn refusal(&self, answer: &Answer, body: &Body) -> Failure {
        if answer.status.is_redirection() {
            return self.redirect(answer);
        }
        match body {
            Body::Fields(fields) if self.code_of(fields).is_some() => self.oauth_error(answer, fields),
            _ => self.bare(answer, body),
        }
    }

    /// Judges an answer with an OAuth `error`, whatever its status (some providers report errors as 200).
    pub(super) fn oauth_error(&self, answer: &Answer, fields: &Fields) -> Failure {
        let code = self.scrubber.code(self.code_of(fields).unwrap_or("unknown_error"));
        let description = fields.error_description().and_then(|text| self.scrubber.description(text));
        let class = self.class_of(answer, &code);
        let said = match &description {
            Some(text) => format!("{code} ({text})"),
            None => code.clone(),
        };
        let status = answer.status.as_u16();
        let mend = self.remedy(class, &code);
        let message = format!("{} answered {status} {said}{mend}", self.endpoint);
        Failure { description, ..self.failure(answer, class, &code, message) }
    }

    /// The `error`, or what the provider writes in its place.
    fn code_of<'f>(&self, fields: &'f Fields) -> Option<&'f str> {
        fields.error_code().or_else(|| fields.text(self.preset.error_field?))
    }

    fn class_of(&self, answer: &Answer, code: &str) -> FailureClass {
        let status = answer.status;
        if status.is_server_error() || is_retryable_4xx(status) {
            return self.class_of_status(answer);
        }
        match self.preset.class_of(code) {
            Some(FailureClass::GrantDead) if self.stake == Stake::OwnGrant => {}
            Some(class) => return class,
            None => {}
        }
        match code {
            "temporarily_unavailable"
            | "server_error"
            | "slow_down"
            | "ratelimited"
            | "rate_limited"
            | "internal_error"
            | "service_unavailable"
            | "request_timeout"
            | "fatal_error" => FailureClass::Transient,
            "invalid_grant" | "bad_refresh_token" | "invalid_refresh_token"
                if self.stake != Stake::OwnGrant && (status.is_success() || is_refusal(status)) =>
            {
                FailureClass::GrantDead
            }
            _ => FailureClass::Configuration,
        }
    }

    fn class_of_status(&self, answer: &Answer) -> FailureClass {
        let status = answer.status;
        if status.is_server_error() {
            // A 503 that names a time was turned away before it was carried out.
            let turned_away =
                status == StatusCode::SERVICE_UNAVAILABLE && answer.retry_after(self.now).is_some();
            return if turned_away { FailureClass::Transient } else { self.stake.outcome_unknown() };
        }
        if is_retryable_4xx(status) {
            return FailureClass::Transient;
        }
        if is_refusal(status) { self.preset.bare_refusal } else { FailureClass::Configuration }
    }

    /// An error status without an OAuth error in it.
    fn bare(&self, answer: &Answer, body: &Body) -> Failure {
        let status = answer.status;
        // A page with 403 is mostly a gateway's in front of the provider: it passes. With 400, 401, 404 or 405 it is
        // more likely the wrong address or the wrong client, which a retry does not mend.
        let class = match body {
            Body::Html if status == StatusCode::FORBIDDEN => FailureClass::Transient,
            _ => self.class_of_status(answer),
        };
        let what = match body {
            Body::Empty => "an empty body",
            Body::Html => "an HTML page",
            Body::Fields(_) | Body::Other => "a body without an OAuth error",
        };
        let mend = match status.as_u16() {
            400 | 401 | 403 if class != FailureClass::Transient => {
                "; check client id, secret, `client.auth` and the refresh token"
            }
            404 | 405 => "; check `token_endpoint`",
            407 => "; the outbound proxy wants credentials",
            _ => "",
        };
        let message = format!("{} answered {} with {what}{mend}", self.endpoint, status.as_u16());
        self.failure(answer, class, &format!("http_{}", status.as_u16()), message)
    }

    fn redirect(&self, answer: &Answer) -> Failure {
        let target = answer.location().map(|to| format!(" to {to}")).unwrap_or_default();
        let message = format!(
            "{} answered {} and redirects{target}; token requests are never redirected: configure the final address as \
             `token_endpoint`",
            self.endpoint,
            answer.status.as_u16()
        );
        self.failure(answer, FailureClass::Configuration, "redirect", message)
    }

    fn remedy(&self, class: FailureClass, code: &str) -> &'static str {
        match (class, code) {
            (FailureClass::GrantDead, _) => "; the refresh token is refused for good: a new one is needed",
            (FailureClass::Configuration, "invalid_client") => {
                "; check `client.id`, the secret or key, and `client.auth`"
            }
            (FailureClass::Configuration, "unauthorized_client") => {
                "; enable this grant for the client at the provider"
            }
            (FailureClass::Configuration, "unsupported_grant_type") => "; check `grant` and `token_endpoint`",
            (FailureClass::Configuration, "invalid_scope") => "; check `scope`",
            (FailureClass::Configuration, "invalid_grant") => self.grant.remedy(),
            (FailureClass::Configuration, "invalid_request")
                if matches!(self.grant, Grant::TokenExchange(_)) =>
            {
                self.grant.remedy()
            }
            _ => "",
        }
    }
}

/// 408, 425 and 429: come back later.
fn is_retryable_4xx(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429)
}

/// The statuses that RFC 6749 5.2 and its readers use for a refusal.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403)
}
