//! `bearward run`: the proxy.

use super::{ConfigPath, check, exit, fail, print_bytes};
use crate::app::{App, Ended};
use crate::clock::Clock;
use crate::config::{Config, LogFormat};
use crate::telemetry::logs;

/// `bearward run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigPath,
    /// Prints one line of JSON on stdout when ready: addresses and process id
    #[arg(long)]
    ready_json: bool,
}

/// Runs until a signal.
pub fn run(arguments: &Arguments) -> u8 {
    let config = match check::load(arguments.config.config.as_deref()) {
        Ok((_, config)) => config,
        Err(_) => return exit::INVALID,
    };
    start_logs(&config);
    no_core_dumps();
    let runtime =
        match tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(exit::FAILED, &format!("the runtime could not be started: {error}")),
        };
    let ready_json = arguments.ready_json;
    runtime.block_on(async move {
        let app = match Box::pin(App::start(config, Clock::System)).await {
            Ok(app) => app,
            Err(error) => return fail(error.exit_code(), &error.to_string()),
        };
        let ready = |app: &App| {
            if ready_json {
                print_bytes(format!("{}\n", ready_line(app)).as_bytes());
            }
        };
        match app.run_until_signal(ready).await {
            Ended::Clean => exit::OK,
            Ended::Unsaved => fail(
                exit::FAILED,
                "stopped with a rotated refresh token that could not be written; see the log above",
            ),
        }
    })
}

/// Starts the log as configured.
pub fn start_logs(config: &Config) {
    let format = match config.log.format {
        LogFormat::Auto => logs::Format::Auto,
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::init(config.log.level, format);
}

/// Memory holds tokens: no core dump, and no other process of this user may look into it.
pub fn no_core_dumps() {
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

fn ready_line(app: &App) -> serde_json::Value {
    let listeners: serde_json::Map<String, serde_json::Value> =
        app.listeners().into_iter().map(|(name, address)| (name.to_string(), address.into())).collect();
    serde_json::json!({
        "listeners": listeners,
        "admin": app.admin_address(),
        "health": app.health_address(),
        "pid": std::process::id(),
    })
}
