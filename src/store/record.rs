//! The record: what is kept of one credential.
//!
//! Owns: its fields, their meaning and their JSON. Secrets in it serialise in the clear, since the record
//! *is* the secret; only a store ever serialises one, into a buffer that is zeroed. `Debug` shows
//! fingerprints, and no error quotes what it could not read.

use std::io;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

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
    /// Header fields that go with the access token, as its answer asked.
    #[serde(with = "secret_pairs", default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Secret)>,
    /// The private key that the tokens are bound to (RFC 9449).
    #[serde(with = "secret_text", default, skip_serializing_if = "Option::is_none")]
    pub dpop_key: Option<Secret>,
    /// How the tokens are revoked once the credential is configured no more, where it asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
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

/// How tokens are revoked without a configuration. Holds no secret, only where one is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// `issuer`.
    pub issuer: Option<String>,
    /// `token_endpoint`.
    pub token_endpoint: Option<String>,
    /// `login.revocation_endpoint`.
    pub revocation_endpoint: Option<String>,
    /// `preset`.
    pub preset: String,
    /// `client.auth`.
    pub client_auth: String,
    /// `client.secret`.
    pub secret: Option<SecretPlace>,
    /// `client.basic_encoding: raw`.
    pub raw: bool,
    /// `tls.ca`.
    pub ca: Option<std::path::PathBuf>,
    /// `outbound_proxy`.
    pub outbound_proxy: Option<String>,
}

/// Where a secret is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPlace {
    /// An environment variable.
    Env(String),
    /// A file.
    File(std::path::PathBuf),
    /// A systemd credential.
    Systemd(String),
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
    /// The provider refused this refresh token for good: no other process need ask.
    Refused {
        /// SHA-256 (hex) of the refresh token.
        rt_hash: String,
        /// When.
        since: UnixTime,
    },
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
            headers: Vec::new(),
            dpop_key: None,
            revocation: None,
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

/// Why some bytes are no [`Record`]. Never quotes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON of a record.
    #[error("it is not the JSON of a record (line {line}, column {column})")]
    Malformed {
        /// From 1; 0 where the JSON is whole but not a record's.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Written by a later build.
    #[error("it has format {0}, and this build knows formats up to {FORMAT}")]
    Newer(u32),
    /// A number that no build ever wrote.
    #[error("it has the impossible {0}")]
    Impossible(&'static str),
}

impl Record {
    /// The JSON of the record, in a buffer that is zeroed when dropped.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let mut buffer = SecretBuffer(Zeroizing::new(Vec::with_capacity(8 * 1024)));
        serde_json::to_writer(&mut buffer, self)
            .expect("a record has no map keys or numbers that JSON lacks");
        buffer.0
    }

    /// Reads what [`Record::to_json`] wrote.
    pub fn from_json(json: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Probe {
            format: u32,
        }
        let malformed =
            |error: serde_json::Error| RecordError::Malformed { line: error.line(), column: error.column() };
        // The number first: a later format may have fields that this build cannot read.
        let probe: Probe = serde_json::from_slice(json).map_err(malformed)?;
        match probe.format {
            0 => return Err(RecordError::Impossible("format 0")),
            FORMAT => {}
            newer => return Err(RecordError::Newer(newer)),
        }
        let record: Self = serde_json::from_slice(json).map_err(malformed)?;
        if record.version == 0 {
            return Err(RecordError::Impossible("version 0"));
        }
        Ok(record)
    }

    /// Whether both say the same, whatever their versions: how a writer finds that its own earlier
    /// attempt had landed.
    pub fn same_content(&self, other: &Self) -> bool {
        let mut other = other.clone();
        other.version = self.version;
        *self == other
    }
}

/// A growing buffer that leaves no copy behind when it grows, as a plain vector would.
struct SecretBuffer(Zeroizing<Vec<u8>>);

impl io::Write for SecretBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity((self.0.len() + bytes.len()) * 2);
            larger.extend_from_slice(&self.0);
            self.0 = Zeroizing::new(larger);
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

mod secret_pairs {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::secret::Secret;

    pub(super) fn serialize<S: Serializer>(pairs: &[(String, Secret)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(pairs.iter().map(|(name, value)| (name, value.expose())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, Secret)>, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(from)?;
        Ok(pairs.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        Record { version: 7, ..crate::store::contract::full_record() }
    }

    #[test]
    fn every_field_survives_the_round_trip() {
        let record = full();
        assert_eq!(Record::from_json(&record.to_json()), Ok(record));
        let mut sparse = Record::new(Identity::default());
        sparse.version = 1;
        assert_eq!(Record::from_json(&sparse.to_json()), Ok(sparse));
    }

    #[test]
    fn a_large_token_outgrows_the_buffer_whole() {
        let mut record = full();
        record.access_token = Some(Secret::new("x".repeat(60_000)));
        assert_eq!(Record::from_json(&record.to_json()), Ok(record));
    }

    #[test]
    fn debug_and_errors_show_no_secret() {
        let record = full();
        let shown = format!("{record:?}");
        assert!(!shown.contains("access-token") && !shown.contains("quoted"), "{shown}");
        let json = r#"{"format":1,"version":"s3cret-where-a-number-stands","identity":{}}"#;
        let error = Record::from_json(json.as_bytes()).expect_err("not a record").to_string();
        assert!(!error.contains("s3cret"), "{error}");
        assert!(error.contains("line 1, column"), "{error}");
    }

    #[test]
    fn other_formats_are_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            let json = String::from_utf8(full().to_json().to_vec()).expect("UTF-8").replacen(from, to, 1);
            assert_eq!(Record::from_json(json.as_bytes()).expect_err(to).to_string(), expected);
        };
        check(r#""format":1"#, r#""format":2"#, "it has format 2, and this build knows formats up to 1");
        check(r#""format":1"#, r#""format":0"#, "it has the impossible format 0");
        check(r#""version":7"#, r#""version":0"#, "it has the impossible version 0");
        assert!(matches!(Record::from_json(b"{}"), Err(RecordError::Malformed { .. })));
    }
}
