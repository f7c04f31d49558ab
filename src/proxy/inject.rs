//! Putting a token into a request, after everything that could remove it.
//!
//! Owns: that what a client sent under an injected name is gone first: a field in any spelling with underscores, a
//! cookie, a query parameter. A plain bearer costs one look and one insertion.

use std::cell::RefCell;
use std::fmt::Write as _;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use zeroize::Zeroizing;

use super::target::names_parameter;
use super::{Refusal, forward};
use crate::credential::{Extras, TokenReader};
use crate::route::path::PathError;

/// Sets what the credential says. `bearer` came from the same reader.
pub(super) fn inject(
    token: &RefCell<TokenReader>,
    bearer: HeaderValue,
    headers: &mut HeaderMap,
    uri: &mut Uri,
) -> Result<(), Refusal> {
    let reader = token.borrow();
    match reader.extras() {
        None => {
            headers.insert(header::AUTHORIZATION, bearer);
            Ok(())
        }
        Some(extras) => apply(extras, bearer, headers, uri),
    }
}

/// Whether it stands in a field that the proxy sets by itself.
pub(super) fn is_ours(token: &RefCell<TokenReader>) -> bool {
    token
        .borrow()
        .extras()
        .is_some_and(|extras| extras.headers.iter().any(|(name, _)| forward::is_ours(name)))
}

/// Whether it becomes a part of the target.
pub(super) fn is_in_target(token: &RefCell<TokenReader>) -> bool {
    token.borrow().extras().is_some_and(|extras| !extras.query.is_empty())
}

fn apply(
    extras: &Extras,
    bearer: HeaderValue,
    headers: &mut HeaderMap,
    uri: &mut Uri,
) -> Result<(), Refusal> {
    let injected = |name: &str| extras.headers.iter().any(|(own, _)| is_alias(name, own.as_str()));
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| injected(name.as_str())).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
    if let Some(declared) = headers.get(header::TRAILER).and_then(|value| value.to_str().ok()) {
        // Only what is declared is sent behind the body.
        let kept: Vec<&str> = declared.split(',').map(str::trim).filter(|name| !injected(name)).collect();
        match HeaderValue::try_from(kept.join(", ")) {
            Ok(kept) if !kept.is_empty() => headers.insert(header::TRAILER, kept),
            _ => headers.remove(header::TRAILER),
        };
    }
    if extras.authorization {
        headers.insert(header::AUTHORIZATION, bearer);
    }
    for (name, value) in &extras.headers {
        headers.insert(name.clone(), value.clone());
    }
    if !extras.cookies.is_empty() {
        set_cookies(extras, headers)?;
    }
    if !extras.query.is_empty() {
        *uri = with_query(extras, uri)?;
    }
    Ok(())
}

/// Whether a server that takes `_` for `-` reads `name` as `own`.
fn is_alias(name: &str, own: &str) -> bool {
    name.len() == own.len()
        && name
            .bytes()
            .zip(own.bytes())
            .all(|(theirs, ours)| theirs.eq_ignore_ascii_case(&ours) || (theirs == b'_' && ours == b'-'))
}

/// Our cookies, then the client's without those of our names.
fn set_cookies(extras: &Extras, headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut all = Zeroizing::new(Vec::with_capacity(256));
    for (_, pair) in &extras.cookies {
        separate(&mut all, b"; ");
        all.extend_from_slice(pair.as_bytes());
    }
    for line in headers.get_all(header::COOKIE) {
        for pair in line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            if !pair.is_empty() && !extras.cookies.iter().any(|(name, _)| names_cookie(pair, name)) {
                separate(&mut all, b"; ");
                all.extend_from_slice(pair);
            }
        }
    }
    let mut value = HeaderValue::from_bytes(&all).map_err(|_| Refusal::BadFraming)?;
    value.set_sensitive(true);
    headers.insert(header::COOKIE, value);
    Ok(())
}

/// Whether some server reads the cookie `name` out of this: some part pairs at commas, some take every odd character
/// of a name for an underscore, some do not tell letter case.
fn names_cookie(pair: &[u8], name: &str) -> bool {
    let folded = |text: &[u8]| {
        let plain = percent_encoding::percent_decode(text).collect::<Vec<u8>>();
        let fold = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' };
        plain.trim_ascii().iter().map(fold).collect::<Vec<u8>>()
    };
    let wanted = folded(name.as_bytes());
    pair.split(|byte| *byte == b',').any(|part| {
        let end = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        folded(&part[..end]) == wanted
    })
}

/// The target with our parameters behind the client's, without those of our names.
fn with_query(extras: &Extras, uri: &Uri) -> Result<Uri, Refusal> {
    let mut target = Zeroizing::new(String::with_capacity(256));
    target.push_str(if uri.path().is_empty() { "/" } else { uri.path() });
    target.push('?');
    let pairs = uri.query().unwrap_or_default().split('&');
    let kept = pairs.filter(|pair| {
        !pair.is_empty()
            && !pair.split(';').any(|part| extras.query.iter().any(|(name, _)| names_parameter(part, name)))
    });
    let mut first = true;
    for pair in kept.chain(extras.query.iter().map(|(_, pair)| pair.expose())) {
        let gap = if std::mem::take(&mut first) { "" } else { "&" };
        let _ = write!(target, "{gap}{pair}");
    }
    let mut parts = uri.clone().into_parts();
    let target = PathAndQuery::try_from(target.as_str()).map_err(|_| PathError::BadCharacter)?;
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|_| PathError::BadCharacter.into())
}

fn separate(text: &mut Vec<u8>, by: &[u8]) {
    if !text.is_empty() {
        text.extend_from_slice(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::try_from(text).expect(text)
    }

    fn extras() -> Extras {
        Extras {
            authorization: false,
            prover: None,
            headers: vec![(HeaderName::from_static("x-api-key"), value("ours"))],
            cookies: vec![("SID".into(), value("SID=ours"))],
            query: vec![("api_key".into(), Secret::from("api_key=ours"))],
        }
    }

    #[test]
    fn what_a_client_sends_under_an_injected_name_is_gone() {
        let mut headers = HeaderMap::new();
        for (name, text) in [
            ("x-api-key", "theirs"),
            ("x_api_key", "theirs"),
            ("x-api_key", "theirs"),
            ("x-api-key2", "stays"),
            ("authorization", "Basic stays"),
            ("trailer", "X-Api-Key, x-sum"),
            ("cookie", "a=1; SID=theirs; b=2"),
            ("cookie", "s%69d=theirs; c=3, sid=theirs; d=4;; SIDE=stays"),
        ] {
            headers.append(name, value(text));
        }
        let mut uri: Uri =
            "/p?api_key=theirs&x=1&API%5Fkey=theirs&y=2;api_key=theirs&z".parse().expect("a target");
        apply(&extras(), value("unused"), &mut headers, &mut uri).expect("applied");
        let all =
            |name: &str| headers.get_all(name).iter().map(|v| v.to_str().expect("text")).collect::<Vec<_>>();
        assert_eq!(all("x-api-key"), ["ours"]);
        assert_eq!(all("x_api_key"), [""; 0]);
        assert_eq!(all("x-api_key"), [""; 0]);
        assert_eq!(all("x-api-key2"), ["stays"]);
        assert_eq!(
            all("authorization"),
            ["Basic stays"],
            "another's credential is the client's own business"
        );
        assert_eq!(all("trailer"), ["x-sum"]);
        assert_eq!(all("cookie"), ["SID=ours; a=1; b=2; d=4; SIDE=stays"]);
        assert_eq!(uri.to_string(), "/p?x=1&z&api_key=ours");
        // Once more, as after a 401: nothing piles up.
        apply(&extras(), value("unused"), &mut headers, &mut uri).expect("applied");
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
        assert_eq!(uri.to_string(), "/p?x=1&z&api_key=ours");
    }

    #[test]
    fn a_target_keeps_its_authority_and_its_path() {
        let check = |from: &str, expected: &str| {
            let mut uri: Uri = from.parse().expect(from);
            apply(&extras(), value("unused"), &mut HeaderMap::new(), &mut uri).expect("applied");
            assert_eq!(uri.to_string(), expected);
        };
        check("/", "/?api_key=ours");
        check("/a/b", "/a/b?api_key=ours");
        check("http://api.example:8080/a?b=c", "http://api.example:8080/a?b=c&api_key=ours");
    }

    proptest::proptest! {
        #[test]
        fn no_client_gets_a_value_of_its_own_through(cookie in "[ -~]{0,60}", query in "[a-zA-Z0-9=&;%_.+-]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", value(&format!("{cookie};SID=theirs;{cookie}")));
            let target = format!("/?{query}&api_key=theirs&{query}");
            proptest::prop_assume!(target.parse::<Uri>().is_ok());
            let mut uri: Uri = target.parse().expect("a target");
            apply(&extras(), value("unused"), &mut headers, &mut uri).expect("applied");
            let cookie = headers["cookie"].to_str().expect("text");
            proptest::prop_assert!(cookie.starts_with("SID=ours"));
            proptest::prop_assert_eq!(cookie.split(';').filter(|pair| pair.trim().starts_with("SID=")).count(), 1);
            let text = uri.to_string();
            proptest::prop_assert_eq!(text.split(['?', '&']).filter(|pair| pair.starts_with("api_key=")).count(), 1);
        }
    }
}
