//! Which fields do not pass: hop-by-hop (RFC 9110, 7.6.1), spoofable, and the client's credentials.
//!
//! Owns: one walk over the names of a message that tells what to remove. Sets nothing.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Refusal, Underscores};

/// More options than this in all `Connection` fields of a message are an attack on the lookup.
const MAX_CONNECTION_OPTIONS: usize = 32;

/// What a walk over the names of a request saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// `Via`.
    pub(super) via: bool,
    /// `Expect`.
    pub(super) expect: bool,
    /// `Transfer-Encoding`.
    pub(super) transfer_encoding: bool,
    /// A `Content-Length` with zeros in front.
    pub(super) padded_length: bool,
    /// `Upgrade`.
    pub(super) upgrade: bool,
    /// `TE`.
    pub(super) te: bool,
    /// `Trailer`.
    pub(super) trailer: bool,
    /// `X-Request-ID`.
    pub(super) request_id: bool,
}

/// Collects in `remove` what of a request does not pass. `injects`: the route sets a credential of its own;
/// `trusted`: the peer may speak for its clients; `own`: names that the route sets or removes.
pub(super) fn judge_request(
    headers: &HeaderMap,
    (injects, trusted): (bool, bool),
    underscores: Underscores,
    own: &[HeaderName],
    remove: &mut Vec<HeaderName>,
) -> Result<Seen, Refusal> {
    let mut seen = Seen::default();
    for name in headers.keys() {
        let text = name.as_str();
        // Most names of most requests begin with a letter that none of the below begins with.
        if !matches!(text.as_bytes().first(), Some(b'c'..=b'f' | b'h' | b'k' | b'p' | b't'..=b'x')) {
            if text.contains('_') && is_refused_alias(text, underscores, own)? {
                remove.push(name.clone());
            }
            continue;
        }
        let gone = match text {
            "connection" => {
                nominated(headers, remove)?;
                true
            }
            "transfer-encoding" => {
                // RFC 9112, 6.1: we offer no other coding, and read no other way of saying so.
                if !is_plainly_chunked(headers) {
                    return Err(Refusal::BadFraming);
                }
                seen.transfer_encoding = true;
                true
            }
            "content-length" => {
                seen.padded_length = headers.get(name).is_some_and(is_padded);
                false
            }
            "upgrade" => {
                seen.upgrade = true;
                true
            }
            "te" => {
                seen.te = true;
                true
            }
            "trailer" => {
                seen.trailer = true;
                true
            }
            // `Close` is a connection option that is no field (RFC 9110, 16.3.1, RFC 9112, 9.6).
            "keep-alive" | "close" | "proxy-connection" | "http2-settings" => true,
            "proxy-authorization" | "x-original-url" | "x-rewrite-url" => true,
            "forwarded" | "x-real-ip" => !trusted,
            // The injected value replaces the client's; a proof for another token is of no use.
            "dpop" => injects,
            "via" => {
                seen.via = true;
                false
            }
            "x-request-id" => {
                seen.request_id = true;
                false
            }
            "expect" => {
                // RFC 9110, 10.1.1.
                let met = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                if !headers.get_all(name).iter().all(met) {
                    return Err(Refusal::ExpectationFailed);
                }
                seen.expect = true;
                false
            }
            _ if !trusted && text.starts_with("x-forwarded-") => true,
            _ if text.contains('_') => is_refused_alias(text, underscores, own)?,
            _ => false,
        };
        if gone {
            remove.push(name.clone());
        }
    }
    Ok(seen)
}

/// How an answer is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Framing {
    /// `Transfer-Encoding: chunked`.
    pub(super) chunked: bool,
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// The length is not said once and plainly.
    pub(super) unplain: bool,
}

/// Collects in `remove` what of an answer does not pass.
pub(super) fn judge_answer(headers: &HeaderMap, remove: &mut Vec<HeaderName>) -> Result<Framing, Refusal> {
    let mut framing = Framing::default();
    for (name, value) in headers {
        let gone = match name.as_str() {
            "content-length" => {
                framing.add_length(value)?;
                false
            }
            // A list that is too long is cut: the answer itself is the upstream's matter.
            "connection" => {
                let _ = nominated(headers, remove);
                true
            }
            "transfer-encoding" => {
                // A coding that we would take off without decoding it.
                if framing.chunked || !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::UpstreamProtocol);
                }
                framing.chunked = true;
                true
            }
            "keep-alive" | "close" | "proxy-connection" | "te" | "trailer" | "upgrade" => true,
            "proxy-authenticate" | "proxy-authentication-info" => true,
            _ => false,
        };
        if gone {
            remove.push(name.clone());
        }
    }
    if framing.chunked {
        // RFC 9112, 6.3: Transfer-Encoding overrides Content-Length.
        remove.push(header::CONTENT_LENGTH);
    }
    Ok(framing)
}

impl Framing {
    /// RFC 9110, 8.6: a list of equal lengths is one length.
    fn add_length(&mut self, value: &HeaderValue) -> Result<(), Refusal> {
        for text in value.as_bytes().split(|byte| *byte == b',') {
            let length = parse_length(text.trim_ascii()).ok_or(Refusal::UpstreamProtocol)?;
            if self.length.is_some_and(|known| known != length) {
                return Err(Refusal::UpstreamProtocol);
            }
            self.unplain |= self.length.is_some() || is_padded(value);
            self.length = Some(length);
        }
        Ok(())
    }
}

/// Digits and nothing else.
pub(super) fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn is_padded(value: &HeaderValue) -> bool {
    matches!(value.as_bytes(), [b'0', _, ..])
}

/// Whether `Transfer-Encoding` is `chunked`, once.
fn is_plainly_chunked(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let plain = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    plain && values.next().is_none()
}

/// Adds the fields that `Connection` names. Those that carry meaning end to end stay: the proxy sets them anew anyway.
fn nominated(headers: &HeaderMap, remove: &mut Vec<HeaderName>) -> Result<(), Refusal> {
    let mut count = 0;
    for line in headers.get_all(header::CONNECTION) {
        for option in line.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.is_empty() || is_known_option(option) {
                continue;
            }
            count += 1;
            if count > MAX_CONNECTION_OPTIONS {
                return Err(Refusal::ConnectionTooLong);
            }
            if let Ok(name) = HeaderName::from_bytes(option)
                && !is_protected(name.as_str())
            {
                remove.push(name);
            }
        }
    }
    Ok(())
}

fn is_known_option(option: &[u8]) -> bool {
    [b"keep-alive".as_slice(), b"close", b"upgrade", b"te"]
        .iter()
        .any(|known| option.eq_ignore_ascii_case(known))
}

/// Fields that a `Connection` field cannot remove.
pub(super) fn is_protected(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "via"
            | "forwarded"
            | "cookie"
            | "set-cookie"
            | "cache-control"
            | "expect"
            | "date"
            | "x-request-id"
            | "x-real-ip"
    ) || name.starts_with("x-forwarded-")
}

/// Whether a field with underscores is to be removed; an error where the request is to be refused.
#[cold]
fn is_refused_alias(name: &str, underscores: Underscores, own: &[HeaderName]) -> Result<bool, Refusal> {
    let of_proxy = is_alias(name);
    if !of_proxy && !own.iter().any(|own| is_alias_of(name, own.as_str())) {
        return Ok(false);
    }
    match underscores {
        Underscores::Reject => Err(Refusal::UnderscoreAlias),
        Underscores::Drop => Ok(true),
        // What stands for a credential, or for the framing, never passes.
        Underscores::Keep => Ok(of_proxy && !name.starts_with("x_") && !matches!(name, "via" | "forwarded")),
    }
}

/// Whether a server that takes `_` for `-` reads `name` as `own`, and another does not.
pub(super) fn is_alias_of(name: &str, own: &str) -> bool {
    name.len() == own.len()
        && name != own
        && name
            .bytes()
            .zip(own.bytes())
            .all(|(theirs, ours)| theirs == ours || (theirs == b'_' && ours == b'-'))
}

/// Whether a name with underscores stands for a field that the proxy sets or trusts.
fn is_alias(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-")
        || matches!(
            name.as_str(),
            "authorization"
                | "proxy-authorization"
                | "dpop"
                | "host"
                | "content-length"
                | "transfer-encoding"
                | "connection"
                | "via"
                | "forwarded"
                | "x-real-ip"
                | "x-request-id"
                | "x-original-url"
                | "x-rewrite-url"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("value"));
        }
        headers
    }

    #[test]
    fn underscores_are_judged_as_told() {
        let check = |name: &'static str, underscores: Underscores, expected: Option<bool>| {
            let mut remove = Vec::new();
            let own = [HeaderName::from_static("x-route-own")];
            let judged =
                judge_request(&headers(&[(name, "x")]), (true, false), underscores, &own, &mut remove);
            assert_eq!(judged.ok().map(|_| !remove.is_empty()), expected, "{name} {underscores:?}");
        };
        for name in ["x_forwarded_for", "x-forwarded_for", "x_real_ip"] {
            check(name, Underscores::Reject, None);
            check(name, Underscores::Drop, Some(true));
        }
        for name in ["x_route_own", "x-route_own"] {
            check(name, Underscores::Reject, None);
            check(name, Underscores::Drop, Some(true));
            check(name, Underscores::Keep, Some(false));
        }
        check("x-route-own", Underscores::Reject, Some(false));
        check("x_forwarded_for", Underscores::Keep, Some(false));
        check("proxy_authorization", Underscores::Keep, Some(true));
        check("transfer_encoding", Underscores::Keep, Some(true));
        for underscores in [Underscores::Reject, Underscores::Drop, Underscores::Keep] {
            check("x_tenant", underscores, Some(false));
        }
    }

    #[test]
    fn requests_lose_what_is_meant_for_one_hop() {
        let check = |fields: &[(&'static str, &'static str)], injects: bool, expected: &[&str]| {
            let mut remove = Vec::new();
            judge_request(&headers(fields), (injects, false), Underscores::Reject, &[], &mut remove)
                .expect("accepted");
            let mut names: Vec<_> = remove.iter().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, expected, "{fields:?}");
        };
        check(&[("accept", "*/*"), ("cookie", "a=b")], true, &[]);
        check(&[("connection", "keep-alive")], true, &["connection"]);
        check(
            &[("connection", "X-A , x-b"), ("connection", "close,X-C")],
            true,
            &["connection", "x-a", "x-b", "x-c"],
        );
        check(&[("connection", "authorization, host, content-length, via")], true, &["connection"]);
        check(&[("connection", "x-forwarded-for, forwarded")], true, &["connection"]);
        check(&[("connection", "@, é")], true, &["connection"]);
        check(
            &[("te", "trailers"), ("upgrade", "h2c"), ("http2-settings", "x")],
            true,
            &["http2-settings", "te", "upgrade"],
        );
        check(
            &[("keep-alive", "1"), ("proxy-connection", "x"), ("trailer", "x")],
            true,
            &["keep-alive", "proxy-connection", "trailer"],
        );
        check(&[("transfer-encoding", "chunked")], true, &["transfer-encoding"]);
        check(
            &[("x-forwarded-for", "1"), ("x-forwarded-ssl", "on"), ("x-real-ip", "1")],
            true,
            &["x-forwarded-for", "x-forwarded-ssl", "x-real-ip"],
        );
        check(
            &[("forwarded", "for=x"), ("x-original-url", "/"), ("x-rewrite-url", "/")],
            true,
            &["forwarded", "x-original-url", "x-rewrite-url"],
        );
        check(&[("dpop", "x")], true, &["dpop"]);
        check(&[("dpop", "x"), ("authorization", "x")], false, &[]);
        check(&[("proxy-authorization", "x")], false, &["proxy-authorization"]);
        check(&[("x_custom", "x"), ("user_agent", "x")], true, &[]);
    }

    #[test]
    fn a_trusted_proxy_may_speak_for_its_clients() {
        let fields = headers(&[
            ("connection", "x-real-ip, x-forwarded-for"),
            ("forwarded", "for=192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-ssl", "on"),
            ("x-real-ip", "192.0.2.1"),
            ("x-original-url", "/"),
        ]);
        let mut remove = Vec::new();
        judge_request(&fields, (true, true), Underscores::Reject, &[], &mut remove).expect("accepted");
        let mut names: Vec<_> = remove.iter().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "x-original-url"]);
    }

    #[test]
    fn aliases_with_underscores_are_refused() {
        for name in [
            "x_forwarded_for",
            "x-forwarded_for",
            "x_real_ip",
            "content_length",
            "transfer_encoding",
            "x_request_id",
        ] {
            let fields = headers(&[(name, "x")]);
            assert_eq!(
                judge_request(&fields, (false, true), Underscores::Reject, &[], &mut Vec::new()),
                Err(Refusal::UnderscoreAlias),
                "{name}"
            );
        }
    }

    #[test]
    fn a_long_connection_list_is_refused() {
        let mut fields = HeaderMap::new();
        fields.append("connection", vec!["x-a"; 33].join(",").parse().expect("value"));
        assert_eq!(
            judge_request(&fields, (true, false), Underscores::Reject, &[], &mut Vec::new()),
            Err(Refusal::ConnectionTooLong)
        );
    }

    #[test]
    fn answers_lose_what_is_meant_for_one_hop() {
        let check = |fields: &[(&'static str, &'static str)], expected: &[&str]| {
            let mut remove = Vec::new();
            judge_answer(&headers(fields), &mut remove).expect("readable");
            let mut names: Vec<_> = remove.iter().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, expected, "{fields:?}");
        };
        check(&[("content-type", "x"), ("www-authenticate", "x")], &[]);
        check(&[("connection", "close, x-hop"), ("x-hop", "1")], &["connection", "x-hop"]);
        check(&[("connection", "set-cookie, content-length")], &["connection"]);
        check(
            &[("transfer-encoding", "chunked"), ("content-length", "1")],
            &["content-length", "transfer-encoding"],
        );
        check(
            &[("keep-alive", "x"), ("proxy-authenticate", "x"), ("upgrade", "h2")],
            &["keep-alive", "proxy-authenticate", "upgrade"],
        );
    }
}
