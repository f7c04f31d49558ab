//! From a processed request to bytes on the wire, with the faults that alter them.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::Value;

use super::fault::{Fault, FixedAnswer};
use super::server::{Body, full};
use super::token::Fields;

/// A successful answer with the faults applied that alter it.
pub(super) fn success(mut fields: Fields, faults: &[Fault]) -> Response<Body> {
    for fault in faults {
        match fault {
            Fault::Set { field, value } => drop(fields.insert(field.clone(), value.clone())),
            Fault::Remove(field) => drop(fields.shift_remove(field)),
            _ => {}
        }
    }
    let as_form = faults.contains(&Fault::FormEncoded);
    let (mut kind, text) = if as_form {
        ("application/x-www-form-urlencoded", form_encoded(&fields))
    } else {
        ("application/json;charset=UTF-8", Value::Object(fields).to_string())
    };
    let mut bytes = text.into_bytes();
    let mut encoding = None;
    let mut drip = None;
    for fault in faults {
        match fault {
            Fault::ContentType(other) => kind = other,
            Fault::ByteOrderMark => bytes.splice(..0, *b"\xef\xbb\xbf").for_each(drop),
            Fault::Gzip => encoding = Some("gzip"),
            Fault::Drip { bytes, every } => drip = Some(((*bytes).max(1), *every)),
            _ => {}
        }
    }
    if encoding.is_some() {
        bytes = gzipped(&bytes);
    }
    let mut response = Response::builder()
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::PRAGMA, "no-cache")
        .header(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap_or(HeaderValue::from_static("x/x")));
    if let Some(encoding) = encoding {
        response = response.header(header::CONTENT_ENCODING, encoding);
    }
    let body = match drip {
        Some((size, every)) => dripping(bytes.into(), size, every),
        None => full(bytes),
    };
    response.body(body).expect("every header was checked")
}

/// A fixed answer; headers that are none are left out.
pub(super) fn fixed(answer: &FixedAnswer) -> Response<Body> {
    let mut response = Response::new(full(answer.body.clone()));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn form_encoded(fields: &Fields) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        match value {
            Value::String(text) => form.append_pair(name, text),
            other => form.append_pair(name, &other.to_string()),
        };
    }
    form.finish()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

/// `size` bytes at a time, `every` so often.
pub(super) fn dripping(bytes: Bytes, size: usize, every: Duration) -> Body {
    let pieces = futures_util::stream::unfold((bytes, false), move |(mut left, begun)| async move {
        if left.is_empty() {
            return None;
        }
        if begun {
            tokio::time::sleep(every).await;
        }
        let piece = left.split_to(size.min(left.len()));
        Some((Ok::<_, Infallible>(Frame::data(piece)), (left, true)))
    });
    StreamBody::new(pieces).boxed_unsync()
}
