//! A token request in the making.
//!
//! Owns: what grants and client authentication may know and what they write into.

use http::HeaderValue;

use super::form::Form;
use super::scrub::Scrubber;
use crate::clock::UnixTime;
use crate::secret::Secret;

/// What a request is made from.
pub(super) struct Facts<'a> {
    /// `client.id`.
    pub(super) client_id: &'a str,
    /// `aud` of assertions for which none is configured.
    pub(super) audience: &'a str,
    /// The wall clock, for `iat` and `exp`.
    pub(super) now: UnixTime,
}

/// What is sent, and what must not come back in a message.
#[derive(Default)]
pub(super) struct Draft {
    /// The body.
    pub(super) form: Form,
    /// `Authorization`, marked sensitive.
    pub(super) authorization: Option<HeaderValue>,
    /// Every secret in either.
    pub(super) scrubber: Scrubber,
    /// Those of them that are sent again and again: a provider may echo one of them after it was replaced.
    pub(super) lasting: Vec<Secret>,
}

impl Draft {
    /// Notes a secret that outlives the request.
    pub(super) fn add_lasting(&mut self, secret: &Secret) {
        self.scrubber.add(secret.expose());
        self.lasting.push(secret.clone());
    }

    /// Sets a parameter whose value is a secret.
    pub(super) fn set_secret(&mut self, name: &'static str, value: &Secret) {
        self.scrubber.add(value.expose());
        self.form.set(name, value.expose());
    }
}
