//! The embedded authorization server and echo API of `bearward try` and of the tests.
//!
//! Owns: the OCI identity-domain contract of the token endpoint (Basic and assertion forms, single-use
//! refresh tokens whose reuse revokes the family), the API that takes live tokens only, and every way in
//! which a provider can misbehave. It is a real server on real sockets; it is no place to keep real accounts.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use bearward::idp::{Fault, Idp, Settings};
//!
//! let idp = Idp::start(Settings::default()).await?;
//! let seed = idp.new_seed();
//! idp.faults().push(Fault::DropAfter); // the next answer is lost
//! println!("{} {seed}", idp.token_endpoint());
//! # Ok(()) }
//! ```

mod answer;
mod assertion;
mod client;
mod control;
mod echo;
mod fault;
mod form;
mod ledger;
mod log;
mod refusal;
mod server;
mod service;
mod settings;
mod token;
mod vendor;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::secret::Secret;
use crate::shutdown::Shutdown;
pub use echo::{ApiStats, Seen};
pub use fault::{Fault, Faults, FixedAnswer, Plan};
pub use ledger::{FamilyReport, FamilyState, RefreshTokenReport, RefusedToken};
pub use log::{AuthMethod, LogEntry, Outcome};
pub use settings::{
    BasicDecoding, Behaviour, Client, DEFAULT_CLIENT, DEFAULT_SECRET, DEFAULT_USER, EXPIRY_SCOPE,
    EXPIRY_SCOPE_LIFETIME, GraceAnswer, Issuer, ORACLE_ISSUER, Rotation, Settings, User, VerifyingKey,
};

/// The scope of seeds that name none.
pub const DEFAULT_SCOPE: &str = "urn:opc:idm:__myscopes__ offline_access";

/// A running authorization server with its echo API. Stops when dropped.
#[derive(Debug)]
pub struct Idp {
    shared: Arc<Shared>,
    address: SocketAddr,
    api_address: SocketAddr,
    /// The token endpoint's listener; another one after [`Idp::reopen`].
    serving: Mutex<Shutdown>,
    api: Shutdown,
}

/// What connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    authority: Mutex<token::Authority>,
    api: Mutex<ApiStats>,
    faults: Faults,
    /// How many token requests have come.
    arrived: watch::Sender<u64>,
    base_url: String,
    issuer: String,
    /// Carries requests on whose client has gone away.
    requests: Shutdown,
}

impl Shared {
    fn authority(&self) -> MutexGuard<'_, token::Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self) -> MutexGuard<'_, ApiStats> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_seed(&self, client: &str, scope: &str) -> Secret {
        let mut authority = self.authority();
        let token::Authority { clock, behaviour, ledger, .. } = &mut *authority;
        let pair = ledger.begin(clock.boot(), behaviour, (client, DEFAULT_USER, scope), true);
        pair.refresh_token.expect("`begin` was asked for one")
    }
}

impl Idp {
    /// Where the control API lives on the token endpoint's listener.
    pub const CONTROL_PREFIX: &'static str = "/_control/";
    /// The path of the token endpoint.
    pub const TOKEN_PATH: &'static str = "/oauth2/v1/token";

    /// The path of a token endpoint that is not OAuth's.
    pub const VENDOR_PATH: &'static str = "/api/v2/session";

    /// Binds both listeners and serves on the current runtime.
    pub async fn start(settings: Settings) -> std::io::Result<Self> {
        let listener = TcpListener::bind(settings.bind).await?;
        let api_listener = TcpListener::bind(settings.api_bind).await?;
        Self::run(settings, listener, api_listener)
    }

    /// Serves on listeners that are bound already; `bind` and `api_bind` are not looked at.
    pub fn run(
        settings: Settings,
        listener: TcpListener,
        api_listener: TcpListener,
    ) -> std::io::Result<Self> {
        let (address, api_address) = (listener.local_addr()?, api_listener.local_addr()?);
        let base_url = format!("http://{address}");
        let issuer = match settings.issuer {
            Issuer::Own => base_url.clone(),
            Issuer::Oracle => ORACLE_ISSUER.to_owned(),
            Issuer::Other(text) => text,
        };
        let audiences = vec![
            issuer.clone(),
            base_url.clone(),
            format!("{base_url}/"),
            format!("{base_url}{}", Self::TOKEN_PATH),
        ];
        let authority = token::Authority {
            clock: settings.clock,
            clients: settings.clients,
            users: settings.users,
            behaviour: settings.behaviour,
            ledger: ledger::Ledger::default(),
            log: log::RequestLog::default(),
            used: assertion::UsedAssertions::default(),
            audiences,
        };
        let shared = Arc::new(Shared {
            authority: Mutex::new(authority),
            api: Mutex::default(),
            faults: Faults::default(),
            arrived: watch::Sender::new(0),
            base_url,
            issuer,
            requests: Shutdown::new(),
        });
        let api = Shutdown::new();
        let for_api = shared.clone();
        let api_handler = move |request, connection| service::api(for_api.clone(), request, connection);
        api.spawn("echo api", server::serve(api_listener, api.clone(), api_handler));
        let serving = Mutex::new(serve_authority(&shared, listener));
        Ok(Self { shared, address, api_address, serving, api })
    }

    /// The server's own URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.shared.base_url
    }

    /// The issuer in its metadata.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// The URL of the token endpoint.
    pub fn token_endpoint(&self) -> String {
        format!("{}{}", self.shared.base_url, Self::TOKEN_PATH)
    }

    /// The URL of a token endpoint that is not OAuth's: see `vendor.rs` for what it takes.
    pub fn vendor_endpoint(&self) -> String {
        format!("{}{}", self.shared.base_url, Self::VENDOR_PATH)
    }

    /// The URL of the control API, with a slash at its end.
    pub fn control_url(&self) -> String {
        format!("{}{}", self.shared.base_url, Self::CONTROL_PREFIX)
    }

    /// The URL of the echo API, without a slash at its end.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api_address)
    }

    /// A fresh refresh token of a new family, for the first client.
    pub fn new_seed(&self) -> Secret {
        let first = self.shared.authority().clients.first().map(|client| client.id.clone());
        self.new_seed_for(&first.unwrap_or_default(), DEFAULT_SCOPE)
    }

    /// A fresh refresh token of a new family.
    pub fn new_seed_for(&self, client: &str, scope: &str) -> Secret {
        self.shared.new_seed(client, scope)
    }

    /// What goes wrong with the token requests to come.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Changes how the server treats tokens, from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.authority().behaviour);
    }

    /// Changes the registered clients: a rotated secret, another key.
    pub fn change_clients(&self, change: impl FnOnce(&mut Vec<Client>)) {
        change(&mut self.shared.authority().clients);
    }

    /// Changes the users that the password grant and user assertions know.
    pub fn change_users(&self, change: impl FnOnce(&mut Vec<User>)) {
        change(&mut self.shared.authority().users);
    }

    /// The token requests so far, oldest first.
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.authority().log.entries()
    }

    /// The latest token request.
    pub fn latest(&self) -> Option<LogEntry> {
        self.shared.authority().log.latest().cloned()
    }

    /// How many token requests have come.
    pub fn posts(&self) -> u64 {
        *self.shared.arrived.borrow()
    }

    /// Resolves when `count` token requests have come.
    pub async fn posts_reached(&self, count: u64) {
        let mut arrived = self.shared.arrived.subscribe();
        // The sender lives as long as `self`.
        let _ = arrived.wait_for(|arrived| *arrived >= count).await;
    }

    /// Every family, oldest first.
    pub fn families(&self) -> Vec<FamilyReport> {
        self.shared.authority().ledger.families()
    }

    /// Revokes a family.
    pub fn revoke_family(&self, id: u64) {
        self.shared.authority().ledger.revoke_family(id);
    }

    /// Kills every access token; refresh tokens stay good.
    pub fn kill_access_tokens(&self) {
        self.shared.authority().ledger.kill_access_tokens(None);
    }

    /// Whether the API would take this access token now.
    pub fn accepts(&self, access_token: &Secret) -> bool {
        let authority = self.shared.authority();
        authority.ledger.live_access_token(authority.clock.boot(), access_token.fingerprint()).is_some()
    }

    /// What the echo API has seen.
    pub fn api(&self) -> ApiStats {
        self.shared.api().clone()
    }

    /// Closes the token endpoint: its port refuses connections, open ones break. The API goes on, and so
    /// do requests that were read whole.
    pub async fn close(&self) {
        let serving = self.serving().clone();
        serving.begin();
        serving.finished().await;
    }

    /// Opens the token endpoint again on its port.
    pub async fn reopen(&self) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        *self.serving() = serve_authority(&self.shared, listener);
        Ok(())
    }

    fn serving(&self) -> MutexGuard<'_, Shutdown> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.serving().begin();
        self.api.begin();
        self.shared.requests.begin();
    }
}

fn serve_authority(shared: &Arc<Shared>, listener: TcpListener) -> Shutdown {
    let shutdown = Shutdown::new();
    let shared = shared.clone();
    let handler = move |request, connection| service::authority(shared.clone(), request, connection);
    shutdown.spawn("authorization server", server::serve(listener, shutdown.clone(), handler));
    shutdown
}
