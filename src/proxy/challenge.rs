//! `WWW-Authenticate` (RFC 9110, 11.6.1): what an upstream's 401 says of the token (RFC 6750, 3).
//!
//! Owns: reading challenges, several in one field or in several. Only refused requests come here.

use http::{HeaderMap, header};

/// What the challenges say of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// `invalid_token`: another token may do.
    InvalidToken,
    /// `insufficient_claims` or `insufficient_scope`: no refresh gives what is missing.
    Insufficient,
    /// No Bearer or DPoP challenge, or one that names no error.
    Silent,
}

/// Reads all challenges of an answer. `insufficient_*` anywhere wins: forcing would go on for ever.
pub(super) fn verdict(headers: &HeaderMap) -> Verdict {
    let mut verdict = Verdict::Silent;
    for field in headers.get_all(header::WWW_AUTHENTICATE) {
        let Ok(text) = field.to_str() else { continue };
        let mut bearer = false;
        for item in items(text) {
            let parameter = match item.split_once(|c: char| c.is_ascii_whitespace()) {
                // `Scheme name=value`, or `name = value` with the optional space of old senders.
                Some((scheme, rest)) if !rest.trim_start().starts_with('=') && !scheme.contains('=') => {
                    bearer = takes_tokens(scheme);
                    rest.trim()
                }
                _ if !item.contains('=') => {
                    bearer = takes_tokens(item);
                    continue;
                }
                _ => item,
            };
            let Some((name, value)) = parameter.split_once('=') else { continue };
            if !bearer || !name.trim().eq_ignore_ascii_case("error") {
                continue;
            }
            match value.trim().trim_matches('"') {
                "invalid_token" if verdict == Verdict::Silent => verdict = Verdict::InvalidToken,
                "insufficient_claims" | "insufficient_scope" => verdict = Verdict::Insufficient,
                _ => {}
            }
        }
    }
    verdict
}

fn takes_tokens(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("dpop")
}

/// Whether a `DPoP` challenge wants a proof with the nonce that the answer gives (RFC 9449, 9).
pub(super) fn asks_nonce(headers: &HeaderMap) -> bool {
    let asks = |text: &str| {
        items(text).any(|item| {
            let parameter =
                item.rsplit_once(|c: char| c.is_ascii_whitespace()).map_or(item, |(_, rest)| rest);
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("error") && value.trim_matches('"') == "use_dpop_nonce"
            })
        })
    };
    headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|field| field.to_str().ok()).any(asks)
}

/// The members of a comma-separated list; commas in quoted strings separate nothing.
fn items(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return true,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_59_several_challenges_in_one_or_several_fields_are_read() {
        let check = |fields: &[&str], expected: Verdict| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::WWW_AUTHENTICATE, field.parse().unwrap());
            }
            assert_eq!(verdict(&headers), expected, "{fields:?}");
        };
        check(&[], Verdict::Silent);
        check(&["Bearer"], Verdict::Silent);
        check(&["Bearer realm=\"api\""], Verdict::Silent);
        check(&["Bearer error=\"invalid_token\""], Verdict::InvalidToken);
        check(&["bearer realm=\"a, b\", error=invalid_token"], Verdict::InvalidToken);
        check(&["Basic realm=\"x\", Bearer realm=\"y\", error=\"invalid_token\""], Verdict::InvalidToken);
        check(&["Basic realm=\"x\"", "Bearer error=\"invalid_token\""], Verdict::InvalidToken);
        check(&["Bearer error=\"invalid_token\", Basic realm=\"x\""], Verdict::InvalidToken);
        check(&["Digest error=\"invalid_token\""], Verdict::Silent);
        check(&["Bearer realm=\"error=invalid_token\""], Verdict::Silent);
        check(&["Bearer realm=\"a \\\" , error=invalid_token\""], Verdict::Silent);
        check(&["Bearer error=\"insufficient_claims\", claims=\"eyJ\""], Verdict::Insufficient);
        check(
            &["Bearer error=\"invalid_token\"", "Bearer error=\"insufficient_scope\""],
            Verdict::Insufficient,
        );
        check(&["Negotiate abc=="], Verdict::Silent);
        check(&["DPoP algs=\"ES256\", error=\"invalid_token\""], Verdict::InvalidToken);
        check(&["DPoP error=\"use_dpop_nonce\""], Verdict::Silent);
    }

    #[test]
    fn case_66_a_challenge_that_wants_a_nonce_is_told_from_one_that_refuses_the_token() {
        let check = |field: &str, expected: bool| {
            let headers = HeaderMap::from_iter([(header::WWW_AUTHENTICATE, field.parse().unwrap())]);
            assert_eq!(asks_nonce(&headers), expected, "{field}");
        };
        check("DPoP error=\"use_dpop_nonce\", error_description=\"a nonce, please\"", true);
        check("Bearer realm=\"a\", DPoP algs=\"ES256 PS256\", error=use_dpop_nonce", true);
        check("DPoP error=\"invalid_token\"", false);
        check("DPoP error_description=\"no use_dpop_nonce\"", false);
        check("DPoP", false);
    }
}
