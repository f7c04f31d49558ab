//! `bearward store`: looks into the store, and moves records between stores.
//!
//! Shows no token. An export is always sealed.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use super::{ConfigPath, check, exit, fail, login, print_bytes};
use crate::clock::Clock;
use crate::config::Config;
use crate::credential::login::{InstallError, Installation};
use crate::credential::{CredentialConfig, identity};
use crate::names::Name;
use crate::secret::{Secret, SecretSource};
use crate::store::file::export;
use crate::store::{Record, RecordState, Store};

/// `bearward store`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists the records: which credentials have tokens, and how long they live
    List {
        #[command(flatten)]
        config: ConfigPath,
        /// One JSON object a record
        #[arg(long)]
        json: bool,
    },
    /// Writes records to standard output, encrypted, for `store import --from`
    Export {
        /// The credentials; all unless given
        credentials: Vec<String>,
        #[command(flatten)]
        config: ConfigPath,
        /// A file with 32 random bytes (base64 or hex) or a pass phrase of at least 16 characters
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
    /// Takes a refresh token from standard input, or records from an export
    Import {
        /// The credential whose refresh token is read from standard input
        #[arg(required_unless_present = "from", conflicts_with = "from")]
        credential: Option<String>,
        #[command(flatten)]
        config: ConfigPath,
        /// What `store export` wrote
        #[arg(long, value_name = "FILE", requires = "key_file")]
        from: Option<PathBuf>,
        /// The key of the export
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

type Outcome = Result<(), (u8, String)>;

/// Does what was asked.
pub fn store(arguments: &Arguments) -> u8 {
    let (Action::List { config, .. } | Action::Export { config, .. } | Action::Import { config, .. }) =
        &arguments.action;
    let config = match check::load(config.config.as_deref()) {
        Ok((_, config)) => config,
        Err(_) => return exit::INVALID,
    };
    match super::block_on(run(&arguments.action, &config)) {
        Ok(Ok(())) => exit::OK,
        Ok(Err((code, message))) => fail(code, &message),
        Err(code) => code,
    }
}

async fn run(action: &Action, config: &Config) -> Outcome {
    let store = login::open_store(config).await.map_err(failed)?;
    match action {
        Action::List { json, .. } => list(&store, *json).await,
        Action::Export { credentials, key_file, .. } => export(&store, credentials, key_file.clone()).await,
        Action::Import { credential: Some(name), .. } => {
            let credential = login::find(config, name).map_err(|message| (exit::INVALID, message))?;
            import_token(&store, credential).await
        }
        Action::Import { from: Some(from), key_file: Some(key), .. } => {
            import_records(&store, config, from, key.clone()).await
        }
        Action::Import { .. } => Err((exit::INVALID, "name a credential, or an export with --from".into())),
    }
}

fn failed(error: impl ToString) -> (u8, String) {
    (exit::FAILED, error.to_string())
}

async fn list(store: &Store, json: bool) -> Outcome {
    let now = Clock::System.wall();
    let mut text = String::new();
    for name in store.list().await.map_err(failed)? {
        let record = match store.load(&name).await {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                let _ = writeln!(
                    text,
                    "{}",
                    if json { damaged(&name, &error) } else { format!("{name}: {error}") }
                );
                continue;
            }
        };
        let state = match &record.state {
            RecordState::Idle => "idle",
            RecordState::InFlight(_) => "in_flight",
            RecordState::Refused { .. } => "refused",
        };
        let time = |at: Option<crate::clock::UnixTime>| at.map(crate::clock::UnixTime::rfc3339);
        if json {
            let line = serde_json::json!({
                "credential": name.as_str(), "version": record.version, "generation": record.generation,
                "state": state, "endpoint": record.identity.endpoint, "client_id": record.identity.client_id,
                "refresh_token": record.refresh_token.is_some(), "refresh_expires_at": time(record.refresh_expires_at),
                "access_token": record.access_token.is_some(), "expires_at": time(record.expires_at),
            });
            let _ = writeln!(text, "{line}");
            continue;
        }
        let access = match record.expires_at.filter(|_| record.access_token.is_some()) {
            Some(at) if at.checked_since(now).is_some() => format!("access token until {}", at.rfc3339()),
            Some(at) => format!("access token expired {}", at.rfc3339()),
            None => "no access token".into(),
        };
        let refresh = if record.refresh_token.is_some() { "refresh token" } else { "no refresh token" };
        let _ = writeln!(text, "{name}: {refresh}, {access}, generation {}, {state}", record.generation);
    }
    if text.is_empty() && !json {
        text.push_str("The store holds no records.\n");
    }
    print_bytes(text.as_bytes());
    Ok(())
}

fn damaged(name: &Name, error: &crate::store::StoreError) -> String {
    serde_json::json!({"credential": name.as_str(), "error": error.to_string()}).to_string()
}

async fn export(store: &Store, wanted: &[String], key: PathBuf) -> Outcome {
    let mut records: Vec<(Name, Record)> = Vec::new();
    let known = store.list().await.map_err(failed)?;
    if let Some(missing) =
        wanted.iter().find(|name| !known.iter().any(|known| known.as_str() == name.as_str()))
    {
        return Err((
            exit::FAILED,
            format!("the store holds no record of `{missing}`; nothing was exported"),
        ));
    }
    for name in known {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name.as_str()) {
            continue;
        }
        if let Some(record) = store.load(&name).await.map_err(failed)? {
            records.push((name, record));
        }
    }
    if records.is_empty() {
        return Err((exit::FAILED, "the store holds no records; nothing was exported".into()));
    }
    let text = export::seal(&records, &SecretSource::File(key))
        .await
        .map_err(|error| (exit::INVALID, error.to_string()))?;
    if std::io::stdout().is_terminal() {
        return Err((exit::INVALID, "an export is not for a terminal: redirect it into a file".into()));
    }
    match print_bytes(&text) {
        exit::OK => {}
        _ => return Err((exit::FAILED, "the export could not be written whole: do not use it".into())),
    }
    let count = records.len();
    anstream::eprintln!(
        "{count} record{} exported. A single-use refresh token is good in one place only: end every process that uses \
         this store before another one uses the export.",
        if count == 1 { "" } else { "s" }
    );
    Ok(())
}

async fn import_token(store: &Store, credential: &CredentialConfig) -> Outcome {
    if credential.oauth.grant.is_unattended() {
        let grant = credential.oauth.grant.as_str();
        return Err((
            exit::INVALID,
            format!("`grant: {grant}` of `{}` has no refresh token to begin with", credential.name),
        ));
    }
    if std::io::stdin().is_terminal() {
        anstream::eprintln!("Paste the refresh token of {} and press Enter, then Ctrl-D:", credential.name);
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    std::io::stdin().lock().take(64 * 1024).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err((
            exit::INVALID,
            "standard input holds no refresh token (one word); nothing was changed".into(),
        ));
    }
    let installation = Installation::begin(credential, store).await.map_err(failed)?;
    installation.refresh_token(&Secret::new(token.to_owned())).await.map_err(failed)?;
    anstream::eprintln!(
        "{}: the refresh token is in the store; a running bearward takes it over within a second.",
        credential.name
    );
    Ok(())
}

async fn import_records(store: &Store, config: &Config, from: &PathBuf, key: PathBuf) -> Outcome {
    let text = std::fs::read_to_string(from)
        .map_err(|error| (exit::INVALID, format!("{}: {error}", from.display())))?;
    let opened = export::open(&text, &SecretSource::File(key)).await;
    let records = opened.map_err(|error| (exit::INVALID, format!("{}: {error}", from.display())))?;
    // All are judged before the first is written.
    let mut wanted = Vec::new();
    for (name, record) in &records {
        let credential = login::find(config, name.as_str()).map_err(|message| (exit::INVALID, message))?;
        if record.identity != identity(&credential.oauth) {
            let message = format!(
                "the record of `{name}` belongs to another token endpoint, client id or subject than this \
                 configuration's; nothing was imported"
            );
            return Err((exit::INVALID, message));
        }
        wanted.push((credential, record));
    }
    for (credential, record) in wanted {
        let done: Result<u64, InstallError> =
            async { Installation::begin(credential, store).await?.record(record).await }.await;
        done.map_err(failed)?;
        anstream::eprintln!("{}: imported", credential.name);
    }
    Ok(())
}
