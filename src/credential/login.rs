//! What a login or an import brings into the store, and what a revocation takes out.
//!
//! Owns: the one way by which somebody else than the refresher writes a record: under the lease, with the family before
//! it kept aside. A running proxy takes it over by its watch.

use std::time::Duration;

use tokio::time::Instant;

use super::seed::{self, Wanted};
use super::{CredentialConfig, identity, request_digest};
use crate::clock::Clock;
use crate::oauth::dpop::DpopKey;
use crate::oauth::{Grant, OAuthClient, SetupError, TokenResponse};
use crate::secret::Secret;
use crate::store::{Lease, Record, RecordState, Store, StoreError};

/// How long another process's token request is waited for.
const LEASE_DEADLINE: Duration = Duration::from_secs(45);
const LEASE_PAUSE: Duration = Duration::from_millis(100);

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Somebody holds the lease and does not give it back.
    #[error(
        "another process{} is busy with `{name}` and does not finish: let it go on, or end it, and try again",
        .holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Busy {
        /// The credential.
        name: crate::names::Name,
        /// The process, if it can be told.
        holder: Option<u32>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The exclusive right to write a credential's record, held from before a person is asked to act.
#[derive(Debug)]
pub struct Installation<'a> {
    config: &'a CredentialConfig,
    store: &'a Store,
    lease: Lease,
    /// The key that the tokens of this login are bound to.
    dpop_key: Option<Secret>,
}

impl<'a> Installation<'a> {
    /// Takes the lease; waits for a token request that is under way.
    pub async fn begin(config: &'a CredentialConfig, store: &'a Store) -> Result<Self, InstallError> {
        let deadline = Instant::now() + LEASE_DEADLINE;
        loop {
            if let Some(lease) = store.try_lease(&config.name).await? {
                return Ok(Self { config, store, lease, dpop_key: None });
            }
            if Instant::now() >= deadline {
                let holder = store.lease_holder(&config.name).await;
                return Err(InstallError::Busy { name: config.name.clone(), holder });
            }
            tokio::time::sleep(LEASE_PAUSE).await;
        }
    }

    /// Binds the tokens that `client` is about to obtain to a new key, where `dpop` is configured.
    pub fn bind(&mut self, client: &OAuthClient) -> Result<(), SetupError> {
        if self.config.oauth.dpop {
            let stored = DpopKey::generate()?;
            client.bind(DpopKey::try_new(&stored)?);
            self.dpop_key = Some(stored);
        }
        Ok(())
    }

    /// What is stored now.
    pub async fn stored(&self) -> Result<Option<Record>, StoreError> {
        self.store.load(&self.config.name).await
    }

    /// Makes the pair of a login the one that is kept; gives its generation.
    pub async fn tokens(&self, response: &TokenResponse, clock: &Clock) -> Result<u64, InstallError> {
        let now = clock.wall();
        let lifetime = response.expires_in.unwrap_or(self.config.default_lifetime);
        let told = response.refresh_token_expires_in.or(self.config.refresh_token_lifetime);
        self.begin_family("a login brought a new refresh token", |record| {
            record.refresh_token.clone_from(&response.refresh_token);
            record.refresh_expires_at = told.map(|told| now.plus(told));
            record.access_token = Some(response.access_token.clone());
            record.headers.clone_from(&response.headers);
            record.obtained_at = Some(now);
            record.expires_at = Some(now.plus(lifetime));
            record.refresh_in = response.refresh_in.map(|told| told.as_secs());
            record.scope.clone_from(&response.scope);
        })
        .await
    }

    /// Makes a refresh token the one that is kept; the access token is obtained with it.
    pub async fn refresh_token(&self, token: &Secret) -> Result<u64, InstallError> {
        self.begin_family("a refresh token was imported", |record| {
            record.refresh_token = Some(token.clone());
            record.refresh_expires_at = None;
            drop_access_token(record);
        })
        .await
    }

    /// Makes a record of another store the one that is kept.
    pub async fn record(&self, from: &Record) -> Result<u64, InstallError> {
        self.begin_family("a record was imported", |record| {
            let seeds = from.seeds_seen.iter().filter(|seed| !record.seeds_seen.contains(seed));
            let seeds_seen = record.seeds_seen.iter().chain(seeds).cloned().collect();
            let generation = record.generation.max(from.generation);
            *record = Record { seeds_seen, generation, version: record.version, ..from.clone() };
        })
        .await
    }

    /// Takes both tokens out of the record: the credential waits for a login.
    pub async fn clear(&self) -> Result<u64, InstallError> {
        self.begin_family("its tokens were revoked", |record| {
            record.refresh_token = None;
            record.refresh_expires_at = None;
            drop_access_token(record);
        })
        .await
    }

    /// Writes a record of another family. The one before is kept aside; seeds that were seen stay seen, and the one that
    /// is configured now counts as seen, so that it does not replace what was just brought.
    async fn begin_family(&self, why: &str, change: impl FnOnce(&mut Record)) -> Result<u64, InstallError> {
        let oauth = &self.config.oauth;
        let wanted = Wanted { identity: identity(oauth), request_digest: request_digest(oauth) };
        let stored = self.stored().await?;
        let had_tokens = stored.as_ref().is_some_and(|record| record.refresh_token.is_some());
        let seed::Reconciled { mut record, aside, .. } = seed::reconcile(stored, &wanted, None);
        if let Grant::RefreshToken { seed: Some(source) } = &oauth.grant
            && let Ok(seed) = source.read().await
            && !record.has_seen(seed.fingerprint())
        {
            record.seeds_seen.push(seed.fingerprint().to_hex());
        }
        record.state = RecordState::Idle;
        record.revocation = super::removal::note(self.config);
        if self.dpop_key.is_some() {
            record.dpop_key.clone_from(&self.dpop_key);
        }
        change(&mut record);
        record.generation += 1;
        if aside.is_some() || had_tokens {
            self.store.set_aside(&self.lease, &self.config.name, aside.unwrap_or(why)).await?;
            record.version = 0;
        }
        self.store.commit(&self.lease, record.version, &record).await?;
        Ok(record.generation)
    }
}

fn drop_access_token(record: &mut Record) {
    record.access_token = None;
    record.headers = Vec::new();
    record.expires_at = None;
    record.obtained_at = None;
    record.refresh_in = None;
    record.scope = None;
}
