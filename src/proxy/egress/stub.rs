//! A token endpoint that is answered here, for clients that insist on a token of their own.
//!
//! Owns: the placeholder. It is the same for everyone and good for nothing; the real token never passes through here.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

/// What a client gets in place of a token.
pub(in crate::proxy) const PLACEHOLDER: &str = "bearward-placeholder";

/// RFC 6749, 5.1.
pub(super) fn answer(method: &Method) -> Response<Bytes> {
    let post = *method == Method::POST;
    let document = if post {
        serde_json::json!({"access_token": PLACEHOLDER, "token_type": "Bearer", "expires_in": 3600})
    } else {
        serde_json::json!({"error": "invalid_request", "error_description": "a token is asked for with POST"})
    };
    let mut answer = Response::new(Bytes::from(document.to_string()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    if !post {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    answer
}
