//! Fields that are sent beside those of a head.
//!
//! Owns: both their forms, made once for many requests, so that a request neither looks them up nor moves them. Whoever sends
//! them makes sure that the head holds none of the same names.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that many requests have in common.
#[derive(Debug, Default)]
pub struct Prepared {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// The same as HTTP/1.1 writes them.
    lines: Vec<u8>,
}

/// What one request has beside its head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// What others have too.
    pub prepared: Option<&'a Prepared>,
    /// What it has alone.
    pub own: Option<(&'a HeaderName, &'a HeaderValue)>,
}

impl Prepared {
    /// Adds a field.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        write_field(&name, &value, &mut self.lines);
        self.fields.push((name, value));
    }
}

impl Beside<'_> {
    /// Writes them as HTTP/1.1 does.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if let Some(prepared) = self.prepared {
            out.extend_from_slice(&prepared.lines);
        }
        if let Some((name, value)) = self.own {
            write_field(name, value, out);
        }
    }

    /// Makes them fields of a head.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        let prepared = self.prepared.map(|prepared| prepared.fields.as_slice()).unwrap_or_default();
        headers.reserve(prepared.len() + 1);
        for (name, value) in prepared {
            headers.append(name.clone(), value.clone());
        }
        if let Some((name, value)) = self.own {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// A field as HTTP/1.1 writes it.
pub(super) fn write_field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let mut prepared = Prepared::default();
        prepared.add(header::VIA, HeaderValue::from_static("1.1 us"));
        prepared.add(header::FORWARDED, HeaderValue::from_static("for=a"));
        let (name, value) = (HeaderName::from_static("x-request-id"), HeaderValue::from_static("1"));
        let beside = Beside { prepared: Some(&prepared), own: Some((&name, &value)) };
        let mut lines = Vec::new();
        beside.write(&mut lines);
        let text = "via: 1.1 us\r\nforwarded: for=a\r\nx-request-id: 1\r\n";
        assert_eq!(String::from_utf8_lossy(&lines), text);
        let mut headers = HeaderMap::new();
        headers.append(header::VIA, HeaderValue::from_static("1.0 them"));
        beside.add_to(&mut headers);
        let all: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected: [(&str, &[u8]); 4] =
            [("via", b"1.0 them"), ("via", b"1.1 us"), ("forwarded", b"for=a"), ("x-request-id", b"1")];
        assert_eq!(all, expected);
    }
}
