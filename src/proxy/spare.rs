//! A copy of a request's head, to send it once more.
//!
//! Owns: the copy, in memory that is used again. hyper takes a head over and does not give it back.

use http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use super::{Identity, RequestBody};

/// A head that can be sent again.
#[derive(Debug)]
pub(super) struct Spare {
    method: Method,
    uri: Uri,
    fields: Fields,
}

/// The fields of a head.
pub(super) type Fields = Vec<(HeaderName, HeaderValue)>;

impl Spare {
    pub(super) fn of(request: &Request<RequestBody>, identity: &Identity) -> Self {
        let mut fields = identity.spare_fields.borrow_mut().pop().unwrap_or_default();
        fields.extend(request.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
        Self { method: request.method().clone(), uri: request.uri().clone(), fields }
    }

    /// Whether sending twice has the effect of sending once (RFC 9110, 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
    }

    /// The request again, with this body, whose length is known.
    pub(super) fn request(&self, body: RequestBody) -> Request<RequestBody> {
        let length = http_body::Body::size_hint(&body).exact();
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.reserve(self.fields.len());
        for (name, value) in &self.fields {
            headers.append(name.clone(), value.clone());
        }
        if let Some(length) = length
            && headers.remove(header::TRANSFER_ENCODING).is_some()
        {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        // The body is at hand: there is nothing to wait for, and trailers are not kept.
        headers.remove(header::TRAILER);
        headers.remove(header::EXPECT);
        request
    }

    /// Gives the memory back.
    pub(super) fn put_away(mut self, identity: &Identity) {
        self.fields.clear();
        identity.spare_fields.borrow_mut().push(self.fields);
    }
}
