//! The form of a token request.
//!
//! Owns: that no parameter stands in it twice (RFC 6749 3.2), `resource` excepted (RFC 8707 2).

use std::borrow::Cow;

use zeroize::Zeroizing;

/// The parameters that the client sets itself: `parameters:` may not name them.
pub(super) const RESERVED: &[(&str, &str)] = &[
    ("grant_type", "`grant` decides it"),
    ("client_id", "`client.id` and `client.client_id_param` decide it"),
    ("client_secret", "`client.auth` decides whether it is sent"),
    ("client_assertion", "`client.auth` decides whether it is sent"),
    ("client_assertion_type", "`client.auth` decides whether it is sent"),
    ("refresh_token", "the proxy keeps it"),
    ("assertion", "`user_assertion` makes it"),
    ("scope", "use `scope` or `refresh.scope`"),
    ("audience", "use `audience`"),
    ("resource", "use `resource`"),
    ("username", "use `username`"),
    ("password", "use `password`"),
    ("subject_token", "use `subject_token`"),
    ("subject_token_type", "use `subject_token_type`"),
    ("actor_token", "use `actor_token`"),
    ("actor_token_type", "use `actor_token_type`"),
    ("requested_token_type", "use `requested_token_type`"),
];

/// Ordered parameters; zeroed when dropped.
#[derive(Default)]
pub(super) struct Form(Vec<(Cow<'static, str>, Zeroizing<String>)>);

impl Form {
    /// Sets a parameter; one that stands there already is replaced.
    pub(super) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: &str) {
        let name = name.into();
        let value = Zeroizing::new(value.to_owned());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.0.push((name, value)),
        }
    }

    /// Adds a `resource`, the one parameter that may be repeated.
    pub(super) fn add_resource(&mut self, value: &str) {
        self.0.push((Cow::Borrowed("resource"), Zeroizing::new(value.to_owned())));
    }

    /// The body.
    pub(super) fn encode(&self) -> Zeroizing<String> {
        // Large enough at once: a buffer that grows leaves pieces behind.
        let room = self.0.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
        let mut body = form_urlencoded::Serializer::new(String::with_capacity(room));
        for (name, value) in &self.0 {
            body.append_pair(name, value);
        }
        Zeroizing::new(body.finish())
    }
}
