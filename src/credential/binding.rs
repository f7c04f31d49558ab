//! Binding: a credential's token goes to the origins that it is bound to and nowhere else.
//!
//! Owns: the only way from a cell to a [`TokenReader`] that the data plane has. A route holds a
//! [`BoundCredential`], which exists only for an origin that was checked.

use std::sync::Arc;

use super::{Nonces, TokenCell, TokenReader};
use crate::names::Name;
use crate::origin::{Origin, Scheme};

/// A cell together with the origins that its token is sent to: those of one upstream.
#[derive(Debug, Clone)]
pub struct BoundCredential {
    cell: Arc<TokenCell>,
    origin: Origin,
    others: Vec<Origin>,
    nonces: Arc<Nonces>,
}

/// Why a credential may not be used for an upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// Not among `allowed_upstreams`.
    #[error("the credential `{credential}` is not allowed for {origin}; it may go to {allowed}")]
    NotAllowed {
        /// The credential.
        credential: Name,
        /// Where the route leads.
        origin: Origin,
        /// Where the token may go.
        allowed: String,
    },
    /// A bearer in the clear to another machine.
    #[error(
        "the credential `{credential}` would be sent unencrypted to {origin}; use https, or say `allow_plaintext: true` on the route"
    )]
    Plaintext {
        /// The credential.
        credential: Name,
        /// Where the route leads.
        origin: Origin,
    },
}

/// Checks that a credential may go to `origin`.
pub fn check(
    credential: &Name,
    allowed: &[Origin],
    origin: &Origin,
    allow_plaintext: bool,
) -> Result<(), BindingError> {
    if !allowed.contains(origin) {
        let allowed = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(BindingError::NotAllowed {
            credential: credential.clone(),
            origin: origin.clone(),
            allowed,
        });
    }
    if origin.scheme() == Scheme::Http && !origin.is_loopback() && !allow_plaintext {
        return Err(BindingError::Plaintext { credential: credential.clone(), origin: origin.clone() });
    }
    Ok(())
}

/// A cell with all origins that its token may be sent to, where the origin of a request is known only when it comes.
#[derive(Debug, Clone)]
pub struct Binder {
    cell: Arc<TokenCell>,
    allowed: Vec<Origin>,
    allow_plaintext: bool,
}

impl Binder {
    /// `allowed` is `allowed_upstreams`; `allow_plaintext` is the rule's.
    pub fn new(cell: Arc<TokenCell>, allowed: Vec<Origin>, allow_plaintext: bool) -> Self {
        Self { cell, allowed, allow_plaintext }
    }

    /// Binds the cell to an origin after [`check`].
    pub fn bind(&self, origin: Origin) -> Result<BoundCredential, BindingError> {
        BoundCredential::try_new(Arc::clone(&self.cell), &self.allowed, origin, self.allow_plaintext)
    }
}

impl BoundCredential {
    /// Binds a cell to an origin after [`check`].
    pub fn try_new(
        cell: Arc<TokenCell>,
        allowed: &[Origin],
        origin: Origin,
        allow_plaintext: bool,
    ) -> Result<Self, BindingError> {
        check(cell.name(), allowed, &origin, allow_plaintext)?;
        Ok(Self { cell, origin, others: Vec::new(), nonces: Nonces::of(1) })
    }

    /// Binds it to a further origin of the same upstream after [`check`].
    pub fn also(
        mut self,
        allowed: &[Origin],
        origin: Origin,
        allow_plaintext: bool,
    ) -> Result<Self, BindingError> {
        check(self.name(), allowed, &origin, allow_plaintext)?;
        self.others.push(origin);
        self.nonces = Nonces::of(1 + self.others.len());
        Ok(self)
    }

    /// Whether the token may go to this origin.
    pub fn covers(&self, origin: &Origin) -> bool {
        self.origin == *origin || self.others.contains(origin)
    }

    /// The origin that the token may go to; the first, where there are several.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The credential's name.
    pub fn name(&self) -> &Name {
        self.cell.name()
    }

    /// A reader for one worker.
    pub fn reader(&self) -> TokenReader {
        self.cell.reader().with_nonces(Arc::clone(&self.nonces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_62_a_token_goes_to_its_own_origins_and_in_the_clear_to_this_machine_only() {
        let name = Name::try_new("primavera").expect("a name");
        let origin = |text: &str| Origin::try_new(text).expect(text);
        let check = |allowed: &[&str], to: &str, allow_plaintext: bool, expected: &str| {
            let allowed: Vec<Origin> = allowed.iter().map(|text| origin(text)).collect();
            let cell = TokenCell::new(name.clone());
            let bound = BoundCredential::try_new(cell, &allowed, origin(to), allow_plaintext);
            match bound {
                Ok(bound) => {
                    assert_eq!(expected, "", "{to}");
                    assert_eq!((bound.origin(), bound.name()), (&origin(to), &name));
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(!expected.is_empty() && text.contains(expected), "{to}: {text}");
                }
            }
        };
        let api = &["https://api.example.com"];
        check(api, "https://api.example.com:443", false, "");
        check(api, "https://API.example.com.", false, "");
        check(api, "https://api.example.com:8443", false, "is not allowed for https://api.example.com:8443");
        check(api, "https://api.example.com.evil.example", false, "it may go to https://api.example.com");
        check(api, "http://api.example.com", true, "is not allowed");
        check(&["http://api.example.com"], "http://api.example.com", false, "unencrypted");
        check(&["http://api.example.com"], "http://api.example.com", true, "");
        check(&["http://127.0.0.1:1"], "http://127.0.0.1:1", false, "");
        check(&[], "https://api.example.com", false, "is not allowed");
        check(&["unix:/run/app.sock"], "unix:/run/app.sock", false, "");
        check(&["unix:/run/app.sock"], "unix:/run/other.sock", false, "it may go to unix:/run/app.sock");
    }

    #[test]
    fn a_further_origin_is_checked_like_the_first() {
        let origin = |text: &str| Origin::try_new(text).expect(text);
        let (one, two) = (origin("https://a.example"), origin("https://b.example"));
        let cell = TokenCell::new(Name::try_new("primavera").expect("a name"));
        let allowed = [one.clone(), two.clone()];
        let bound =
            || BoundCredential::try_new(Arc::clone(&cell), &allowed, one.clone(), false).expect("bound");
        let both = bound().also(&allowed, two.clone(), false).expect("bound");
        assert!(both.covers(&one) && both.covers(&two) && !bound().covers(&two));
        assert!(bound().also(&allowed[..1], two, false).is_err());
        assert!(bound().also(&allowed, origin("https://c.example"), true).is_err());
    }
}
