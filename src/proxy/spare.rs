//! What a request is made from, to send it once more.
//!
//! Owns: a copy of the client's fields, in memory that is used again. hyper takes a head over and does not give it back. What is
//! set for the upstream is not copied but set anew.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use super::asked::Asked;
use super::handle::{CHUNKED, edit};
use super::headers::Seen;
use super::inject;
use super::{Client, Identity, RequestBody, Route};

/// A request that can be sent again.
#[derive(Debug)]
pub(super) struct Spare<'r> {
    pub(super) edits: Edits<'r>,
    method: Method,
    /// As the client wrote it.
    uri: Uri,
    version: Version,
    fields: Fields,
    /// Where it is another than the client's.
    pub(super) target: Option<Uri>,
    pub(super) asked: Option<&'r Asked>,
    pub(super) bearer: Option<HeaderValue>,
    /// The body came without a length.
    pub(super) chunked: bool,
}

/// What `edit` is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edits<'r> {
    pub(super) identity: &'r Identity,
    pub(super) route: &'r Route,
    pub(super) client: &'r Client,
    pub(super) id: &'r HeaderValue,
    pub(super) seen: Seen,
}

/// The fields of a head.
pub(super) type Fields = Vec<(HeaderName, HeaderValue)>;

impl<'r> Spare<'r> {
    /// Of a head that was stripped and not edited yet.
    pub(super) fn of(head: &Parts, edits: Edits<'r>) -> Self {
        let mut fields = edits.identity.spare_fields.borrow_mut().pop().unwrap_or_default();
        fields.extend(head.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self {
            edits,
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            fields,
            target: None,
            asked: None,
            bearer: None,
            chunked: false,
        }
    }

    /// Whether sending twice has the effect of sending once (RFC 9110, 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
    }

    /// The request again, with this body.
    pub(super) fn request(&self, body: RequestBody) -> Request<RequestBody> {
        let length = http_body::Body::size_hint(&body).exact();
        let (mut head, body) = Request::new(body).into_parts();
        head.method = self.method.clone();
        head.uri = self.uri.clone();
        head.version = self.version;
        head.headers.reserve(self.fields.len());
        for (name, value) in &self.fields {
            head.headers.append(name.clone(), value.clone());
        }
        edit(&self.edits, &mut head);
        if let Some(target) = &self.target {
            head.uri = target.clone();
        }
        head.version = Version::HTTP_11;
        let headers = &mut head.headers;
        if let Some(asked) = self.asked {
            asked.set(headers);
        }
        if let (Some(bearer), Some(token)) = (&self.bearer, &self.edits.route.token) {
            // It went well the first time, with the same fields.
            let injected = inject::inject(token, bearer.clone(), headers, &mut head.uri);
            debug_assert!(injected.is_ok(), "{injected:?}");
        }
        match length {
            Some(length) if self.chunked => {
                drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)))
            }
            None if self.chunked => drop(headers.insert(header::TRANSFER_ENCODING, CHUNKED)),
            _ => {}
        }
        // The body is at hand: there is nothing to wait for, and trailers are not kept.
        headers.remove(header::TRAILER);
        headers.remove(header::EXPECT);
        Request::from_parts(head, body)
    }

    /// Gives the memory back.
    pub(super) fn put_away(mut self) {
        self.fields.clear();
        self.edits.identity.spare_fields.borrow_mut().push(self.fields);
    }
}
