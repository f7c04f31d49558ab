//! The successful answer of a token endpoint (RFC 6749 5.1).
//!
//! Owns: what makes an answer usable. A new refresh token is taken out before anything else is judged, so that no
//! fault elsewhere in the answer loses it.

use std::time::Duration;

use super::answer::{Answer, Body, Fields};
use super::error::{Failure, FailureClass, Judge};
use crate::clock::UnixTime;
use crate::secret::Secret;

/// Ten years: longer lifetimes are cut to this.
pub const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

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
    /// Header fields that requests with the token must carry (`custom.response.headers`, `response` of `inject`).
    pub headers: Vec<(String, Secret)>,
    /// The `Date` of the answer, for the skew.
    pub date: Option<UnixTime>,
}

/// Reads an answer of any status.
pub(super) fn read(mut answer: Answer, judge: &Judge<'_>) -> Result<TokenResponse, Failure> {
    let body = answer.read_body();
    if !answer.status.is_success() {
        return Err(judge.refusal(&answer, &body));
    }
    let carried = match &body {
        Body::Fields(fields) => judge.carried.iter().map(|field| fields.copy_at(&field.pointer)).collect(),
        _ => Vec::new(),
    };
    let body = match (judge.response, body) {
        (Some(response), Body::Fields(fields))
            if fields.has(&response.access_token) || fields.error_code().is_none() =>
        {
            Body::Fields(fields.found_at(&response.places()))
        }
        (_, body) => body,
    };
    match body {
        Body::Fields(mut fields) if fields.error_code().is_some() => {
            let mut failure = judge.oauth_error(&answer, &fields);
            failure.refresh_token = fields.take_secret("refresh_token");
            if failure.class == FailureClass::GrantDead && failure.refresh_token.is_some() {
                failure.class = FailureClass::Transient;
            }
            Err(failure)
        }
        Body::Fields(fields) => usable(&answer, fields, carried, judge),
        Body::Empty => Err(unreadable(&answer, "an empty body", judge)),
        Body::Html => Err(unreadable(&answer, "an HTML page", judge)),
        Body::Other => Err(unreadable(&answer, "a body that is neither JSON nor a form", judge)),
    }
}

fn unreadable(answer: &Answer, what: &str, judge: &Judge<'_>) -> Failure {
    let status = answer.status.as_u16();
    let message = format!(
        "{} answered {status} with {what} instead of a token; check `token_endpoint`",
        judge.endpoint
    );
    judge.failure(answer, judge.stake.outcome_unknown(), "unreadable", message)
}

fn usable(
    answer: &Answer,
    mut fields: Fields,
    carried: Vec<Option<Secret>>,
    judge: &Judge<'_>,
) -> Result<TokenResponse, Failure> {
    let refresh_token = fields.take_secret("refresh_token");
    let refused = |class, reason: &str, refresh_token: Option<Secret>| {
        let kept = if refresh_token.is_some() { "; the refresh token that came with it is kept" } else { "" };
        let message = format!("{} answered {} {reason}{kept}", judge.endpoint, answer.status.as_u16());
        Err(Failure { refresh_token, ..judge.failure(answer, class, "unusable", message) })
    };
    let Some(access_token) = fields.take_secret("access_token") else {
        if let Some(response) = judge.response {
            let reason = format!("without a token at `{}`; check `custom.response`", response.access_token);
            return refused(FailureClass::Configuration, &reason, refresh_token);
        }
        let class = match refresh_token {
            Some(_) => FailureClass::Transient,
            None => judge.stake.outcome_unknown(),
        };
        return refused(class, "without an access_token", refresh_token);
    };
    if !fits_a_header(&access_token) {
        let reason = "with an access_token that holds spaces, control or non-ASCII characters: it never becomes a header";
        return refused(FailureClass::Configuration, reason, refresh_token);
    }
    match fields.text("token_type") {
        Some(kind) if judge.dpop && kind.eq_ignore_ascii_case("dpop") => {}
        kind if judge.dpop => {
            // RFC 9449 5: another type is not bound, and whoever finds such a token can use it.
            let kind = kind.map_or("none".to_owned(), |kind| judge.scrubber.code(kind));
            let reason = format!(
                "with token_type `{kind}` where DPoP was asked for: the token is not bound to our key and is not used; \
                 enable DPoP for this client at the provider, or remove `dpop`"
            );
            return refused(FailureClass::Configuration, &reason, refresh_token);
        }
        Some(kind) if kind.eq_ignore_ascii_case("bearer") || judge.preset.bearer_types.contains(&kind) => {}
        None if judge.response.is_some() || !judge.preset.strict_token_type => {}
        Some(kind) => {
            let reason =
                format!("with token_type `{}`, and only Bearer is understood", judge.scrubber.code(kind));
            return refused(FailureClass::Configuration, &reason, refresh_token);
        }
        None => return refused(FailureClass::Configuration, "without a token_type", refresh_token),
    }
    let mut headers = judge.response.map(|_| fields.take_texts("headers")).unwrap_or_default();
    for (field, value) in judge.carried.iter().zip(carried) {
        // Without it, what a client sends in its place would pass.
        let Some(value) = value.filter(is_field_value) else {
            let reason = format!(
                "without a text or number that fits a header at `{}`, which `inject` puts into `{}`; \
                 correct `response`, or ask for the scope that brings it",
                field.pointer, field.name
            );
            return refused(FailureClass::Configuration, &reason, refresh_token);
        };
        headers.push((field.name.clone(), value));
    }
    let expires_in = match fields.number("expires_in") {
        // A provider that hands out a token of its cache may tell what is left of it: the next one is better.
        Some(seconds) if seconds < 0.001 => {
            return refused(
                FailureClass::Transient,
                "with a token that has expired already (expires_in ≤ 0)",
                refresh_token,
            );
        }
        told => told.and_then(lifetime),
    };
    Ok(TokenResponse {
        access_token,
        expires_in,
        refresh_token,
        refresh_token_expires_in: [
            "refresh_token_expires_in",
            "refresh_expires_in",
            "x_refresh_token_expires_in",
        ]
        .iter()
        .find_map(|name| fields.number(name).and_then(lifetime)),
        refresh_in: fields.number("refresh_in").and_then(lifetime),
        scope: fields.words("scope"),
        headers,
        date: answer.date(),
    })
}

/// A positive lifetime, at most [`MAX_LIFETIME`]; zero means "never" where providers write it for a refresh token.
fn lifetime(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFETIME).min(MAX_LIFETIME))
}

/// Whether a header field can have this value.
fn is_field_value(value: &Secret) -> bool {
    value.expose().bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Whether the token is printable ASCII without spaces (RFC 6750 2.1 allows less; providers use more).
pub(super) fn fits_a_header(token: &Secret) -> bool {
    !token.is_empty() && token.expose().bytes().all(|byte| byte.is_ascii_graphic())
}
