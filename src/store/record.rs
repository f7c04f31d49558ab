//! The record: what is kept of one credential.
//!
//! Owns: its fields and their meaning. Secrets in it serialise in the clear, since the record *is* the
//! secret; only a store ever serialises one. `Debug` shows fingerprints.

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::secret::{Fingerprint, Secret};

/// The format that this build writes.
pub const FORMAT: u32 = 1;

/// All that is kept of one credential. Times are wall-clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`] when written; a newer one is refused, not guessed at.
    pub format: u32,
    /// Grows by one with every commit; 0 is "no record".
    pub version: u64,
    /// Who this record is for; another identity sets the record aside.
    pub identity: Identity,
    /// The one refresh token that is still good, as far as anyone knows.
    #[serde(with = "secret_text", default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// When the refresh token dies, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_expires_at: Option<UnixTime>,
    /// The access token.
    #[serde(with = "secret_text", default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Secret>,
    /// When the access token dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixTime>,
    /// When the token request that brought it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obtained_at: Option<UnixTime>,
    /// What the provider said about an early refresh (`refresh_in`), in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_in: Option<u64>,
    /// The scope that was granted, where the answer named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A digest of requested scope, audience and resource: when it changes the access token is dropped.
    #[serde(default)]
    pub request_digest: String,
    /// Counts the access tokens ever obtained; the cell's generation follows it.
    #[serde(default)]
    pub generation: u64,
    /// SHA-256 (hex) of every configured seed so far: none of them is redeemed again.
    #[serde(default)]
    pub seeds_seen: Vec<String>,
    /// Whether a token request may be under way.
    #[serde(default)]
    pub state: RecordState,
    /// What was seen of the provider.
    #[serde(default)]
    pub observed: Observed,
}

/// What makes two records the same credential.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// The token endpoint, or the issuer where it is discovered.
    pub endpoint: String,
    /// The client id.
    pub client_id: String,
    /// The subject of a user assertion, the user name of a password grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Whether a token request may be under way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum RecordState {
    /// Nothing is under way.
    #[default]
    Idle,
    /// A token request with the named refresh token was about to be sent, or was sent.
    InFlight(InFlight),
}

/// The mark that is durable before a token request is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// A random id of the process that wrote it, new at every start.
    pub owner: String,
    /// When.
    pub since: UnixTime,
    /// SHA-256 (hex) of the refresh token that was spent; empty where the grant spends none.
    pub rt_hash: String,
}

/// What was seen of the provider.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Whether a refresh brought a new refresh token: `None` until seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotates: Option<bool>,
    /// Whether the old access token died at the refresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kills_old_access_token: Option<bool>,
    /// The refresh token's lifetime in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_lifetime: Option<u64>,
}

impl Record {
    /// A record with nothing in it, never written yet.
    pub fn new(identity: Identity) -> Self {
        Self {
            format: FORMAT,
            version: 0,
            identity,
            refresh_token: None,
            refresh_expires_at: None,
            access_token: None,
            expires_at: None,
            obtained_at: None,
            refresh_in: None,
            scope: None,
            request_digest: String::new(),
            generation: 0,
            seeds_seen: Vec::new(),
            state: RecordState::Idle,
            observed: Observed::default(),
        }
    }

    /// Whether this seed was adopted before.
    pub fn has_seen(&self, seed: Fingerprint) -> bool {
        let hex = seed.to_hex();
        self.seeds_seen.contains(&hex)
    }
}

mod secret_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::secret::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => to.serialize_some(secret.expose()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Secret::new))
    }
}
