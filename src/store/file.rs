//! Records as files of a private directory, shared by any number of processes of one machine.
//!
//! Owns: the contract of the store on a file system. Each credential has `<name>.record`, replaced whole
//! at each write, and `<name>.lock`, whose `flock` is the lease. Never overwrites what it cannot read.
//!
//! A commit is a compare-and-swap on the version under the lease: read again, compare, write a temporary
//! file, fsync, rename, fsync of the directory. A record that is torn, foreign or undecryptable stays an
//! error until a person acts: with it the list of seeds that were redeemed is lost too, and redeeming
//! one of them again could cost the whole family of tokens.

mod codec;
mod directory;
pub mod export;
mod fault;
mod ground;
mod lock;
mod privacy;
mod seal;
mod watch;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch as tokio_watch;

use self::codec::Unusable;
use self::directory::Directory;
use self::lock::LockFile;
use self::privacy::Loose;
use self::seal::Keyring;
use self::watch::Watches;
use super::{Record, StoreError};
use crate::names::Name;
use crate::secret::SecretSource;

/// See the module.
#[derive(Debug)]
pub struct FileStore {
    files: Arc<Files>,
    watches: Arc<Watches>,
}

/// The lock on a credential's lock file.
#[derive(Debug)]
pub struct FileLease {
    /// Shared with the write that is under way, so that a caller who stops waiting for it does not
    /// give the lock back before it has ended.
    lock: Arc<LockFile>,
}

impl FileLease {
    /// The credential.
    pub fn key(&self) -> &Name {
        self.lock.key()
    }
}

impl FileStore {
    /// Reads the keys, then opens and checks the directory.
    pub async fn open(path: Option<&Path>, keys: &[SecretSource]) -> Result<Self, StoreError> {
        let keyring = Keyring::read(keys).await?;
        let path = path.map(Path::to_owned);
        let files = blocking(move || {
            let files = Files { directory: Directory::open(path.as_deref())?, keyring };
            files.sweep()?;
            Ok(Arc::new(files))
        })
        .await?;
        Ok(Self { watches: Arc::new(Watches::new(Arc::clone(&files))), files })
    }

    /// See [`super::Store::load`].
    pub async fn load(&self, key: &Name) -> Result<Option<Record>, StoreError> {
        let (files, key) = (Arc::clone(&self.files), key.clone());
        blocking(move || files.read(&key, Loose::Refused)).await
    }

    /// See [`super::Store::try_lease`].
    pub async fn try_lease(&self, key: &Name) -> Result<Option<FileLease>, StoreError> {
        let (path, key) = (self.files.directory.lock(key), key.clone());
        let lock = blocking(move || LockFile::try_take(path, &key)).await?;
        Ok(lock.map(|lock| FileLease { lock: Arc::new(lock) }))
    }

    /// See [`super::Store::lease_holder`].
    pub async fn lease_holder(&self, key: &Name) -> Option<u32> {
        let path = self.files.directory.lock(key);
        blocking(move || Ok(lock::holder(&path))).await.ok().flatten()
    }

    /// See [`super::Store::commit`].
    pub async fn commit(&self, lease: &FileLease, expected: u64, record: &Record) -> Result<u64, StoreError> {
        let (files, watches, lock) =
            (Arc::clone(&self.files), Arc::clone(&self.watches), Arc::clone(&lease.lock));
        let record = record.clone();
        blocking(move || {
            let written = files.commit(&lock, expected, record);
            watches.look_at(lock.key());
            written
        })
        .await
    }

    /// See [`super::Store::set_aside`].
    pub async fn set_aside(&self, lease: &FileLease, why: &str) -> Result<(), StoreError> {
        let (files, watches, lock) =
            (Arc::clone(&self.files), Arc::clone(&self.watches), Arc::clone(&lease.lock));
        let why = why.to_owned();
        blocking(move || {
            let moved = files.set_aside(&lock, &why);
            watches.look_at(lock.key());
            moved
        })
        .await
    }

    /// See [`super::Store::watch`].
    pub async fn watch(&self, key: &Name) -> Result<tokio_watch::Receiver<u64>, StoreError> {
        let (watches, key) = (Arc::clone(&self.watches), key.clone());
        blocking(move || watches.watch(&key)).await
    }

    /// See [`super::Store::list`].
    pub async fn list(&self) -> Result<Vec<Name>, StoreError> {
        let files = Arc::clone(&self.files);
        blocking(move || files.directory.keys()).await
    }
}

/// The directory and how its files are read: all that blocks.
#[derive(Debug)]
struct Files {
    directory: Directory,
    keyring: Keyring,
}

impl Files {
    fn read(&self, key: &Name, loose: Loose) -> Result<Option<Record>, StoreError> {
        let path = self.directory.record(key);
        let Some(bytes) = self.directory.read(&path, loose)? else { return Ok(None) };
        match codec::decode(key, &bytes, &self.keyring) {
            Ok(record) => Ok(Some(record)),
            Err(unusable) => Err(self.corrupt(key, &path, &bytes, &unusable)),
        }
    }

    /// The version that stands there, 0 for none, without a copy of what cannot be read.
    fn version(&self, key: &Name) -> Result<u64, StoreError> {
        let path = self.directory.record(key);
        let Some(bytes) = self.directory.read(&path, Loose::Refused)? else { return Ok(0) };
        let version = codec::decode(key, &bytes, &self.keyring).map(|record| record.version);
        version.map_err(|_| StoreError::Conflict { key: key.clone(), found: 0 })
    }

    fn commit(&self, lock: &LockFile, expected: u64, mut record: Record) -> Result<u64, StoreError> {
        let key = lock.key();
        self.check_lease(lock)?;
        let stored = self.read(key, Loose::Warned)?;
        let found = stored.as_ref().map_or(0, |stored| stored.version);
        if found != expected {
            return match stored {
                // An earlier attempt of this very write had landed, though its last fsync had not.
                Some(stored) if expected.checked_add(1) == Some(found) && stored.same_content(&record) => {
                    self.directory.sync()?;
                    Ok(found)
                }
                _ => Err(StoreError::Conflict { key: key.clone(), found }),
            };
        }
        record.version = expected + 1;
        let bytes = codec::encode(key, &record, &self.keyring);
        self.directory.replace(key, &self.directory.record(key), &bytes, || lock.check())?;
        Ok(record.version)
    }

    fn set_aside(&self, lock: &LockFile, why: &str) -> Result<(), StoreError> {
        let key = lock.key();
        self.check_lease(lock)?;
        let Some(record) = self.read(key, Loose::Warned)? else { return Ok(()) };
        let aside = self.directory.aside(key, record.version);
        self.directory.rename(&self.directory.record(key), &aside)?;
        tracing::info!(credential = %key, version = record.version, kept = %aside.display(), why, "record set aside");
        Ok(())
    }

    fn check_lease(&self, lock: &LockFile) -> Result<(), StoreError> {
        if lock.path() == self.directory.lock(lock.key()) { lock.check() } else { Err(lock.lost()) }
    }

    /// Removes what writes that never ended left behind. Whoever writes holds the lease, so what
    /// stands there while we hold it belongs to nobody.
    fn sweep(&self) -> Result<(), StoreError> {
        for (key, path) in self.directory.leftovers()? {
            let swept = LockFile::try_take(self.directory.lock(&key), &key).map(|lock| match lock {
                Some(_lock) => std::fs::remove_file(&path).is_ok(),
                None => false,
            });
            tracing::debug!(path = %path.display(), removed = swept.unwrap_or(false), "unfinished write");
        }
        Ok(())
    }

    fn corrupt(&self, key: &Name, path: &Path, bytes: &[u8], unusable: &Unusable) -> StoreError {
        let kept = match self.directory.keep_copy(key, bytes) {
            Ok(copy) => format!("a copy is kept as {}", copy.display()),
            Err(error) => format!("no copy could be kept ({error})"),
        };
        let path = path.display();
        let remedy = match unusable {
            Unusable::Damaged(_) => format!(
                "put a backup in its place that was made after the last refresh (an older one holds a spent token); \
                 where there is none, remove it (`rm {path}`) and configure a new refresh token: without the file the \
                 configured one is redeemed again, though it may be spent"
            ),
            Unusable::Foreign(_) => format!("move it to its own name, or remove it (`rm {path}`)"),
            Unusable::Locked(_) => {
                "list the key that it was written with under `store.encryption.keys` (the first \
                                    encrypts, all decrypt)"
                    .to_owned()
            }
            Unusable::Newer(_) => "run the later version of bearward that wrote it".to_owned(),
        };
        StoreError::Corrupt {
            key: key.clone(),
            place: path.to_string(),
            reason: unusable.reason().to_owned(),
            remedy: format!("{remedy}; {kept}"),
        }
    }
}

/// Runs what blocks where it may.
#[allow(clippy::disallowed_methods, reason = "joined at once")]
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Setup("the runtime is shutting down".into())),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::secret::Secret;
    use crate::store::{Store, contract};

    async fn open(path: &Path, keys: &[SecretSource]) -> Store {
        Store::File(Arc::new(FileStore::open(Some(path), keys).await.expect("open")))
    }

    #[tokio::test]
    async fn it_gives_the_contract_plain_and_encrypted() {
        let key = SecretSource::Value(Secret::from("fb".repeat(32).as_str()));
        for keys in [&[][..], &[key][..]] {
            let folders = Mutex::new(Vec::new());
            contract::suite(async || {
                let folder = tempfile::tempdir().expect("tempdir");
                let path = folder.path().join("state/below");
                folders.lock().expect("folders").push(folder);
                (open(&path, keys).await, open(&path, keys).await)
            })
            .await;
        }
    }
}
