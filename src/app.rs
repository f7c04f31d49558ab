//! The composition root: builds, binds, spawns, and stops in order.
//!
//! Owns: the order of starting (sockets before tokens: a port in use must cost nothing) and of stopping
//! (readiness, accepting, requests, refreshes, admin).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::Running;
use crate::admin::access::Access;
use crate::admin::serve::{self, Socket};
use crate::clock::Clock;
use crate::config::Config;
use crate::credential::{
    Binder, BindingError, BoundCredential, BoundUsers, Credential, CredentialConfig, Users, removal,
};
use crate::listener::{BindAddress, BoundListeners, ListenerError};
use crate::names::Name;
use crate::oauth::{Grant, SetupError};
use crate::origin::Origin;
use crate::policy::clients::{ClientError, Clients};
use crate::route::RouteConfig;
use crate::secret::SecretError;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};
use crate::telemetry::access::{AccessLog, OpenError};
use crate::tls::renewal;

/// A running proxy.
#[derive(Debug)]
pub struct App {
    running: Arc<Running>,
    admin_address: Option<String>,
    health_address: Option<String>,
    admin_until: CancellationToken,
    shutdown: Shutdown,
    grace: Duration,
}

/// Longer than a token request may take, with the write behind it.
const REFRESH_GRACE: Duration = Duration::from_secs(40);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was lost.
    Clean,
    /// A rotated refresh token never reached the disk.
    Unsaved,
}

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// What a client is known by.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The admin or health listener.
    #[error(transparent)]
    Admin(#[from] serve::BindError),
    /// `admin.token`.
    #[error("admin.token: {0}")]
    AdminToken(SecretError),
    /// The access or the audit log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The token store.
    #[error("the token store cannot be used: {0}")]
    Store(#[from] StoreError),
    /// A credential's keys, secrets or TLS files.
    #[error("credential `{name}`: {error}")]
    Credential {
        /// Which.
        name: Name,
        /// Why.
        error: SetupError,
    },
    /// A route and its credential do not fit.
    #[error("route `{route}`: {error}")]
    Binding {
        /// Which.
        route: Name,
        /// Why.
        error: BindingError,
    },
    /// Signals cannot be received.
    #[error("signal handlers could not be installed: {0}")]
    Signals(std::io::Error),
}

impl StartError {
    /// 2 where the configuration must change, 1 for causes of run time.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listener(ListenerError::OwnTls { .. }) | Self::Client(_) => 2,
            Self::Listener(_) | Self::Admin(_) | Self::Log(_) | Self::Signals(_) | Self::Store(_) => 1,
            Self::AdminToken(_) | Self::Credential { .. } | Self::Binding { .. } => 2,
        }
    }
}

impl App {
    /// Binds every socket, opens the store, starts the credentials, then accepts.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        let log = AccessLog::open(config.log.access.clone(), config.log.audit.clone())?;
        let clients = Clients::try_new(&config.clients)?;
        let bound = BoundListeners::bind(&config.listeners, Arc::clone(&clients))?;
        let admin = bind_admin(&config).await?;
        let health = match config.health {
            Some(address) => Some(Socket::bind("health", &BindAddress::Tcp(address)).await?),
            None => None,
        };
        let shutdown = Shutdown::new();
        let credentials = start_credentials(&config, &clock, &shutdown).await?;
        let bindings = bind_routes(&config, &credentials)?;
        let mut bound = bound.with_users(start_users(&config, &clock, &shutdown)?);
        let credential_of =
            |route: &RouteConfig| binding_key(route).and_then(|key| bindings.get(&key).cloned());
        let own = [admin.as_ref().map(|(socket, _)| socket), health.as_ref()];
        let own: Vec<u16> = own.into_iter().flatten().filter_map(Socket::port).collect();
        bound.complete_egress(&|rule: &RouteConfig| binder(&config, &credentials, rule), &own)?;
        let data = bound.logging_to(log).start(config.limits, &credential_of, clock.clone())?;
        let running = Arc::new(Running {
            credentials,
            data: Arc::new(data),
            started_at: clock.wall(),
            clock,
            draining: CancellationToken::new(),
        });
        for (listener, server) in running.data.tls_servers() {
            let (kept, until) =
                (renewal::keep(listener, server, running.clock.clone()), shutdown.token().clone());
            shutdown.spawn("certificate", async move { until.run_until_cancelled(kept).await });
        }
        for (listener, mint) in running.data.mints() {
            let (kept, until) = (renewal::keep_mint(listener, mint), shutdown.token().clone());
            shutdown.spawn("interception CA", async move { until.run_until_cancelled(kept).await });
        }
        for (listener, route, source) in running.data.tls_sources() {
            let (kept, until) = (renewal::keep_source(listener, route, source), shutdown.token().clone());
            shutdown.spawn("upstream certificate", async move { until.run_until_cancelled(kept).await });
        }
        let (kept, until) =
            (crate::policy::clients::keep(clients, running.clock.clone()), shutdown.token().clone());
        shutdown.spawn("clients", async move { until.run_until_cancelled(kept).await });
        let admin_until = CancellationToken::new();
        let admin_address = admin.as_ref().map(|(socket, _)| socket.address());
        let health_address = health.as_ref().map(Socket::address);
        if let Some((socket, access)) = admin {
            serve::spawn_admin(socket, Arc::clone(&running), access, &shutdown, admin_until.clone());
        }
        if let Some(socket) = health {
            serve::spawn_health(socket, Arc::clone(&running), &shutdown, admin_until.clone());
        }
        for (name, address) in running.data.addresses() {
            tracing::info!(listener = %name, %address, "listening");
        }
        Ok(Self {
            running,
            admin_address,
            health_address,
            admin_until,
            shutdown,
            grace: config.shutdown_grace,
        })
    }

    /// Names and addresses of the data listeners.
    pub fn listeners(&self) -> Vec<(Name, String)> {
        self.running.data.addresses()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<&str> {
        self.admin_address.as_deref()
    }

    /// Where the health listener is.
    pub fn health_address(&self) -> Option<&str> {
        self.health_address.as_deref()
    }

    /// What the admin listener sees, for `try`.
    pub fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// Calls `ready` once signals are heeded, tells systemd, waits for SIGTERM or SIGINT, stops.
    pub async fn run_until_signal(self, ready: impl FnOnce(&Self)) -> Ended {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signal handlers could not be installed");
            return self.stop().await;
        };
        ready(&self);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tokio::select! {
            _ = terminate.recv() => tracing::info!(grace = ?self.grace, "SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!(grace = ?self.grace, "SIGINT: draining"),
        }
        let again = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let grace = self.grace;
        let stopping = self.stop();
        tokio::pin!(stopping);
        tokio::select! {
            ended = &mut stopping => ended,
            () = again => {
                tracing::warn!(?grace, "second signal: not waiting any longer");
                Ended::Clean
            }
        }
    }

    /// Stops: readiness false, no new connections, requests up to `shutdown.grace`, refreshes, admin.
    pub async fn stop(self) -> Ended {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.running.draining.cancel();
        self.running.data.stop_accepting();
        let cut = self.running.data.drain(self.grace).await;
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "connections were still busy after shutdown.grace and were cut"
            );
        }
        self.shutdown.begin();
        self.admin_until.cancel();
        // A refresh that is under way ends within its own deadline; its new refresh token must reach the disk.
        if tokio::time::timeout(REFRESH_GRACE, self.shutdown.finished()).await.is_err() {
            tracing::error!("a background task did not end in time");
        }
        let unsaved = self.running.credentials.iter().any(|credential| credential.snapshot().unsaved);
        tracing::info!("stopped");
        if unsaved { Ended::Unsaved } else { Ended::Clean }
    }
}

async fn bind_admin(config: &Config) -> Result<Option<(Socket, Access)>, StartError> {
    if !config.admin.enabled {
        return Ok(None);
    }
    let token = match &config.admin.token {
        Some(source) => Some(source.read().await.map_err(StartError::AdminToken)?),
        None => None,
    };
    let socket = Socket::bind("admin", &config.admin.bind).await?;
    let access = Access { unix: socket.is_unix(), token };
    Ok(Some((socket, access)))
}

async fn start_credentials(
    config: &Config,
    clock: &Clock,
    shutdown: &Shutdown,
) -> Result<Vec<Credential>, StartError> {
    let mut started = Vec::with_capacity(config.credentials.len());
    if config.credentials.is_empty() && !config.store.is_kept() {
        return Ok(started);
    }
    let store = match Store::open(&config.store).await {
        // Nothing that is configured needs it.
        Err(error) if config.credentials.is_empty() => {
            tracing::warn!(%error, "it cannot be seen whether tokens of removed credentials are to be revoked");
            return Ok(started);
        }
        store => store?,
    };
    for credential in config.credentials.iter().filter(|one| one.oauth.grant != Grant::Users) {
        let begun = Credential::start(credential.clone(), store.clone(), clock.clone(), shutdown)
            .await
            .map_err(|error| StartError::Credential { name: credential.name.clone(), error })?;
        started.push(begun);
    }
    let configured = config.credentials.iter().map(|credential| credential.name.clone()).collect();
    let (until, revoked) =
        (shutdown.token().clone(), removal::revoke_removed(store, configured, clock.clone()));
    shutdown.spawn("revocation", async move { until.run_until_cancelled(Box::pin(revoked)).await });
    Ok(started)
}

/// Starts the exchange of users' passwords, and binds it to the origins of the routes that use it.
fn start_users(config: &Config, clock: &Clock, shutdown: &Shutdown) -> Result<Vec<BoundUsers>, StartError> {
    let mut bound: Vec<BoundUsers> = Vec::new();
    for credential in config.credentials.iter().filter(|one| one.oauth.grant == Grant::Users) {
        let routes = config.listeners.iter().flat_map(|listener| &listener.routes);
        let own = routes.filter(|route| route.users.as_ref() == Some(&credential.name));
        let users = Users::try_new(credential.clone(), clock.clone())
            .map_err(|error| StartError::Credential { name: credential.name.clone(), error })?;
        for route in own {
            let one = users
                .bind(route.upstream.origins(), route.allow_plaintext)
                .map_err(|error| StartError::Binding { route: route.name.clone(), error })?;
            bound.push(one);
        }
        let until = shutdown.token().clone();
        shutdown.spawn("users", async move { until.run_until_cancelled(users.run()).await });
    }
    Ok(bound)
}

/// A credential at an origin: all routes with the same pair share one binding.
type BindingKey = (Name, Vec<Origin>);

fn binding_key(route: &RouteConfig) -> Option<BindingKey> {
    Some((route.credential.clone()?, route.upstream.origins().cloned().collect()))
}

/// The credential of an egress rule, with all origins that it may be bound to.
fn binder(config: &Config, credentials: &[Credential], rule: &RouteConfig) -> Option<Binder> {
    let name = rule.credential.as_ref()?;
    let config = config.credentials.iter().find(|config| config.name == *name)?;
    let credential = credentials.iter().find(|credential| credential.cell().name() == name)?;
    let (cell, allowed) = (Arc::clone(credential.cell()), config.allowed_upstreams.clone());
    Some(Binder::new(cell, allowed, rule.allow_plaintext))
}

/// Binds each route's credential to its upstream's origin; refuses what the configuration does not allow.
fn bind_routes(
    config: &Config,
    credentials: &[Credential],
) -> Result<HashMap<BindingKey, BoundCredential>, StartError> {
    let by_name: HashMap<&Name, (&CredentialConfig, &Credential)> = config
        .credentials
        .iter()
        .filter(|one| one.oauth.grant != Grant::Users)
        .zip(credentials)
        .map(|(config, credential)| (&config.name, (config, credential)))
        .collect();
    let mut bound = HashMap::new();
    let routes = config.listeners.iter().flat_map(|listener| &listener.routes);
    for (route, name) in routes.flat_map(|route| route.credentials().map(move |name| (route, name))) {
        let key = (name.clone(), route.upstream.origins().cloned().collect());
        let (config, credential) = by_name.get(name).expect("the configuration was checked to define it");
        let refused = |error| StartError::Binding { route: route.name.clone(), error };
        let one = BoundCredential::try_new(
            Arc::clone(credential.cell()),
            &config.allowed_upstreams,
            route.upstream.origin.clone(),
            route.allow_plaintext,
        )
        .map_err(refused)?;
        let others = route.upstream.options.others.iter();
        let all = others.cloned().try_fold(one, |bound, origin| {
            bound.also(&config.allowed_upstreams, origin, route.allow_plaintext).map_err(refused)
        })?;
        bound.insert(key, all);
    }
    Ok(bound)
}
