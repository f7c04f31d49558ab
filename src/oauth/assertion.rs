//! Assertions (RFC 7523 3): their claims, fresh for every attempt.
//!
//! Owns: the claims that no configuration may replace.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::SetupError;
use super::client_auth::{Assertion, AssertionClaims};
use super::draft::Facts;
use super::jws::{self, KeyCache, PrivateKey};
use crate::secret::{Secret, SecretSource};

const FIXED: [&str; 6] = ["iss", "sub", "aud", "iat", "exp", "jti"];

/// What one assertion says.
pub(super) struct Mint<'a> {
    /// `iss`.
    pub(super) issuer: &'a str,
    /// `sub`.
    pub(super) subject: &'a str,
    /// The configurable ones.
    pub(super) claims: &'a AssertionClaims,
    /// Time and default audience.
    pub(super) facts: &'a Facts<'a>,
}

impl Mint<'_> {
    /// Signs a new assertion with a `jti` of its own.
    pub(super) fn sign(&self, header: &Map<String, Value>, key: &PrivateKey) -> Result<Secret, SetupError> {
        let mut claims: Map<String, Value> =
            self.claims.extra.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let issued = self.facts.now.seconds();
        let lifetime = i64::try_from(self.claims.lifetime.as_secs()).unwrap_or(i64::MAX);
        claims.insert("iss".into(), self.issuer.into());
        claims.insert("sub".into(), self.subject.into());
        claims.insert("aud".into(), self.audience());
        claims.insert("iat".into(), issued.into());
        claims.insert("exp".into(), issued.saturating_add(lifetime).into());
        claims.insert("jti".into(), jws::fresh_id()?.into());
        jws::sign(header, &claims, key)
    }

    fn audience(&self) -> Value {
        let configured = &self.claims.audience;
        let default = [self.facts.audience.to_owned()];
        let members = if configured.is_empty() { &default[..] } else { configured };
        match members {
            [only] if !self.claims.audience_as_list => only.as_str().into(),
            list => list.to_vec().into(),
        }
    }
}

impl AssertionClaims {
    /// Refuses claims that would replace those that the proxy sets, and a lifetime of nothing.
    pub(super) fn check(&self) -> Result<(), SetupError> {
        if let Some(fixed) = FIXED.iter().find(|name| self.extra.contains_key(**name)) {
            return Err(SetupError::Key(format!(
                "the claim `{fixed}` of an assertion is set by the proxy: take it out of the extra claims"
            )));
        }
        if self.lifetime.as_secs() == 0 {
            return Err(SetupError::Key("an assertion must live for at least 1s".into()));
        }
        Ok(())
    }
}

impl Assertion {
    /// Reads the key once, blocking, and checks that it fits algorithm and certificate. Commands are not run.
    pub(super) fn check(&self, cache: &KeyCache) -> Result<(), SetupError> {
        self.claims.check()?;
        if let SecretSource::Exec(_) = self.key.source {
            return Ok(());
        }
        cache.read_blocking(&self.key).map(drop)
    }

    /// The files that it is made from.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.key.source.path().into_iter().chain(self.key.key_id.certificate.clone())
    }
}
