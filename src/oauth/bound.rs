//! DPoP at the token endpoint (RFC 9449, 5 and 8): the key that requests are proved with, and the provider's nonce.
//!
//! Owns: both, for one client. Sends nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use url::Url;

use super::SetupError;
use super::dpop::{self, DpopKey, Proof};
use super::http::Exchange;
use crate::clock::UnixTime;

/// What DPoP needs beside the settings.
#[derive(Default)]
pub(super) struct Bound(Mutex<State>);

#[derive(Default)]
struct State {
    key: Option<Arc<DpopKey>>,
    /// The provider's latest nonce.
    nonce: Option<String>,
}

impl Bound {
    pub(super) fn bind(&self, key: Arc<DpopKey>) {
        self.state().key = Some(key);
    }

    pub(super) fn has_nonce(&self) -> bool {
        self.state().nonce.is_some()
    }

    /// Takes the nonce of an answer.
    pub(super) fn note(&self, headers: &HeaderMap) {
        let nonce = headers.get("dpop-nonce").and_then(|nonce| nonce.to_str().ok());
        if let Some(nonce) = nonce.filter(|nonce| dpop::is_nonce(nonce)) {
            self.state().nonce = Some(nonce.to_owned());
        }
    }

    /// Proves that we hold the key.
    pub(super) fn prove(&self, exchange: &mut Exchange, now: UnixTime) -> Result<(), SetupError> {
        let state = self.state();
        let target = target(&exchange.url);
        let proof = Proof {
            method: exchange.method.as_str(),
            target: &[&target],
            now,
            nonce: state.nonce.as_deref(),
            token_hash: None,
        };
        let signed = state.key.as_ref().and_then(|key| key.prove(&proof));
        let signed = signed.ok_or_else(|| SetupError::Key("there is no DPoP key to prove with".into()))?;
        exchange.headers.insert("dpop", signed);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// RFC 9449 4.2: without query and fragment.
fn target(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}
