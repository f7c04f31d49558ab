//! Token stores: where the one piece of state that must not be lost is kept.
//!
//! Owns: the record, the lease and the compare-and-swap contract that every kind of store gives. Never
//! decides when a token is refreshed; never shows what it keeps.
//!
//! The protocol that callers follow: take the lease, read again inside it, commit `in_flight`, send the
//! token request, commit the new pair, only then publish it, release the lease (drop it).

#[cfg(test)]
mod contract;
pub mod file;
pub mod memory;
pub mod record;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::names::Name;
use crate::secret::SecretSource;
pub use record::{Identity, InFlight, Observed, Record, RecordState, Revocation, SecretPlace};

/// Which store to open. `encryption` is empty for plain records; the first key encrypts, all decrypt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The kind and what it needs.
    pub kind: StoreKind,
    /// Keys of 32 bytes (base64 or hex) or pass phrases of at least 16 characters.
    pub encryption: Vec<SecretSource>,
}

impl StoreConfig {
    /// Whether there is a store that was made for this configuration: one whose place is said, not the common default.
    pub fn is_kept(&self) -> bool {
        match &self.kind {
            StoreKind::File { path: Some(path) } => path.is_dir(),
            StoreKind::File { path: None } => std::env::var_os("STATE_DIRECTORY").is_some(),
            StoreKind::Memory { .. } => false,
        }
    }
}

/// The kinds of store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// A private directory on this machine, shared by any number of processes.
    File {
        /// The directory; `None`: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/bearward`, else `~/.local/state/bearward`.
        path: Option<PathBuf>,
    },
    /// This process's memory: gone with it.
    Memory {
        /// Accepts credentials whose refresh tokens rotate all the same.
        allow_volatile: bool,
    },
}

/// An open store. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Store {
    /// See [`file::FileStore`].
    File(Arc<file::FileStore>),
    /// See [`memory::MemoryStore`].
    Memory(Arc<memory::MemoryStore>),
}

/// The right to refresh one credential. Given back when dropped (and by the kernel when the process dies).
#[derive(Debug)]
pub enum Lease {
    /// Holds the lock file.
    File(file::FileLease),
    /// Holds an entry of the table.
    Memory(memory::MemoryLease),
}

/// Why a store could not do what it was asked. `Display` names the file and the remedy, never a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The record on disk is newer than what the caller read, or another owner's mark stands in it.
    #[error("the record of `{key}` was changed by another process")]
    Conflict {
        /// The credential.
        key: Name,
        /// The version found.
        found: u64,
    },
    /// The lease is lost: its owner was paused too long or it was given away.
    #[error("the lease of `{key}` is no longer held")]
    LeaseLost {
        /// The credential.
        key: Name,
    },
    /// The record cannot be read as one. It was kept aside, never overwritten.
    #[error("the record of `{key}` in {place} is unusable: {reason}; {remedy}")]
    Corrupt {
        /// The credential.
        key: Name,
        /// The file.
        place: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The storage itself failed: disk full, read-only, permission. Trying again may help.
    #[error("{action} {place}: {reason}")]
    Io {
        /// What was being done, as `cannot write`.
        action: &'static str,
        /// The file or directory.
        place: String,
        /// The system's words and a remedy.
        reason: String,
    },
    /// The store cannot be used as it is set up: wrong owner, loose modes, bad key.
    #[error("{0}")]
    Setup(String),
}

impl Lease {
    /// The credential that it is the lease of.
    pub fn key(&self) -> &Name {
        match self {
            Self::File(lease) => lease.key(),
            Self::Memory(lease) => lease.key(),
        }
    }
}

impl Store {
    /// Opens the store and checks that it can be used: directory, owner, modes, keys.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        match &config.kind {
            StoreKind::File { path } => {
                let store = file::FileStore::open(path.as_deref(), &config.encryption).await?;
                Ok(Self::File(Arc::new(store)))
            }
            StoreKind::Memory { .. } => Ok(Self::Memory(Arc::new(memory::MemoryStore::new()))),
        }
    }

    /// `file` or `memory`, as the status shows it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Memory(_) => "memory",
        }
    }

    /// The record now, or `None` where none was ever written.
    pub async fn load(&self, key: &Name) -> Result<Option<Record>, StoreError> {
        match self {
            Self::File(store) => store.load(key).await,
            Self::Memory(store) => store.load(key),
        }
    }

    /// Takes the lease if nobody holds it; `None` if somebody does.
    pub async fn try_lease(&self, key: &Name) -> Result<Option<Lease>, StoreError> {
        match self {
            Self::File(store) => Ok(store.try_lease(key).await?.map(Lease::File)),
            Self::Memory(store) => Ok(store.try_lease(key).map(Lease::Memory)),
        }
    }

    /// The process that holds the lease, where that can be told: for a message to a person, who may have
    /// to let a stopped one go on or end it.
    pub async fn lease_holder(&self, key: &Name) -> Option<u32> {
        match self {
            Self::File(store) => store.lease_holder(key).await,
            Self::Memory(_) => None,
        }
    }

    /// Writes `record` if the stored version is still `expected` (0: no record), durably; gives the new
    /// version, which is `expected + 1`; `record.version` is set to it in what is written. Trying the same
    /// write again after a failure is safe: where it had landed after all, that is a success.
    pub async fn commit(&self, lease: &Lease, expected: u64, record: &Record) -> Result<u64, StoreError> {
        match (self, lease) {
            (Self::File(store), Lease::File(lease)) => store.commit(lease, expected, record).await,
            (Self::Memory(store), Lease::Memory(lease)) => store.commit(lease, expected, record),
            _ => Err(StoreError::Setup("a lease of another store was used".into())),
        }
    }

    /// Moves the record aside (kept for a person to look at), so that a new one may begin at version 0.
    pub async fn set_aside(&self, lease: &Lease, key: &Name, why: &str) -> Result<(), StoreError> {
        if lease.key() != key {
            return Err(StoreError::Setup(format!("the lease of `{}` was used for `{key}`", lease.key())));
        }
        match (self, lease) {
            (Self::File(store), Lease::File(lease)) => store.set_aside(lease, why).await,
            (Self::Memory(store), Lease::Memory(lease)) => store.set_aside(lease, why),
            _ => Err(StoreError::Setup("a lease of another store was used".into())),
        }
    }

    /// Tells of every change to the record, also by other processes, within a second: the value is the
    /// last version seen (0: none). Read the record with [`Store::load`].
    pub async fn watch(&self, key: &Name) -> Result<watch::Receiver<u64>, StoreError> {
        match self {
            Self::File(store) => store.watch(key).await,
            Self::Memory(store) => Ok(store.watch(key)),
        }
    }

    /// The keys of all records.
    pub async fn list(&self) -> Result<Vec<Name>, StoreError> {
        match self {
            Self::File(store) => store.list().await,
            Self::Memory(store) => Ok(store.list()),
        }
    }
}
