//! The page that a browser shows at the end of a login.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto;padding:0 1.5rem;\
color:#1b1f24;background:#fff}h1{font-size:1.5rem;margin:0 0 .5rem}h1::before{content:'';display:inline-block;\
width:.7em;height:.7em;border-radius:50%;margin-right:.5em;background:var(--dot)}p{margin:.3rem 0;color:#57606a}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}p{color:#9198a1}}";

/// Done, or what went wrong.
pub(super) fn answer(status: StatusCode, outcome: Result<(), &str>) -> Response<Full<Bytes>> {
    let (title, text, dot) = match outcome {
        Ok(()) => (
            "You are logged in",
            "bearward has its refresh token and keeps it fresh from here on. You can close this window."
                .into(),
            "#2da44e",
        ),
        Err(message) => ("That did not work", escaped(message), "#cf222e"),
    };
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>bearward: {title}</title><style>:root{{--dot:{dot}}}{STYLE}</style><h1>{title}</h1><p>{text}</p></html>\n"
    );
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .header(header::CACHE_CONTROL, "no-store")
        // The address in the bar holds the code.
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(Full::new(Bytes::from(page)))
        .expect("static headers are valid")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_is_text_on_the_page() {
        assert_eq!(
            escaped("<img src='x' onerror=\"a&b\">"),
            "&lt;img src=&#39;x&#39; onerror=&quot;a&amp;b&quot;&gt;"
        );
    }
}
