//! Records in this process's memory: for tests and for grants without refresh tokens.
//!
//! Owns: a table that gives the contract of every store. Never outlives the process, so a credential
//! whose refresh tokens rotate is kept here only where `allow_volatile` says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Record, StoreError};
use crate::names::Name;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    table: Arc<Mutex<Table>>,
}

type Table = HashMap<Name, Entry>;

#[derive(Debug)]
struct Entry {
    record: Option<Record>,
    aside: Vec<Record>,
    leased: bool,
    version: watch::Sender<u64>,
}

impl Default for Entry {
    fn default() -> Self {
        Self { record: None, aside: Vec::new(), leased: false, version: watch::Sender::new(0) }
    }
}

/// The right to refresh one credential.
#[derive(Debug)]
pub struct MemoryLease {
    table: Arc<Mutex<Table>>,
    key: Name,
}

impl MemoryLease {
    /// The credential.
    pub fn key(&self) -> &Name {
        &self.key
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        locked(&self.table).entry(self.key.clone()).or_default().leased = false;
    }
}

impl MemoryStore {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// See [`super::Store::load`].
    pub fn load(&self, key: &Name) -> Result<Option<Record>, StoreError> {
        Ok(locked(&self.table).get(key).and_then(|entry| entry.record.clone()))
    }

    /// See [`super::Store::try_lease`].
    pub fn try_lease(&self, key: &Name) -> Option<MemoryLease> {
        let mut table = locked(&self.table);
        let entry = table.entry(key.clone()).or_default();
        if entry.leased {
            return None;
        }
        entry.leased = true;
        Some(MemoryLease { table: Arc::clone(&self.table), key: key.clone() })
    }

    /// See [`super::Store::commit`].
    pub fn commit(&self, lease: &MemoryLease, expected: u64, record: &Record) -> Result<u64, StoreError> {
        self.check_lease(lease)?;
        let mut table = locked(&self.table);
        let entry = table.entry(lease.key.clone()).or_default();
        let found = entry.record.as_ref().map_or(0, |stored| stored.version);
        if found != expected {
            return match &entry.record {
                Some(stored) if expected.checked_add(1) == Some(found) && stored.same_content(record) => {
                    Ok(found)
                }
                _ => Err(StoreError::Conflict { key: lease.key.clone(), found }),
            };
        }
        let mut written = record.clone();
        written.version = expected + 1;
        entry.version.send_replace(written.version);
        entry.record = Some(written);
        Ok(expected + 1)
    }

    /// See [`super::Store::set_aside`].
    pub fn set_aside(&self, lease: &MemoryLease, why: &str) -> Result<(), StoreError> {
        self.check_lease(lease)?;
        let mut table = locked(&self.table);
        let entry = table.entry(lease.key.clone()).or_default();
        if let Some(record) = entry.record.take() {
            tracing::info!(credential = %lease.key, version = record.version, why, "record set aside");
            entry.aside.push(record);
            entry.version.send_replace(0);
        }
        Ok(())
    }

    /// See [`super::Store::watch`].
    pub fn watch(&self, key: &Name) -> watch::Receiver<u64> {
        locked(&self.table).entry(key.clone()).or_default().version.subscribe()
    }

    /// See [`super::Store::list`].
    pub fn list(&self) -> Vec<Name> {
        let table = locked(&self.table);
        let mut names: Vec<_> =
            table.iter().filter(|(_, entry)| entry.record.is_some()).map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    fn check_lease(&self, lease: &MemoryLease) -> Result<(), StoreError> {
        if Arc::ptr_eq(&self.table, &lease.table) {
            Ok(())
        } else {
            Err(StoreError::LeaseLost { key: lease.key.clone() })
        }
    }
}

/// No holder of this lock can leave the table half changed, so a poisoned one is still good.
fn locked(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, contract};

    #[tokio::test]
    async fn it_gives_the_contract() {
        contract::suite(async || {
            let store = Store::Memory(Arc::new(MemoryStore::new()));
            (store.clone(), store)
        })
        .await;
    }
}
