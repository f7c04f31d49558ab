//! The configuration file: YAML text to each module's own `Config`, with every problem at its place.
//!
//! Owns: parsing with spans, interpolation, includes, the JSON Schema and the reference. The blocks as they
//! are written never leave this module, and no problem that it reports shows a secret.

mod addresses;
mod block;
mod blocks;
mod context;
mod defaults;
mod egress;
mod include;
mod interpolate;
mod later;
mod lower;
mod node;
mod problem;
mod read;
mod redact;
mod reference;
mod secrets;
mod source;
mod template;
mod tree;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::credential::CredentialConfig;
use crate::listener::{BindAddress, Limits, ListenerConfig};
use crate::policy::clients::ClientConfig;
use crate::secret::SecretSource;
use crate::store::StoreConfig;
use crate::telemetry::access::{AccessConfig, AuditConfig};
use context::Cx;
pub use problem::Rendered;
use problem::Severity;
pub use reference::{reference, schema, schema_text};
use source::Source;

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `listeners`.
    pub listeners: Vec<ListenerConfig>,
    /// `clients`.
    pub clients: Vec<ClientConfig>,
    /// `credentials`.
    pub credentials: Vec<CredentialConfig>,
    /// `store`.
    pub store: StoreConfig,
    /// `admin`.
    pub admin: AdminConfig,
    /// `health`.
    pub health: Option<SocketAddr>,
    /// `log`.
    pub log: LogConfig,
    /// `limits`.
    pub limits: Limits,
    /// `shutdown.grace`.
    pub shutdown_grace: Duration,
    /// What is valid and still deserves a word; rendered like errors, with places.
    pub warnings: Vec<Rendered>,
    /// The files that were read: the main one and includes.
    pub files: Vec<PathBuf>,
}

/// `admin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// `enabled`.
    pub enabled: bool,
    /// `bind`: TCP or a Unix socket.
    pub bind: BindAddress,
    /// `token`: needed for state-changing calls over TCP.
    pub token: Option<SecretSource>,
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `level`.
    pub level: tracing::Level,
    /// `format`.
    pub format: LogFormat,
    /// `access`.
    pub access: AccessConfig,
    /// `audit`.
    pub audit: AuditConfig,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// All problems of a configuration, rendered.
#[derive(Debug, Clone)]
pub struct Problems {
    /// The errors, each with line, column, snippet and hint.
    pub rendered: Vec<Rendered>,
    /// The warnings beside them.
    pub warnings: Vec<Rendered>,
}

impl std::fmt::Display for Problems {
    /// Errors without colour, an empty line between two.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, problem) in self.rendered.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Reads, checks and lowers a file and what it includes.
pub fn load(path: &Path) -> Result<Config, Problems> {
    match include::read_file(path) {
        Ok(text) => parse(&text, &path.display().to_string()),
        Err(reason) => {
            let vars = environment;
            let mut cx = Cx::new(&vars);
            cx.nowhere(Severity::Error, format!("cannot read {}: {reason}", path.display()));
            Err(problems(&cx))
        }
    }
}

/// Reads `admin` alone, for a command that asks the running proxy: whoever asks need not be able to read the
/// secrets that the proxy reads.
pub fn load_admin(path: &Path) -> Result<AdminConfig, Problems> {
    let vars = environment;
    let mut cx = Cx::new(&vars);
    let admin = match include::read_file(path) {
        Ok(text) => read_admin(text, path, &mut cx),
        Err(reason) => {
            cx.nowhere(Severity::Error, format!("cannot read {}: {reason}", path.display()));
            None
        }
    };
    admin.ok_or_else(|| problems(&cx))
}

fn read_admin(text: String, path: &Path, cx: &mut Cx<'_>) -> Option<AdminConfig> {
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let main = cx.add_source(Source { name: path.display().to_string(), directory, text });
    let root = tree::parse(main, cx)?;
    let block = match root.find("admin").filter(|entry| !entry.value.is_null()) {
        Some(entry) => Some(<blocks::Admin as read::Read>::read(&entry.value, cx)?),
        None => None,
    };
    lower::admin(block.as_ref(), cx)
}

/// Checks and lowers a text; `name` is the path that messages name and that relative paths are relative to.
pub fn parse(text: &str, name: &str) -> Result<Config, Problems> {
    parse_with(text, name, &environment)
}

/// The same, with variables from elsewhere than the environment.
pub fn parse_with(text: &str, name: &str, vars: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let mut cx = Cx::new(vars);
    let directory = Path::new(name).parent().map(Path::to_path_buf).unwrap_or_default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
    let main = cx.add_source(Source { name: name.to_owned(), directory, text });
    let Some(config) = tree::parse(main, &mut cx).and_then(|root| whole(root, Path::new(name), &mut cx))
    else {
        return Err(problems(&cx));
    };
    Ok(config)
}

fn whole(mut root: node::Node, path: &Path, cx: &mut Cx<'_>) -> Option<Config> {
    let mut files = vec![path.to_path_buf()];
    files.extend(include::apply(&mut root, cx));
    defaults::apply(&mut root);
    let file: blocks::File = read::Read::read(&root, cx)?;
    lower::check_environment(&root, cx);
    let mut config = lower::config(&file, &root, cx)?;
    config.files = files;
    config.warnings = problem::render_all(&cx.problems, Severity::Warning, &cx.sources, &cx.masks);
    Some(config)
}

fn problems(cx: &Cx<'_>) -> Problems {
    Problems {
        rendered: problem::render_all(&cx.problems, Severity::Error, &cx.sources, &cx.masks),
        warnings: problem::render_all(&cx.problems, Severity::Warning, &cx.sources, &cx.masks),
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod certificate_tests;
#[cfg(test)]
mod preset_tests;
#[cfg(test)]
mod tests;
