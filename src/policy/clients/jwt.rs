//! Signed tokens (RFC 7519), verified with the keys of their issuer.
//!
//! Owns: what of a token is believed, and with which key. The algorithm is one of the configured ones and fits the key:
//! a public key is never used as a secret, and `none` is no algorithm.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::{JwtConfig, KeysFrom};
use crate::clock::BootTime;

/// All that are signed with a private key.
pub const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// The longest token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;
/// Keys without a name that are tried.
const MAX_TRIES: usize = 8;
/// The most keys of an issuer.
const MAX_KEYS: usize = 64;
/// How often keys are asked for because a token names one that is not known.
pub(super) const REFETCH: std::time::Duration = std::time::Duration::from_secs(30);

/// What one client's tokens are held against.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) config: JwtConfig,
    pub(super) source: Arc<KeySource>,
}

/// The keys of one issuer; clients of one issuer share them.
#[derive(Debug)]
pub(super) struct KeySource {
    pub(super) from: KeysFrom,
    pub(super) keys: ArcSwap<KeySet>,
    /// A token names a key that is not there.
    pub(super) wanted: Notify,
    pub(super) changed: watch::Sender<u64>,
    /// When they were asked for last: milliseconds since boot; 0 for never.
    pub(super) asked_at: AtomicU64,
}

/// Keys as they were read at one time.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    /// 0: none were read yet.
    pub(super) serial: u64,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// What came of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is the client's, until then: seconds since 1970.
    Good(u64),
    /// It is not.
    Wrong,
    /// Its key is not there, which may change.
    NoKey,
}

impl KeySource {
    pub(super) fn new(from: KeysFrom) -> Arc<Self> {
        Arc::new(Self {
            from,
            keys: ArcSwap::from_pointee(KeySet::default()),
            wanted: Notify::new(),
            changed: watch::channel(0).0,
            asked_at: AtomicU64::new(0),
        })
    }

    /// Takes new keys.
    pub(super) fn take(&self, document: &[u8]) -> Result<usize, String> {
        let keys = parse(document)?;
        let count = keys.len();
        let serial = *self.changed.borrow() + 1;
        self.keys.store(Arc::new(KeySet { serial, keys }));
        self.changed.send_replace(serial);
        Ok(count)
    }

    /// The keys are too old: nobody is let in by them.
    pub(super) fn forget(&self) {
        self.keys.store(Arc::new(KeySet::default()));
    }

    /// Reads a file, blocking.
    pub(super) fn read(&self, path: &Path) -> Result<(), String> {
        let text = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        self.take(&text).map(|_| ()).map_err(|reason| format!("{}: {reason}", path.display()))
    }

    /// Whether asking again can bring a key that is not known.
    pub(super) fn may_ask(&self, now: BootTime) -> bool {
        let last = BootTime::from_boot(std::time::Duration::from_millis(self.asked_at.load(Relaxed)));
        matches!(self.from, KeysFrom::Uri(_)) && now.since(last) >= REFETCH
    }
}

impl Rule {
    /// Judges a token at `now`, seconds since 1970.
    pub(super) fn judge(&self, token: &[u8]) -> Outcome {
        if token.len() > MAX_TOKEN {
            return Outcome::Wrong;
        }
        let Ok(header) = jsonwebtoken::decode_header(token) else { return Outcome::Wrong };
        // RFC 7515, 4.1.11: an extension that must be understood, and is not.
        if !self.config.algorithms.contains(&header.alg) || header.crit.is_some() {
            return Outcome::Wrong;
        }
        let keys = self.source.keys.load();
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg)
                && (header.kid.is_none() || key.kid.is_none() || key.kid == header.kid)
        };
        let mut found = false;
        for key in keys.keys.iter().filter(fits).take(MAX_TRIES) {
            found = true;
            if let Ok(data) = jsonwebtoken::decode::<Value>(token, &key.key, &self.validation(header.alg)) {
                return self.believed(&data.claims);
            }
        }
        if found { Outcome::Wrong } else { Outcome::NoKey }
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.config.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation
    }

    fn believed(&self, claims: &Value) -> Outcome {
        let has = |(name, wanted): &(String, String)| match &claims[name.as_str()] {
            Value::String(text) => text == wanted,
            Value::Array(list) => list.iter().any(|one| one.as_str() == Some(wanted)),
            Value::Bool(value) => value.to_string() == *wanted,
            Value::Number(value) => value.to_string() == *wanted,
            _ => false,
        };
        if !self.config.claims.iter().all(has) {
            return Outcome::Wrong;
        }
        let until = claims["exp"].as_u64().or_else(|| claims["exp"].as_f64().and_then(whole_seconds));
        until
            .map_or(Outcome::Wrong, |until| Outcome::Good(until.saturating_add(self.config.leeway.as_secs())))
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range and not negative")]
fn whole_seconds(seconds: f64) -> Option<u64> {
    (0.0..1e15).contains(&seconds).then_some(seconds as u64)
}

/// The keys of a document that verify signatures of a known algorithm; others are none of ours.
fn parse(document: &[u8]) -> Result<Vec<Key>, String> {
    let document: Value = serde_json::from_slice(document).map_err(|_| "it is no JSON".to_owned())?;
    let listed = document["keys"].as_array().ok_or("it is no key set: `keys` is missing")?;
    let keys = listed.iter().filter_map(|one| serde_json::from_value::<Jwk>(one.clone()).ok());
    let keys: Vec<Key> = keys.filter_map(|jwk| key(&jwk)).take(MAX_KEYS).collect();
    if keys.is_empty() {
        return Err("it holds no public key for signatures of a known algorithm".into());
    }
    Ok(keys)
}

fn key(jwk: &Jwk) -> Option<Key> {
    use Algorithm as A;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512],
        AlgorithmParameters::EllipticCurve(params) => match params.curve {
            EllipticCurve::P256 => vec![A::ES256],
            EllipticCurve::P384 => vec![A::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(params) if params.curve == EllipticCurve::Ed25519 => vec![A::EdDSA],
        // A shared secret in a public document is none.
        _ => return None,
    };
    if let Some(named) = jwk.common.key_algorithm {
        algorithms.retain(|algorithm| format!("{algorithm:?}") == named.to_string());
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (!algorithms.is_empty()).then(|| Key { kid: jwk.common.key_id.clone(), algorithms, key })
}
