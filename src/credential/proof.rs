//! Proofs for upstream requests (RFC 9449 7): the token's key and hash, and the nonces of an origin.
//!
//! Owns: what a worker needs to prove, made ready once a token. Signs; takes no lock.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

use crate::clock::{Clock, UnixTime};
use crate::oauth::dpop::{self, DpopKey, Proof};
use crate::secret::Secret;

/// Signs proofs for one token.
#[derive(Debug, Clone)]
pub struct Prover {
    key: Arc<DpopKey>,
    token_hash: Arc<str>,
    /// What the provider's clock is ahead of ours, in milliseconds.
    skew: i64,
    clock: Clock,
}

/// The latest nonce of each origin of an upstream, for all workers.
#[derive(Debug)]
pub struct Nonces(Box<[ArcSwapOption<String>]>);

impl Prover {
    pub(super) fn new(key: Arc<DpopKey>, token: &Secret, skew: i64, clock: Clock) -> Self {
        Self { key, token_hash: dpop::token_hash(token).into(), skew, clock }
    }

    /// A proof for one request. `None`: the machine gives no random numbers.
    pub fn prove(
        &self,
        method: &str,
        target: &[&str],
        nonces: &Nonces,
        origin: usize,
    ) -> Option<HeaderValue> {
        let nonce = nonces.0.get(origin).and_then(|nonce| nonce.load_full());
        self.key.prove(&Proof {
            method,
            target,
            now: UnixTime::from_millis(self.clock.wall().millis().saturating_add(self.skew)),
            nonce: nonce.as_ref().map(|nonce| nonce.as_str()),
            token_hash: Some(&self.token_hash),
        })
    }
}

impl Nonces {
    /// For so many origins.
    pub(super) fn of(origins: usize) -> Arc<Self> {
        Arc::new(Self((0..origins).map(|_| ArcSwapOption::empty()).collect()))
    }

    /// Takes the nonce of an answer. False for what is none.
    pub fn note(&self, origin: usize, value: &HeaderValue) -> bool {
        let Some(text) = value.to_str().ok().filter(|text| dpop::is_nonce(text)) else { return false };
        let Some(known) = self.0.get(origin) else { return false };
        if known.load().as_ref().is_none_or(|known| known.as_str() != text) {
            known.store(Some(Arc::new(text.to_owned())));
        }
        true
    }
}
