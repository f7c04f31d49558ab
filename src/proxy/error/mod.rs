//! Answers of our own: problem documents (RFC 9457) with Proxy-Status (RFC 9209).
//!
//! Owns: the one place where a failure becomes an answer. Nothing that a client or upstream sent is shown in one, but
//! a request id of a plain form.

mod telling;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use self::telling::Telling;
use super::request_id::X_REQUEST_ID;
use super::{Malformed, Whose};
use crate::credential::State;
use crate::names::Name;
use crate::policy::clients::Denied;
use crate::policy::egress::TargetError;
use crate::route::path::PathError;
use crate::tls::mint::MintError;
use crate::upstream::DialError;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Why a request is answered by the proxy itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not exactly one valid authority.
    #[error("the request names no valid host, or more than one")]
    BadHost,
    /// A path of no normal form.
    #[error("{0}")]
    BadPath(#[from] PathError),
    /// The target is too long.
    #[error("the request target is longer than is taken here")]
    UriTooLong,
    /// An absolute-form target of another scheme.
    #[error("the request target has a scheme that this listener does not serve")]
    BadScheme,
    /// A transfer coding that we do not decode, or a length that is said in two ways.
    #[error("the length of the request body is not said in one plain way")]
    BadFraming,
    /// A line of the head ends with a line feed alone.
    #[error("a line of the request's head does not end with CR LF")]
    BareLineFeed,
    /// What is no head of a request.
    #[error("the head of the request is not well-formed HTTP/1.1")]
    BadHead,
    /// A head that does not fit.
    #[error("the head of the request is longer, or has more fields, than is taken here")]
    HeadTooLarge,
    /// The head did not come in time.
    #[error("the head of the request did not arrive in time")]
    HeadTimeout,
    /// `Expect` with something that nobody here meets.
    #[error("the request expects something other than 100-continue")]
    ExpectationFailed,
    /// A field that some servers would take for one that the proxy sets.
    #[error("a header field with an underscore stands for one that the proxy sets")]
    UnderscoreAlias,
    /// `Connection` names more fields than any client needs.
    #[error("the Connection field is too long")]
    ConnectionTooLong,
    /// More fields than any client needs.
    #[error("the request has more header fields than are taken here")]
    TooManyFields,
    /// The body did not come in time.
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    /// The body is longer than the route takes.
    #[error("the request body is longer than is taken here")]
    BodyTooLarge,
    /// The body broke off.
    #[error("the request body broke off")]
    BodyBroken,
    /// No route lists the authority.
    #[error("no route of this listener serves the requested host")]
    Misdirected,
    /// Inside an intercepted connection.
    #[error(
        "the connection was opened to another host than the one that the request, or its TLS handshake, names"
    )]
    MisdirectedInside,
    /// No route.
    #[error("no route matches the path")]
    NoRoute,
    /// The route serves other methods.
    #[error("the route does not serve this method")]
    MethodNotAllowed(Vec<Method>),
    /// CONNECT on a reverse listener.
    #[error("this listener opens no tunnels")]
    NoTunnel,
    /// Who sends it is not known, or may not.
    #[error("{}", denied_detail(.0))]
    Denied(Denied),
    /// Who sends it has no credential here.
    #[error("no credential is configured for this client on this route")]
    NoCredential,
    /// Origin-form on a forward proxy.
    #[error(
        "this listener is a forward proxy: set it as the proxy of the client (`http_proxy`, `https_proxy`), and ask for `http://host/path` or CONNECT"
    )]
    OriginForm,
    /// CONNECT, or an absolute-form, to what is no target.
    #[error("{0}")]
    BadTarget(#[from] TargetError),
    /// A rule denies it, or none allows it.
    #[error("{}", denial(.0.as_ref()))]
    EgressDenied(Option<Name>),
    /// The rule's credential may not go there.
    #[error("the rule's credential is not bound to this origin: its `allowed_upstreams` do not list it")]
    NotBound,
    /// There is no certificate to show.
    #[error("{0}")]
    Mint(MintError),
    /// A web page calls.
    #[error("requests from web pages of other origins are refused here")]
    ForeignOrigin,
    /// The request was here before.
    #[error("the request came back to this proxy")]
    Loop,
    /// No token may be sent now.
    #[error("the credential has no usable token now")]
    NoToken {
        /// Which credential.
        credential: Name,
        /// Where it stands.
        state: State,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// The client's bucket, or the route's, is empty.
    #[error("{} too many requests came in too short a time", of(.whose))]
    RateExceeded {
        /// Whose.
        whose: Whose,
        /// When there is one again.
        retry_after: Duration,
    },
    /// The client's places, or the route's, are taken.
    #[error("{} as many requests are under way as may be at once", of(.0))]
    TooManyAtOnce(Whose),
    /// Too many requests are under way to this upstream.
    #[error("too many requests are under way to the upstream")]
    Overloaded,
    /// There is no connection.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The upstream did not answer in time.
    #[error("the upstream did not answer in time")]
    UpstreamTimeout,
    /// The upstream closed the connection instead of answering.
    #[error("the upstream closed the connection before it answered")]
    UpstreamClosed,
    /// The answer is not HTTP.
    #[error("the upstream sent something that is not HTTP")]
    UpstreamProtocol,
    /// What authenticates a connection, to an upstream whose connections are shared.
    #[error(
        "NTLM and Negotiate authenticate a connection, and those to this upstream are shared (HTTP/2): set `http: h1` on the upstream"
    )]
    SharedConnection,
    /// An upgrade for an upstream that speaks only HTTP/2.
    #[error(
        "the upstream speaks HTTP/2 and offers no WebSocket over it (RFC 8441); `http: auto` or `h1` of the upstream \
         lets HTTP/1.1 be used"
    )]
    NoUpgrade,
    /// A 101 that nobody asked for.
    #[error("the upstream switched protocols unasked")]
    UnsolicitedUpgrade,
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::LineFeed => Self::BareLineFeed,
            Malformed::Fragment => PathError::BadCharacter.into(),
            Malformed::Framing => Self::BadFraming,
        }
    }
}

impl Refusal {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.telling().status
    }

    /// The last part of the problem's type, and the error of Proxy-Status.
    pub(super) fn words(&self) -> (&'static str, &'static str) {
        let telling = self.telling();
        (telling.slug, telling.token)
    }

    /// Makes the answer.
    pub(super) fn answer(&self, id: &HeaderValue) -> Response<Bytes> {
        let telling = self.telling();
        let body = self.document(&telling, id);
        let mut answer = Response::new(body);
        *answer.status_mut() = telling.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID.clone(), id.clone());
        if let Ok(value) = HeaderValue::try_from(["bearward; error=", telling.token].concat()) {
            headers.insert(PROXY_STATUS, value);
        }
        self.extra_fields(headers);
        answer
    }

    fn extra_fields(&self, headers: &mut HeaderMap) {
        match self {
            Self::NoToken { retry_after, .. } => {
                // Whole seconds, never 0: RFC 9110, 10.2.3.
                let seconds =
                    retry_after.map_or(5, |wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            Self::BadFraming | Self::BareLineFeed => {
                // RFC 9112, 6.3: where the next request begins cannot be known.
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Denied(Denied::Unknown { challenges, proxy, .. }) => {
                let field = if *proxy { header::PROXY_AUTHENTICATE } else { header::WWW_AUTHENTICATE };
                for challenge in challenges.iter() {
                    headers.append(field.clone(), challenge.clone());
                }
            }
            Self::Denied(Denied::Throttled { retry_after }) => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            Self::Denied(Denied::Busy) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::RateExceeded { retry_after, .. } => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            Self::Overloaded | Self::TooManyAtOnce(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::MethodNotAllowed(allowed) if !allowed.is_empty() => {
                let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                headers.insert(
                    header::ALLOW,
                    HeaderValue::try_from(allowed).unwrap_or(HeaderValue::from_static("")),
                );
            }
            // TRACE and CONNECT are never served.
            Self::MethodNotAllowed(_) | Self::NoTunnel => {
                headers.insert(
                    header::ALLOW,
                    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                );
            }
            _ => {}
        }
    }

    fn document(&self, telling: &Telling, id: &HeaderValue) -> Bytes {
        let kind = ["urn:bearward:problem:", telling.slug].concat();
        let mut document = serde_json::json!({
            "type": kind,
            "title": telling.status.canonical_reason().unwrap_or("Error"),
            "status": telling.status.as_u16(),
            "detail": self.to_string(),
            "request_id": id.to_str().unwrap_or_default(),
        });
        if let Self::EgressDenied(Some(rule)) = self {
            document["rule"] = rule.as_str().into();
        }
        if let Self::NoToken { credential, state, .. } = self {
            document["credential"] = credential.as_str().into();
            document["state"] = state.as_str().into();
        }
        let mut text = document.to_string();
        text.push('\n');
        text.into()
    }
}

fn denied_detail(denied: &Denied) -> &'static str {
    match denied {
        Denied::Unknown { wrong: false, .. } => {
            "this listener serves known clients only, and the request names none"
        }
        Denied::Unknown { wrong: true, .. } => "what the request presents is no client's, or no longer good",
        Denied::Forbidden => "this client may not use this route",
        Denied::Throttled { .. } => "too many failed attempts; wait before the next one",
        Denied::Busy => "it cannot be told now whether the client may use this route",
    }
}

/// Words that begin a sentence.
fn of(whose: &Whose) -> &'static str {
    match whose {
        Whose::Client => "of this client",
        Whose::Route => "by this route or rule",
    }
}

fn denial(rule: Option<&Name>) -> String {
    match rule {
        Some(rule) => format!("the egress rule `{rule}` denies this"),
        None => "no egress rule allows this".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(refusal: &Refusal) -> (Response<Bytes>, serde_json::Value) {
        let answer = refusal.answer(&HeaderValue::from_static("id-1"));
        let document = serde_json::from_slice(answer.body()).expect("JSON");
        (answer, document)
    }

    #[test]
    fn a_missing_token_names_credential_and_state() {
        let credential = Name::try_new("primavera").expect("name");
        let retry_after = Some(Duration::from_millis(1_200));
        let (answer, document) =
            answer(&Refusal::NoToken { credential, state: State::AwaitingLogin, retry_after });
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "2");
        assert_eq!(answer.headers()["proxy-status"], "bearward; error=proxy_configuration_error");
        assert_eq!(document["credential"], "primavera");
        assert_eq!(document["state"], "awaiting_login");
        assert_eq!(document["request_id"], "id-1");
    }

    #[test]
    fn refusals_are_problem_documents() {
        let check = |refusal: Refusal, status: u16, token: &str| {
            let (answer, document) = answer(&refusal);
            assert_eq!(answer.status(), status, "{refusal:?}");
            assert_eq!(
                answer.headers()["proxy-status"].to_str().ok(),
                Some(&*["bearward; error=", token].concat())
            );
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            assert_eq!(document["status"], status);
            assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        };
        check(Refusal::BadHost, 400, "http_request_error");
        check(Refusal::NoRoute, 404, "destination_not_found");
        check(Refusal::Loop, 508, "proxy_loop_detected");
        check(DialError::Refused.into(), 502, "connection_refused");
        check(DialError::TlsCertificate.into(), 502, "tls_certificate_error");
        check(DialError::Timeout.into(), 504, "connection_timeout");
        check(Refusal::UpstreamTimeout, 504, "http_response_timeout");
    }
}
