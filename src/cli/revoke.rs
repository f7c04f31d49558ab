//! `bearward revoke`: ends a credential's tokens at the provider (RFC 7009) and takes them out of the store.

use super::{ConfigPath, check, exit, fail, login};
use crate::clock::Clock;
use crate::config::Config;
use crate::credential::CredentialConfig;
use crate::credential::login::Installation;
use crate::oauth::OAuthClient;

/// `bearward revoke`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The credential's name
    credential: String,
    #[command(flatten)]
    config: ConfigPath,
}

/// Revokes; a running proxy stops to send the tokens within a second.
pub fn revoke(arguments: &Arguments) -> u8 {
    let config = match check::load(arguments.config.config.as_deref()) {
        Ok((_, config)) => config,
        Err(_) => return exit::INVALID,
    };
    let credential = match login::find(&config, &arguments.credential) {
        Ok(credential) => credential,
        Err(message) => return fail(exit::INVALID, &message),
    };
    match super::block_on(run(&config, credential)) {
        Ok(Ok(message)) => {
            anstream::eprintln!("{}: {message}", credential.name);
            exit::OK
        }
        Ok(Err((code, message))) => fail(code, &format!("{}: {message}", credential.name)),
        Err(code) => code,
    }
}

async fn run(config: &Config, credential: &CredentialConfig) -> Result<&'static str, (u8, String)> {
    let failed = |message: String| (exit::FAILED, message);
    let store = login::open_store(config).await.map_err(failed)?;
    let client =
        OAuthClient::try_new(credential.oauth.clone()).map_err(|error| (exit::INVALID, error.to_string()))?;
    let now = Clock::System.wall();
    let endpoints = client.endpoints(now).await.map_err(|failure| failed(failure.to_string()))?;
    let endpoint = endpoints.revocation.ok_or_else(|| {
        let message = "it is not known where tokens are revoked: add `login: {revocation_endpoint: https://…}` to the \
                       credential, or `issuer:` in place of `token_endpoint`; nothing was revoked";
        (exit::INVALID, message.to_owned())
    })?;
    let installation =
        Installation::begin(credential, &store).await.map_err(|error| failed(error.to_string()))?;
    let stored = installation.stored().await.map_err(|error| failed(error.to_string()))?;
    let Some(record) = stored else {
        return Ok("the store holds no tokens of it: there is nothing to revoke");
    };
    if record.refresh_token.is_none() && record.access_token.is_none() {
        return Ok("its tokens are out of the store already: there is nothing to revoke");
    }
    if let Some(token) = &record.refresh_token {
        // RFC 7009 2.1: the access tokens of the same grant should die with it.
        client.revoke(&endpoint, token, "refresh_token", now).await.map_err(|failure| {
            failed(format!(
                "nothing was changed, since the provider did not revoke the refresh token: {failure}"
            ))
        })?;
    }
    if let Some(token) = &record.access_token
        && let Err(failure) = client.revoke(&endpoint, token, "access_token", now).await
    {
        anstream::eprintln!("bearward: the access token lives on until it expires: {failure}");
    }
    installation.clear().await.map_err(|error| {
        failed(format!("the tokens are revoked at the provider and still in the store: {error}"))
    })?;
    Ok("revoked at the provider and taken out of the store; `bearward login` begins anew")
}
