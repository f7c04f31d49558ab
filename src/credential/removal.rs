//! Revoking the tokens of credentials that were taken out of the configuration (`revoke_on_removal`, RFC 7009).
//!
//! Owns: what a record keeps so that this can be done when nothing of the credential is configured any more. A secret is
//! not among it, only where it is read from. Never revokes what is configured, and nothing at a shutdown.

use std::time::Duration;

use url::Url;

use super::CredentialConfig;
use crate::clock::Clock;
use crate::names::Name;
use crate::oauth::login::LoginConfig;
use crate::oauth::{
    BasicEncoding, ClientAuth, EndpointSource, Failure, Grant, OAuthClient, OAuthConfig, SetupError, preset,
};
use crate::secret::SecretSource;
use crate::store::{Record, Revocation, SecretPlace, Store, StoreError};
use crate::tls::TlsClientConfig;

/// Between two tries, doubled each time up to the limit.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Why tokens could not be revoked. What may pass is tried again.
#[derive(Debug, thiserror::Error)]
enum RemovalError {
    #[error("another process is busy with it")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Refused(#[from] Box<Failure>),
    #[error("it is not known where its provider revokes tokens")]
    NoEndpoint,
}

/// Whether what is configured suffices to revoke later: a key, or a secret that stands in the configuration, is gone by
/// then.
pub fn can_be_kept(auth: &ClientAuth) -> bool {
    match auth {
        ClientAuth::Basic { secret, .. } | ClientAuth::Post { secret } => place(secret).is_some(),
        ClientAuth::None => true,
        _ => false,
    }
}

/// What the record keeps, where the credential asks for it.
pub(super) fn note(config: &CredentialConfig) -> Option<Revocation> {
    let oauth = &config.oauth;
    if !config.revoke_on_removal || !can_be_kept(&oauth.client_auth) {
        return None;
    }
    let (secret, raw) = match &oauth.client_auth {
        ClientAuth::Basic { secret, encoding } => (Some(secret), *encoding == BasicEncoding::Raw),
        ClientAuth::Post { secret } => (Some(secret), false),
        _ => (None, false),
    };
    let url = |url: &Url| url.to_string();
    Some(Revocation {
        issuer: match &oauth.endpoint {
            EndpointSource::Issuer(issuer) => Some(url(issuer)),
            _ => None,
        },
        token_endpoint: match &oauth.endpoint {
            EndpointSource::Url(endpoint) => Some(url(endpoint)),
            _ => None,
        },
        revocation_endpoint: oauth.login.revocation_endpoint.as_ref().map(url),
        preset: oauth.preset.name.to_owned(),
        client_auth: oauth.client_auth.as_str().to_owned(),
        secret: secret.and_then(place),
        raw,
        ca: oauth.tls.ca.clone(),
        outbound_proxy: oauth.outbound_proxy.as_ref().map(url),
    })
}

fn place(secret: &SecretSource) -> Option<SecretPlace> {
    match secret {
        SecretSource::Env(name) => Some(SecretPlace::Env(name.clone())),
        SecretSource::File(path) => Some(SecretPlace::File(path.clone())),
        SecretSource::Systemd(name) => Some(SecretPlace::Systemd(name.clone())),
        // A command that stands in a file of the store would be run by whoever can write there.
        SecretSource::Value(_) | SecretSource::Exec(_) => None,
    }
}

/// Revokes the tokens of every stored credential that asked for it and is not configured. Goes on until all is done.
pub async fn revoke_removed(store: Store, configured: Vec<Name>, clock: Clock) {
    let mut pause = FIRST_PAUSE;
    while !pass(&store, &configured, &clock).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether there is nothing left to try.
async fn pass(store: &Store, configured: &[Name], clock: &Clock) -> bool {
    let keys = match store.list().await {
        Ok(keys) => keys,
        Err(error) => {
            tracing::debug!(%error, "the store cannot be listed yet");
            return false;
        }
    };
    let mut done = true;
    for key in keys.iter().filter(|key| !configured.contains(key)) {
        match revoke(store, key, clock).await {
            Ok(true) => {
                tracing::info!(credential = %key, "removed from the configuration: its tokens are revoked")
            }
            Ok(false) => {}
            Err(error @ (RemovalError::NoEndpoint | RemovalError::Setup(_))) => {
                tracing::error!(credential = %key, %error, "the tokens of a removed credential cannot be revoked");
            }
            Err(error) => {
                tracing::warn!(credential = %key, %error, "the tokens of a removed credential are not revoked yet");
                done = false;
            }
        }
    }
    done
}

/// Whether there was something to revoke.
async fn revoke(store: &Store, key: &Name, clock: &Clock) -> Result<bool, RemovalError> {
    let asks = |record: &Record| record.revocation.is_some() && holds_tokens(record);
    if !store.load(key).await?.is_some_and(|record| asks(&record)) {
        return Ok(false);
    }
    let lease = store.try_lease(key).await?.ok_or(RemovalError::Busy)?;
    let Some(record) = store.load(key).await?.filter(asks) else { return Ok(false) };
    let Some(kept) = &record.revocation else { return Ok(false) };
    let client = OAuthClient::try_new(settings(kept, &record)?)?;
    let now = clock.wall();
    let endpoints = client.endpoints(now).await.map_err(Box::new)?;
    let endpoint = endpoints.revocation.ok_or(RemovalError::NoEndpoint)?;
    // RFC 7009 2.1: the access tokens of the same grant should die with the refresh token; not all servers do that.
    for (token, hint) in [(&record.refresh_token, "refresh_token"), (&record.access_token, "access_token")] {
        if let Some(token) = token {
            client.revoke(&endpoint, token, hint, now).await.map_err(Box::new)?;
        }
    }
    store.set_aside(&lease, key, "removed from the configuration and revoked").await?;
    Ok(true)
}

fn holds_tokens(record: &Record) -> bool {
    record.refresh_token.is_some() || record.access_token.is_some()
}

fn settings(kept: &Revocation, record: &Record) -> Result<OAuthConfig, SetupError> {
    let url = |text: &Option<String>| match text {
        Some(text) => Url::parse(text)
            .map(Some)
            .map_err(|_| SetupError::Http("the record names an endpoint that is no URL".into())),
        None => Ok(None),
    };
    let secret = kept.secret.as_ref().map(|place| match place {
        SecretPlace::Env(name) => SecretSource::Env(name.clone()),
        SecretPlace::File(path) => SecretSource::File(path.clone()),
        SecretPlace::Systemd(name) => SecretSource::Systemd(name.clone()),
    });
    let client_auth = match (kept.client_auth.as_str(), secret) {
        ("client_secret_basic", Some(secret)) => ClientAuth::Basic {
            secret,
            encoding: if kept.raw { BasicEncoding::Raw } else { BasicEncoding::Form },
        },
        ("client_secret_post", Some(secret)) => ClientAuth::Post { secret },
        _ => ClientAuth::None,
    };
    let endpoint = match (url(&kept.issuer)?, url(&kept.token_endpoint)?) {
        (Some(issuer), _) => EndpointSource::Issuer(issuer),
        (None, Some(endpoint)) => EndpointSource::Url(endpoint),
        (None, None) => EndpointSource::None,
    };
    let login =
        LoginConfig { revocation_endpoint: url(&kept.revocation_endpoint)?, ..LoginConfig::default() };
    Ok(OAuthConfig {
        endpoint,
        preset: preset::find(&kept.preset).unwrap_or(&preset::GENERIC),
        client_id: record.identity.client_id.clone(),
        client_auth,
        grant: Grant::RefreshToken { seed: None },
        scope: None,
        refresh_scope: None,
        audience: None,
        resource: Vec::new(),
        parameters: std::collections::BTreeMap::new(),
        login: Box::new(login),
        dpop: false,
        carried: Vec::new(),
        tls: TlsClientConfig { ca: kept.ca.clone(), ..TlsClientConfig::default() },
        outbound_proxy: url(&kept.outbound_proxy)?,
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(30),
    })
}
