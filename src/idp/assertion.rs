//! JWT assertions: signature, audience, times, and that none is used twice (RFC 7523 3).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::settings::VerifyingKey;
use crate::secret::Fingerprint;

/// How long ahead an assertion may expire, and how far clocks may differ, in seconds.
const LONGEST_LIFE: i64 = 3600;
const LEEWAY: i64 = 60;

/// The assertions that were used, until they expire.
#[derive(Debug, Default)]
pub(super) struct UsedAssertions(HashMap<Fingerprint, i64>);

/// Checks assertions at one moment.
#[derive(Debug)]
pub(super) struct Verifier<'a> {
    /// What `aud` may name.
    pub(super) audiences: Vec<String>,
    /// The server's wall clock, in seconds.
    pub(super) now: i64,
    /// Whether a `jti` must be there.
    pub(super) jti_required: bool,
    /// Where used ones are remembered.
    pub(super) used: &'a mut UsedAssertions,
}

/// The claims of an assertion that was verified.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// A claim that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        // NumericDate may have a fraction (RFC 7519 2).
        #[allow(clippy::cast_possible_truncation, reason = "the fraction is cut; `as` saturates")]
        self.0.get(name).and_then(Value::as_f64).map(|seconds| seconds as i64)
    }

    fn names_audience(&self, wanted: &[String]) -> bool {
        let is_wanted = |value: &Value| value.as_str().is_some_and(|aud| wanted.iter().any(|w| w == aud));
        match self.0.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_wanted),
            Some(one) => is_wanted(one),
            None => false,
        }
    }
}

impl Verifier<'_> {
    /// Whether the header says that a secret signed it.
    pub(super) fn is_symmetric(jwt: &str) -> bool {
        jsonwebtoken::decode_header(jwt).is_ok_and(|header| header.alg == jsonwebtoken::Algorithm::HS256)
    }

    /// Verifies an assertion against the keys of whoever should have signed it.
    pub(super) fn verify(&mut self, jwt: &str, keys: &[VerifyingKey]) -> Result<Claims, String> {
        let claims = signed_claims(jwt, keys)?;
        if !claims.names_audience(&self.audiences) {
            return Err("The claim aud of the assertion does not name this server.".into());
        }
        let exp = claims.number("exp").ok_or("The assertion has no exp.")?;
        if exp <= self.now {
            return Err("The assertion has expired.".into());
        }
        if exp > self.now + LONGEST_LIFE + LEEWAY {
            return Err("The assertion expires more than an hour ahead.".into());
        }
        for name in ["iat", "nbf"] {
            if claims.number(name).is_some_and(|at| at > self.now + LEEWAY) {
                return Err(format!("The claim {name} of the assertion lies in the future."));
            }
        }
        self.use_once(&claims, exp)?;
        Ok(claims)
    }

    fn use_once(&mut self, claims: &Claims, exp: i64) -> Result<(), String> {
        let Some(jti) = claims.text("jti") else {
            return if self.jti_required { Err("The assertion has no jti.".into()) } else { Ok(()) };
        };
        let now = self.now;
        self.used.0.retain(|_, until| *until > now);
        let key = format!("{} {jti}", claims.text("iss").unwrap_or_default());
        match self.used.0.insert(Fingerprint::of(key.as_bytes()), exp) {
            Some(_) => Err("The assertion was used before.".into()),
            None => Ok(()),
        }
    }
}

/// Whom an assertion claims to be from, for finding the keys that decide.
pub(super) fn unverified_issuer(jwt: &str) -> Option<String> {
    let claims = jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(jwt).ok()?.claims;
    claims.get("iss").and_then(Value::as_str).map(str::to_owned)
}

fn signed_claims(jwt: &str, keys: &[VerifyingKey]) -> Result<Claims, String> {
    let header = jsonwebtoken::decode_header(jwt).map_err(|_| "The assertion is no JWT.")?;
    if header.crit.is_some() {
        return Err("The assertion has critical headers that are not understood.".into());
    }
    let mut validation = jsonwebtoken::Validation::new(header.alg);
    // Times and audience are checked here, on the server's own clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    for key in keys.iter().filter(|key| key.algorithm == header.alg && key.is_named_by(&header)) {
        if let Ok(data) = jsonwebtoken::decode::<Map<String, Value>>(jwt, &key.key, &validation) {
            return Ok(Claims(data.claims));
        }
    }
    Err("No key of the client verifies the assertion.".into())
}

impl VerifyingKey {
    /// A key without names fits any header; one with names must be named by one of them, and by no other.
    fn is_named_by(&self, header: &jsonwebtoken::Header) -> bool {
        let pairs = [(&self.kid, &header.kid), (&self.x5t, &header.x5t), (&self.x5t_s256, &header.x5t_s256)];
        let contradicted = pairs.iter().any(|(own, said)| own.is_some() && said.is_some() && own != said);
        let unnamed = pairs.iter().all(|(own, _)| own.is_none());
        let named = pairs.iter().any(|(own, said)| own.is_some() && own == said);
        !contradicted && (unnamed || named)
    }
}
