//! What clients are known by, kept current.
//!
//! Owns: looking at the files. Runs on the control plane; a worker only ever sees what was read whole.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::jwt::{self, KeySource};
use super::shared::{Clients, Known};
use super::{JwtConfig, KeysFrom};
use crate::clock::Clock;
use crate::file_watch::FileWatch;
use crate::oauth::jwks;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long keys are used before they are asked for again.
const KEYS_LIFE: Duration = Duration::from_secs(600);
/// How long keys are good whose issuer cannot be reached.
const KEYS_END: Duration = Duration::from_secs(24 * 3600);

/// Reads what changes, for ever. What cannot be read leaves all as it was, and is said once.
pub async fn keep(clients: Arc<Clients>, clock: Clock) {
    let mut watches = Vec::new();
    for (index, entry) in clients.entries.iter().enumerate() {
        let files = entry.proof.files();
        if !files.is_empty() {
            watches.push((index, FileWatch::begin(files).await));
            // They may have changed between the start and the first look.
            read(&clients, index).await;
        }
    }
    let files = async {
        if watches.is_empty() {
            return;
        }
        look(&clients, watches).await;
    };
    let mut sources: Vec<(Arc<KeySource>, &JwtConfig)> = Vec::new();
    for entry in &clients.entries {
        if let Known::Jwt(rule) = &entry.proof
            && !sources.iter().any(|(known, _)| Arc::ptr_eq(known, &rule.source))
        {
            sources.push((Arc::clone(&rule.source), &rule.config));
        }
    }
    let keys =
        futures_util::future::join_all(sources.iter().map(|(source, config)| fetch(source, config, &clock)));
    tokio::join!(files, keys);
}

/// Keeps the keys of one issuer current: every ten minutes, and when a token names one that is not known.
async fn fetch(source: &KeySource, config: &JwtConfig, clock: &Clock) {
    let KeysFrom::Uri(url) = &source.from else { return };
    let mut told = false;
    let mut read_at = clock.boot();
    loop {
        let document = jwks::fetch(url, &config.tls, config.outbound_proxy.as_ref()).await;
        let taken = document.and_then(|document| source.take(&document));
        let millis = u64::try_from(clock.boot().since_boot().as_millis()).unwrap_or(u64::MAX);
        source.asked_at.store(millis, Ordering::Relaxed);
        let pause = match taken {
            Ok(keys) => {
                if told || source.keys.load().serial == 1 {
                    tracing::info!(
                        issuer = config.issuer,
                        keys,
                        "the keys of an issuer of client tokens were read"
                    );
                }
                (told, read_at) = (false, clock.boot());
                KEYS_LIFE
            }
            Err(reason) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(issuer = config.issuer, url = %url, reason, "the keys of an issuer of client tokens cannot be read; those that are known stay good for a day");
                }
                if clock.boot().since(read_at) > KEYS_END {
                    source.forget();
                }
                jwt::REFETCH
            }
        };
        // Whoever asked while they were read has them now, or is answered without.
        source.changed.send_modify(|_| ());
        tokio::time::sleep(jwt::REFETCH).await;
        let rest = pause.saturating_sub(jwt::REFETCH);
        let _ = tokio::time::timeout(rest, source.wanted.notified()).await;
    }
}

async fn look(clients: &Arc<Clients>, mut watches: Vec<(usize, FileWatch)>) {
    loop {
        tokio::time::sleep(LOOK).await;
        for (index, watch) in &mut watches {
            if watch.changed().await && read(clients, *index).await {
                tracing::info!(client = %clients.entries[*index].name, "what the client is known by was read again");
            }
        }
    }
}

async fn read(clients: &Arc<Clients>, index: usize) -> bool {
    let own = Arc::clone(clients);
    #[allow(clippy::disallowed_methods, reason = "a file read, joined at once")]
    let read = tokio::task::spawn_blocking(move || own.entries[index].proof.reload()).await;
    match read {
        Ok(Ok(())) => true,
        Ok(Err(reason)) => {
            let client = &clients.entries[index].name;
            tracing::error!(%client, reason, "what the client is known by cannot be read: it stays as it was");
            false
        }
        // Cancelled only when the process stops.
        Err(_) => false,
    }
}
