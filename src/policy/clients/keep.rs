//! What clients are known by, kept current.
//!
//! Owns: looking at the files. Runs on the control plane; a worker only ever sees what was read whole.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Clients;
use crate::file_watch::FileWatch;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Reads what changes, for ever. What cannot be read leaves all as it was, and is said once.
pub async fn keep(clients: Arc<Clients>) {
    let mut watches = Vec::new();
    for (index, entry) in clients.entries.iter().enumerate() {
        let files = entry.proof.files();
        if !files.is_empty() {
            watches.push((index, FileWatch::begin(files).await));
            // They may have changed between the start and the first look.
            read(&clients, index).await;
        }
    }
    if watches.is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        for (index, watch) in &mut watches {
            if watch.changed().await && read(&clients, *index).await {
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
