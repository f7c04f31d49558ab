//! `bearward check`: says all that is wrong with a configuration, or that nothing is.
//!
//! Redeems nothing, binds nothing, writes nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::clock::Clock;
use crate::config::{self, Config, Problems, Rendered};
use crate::listener::ListenerConfig;
use crate::tls::x509::Certificate;

/// Where a configuration is looked for when none is named, in this order.
pub const DEFAULT_PATHS: &[&str] = &["config.yaml", "/etc/bearward/config.yaml"];

/// The exit code of an invalid configuration.
const INVALID: u8 = 2;

/// The file to use: the one that is named, else the first of [`DEFAULT_PATHS`] that exists.
pub fn config_path(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = named {
        return Ok(path.to_path_buf());
    }
    DEFAULT_PATHS.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
        format!(
            "no configuration: there is neither {}; name one with -c FILE, begin from config.example.yaml, \
             or see it work first with `bearward try`",
            DEFAULT_PATHS.join(" nor ")
        )
    })
}

/// Loads the configuration; prints its problems and warnings on standard error. The error is the exit code.
pub fn load(named: Option<&Path>) -> Result<(PathBuf, Config), ExitCode> {
    let path = config_path(named).map_err(|message| {
        let mut err = anstream::stderr().lock();
        let _ = writeln!(err, "error: {message}");
        ExitCode::from(INVALID)
    })?;
    match config::load(&path) {
        Ok(config) => {
            print(&config.warnings);
            Ok((path, config))
        }
        Err(problems) => {
            print_problems(&path, &problems);
            Err(ExitCode::from(INVALID))
        }
    }
}

/// Checks a configuration. With `live`, also asks the network whether what it names is there.
pub fn check(named: Option<&Path>, live: bool) -> ExitCode {
    let (path, config) = match load(named) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let mut out = anstream::stdout().lock();
    let _ = writeln!(out, "{}: {}", path.display(), summary(&config));
    for line in config.listeners.iter().filter_map(certificate) {
        let _ = writeln!(out, "{line}");
    }
    if live { super::live::probe(&config) } else { ExitCode::SUCCESS }
}

fn summary(config: &Config) -> String {
    let routes = config.listeners.iter().map(|listener| listener.routes.len()).sum();
    let rules: usize =
        config.listeners.iter().filter_map(|listener| Some(listener.egress.as_ref()?.rules.len())).sum();
    let mut all = vec![counted(config.listeners.len(), "listener")];
    if routes > 0 || rules == 0 {
        all.push(counted(routes, "route"));
    }
    if rules > 0 {
        all.push(counted(rules, "egress rule"));
    }
    all.push(counted(config.credentials.len(), "credential"));
    format!("valid; {}", all.join(", "))
}

/// What clients of a TLS listener will see.
fn certificate(listener: &ListenerConfig) -> Option<String> {
    let tls = listener.tls.as_ref()?;
    let leaf = crate::tls::pem::read_certificates(&tls.cert).ok()?;
    let certificate = Certificate::read(leaf.first()?)?;
    let left = certificate.not_after.checked_since(Clock::System.wall());
    let left = left.map_or_else(
        || "expired".to_owned(),
        |left| {
            [&counted(usize::try_from(left.as_secs() / 86_400).unwrap_or(usize::MAX), "day"), " left"]
                .concat()
        },
    );
    let names =
        if certificate.names.is_empty() { "no name".to_owned() } else { certificate.names.join(", ") };
    let until = certificate.not_after.rfc3339();
    Some(format!("listener `{}`: certificate for {names}, until {until} ({left})", listener.name))
}

/// `1 error`, `2 errors`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Prints each problem and one line that sums them up.
pub fn print_problems(path: &Path, problems: &Problems) {
    print(&problems.warnings);
    print(&problems.rendered);
    let mut err = anstream::stderr().lock();
    let warnings = match problems.warnings.len() {
        0 => String::new(),
        count => format!(", {}", counted(count, "warning")),
    };
    let _ =
        writeln!(err, "{}: invalid; {}{warnings}", path.display(), counted(problems.rendered.len(), "error"));
}

/// Colours are for terminals: `anstream` takes them out elsewhere and where `NO_COLOR` is set.
fn print(problems: &[Rendered]) {
    let mut err = anstream::stderr().lock();
    for problem in problems {
        let _ = writeln!(err, "{}\n", problem.coloured);
    }
}
