//! Browsers: a web page must not make the user's browser call a listener that asks for no credentials.

use http::{HeaderMap, HeaderName, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request may come in: it is from no browser, from no foreign page, or from a listed origin.
pub fn admits(headers: &HeaderMap, allowed_origins: &[String]) -> bool {
    let listed = |value: &[u8]| allowed_origins.iter().any(|allowed| allowed.as_bytes() == value);
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => listed(origin.as_bytes()),
        (Some(_), Some(_)) => false,
        (None, _) => !headers
            .get_all(SEC_FETCH_SITE)
            .iter()
            .any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_pages_are_refused() {
        let allowed = ["https://app.example".to_owned()];
        let check = |fields: &[(&'static str, &'static str)], expected: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().expect("value"));
            }
            assert_eq!(admits(&headers, &allowed), expected, "{fields:?}");
        };
        check(&[], true);
        check(&[("sec-fetch-site", "none")], true);
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "cross-site")], false);
        check(&[("sec-fetch-site", "Cross-Site")], false);
        check(&[("origin", "https://evil.example")], false);
        check(&[("origin", "null")], false);
        check(&[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], true);
        check(&[("origin", "https://app.example.evil.example")], false);
        check(&[("origin", "https://app.example"), ("origin", "https://evil.example")], false);
    }
}
