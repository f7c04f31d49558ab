//! Records as files of a private directory, shared by any number of processes of one machine.

use std::path::Path;

use tokio::sync::watch;

use super::{Record, StoreError};
use crate::names::Name;
use crate::secret::SecretSource;

/// See the module.
#[derive(Debug)]
pub struct FileStore {}

/// The lock on a credential's lock file.
#[derive(Debug)]
pub struct FileLease {}

#[allow(clippy::todo, clippy::unused_async, unused_variables, reason = "skeleton")]
impl FileStore {
    /// Opens and checks the directory.
    pub async fn open(path: Option<&Path>, keys: &[SecretSource]) -> Result<Self, StoreError> {
        todo!()
    }
    /// See [`super::Store::load`].
    pub async fn load(&self, key: &Name) -> Result<Option<Record>, StoreError> {
        todo!()
    }
    /// See [`super::Store::try_lease`].
    pub async fn try_lease(&self, key: &Name) -> Result<Option<FileLease>, StoreError> {
        todo!()
    }
    /// See [`super::Store::commit`].
    pub async fn commit(&self, lease: &FileLease, expected: u64, record: &Record) -> Result<u64, StoreError> {
        todo!()
    }
    /// See [`super::Store::set_aside`].
    pub async fn set_aside(&self, key: &Name, why: &str) -> Result<(), StoreError> {
        todo!()
    }
    /// See [`super::Store::watch`].
    pub async fn watch(&self, key: &Name) -> Result<watch::Receiver<u64>, StoreError> {
        todo!()
    }
    /// See [`super::Store::list`].
    pub async fn list(&self) -> Result<Vec<Name>, StoreError> {
        todo!()
    }
}
