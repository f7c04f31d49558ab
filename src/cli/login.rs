//! `bearward login`: the first refresh token, from a person.
//!
//! Owns: the order of a login: the store's lease before anybody is asked, one token request, the store, and only then
//! the word that it is done. Never shows a token.

mod callback;
mod device;
mod page;
mod paste;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ConfigPath, check, exit, fail};
use crate::clock::Clock;
use crate::config::Config;
use crate::credential::CredentialConfig;
use crate::credential::login::Installation;
use crate::oauth::login::{Authorization, Endpoints};
use crate::oauth::{Failure, Grant, OAuthClient, TokenResponse};
use crate::store::{Store, StoreKind};

/// `bearward login`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The credential's name
    credential: String,
    #[command(flatten)]
    config: ConfigPath,
    /// Shows a code (and a QR code) to be entered on another device
    #[arg(long, conflicts_with_all = ["no_browser", "manual"])]
    device: bool,
    /// Prints the address instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    /// Asks for the address that the browser was sent to at the end: for a browser on another machine
    #[arg(long)]
    manual: bool,
    /// How long to wait for the person
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// One login.
struct Login<'a> {
    credential: &'a CredentialConfig,
    client: OAuthClient,
    endpoints: Endpoints,
    clock: Clock,
    deadline: Instant,
}

/// What a person is told at the end of a login that failed, and how the process ends.
#[derive(Debug)]
struct Failed {
    code: u8,
    message: String,
}

/// Logs in.
pub fn login(arguments: &Arguments) -> u8 {
    let config = match check::load(arguments.config.config.as_deref()) {
        Ok((_, config)) => config,
        Err(_) => return exit::INVALID,
    };
    let credential = match find(&config, &arguments.credential) {
        Ok(credential) => credential,
        Err(message) => return fail(exit::INVALID, &message),
    };
    match super::block_on(run(arguments, &config, credential)) {
        Ok(Ok(generation)) => {
            let name = &credential.name;
            anstream::eprintln!(
                "{name}: logged in. The refresh token is in the store (generation {generation}); a running bearward takes \
                 it over within a second."
            );
            exit::OK
        }
        Ok(Err(failed)) => fail(failed.code, &format!("{}: {}", credential.name, failed.message)),
        Err(code) => code,
    }
}

/// The credential of that name.
pub(super) fn find<'a>(config: &'a Config, name: &str) -> Result<&'a CredentialConfig, String> {
    config.credentials.iter().find(|credential| credential.name.as_str() == name).ok_or_else(|| {
        let known: Vec<_> = config.credentials.iter().map(|known| known.name.as_str()).collect();
        match known.as_slice() {
            [] => "the configuration has no credentials".to_owned(),
            known => format!("there is no credential `{name}`; there is {}", known.join(", ")),
        }
    })
}

/// Opens the store that other processes see.
pub(super) async fn open_store(config: &Config) -> Result<Store, String> {
    if matches!(config.store.kind, StoreKind::Memory { .. }) {
        return Err(
            "`store: {kind: memory}` is gone with its process, so that nothing can be put into it from outside; \
             use `store: {kind: file}`"
                .into(),
        );
    }
    Store::open(&config.store).await.map_err(|error| error.to_string())
}

async fn run(arguments: &Arguments, config: &Config, credential: &CredentialConfig) -> Result<u64, Failed> {
    if !matches!(credential.oauth.grant, Grant::RefreshToken { .. }) {
        return Err(Failed::invalid(format!(
            "`grant: {}` obtains its tokens without a person; only `grant: refresh_token` needs a login",
            credential.oauth.grant.as_str()
        )));
    }
    let store = open_store(config).await.map_err(Failed::run_time)?;
    let client =
        OAuthClient::try_new(credential.oauth.clone()).map_err(|error| Failed::invalid(error.to_string()))?;
    let clock = Clock::System;
    let endpoints = client.endpoints(clock.wall()).await.map_err(|failure| Failed::of(&failure))?;
    // A store that cannot be written is told before a person has typed a password.
    let mut installation =
        Installation::begin(credential, &store).await.map_err(|error| Failed::run_time(error.to_string()))?;
    installation.stored().await.map_err(|error| Failed::run_time(error.to_string()))?;
    installation.bind(&client).map_err(|error| Failed::run_time(error.to_string()))?;
    let deadline = Instant::now() + arguments.timeout;
    let login = Login { credential, client, endpoints, clock, deadline };
    if arguments.device {
        let response = login.by_device().await?;
        return login.install(&installation, &response).await;
    }
    if arguments.manual {
        return login.by_paste(&installation).await;
    }
    login.by_browser(&installation, !arguments.no_browser).await
}

impl Login<'_> {
    fn authorization(&self, redirect_uri: &str) -> Result<Authorization, Failed> {
        Authorization::begin(&self.credential.oauth, &self.endpoints, redirect_uri).ok_or_else(|| {
            let other = if self.endpoints.device.is_some() { ", or use `--device`" } else { "" };
            Failed::invalid(format!(
                "it is not known where a person logs in: add `login: {{authorization_endpoint: https://…}}` to the \
                 credential, or `issuer:` in place of `token_endpoint`{other}"
            ))
        })
    }

    async fn by_browser(&self, installation: &Installation<'_>, open: bool) -> Result<u64, Failed> {
        let callback = callback::Callback::bind(self.credential.oauth.login.redirect_uri.as_ref())
            .await
            .map_err(Failed::invalid)?;
        let authorization = Arc::new(self.authorization(callback.redirect_uri())?);
        let url = authorization.url().as_str();
        let opened = open && has_screen() && webbrowser::open(url).is_ok();
        let how = if opened {
            "A browser opens. If it does not, open"
        } else {
            "Open in a browser on this machine"
        };
        anstream::eprintln!("{how}:\n\n  {url}\n");
        anstream::eprintln!(
            "Waiting for the login, for up to {}. (On another machine: `--manual`, or `--device`.)",
            humantime::format_duration(self.left())
        );
        let received =
            callback.wait(Arc::clone(&authorization), self.deadline).await.map_err(Failed::run_time)?;
        let outcome = match self.redeem(&authorization, &received.code).await {
            Ok(response) => self.install(installation, &response).await,
            Err(failed) => Err(failed),
        };
        received.tell(outcome.as_ref().err().map(|failed| failed.message.as_str())).await;
        outcome
    }

    async fn by_paste(&self, installation: &Installation<'_>) -> Result<u64, Failed> {
        let redirect_uri = match &self.credential.oauth.login.redirect_uri {
            Some(uri) => uri.to_string(),
            None => "http://127.0.0.1/callback".to_owned(),
        };
        let authorization = self.authorization(&redirect_uri)?;
        anstream::eprintln!("Open in any browser:\n\n  {}\n", authorization.url());
        anstream::eprintln!(
            "At the end the browser is sent to {redirect_uri}?code=…, which it may fail to show. Copy that whole \
             address from its address bar and paste it here:"
        );
        let code = paste::code(&authorization, self.deadline).await.map_err(Failed::run_time)?;
        let response = self.redeem(&authorization, &code).await?;
        self.install(installation, &response).await
    }

    async fn redeem(
        &self,
        authorization: &Authorization,
        code: &crate::secret::Secret,
    ) -> Result<TokenResponse, Failed> {
        let request = authorization.redeem(code);
        self.client.request(request, self.clock.wall()).await.map_err(|failure| Failed::of(&failure))
    }

    async fn install(
        &self,
        installation: &Installation<'_>,
        response: &TokenResponse,
    ) -> Result<u64, Failed> {
        if response.refresh_token.is_none() {
            return Err(Failed::run_time(
                "the provider gave an access token and no refresh token, so that there is nothing to keep fresh: ask \
                 for it (often `offline_access` in `scope`, or `login: {parameters: {access_type: offline}}`) and \
                 allow it for this client at the provider"
                    .into(),
            ));
        }
        installation
            .tokens(response, &self.clock)
            .await
            .map_err(|error| Failed::run_time(format!("the tokens could not be stored: {error}")))
    }

    fn left(&self) -> Duration {
        rounded(self.deadline.saturating_duration_since(Instant::now()))
    }
}

impl Failed {
    fn invalid(message: String) -> Self {
        Self { code: exit::INVALID, message }
    }

    fn run_time(message: String) -> Self {
        Self { code: exit::FAILED, message }
    }

    fn of(failure: &Failure) -> Self {
        Self::run_time(failure.to_string())
    }
}

/// To whole seconds.
fn rounded(left: Duration) -> Duration {
    Duration::from_secs((left + Duration::from_millis(500)).as_secs())
}

/// Whether a browser could show itself: a terminal of a person, and on Linux a display.
fn has_screen() -> bool {
    let display = ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"];
    std::io::stderr().is_terminal()
        && (cfg!(target_os = "macos") || display.iter().any(|name| std::env::var_os(name).is_some()))
}
