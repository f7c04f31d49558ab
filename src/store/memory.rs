//! Records in this process's memory: for tests and for grants without refresh tokens.

use tokio::sync::watch;

use super::{Record, StoreError};
use crate::names::Name;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {}

/// The right to refresh one credential.
#[derive(Debug)]
pub struct MemoryLease {}

#[allow(clippy::todo, unused_variables, reason = "skeleton")]
impl MemoryStore {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }
    /// See [`super::Store::load`].
    pub fn load(&self, key: &Name) -> Result<Option<Record>, StoreError> {
        todo!()
    }
    /// See [`super::Store::try_lease`].
    pub fn try_lease(&self, key: &Name) -> Option<MemoryLease> {
        todo!()
    }
    /// See [`super::Store::commit`].
    pub fn commit(&self, lease: &MemoryLease, expected: u64, record: &Record) -> Result<u64, StoreError> {
        todo!()
    }
    /// See [`super::Store::set_aside`].
    pub fn set_aside(&self, key: &Name, why: &str) -> Result<(), StoreError> {
        todo!()
    }
    /// See [`super::Store::watch`].
    pub fn watch(&self, key: &Name) -> watch::Receiver<u64> {
        todo!()
    }
    /// See [`super::Store::list`].
    pub fn list(&self) -> Vec<Name> {
        todo!()
    }
}
