//! Injection: where in a request a token stands.
//!
//! Owns: the fields, made ready once a token. Never decides where a request goes, and knows no request.

use std::fmt;

use http::{HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use super::cell::UnfitToken;
use super::proof::Prover;
use crate::secret::Secret;

/// What stands for the token in a value.
pub const TOKEN: &str = "{token}";
/// RFC 3986 2.3: what needs no encoding anywhere in a URL.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `inject`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The value of `Authorization`, if the token stands there.
    pub authorization: Option<String>,
    /// Everywhere else.
    pub places: Vec<Place>,
}

/// A place beside `Authorization`. Each value has [`TOKEN`] in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A header field.
    Header(HeaderName, String),
    /// A cookie.
    Cookie(String, String),
    /// A query parameter, where `allow_query: true` says so.
    Query(String, String),
}

impl Default for Injection {
    fn default() -> Self {
        Self::scheme("Bearer")
    }
}

impl Injection {
    /// `Authorization: SCHEME {token}`.
    pub fn scheme(scheme: &str) -> Self {
        Self { authorization: Some([scheme, " ", TOKEN].concat()), places: Vec::new() }
    }
}

/// Whether a field is a request's own business from end to end: what the connection or the proxy sets is not.
pub fn is_injectable(name: &HeaderName) -> bool {
    let text = name.as_str();
    !matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::CONTENT_ENCODING
            | header::TRANSFER_ENCODING
            | header::CONNECTION
            | header::UPGRADE
            | header::TE
            | header::TRAILER
            | header::EXPECT
            | header::COOKIE
            | header::VIA
            | header::FORWARDED
            | header::MAX_FORWARDS
            | header::RANGE
    ) && !text.starts_with("proxy-")
        && !text.starts_with("x-forwarded-")
        && !matches!(text, "keep-alive" | "dpop" | "x-real-ip" | "x-request-id" | "http2-settings")
        && !text.contains('_')
}

/// The fields of one token beside a plain `Authorization`, ready to be sent.
#[derive(Clone, Default)]
pub struct Extras {
    /// Whether the token stands in `Authorization` as well.
    pub authorization: bool,
    /// What proves each request, where the token is bound to a key.
    pub prover: Option<Prover>,
    /// Header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Cookies: the name and `name=value`.
    pub cookies: Vec<(String, HeaderValue)>,
    /// Query parameters: the name and `name=value`, encoded.
    pub query: Vec<(String, Secret)>,
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.headers.iter().map(|(name, _)| name.as_str());
        f.debug_list().entries(names).finish()
    }
}

impl Extras {
    /// Makes the fields of a token, and those that came with it. `None`: `Authorization` is all.
    pub(super) fn of(
        injection: &Injection,
        token: &str,
        came_with_it: &[(String, Secret)],
    ) -> Result<Option<Box<Self>>, UnfitToken> {
        if injection.places.is_empty() && injection.authorization.is_some() && came_with_it.is_empty() {
            return Ok(None);
        }
        let mut extras = Self { authorization: injection.authorization.is_some(), ..Self::default() };
        for (name, value) in came_with_it {
            match (HeaderName::from_bytes(name.as_bytes()), sensitive(value.expose())) {
                (Ok(name), Ok(value)) if is_injectable(&name) && name != header::AUTHORIZATION => {
                    extras.headers.push((name, value));
                }
                // The provider's word is no reason to send what the proxy itself decides.
                _ => {
                    tracing::debug!("a header field of a token's answer is not sent: {}", name.escape_debug())
                }
            }
        }
        for place in &injection.places {
            match place {
                Place::Header(name, value) => {
                    extras.headers.retain(|(known, _)| known != name);
                    extras.headers.push((name.clone(), sensitive(&filled(value, token))?));
                }
                Place::Cookie(name, value) => {
                    let value = filled(value, token);
                    if !value.bytes().all(is_cookie_octet) {
                        return Err(UnfitToken);
                    }
                    let pair = Zeroizing::new([name.as_str(), "=", &value].concat());
                    extras.cookies.push((name.clone(), sensitive(&pair)?));
                }
                Place::Query(name, value) => {
                    let value = filled(value, token);
                    let encode = |text: &str| utf8_percent_encode(text, COMPONENT).to_string();
                    let pair = Secret::new([encode(name), "=".into(), encode(&value)].concat());
                    extras.query.push((name.clone(), pair));
                }
            }
        }
        Ok(Some(Box::new(extras)))
    }

    /// A copy that shares no memory with this one.
    pub(super) fn deep_copy(&self) -> Self {
        let name = |name: &HeaderName| {
            HeaderName::from_bytes(name.as_str().as_bytes()).expect("it was a header name already")
        };
        Self {
            authorization: self.authorization,
            prover: self.prover.clone(),
            headers: self.headers.iter().map(|(field, value)| (name(field), own(value))).collect(),
            cookies: self.cookies.iter().map(|(name, pair)| (name.clone(), own(pair))).collect(),
            query: self.query.clone(),
        }
    }
}

/// A copy of a sensitive value in memory of its own.
pub(super) fn own(value: &HeaderValue) -> HeaderValue {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).expect("it was a header value already");
    copy.set_sensitive(true);
    copy
}

/// The text with the token in its place.
pub(super) fn filled(text: &str, token: &str) -> Zeroizing<String> {
    let mut whole = Zeroizing::new(String::with_capacity(text.len() + 2 * token.len()));
    for (index, part) in text.split(TOKEN).enumerate() {
        if index > 0 {
            whole.push_str(token);
        }
        whole.push_str(part);
    }
    whole
}

pub(super) fn sensitive(text: &str) -> Result<HeaderValue, UnfitToken> {
    let mut value = HeaderValue::from_str(text).map_err(|_| UnfitToken)?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 6265 4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_put_into_each_place_in_its_own_encoding() {
        let injection = Injection {
            authorization: None,
            places: vec![
                Place::Header(HeaderName::from_static("x-api-key"), "{token}".into()),
                Place::Header(HeaderName::from_static("x-both"), "a {token} b {token}".into()),
                Place::Cookie("SID".into(), "{token}".into()),
                Place::Query("api key".into(), "{token}".into()),
            ],
        };
        let came = [
            ("x-vendor-tenant".to_owned(), Secret::from("acme")),
            ("X-Api-Key".to_owned(), Secret::from("the configuration wins")),
            ("Host".to_owned(), Secret::from("evil.example")),
            ("authorization".to_owned(), Secret::from("Basic x")),
            ("bad name".to_owned(), Secret::from("x")),
            ("x-line".to_owned(), Secret::from("a\r\nb")),
        ];
        let extras = Extras::of(&injection, "t+/=", &came).expect("fit").expect("some");
        let headers: Vec<_> = extras
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text"), value.is_sensitive()))
            .collect();
        assert_eq!(
            headers,
            [
                ("x-vendor-tenant", "acme", true),
                ("x-api-key", "t+/=", true),
                ("x-both", "a t+/= b t+/=", true)
            ]
        );
        assert_eq!(extras.cookies[0].1, "SID=t+/=");
        assert_eq!(extras.query[0].1.expose(), "api%20key=t%2B%2F%3D");
        assert!(!extras.authorization);
        assert!(!format!("{extras:?}").contains("t+"), "{extras:?}");
        let cookie = Injection { authorization: None, places: vec![Place::Cookie("a".into(), TOKEN.into())] };
        assert!(Extras::of(&cookie, "a;b", &[]).is_err());
        assert!(
            Extras::of(&Injection::default(), "t", &[]).expect("fit").is_none(),
            "the plain case has none"
        );
    }
}
