//! The table of refusals: status, type of the problem, error of Proxy-Status.
//!
//! Owns: nothing but the table.

use http::StatusCode;

use super::Refusal;
use crate::credential::State;
use crate::policy::clients::Denied;
use crate::upstream::DialError;

/// One row: how a refusal is told.
pub(super) struct Telling {
    pub(super) status: StatusCode,
    /// Last part of the problem's type.
    pub(super) slug: &'static str,
    /// The error type of RFC 9209, 2.3.
    pub(super) token: &'static str,
}

const fn tell(status: StatusCode, slug: &'static str, token: &'static str) -> Telling {
    Telling { status, slug, token }
}

impl Refusal {
    pub(super) fn telling(&self) -> Telling {
        use StatusCode as S;
        match self {
            Self::BadHost => tell(S::BAD_REQUEST, "bad-host", "http_request_error"),
            Self::BadPath(_) => tell(S::BAD_REQUEST, "bad-path", "http_request_error"),
            Self::UriTooLong => tell(S::URI_TOO_LONG, "uri-too-long", "http_request_error"),
            Self::BadScheme => tell(S::BAD_REQUEST, "bad-scheme", "http_request_error"),
            Self::BadFraming => tell(S::BAD_REQUEST, "bad-framing", "http_request_error"),
            Self::BareLineFeed => tell(S::BAD_REQUEST, "bare-line-feed", "http_request_error"),
            Self::BadHead => tell(S::BAD_REQUEST, "bad-head", "http_request_error"),
            Self::HeadTooLarge => {
                tell(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", "http_request_error")
            }
            Self::HeadTimeout => tell(S::REQUEST_TIMEOUT, "head-timeout", "http_request_error"),
            Self::ExpectationFailed => tell(S::EXPECTATION_FAILED, "expectation", "http_request_error"),
            Self::UnderscoreAlias => tell(S::BAD_REQUEST, "underscore-alias", "http_request_error"),
            Self::ConnectionTooLong => tell(S::BAD_REQUEST, "connection-too-long", "http_request_error"),
            Self::TooManyFields => {
                tell(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "too-many-fields", "http_request_error")
            }
            Self::BodyTimeout => tell(S::REQUEST_TIMEOUT, "body-timeout", "http_request_error"),
            Self::BodyTooLarge => tell(S::PAYLOAD_TOO_LARGE, "body-too-large", "http_request_error"),
            Self::BodyBroken => tell(S::BAD_REQUEST, "body-broken", "http_request_error"),
            Self::Misdirected | Self::MisdirectedInside => {
                tell(S::MISDIRECTED_REQUEST, "misdirected", "http_request_denied")
            }
            Self::NoRoute => tell(S::NOT_FOUND, "no-route", "destination_not_found"),
            Self::MethodNotAllowed(_) => tell(S::METHOD_NOT_ALLOWED, "method", "http_request_denied"),
            Self::NoTunnel => tell(S::METHOD_NOT_ALLOWED, "no-tunnel", "http_request_denied"),
            Self::Denied(denied) => match denied {
                Denied::Unknown { proxy: false, .. } => {
                    tell(S::UNAUTHORIZED, "client-unknown", "http_request_denied")
                }
                Denied::Unknown { .. } => {
                    tell(S::PROXY_AUTHENTICATION_REQUIRED, "client-unknown", "http_request_denied")
                }
                Denied::Forbidden => tell(S::FORBIDDEN, "client-not-allowed", "http_request_denied"),
                Denied::Throttled { .. } => {
                    tell(S::TOO_MANY_REQUESTS, "too-many-attempts", "http_request_denied")
                }
                Denied::Busy => tell(S::SERVICE_UNAVAILABLE, "cannot-authenticate", "proxy_internal_error"),
            },
            Self::NoCredential => tell(S::FORBIDDEN, "no-credential", "http_request_denied"),
            Self::OriginForm => tell(S::BAD_REQUEST, "origin-form", "http_request_error"),
            Self::BadTarget(_) => tell(S::BAD_REQUEST, "bad-target", "http_request_error"),
            Self::EgressDenied(_) => tell(S::FORBIDDEN, "egress-denied", "http_request_denied"),
            Self::NotBound => tell(S::FORBIDDEN, "not-bound", "http_request_denied"),
            Self::Mint(_) => tell(S::BAD_GATEWAY, "interception", "proxy_configuration_error"),
            Self::ForeignOrigin => tell(S::FORBIDDEN, "foreign-origin", "http_request_denied"),
            Self::Loop => tell(S::LOOP_DETECTED, "loop", "proxy_loop_detected"),
            Self::NoToken { state, .. } => {
                tell(S::SERVICE_UNAVAILABLE, "no-usable-token", state_token(*state))
            }
            Self::RateExceeded { .. } => tell(S::TOO_MANY_REQUESTS, "rate-exceeded", "http_request_denied"),
            Self::TooManyAtOnce(_) => tell(S::TOO_MANY_REQUESTS, "too-many-at-once", "http_request_denied"),
            Self::Overloaded => tell(S::SERVICE_UNAVAILABLE, "overloaded", "connection_limit_reached"),
            Self::Dial(error) => dial_telling(*error),
            Self::UpstreamTimeout => tell(S::GATEWAY_TIMEOUT, "upstream-timeout", "http_response_timeout"),
            Self::UpstreamClosed => tell(S::BAD_GATEWAY, "upstream-closed", "connection_terminated"),
            Self::UpstreamProtocol => tell(S::BAD_GATEWAY, "upstream-protocol", "http_protocol_error"),
            Self::SharedConnection => tell(S::BAD_GATEWAY, "shared-connection", "http_request_denied"),
            Self::NoUpgrade => tell(S::BAD_GATEWAY, "upstream-no-upgrade", "http_upgrade_failed"),
            Self::UnsolicitedUpgrade => tell(S::BAD_GATEWAY, "upstream-upgrade", "http_upgrade_failed"),
        }
    }
}

fn state_token(state: State) -> &'static str {
    match state {
        State::AwaitingLogin | State::Misconfigured | State::Dead => "proxy_configuration_error",
        _ => "destination_unavailable",
    }
}

fn dial_telling(error: DialError) -> Telling {
    use StatusCode as S;
    match error {
        DialError::Dns => tell(S::BAD_GATEWAY, "upstream-dns", "dns_error"),
        DialError::DnsTimeout => tell(S::GATEWAY_TIMEOUT, "upstream-dns-timeout", "dns_timeout"),
        DialError::Refused => tell(S::BAD_GATEWAY, "upstream-refused", "connection_refused"),
        DialError::Timeout => tell(S::GATEWAY_TIMEOUT, "upstream-connect-timeout", "connection_timeout"),
        DialError::Unreachable => tell(S::BAD_GATEWAY, "upstream-unreachable", "destination_ip_unroutable"),
        DialError::TlsCertificate => tell(S::BAD_GATEWAY, "upstream-certificate", "tls_certificate_error"),
        DialError::Tls => tell(S::BAD_GATEWAY, "upstream-tls", "tls_protocol_error"),
        DialError::Forbidden => tell(S::FORBIDDEN, "address-forbidden", "destination_ip_prohibited"),
        DialError::NotHttp2 => tell(S::BAD_GATEWAY, "upstream-not-http2", "http_protocol_error"),
        DialError::OutboundProxy => tell(S::BAD_GATEWAY, "outbound-proxy", "destination_unavailable"),
    }
}
