//! `bearward try`: the whole thing on one machine, without an account.
//!
//! Owns: putting together the embedded authorization server, the echo API and the real proxy with the
//! routes of `config.example.yaml`, in a state directory that is gone afterwards. What it shows is what
//! `bearward run` does: the proxy is the same one, with the same configuration.

mod page;
mod ports;
mod watch;

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{exit, fail, print_bytes};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::idp::{Behaviour, Client, Idp, Issuer, Settings};
use crate::secret::{Secret, SecretSource};
use crate::telemetry::logs;
use ports::Ports;

/// The example that ships with the sources: the routes and the credential are these.
const EXAMPLE: &str = include_str!("../../config.example.yaml");
/// Its name in messages.
const EXAMPLE_NAME: &str = "config.example.yaml";
/// The client of the example.
const CLIENT: &str = "example-client";
/// The credential of the example.
const CREDENTIAL: &str = "example";
/// A path that the example's route takes.
const EXAMPLE_PATH: &str = "/api/hello";
/// How long everything together may take to answer.
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// How long running requests may take at the end; nobody wants to wait for a demonstration.
const GRACE: Duration = Duration::from_secs(2);

/// `bearward try`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Prints one line of JSON with the addresses once everything answers, instead of the page
    #[arg(long)]
    json: bool,
    /// The proxy's port; the three after it go to admin, authorization server and API. 0: free ports
    /// [default: 8080, and 9901 to 9903]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// How long an access token lives, from 1s
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = lifetime)]
    token_lifetime: Duration,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as in 60s or 5m"))?;
    if duration < Duration::from_secs(1) {
        return Err("a token lives for at least 1s".into());
    }
    Ok(duration)
}

/// Why the demonstration does not start.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error(transparent)]
    Ports(#[from] ports::PortError),
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
    #[error("the built-in example is not valid; this is a mistake in bearward, please report it:\n{0}")]
    Example(config::Problems),
    #[error("the proxy does not start: {0}")]
    App(#[from] crate::app::StartError),
    #[error("the proxy did not answer within {seconds} s; the last answer was {0}", seconds = READY_DEADLINE.as_secs())]
    NotReady(String),
}

/// Everything that runs, in the order in which it is taken down.
#[derive(Debug)]
struct Running {
    app: App,
    idp: Idp,
    folder: TempDir,
}

/// Where everything is.
#[derive(Debug)]
struct Addresses {
    proxy: String,
    admin: String,
    token_endpoint: String,
    api: String,
}

impl Addresses {
    fn example(&self) -> String {
        format!("{}{EXAMPLE_PATH}", self.proxy)
    }

    fn json_line(&self) -> String {
        let line = serde_json::json!({
            "proxy": self.proxy,
            "admin": self.admin,
            "token_endpoint": self.token_endpoint,
            "api": self.api,
            "example": self.example(),
        });
        format!("{line}\n")
    }
}

/// Shows the whole thing until a signal ends it.
pub fn try_it(arguments: &Arguments) -> u8 {
    // The page tells of failed refreshes itself.
    let level = if arguments.json { tracing::Level::WARN } else { tracing::Level::ERROR };
    logs::init(level, logs::Format::Auto);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(TryError::Io("the runtime could not be started", error)),
    };
    match ended {
        Ok(()) => exit::OK,
        Err(error) => fail(exit::FAILED, &error.to_string()),
    }
}

async fn run(arguments: &Arguments) -> Result<(), TryError> {
    // Before the folder is made: a signal must not leave it behind.
    let mut signals = Signals::install()?;
    let (running, addresses) = tokio::select! {
        started = start(arguments) => started?,
        () = signals.any() => return Ok(()),
    };
    if arguments.json {
        print_bytes(addresses.json_line().as_bytes());
    } else {
        print_bytes(page::page(&addresses, &running, arguments.token_lifetime).as_bytes());
    }
    tokio::select! {
        () = signals.any() => {}
        () = watch::rotations(&running, arguments.json) => {}
    }
    running.stop().await
}

async fn start(arguments: &Arguments) -> Result<(Running, Addresses), TryError> {
    let ports = Ports::take(arguments.port)?;
    let folder = tempfile::Builder::new()
        .prefix("bearward-try-")
        .tempdir()
        .map_err(|error| TryError::Io("no folder for the state could be made", error))?;
    let client_secret = random_secret();
    let (proxy_port, admin_port) = (ports.proxy, ports.admin);
    let idp = start_idp(ports, &client_secret, arguments.token_lifetime)?;
    let variables = Variables {
        proxy: proxy_port.to_string(),
        admin: admin_port.to_string(),
        idp: port_of(idp.url()).to_owned(),
        api: port_of(&idp.api_url()).to_owned(),
        secret: client_secret,
        seed: idp.new_seed_for(CLIENT, crate::idp::DEFAULT_SCOPE),
        state: folder.path().join("state").display().to_string(),
    };
    let config = configuration(&variables, folder.path())?;
    write_second(&variables, folder.path())?;
    let app = Box::pin(App::start(config, Clock::System)).await?;
    let addresses = Addresses {
        proxy: app.listeners().first().map(|(_, address)| format!("http://{address}")).unwrap_or_default(),
        admin: app.admin_address().map(|address| format!("http://{address}")).unwrap_or_default(),
        token_endpoint: idp.token_endpoint(),
        api: idp.api_url(),
    };
    watch::until_ready(&app, &addresses.example()).await?;
    Ok((Running { app, idp, folder }, addresses))
}

fn start_idp(ports: Ports, secret: &Secret, lifetime: Duration) -> Result<Idp, TryError> {
    let settings = Settings {
        issuer: Issuer::Oracle,
        clients: vec![Client::with_secret(CLIENT, secret.expose())],
        behaviour: Behaviour { access_token_lifetime: lifetime, ..Behaviour::default() },
        ..Settings::default()
    };
    let listen = || {
        let idp = tokio::net::TcpListener::from_std(ports.idp)?;
        let api = tokio::net::TcpListener::from_std(ports.api)?;
        Idp::run(settings, idp, api)
    };
    listen().map_err(|error| TryError::Io("the authorization server does not start", error))
}

/// What the example leaves open.
#[derive(Debug)]
struct Variables {
    proxy: String,
    admin: String,
    idp: String,
    api: String,
    secret: Secret,
    seed: Secret,
    state: String,
}

impl Variables {
    fn value(&self, name: &str) -> Option<&str> {
        Some(match name {
            "BEARWARD_TRY_PROXY_PORT" => &self.proxy,
            "BEARWARD_TRY_ADMIN_PORT" => &self.admin,
            "BEARWARD_TRY_IDP_PORT" => &self.idp,
            "BEARWARD_TRY_API_PORT" => &self.api,
            "BEARWARD_TRY_CLIENT_ID" => CLIENT,
            "BEARWARD_TRY_CLIENT_SECRET" => self.secret.expose(),
            "BEARWARD_TRY_SEED" => self.seed.expose(),
            "BEARWARD_TRY_STATE" => &self.state,
            _ => return None,
        })
    }
}

/// The example with this run's addresses, and a token for the admin listener.
fn configuration(variables: &Variables, folder: &Path) -> Result<Config, TryError> {
    let value = |name: &str| variables.value(name).map(str::to_owned);
    let mut config = config::parse_with(EXAMPLE, EXAMPLE_NAME, &value).map_err(TryError::Example)?;
    // What it prints is for people.
    config.log.access.enabled = false;
    config.log.audit.enabled = false;
    let token_file = folder.join(ADMIN_TOKEN_FILE);
    write_private(&token_file, random_secret().expose())?;
    config.admin.token = Some(SecretSource::File(token_file));
    config.shutdown_grace = GRACE;
    Ok(config)
}

/// The file with the token that `bearward refresh` needs.
const ADMIN_TOKEN_FILE: &str = "admin.token";
/// A configuration for a second proxy on the same store.
const SECOND_FILE: &str = "second.yaml";

/// Writes the example for a second process on free ports, which shares the store.
fn write_second(variables: &Variables, folder: &Path) -> Result<(), TryError> {
    let mut text = String::with_capacity(EXAMPLE.len());
    let mut rest = EXAMPLE;
    while let Some(begin) = rest.find("${BEARWARD_TRY_") {
        let (before, reference) = rest.split_at(begin);
        text += before;
        let Some(end) = reference.find('}') else { break };
        let name = reference[2..end].split(':').next().unwrap_or_default();
        text += match name {
            "BEARWARD_TRY_PROXY_PORT" | "BEARWARD_TRY_ADMIN_PORT" => "0",
            _ => variables.value(name).unwrap_or(&reference[..=end]),
        };
        rest = &reference[end + 1..];
    }
    text += rest;
    write_private(&folder.join(SECOND_FILE), &text)
}

fn write_private(path: &Path, text: &str) -> Result<(), TryError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| TryError::Io("a file of the demonstration could not be written", error))
}

fn random_secret() -> Secret {
    use base64::Engine as _;
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has randomness");
    Secret::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

fn port_of(url: &str) -> &str {
    url.rsplit(':').next().unwrap_or_default()
}

impl Running {
    /// The proxy first, so that a refresh under way still finds its server; the folder last.
    async fn stop(self) -> Result<(), TryError> {
        let Self { app, idp, folder } = self;
        app.stop().await;
        drop(idp);
        folder.close().map_err(|error| TryError::Io("the state folder could not be removed", error))
    }
}

/// Ctrl-C and SIGTERM.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn install() -> Result<Self, TryError> {
        let install = |kind| {
            signal(kind).map_err(|error| TryError::Io("signal handlers could not be installed", error))
        };
        Ok(Self {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
