//! The private directory: where it is, what its files are called, and how one of them is replaced.
//!
//! Owns: the names and the order of fsync. Never writes into a file that has its name already.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::fault::{directory_error, io_error};
use super::ground;
use super::privacy::{self, Loose};
use crate::names::Name;
use crate::secret::Fingerprint;
use crate::store::StoreError;

/// The ending of a record's file.
const RECORD: &str = "record";
/// The ending of the file that is locked in its stead (the record itself is replaced at each write).
const LOCK: &str = "lock";
/// The ending of a file that is being written; it begins with a dot and the key.
const TEMPORARY: &str = "tmp";
/// No record is near this size.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// An existing directory that only this user can enter.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
}

/// Tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file that is being written; removed unless it got its name. (`tempfile` hides the number of an
/// error, and the number is what the remedy depends on.)
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing of this name any more.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Directory {
    /// Makes the directory if it is missing and checks that it is private.
    pub(super) fn open(configured: Option<&Path>) -> Result<Self, StoreError> {
        let path = match configured {
            Some(path) => path.to_owned(),
            None => default_path(|name| std::env::var_os(name))?,
        };
        let path =
            std::path::absolute(&path).map_err(|error| directory_error("cannot use", &path, &error))?;
        let directory = Self { path };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory.path)
            .map_err(|error| directory_error("cannot make the directory", &directory.path, &error))?;
        privacy::check_directory(&directory.path)?;
        privacy::warn_of_loose_parents(&directory.path);
        directory.check_files()?;
        directory.check_writable()?;
        ground::warn_if_volatile(&directory.path);
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn record(&self, key: &Name) -> PathBuf {
        self.path.join(format!("{key}.{RECORD}"))
    }

    pub(super) fn lock(&self, key: &Name) -> PathBuf {
        self.path.join(format!("{key}.{LOCK}"))
    }

    /// The key whose record a path is.
    pub(super) fn key_of_record(path: &Path) -> Option<Name> {
        let stem = path.file_name()?.to_str()?.strip_suffix(RECORD)?.strip_suffix('.')?;
        Name::try_new(stem).ok()
    }

    /// The keys of all records, sorted.
    pub(super) fn keys(&self) -> Result<Vec<Name>, StoreError> {
        let mut keys: Vec<_> = self.entries()?.iter().filter_map(|path| Self::key_of_record(path)).collect();
        keys.sort();
        Ok(keys)
    }

    /// The keys of writes that never ended, each with its file.
    pub(super) fn leftovers(&self) -> Result<Vec<(Name, PathBuf)>, StoreError> {
        Ok(self.entries()?.into_iter().filter_map(|path| Some((key_of_temporary(&path)?, path))).collect())
    }

    /// Where the directory is now, as numbers: they change when another is put in its place.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        std::fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// The stamp of a file; `None` where there is none.
    pub(super) fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A whole file of ours; `None` where there is none.
    pub(super) fn read(&self, path: &Path, loose: Loose) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let failed = |error: io::Error| io_error("cannot read", path, &error);
        // Neither follows a link nor waits for the other end of a pipe.
        let mut file = match OpenOptions::new()
            .read(true)
            .custom_flags(open_flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A missing record is an answer, a missing directory is a fault.
                std::fs::metadata(&self.path)
                    .map_err(|error| directory_error("cannot read", &self.path, &error))?;
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        privacy::check_file(path, &metadata, loose)?;
        let size = metadata.len().min(MAX_FILE_BYTES);
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
        (&mut file).take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Puts `bytes` in the place of `target` in one step that survives a loss of power: a temporary
    /// file, fsync, rename, fsync of the directory. `still_allowed` has the last word before the rename.
    pub(super) fn replace(
        &self,
        key: &Name,
        target: &Path,
        bytes: &[u8],
        still_allowed: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |error: io::Error| io_error("cannot write", target, &error);
        let name: String = std::iter::repeat_with(fastrand::alphanumeric).take(12).collect();
        let unfinished = Unfinished(self.path.join(format!(".{key}.{name}.{TEMPORARY}")));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished.0)
            .map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        still_allowed()?;
        std::fs::rename(&unfinished.0, target).map_err(failed)?;
        self.sync()
    }

    /// Gives a file another name, durably. The name must be free.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            from,
            rustix::fs::CWD,
            to,
            rustix::fs::RenameFlags::NOREPLACE,
        )
        .or_else(|errno| match errno {
            // Network file systems know no such flag; the lease keeps other writers of ours away.
            rustix::io::Errno::INVAL if !to.exists() => std::fs::rename(from, to),
            errno => Err(errno.into()),
        })
        .map_err(|error| io_error("cannot rename", from, &error))?;
        self.sync()
    }

    /// Makes the last rename durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| directory_error("cannot sync the directory", &self.path, &error))
    }

    /// Keeps a copy of what cannot be read beside it, once for each content, and names the copy.
    pub(super) fn keep_copy(&self, key: &Name, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        let copy = self.path.join(format!("{key}.corrupt-{}", Fingerprint::of(bytes)));
        if !copy.exists() {
            self.replace(key, &copy, bytes, || Ok(()))?;
        }
        Ok(copy)
    }

    /// A free name for a record of this version that is set aside.
    pub(super) fn aside(&self, key: &Name, version: u64) -> PathBuf {
        let mut number = 1_u32;
        loop {
            let path = self.path.join(format!("{key}.aside-{version}-{number}"));
            if !path.exists() {
                return path;
            }
            number += 1;
        }
    }

    fn entries(&self) -> Result<Vec<PathBuf>, StoreError> {
        let failed = |error: io::Error| directory_error("cannot list the directory", &self.path, &error);
        std::fs::read_dir(&self.path)
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
            .collect()
    }

    fn check_files(&self) -> Result<(), StoreError> {
        for path in self.entries()? {
            if !is_ours(&path) {
                continue;
            }
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) => privacy::check_file(&path, &metadata, Loose::Refused)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("cannot read", &path, &error)),
            }
        }
        Ok(())
    }

    /// A store that holds a record is opened even if nothing can be written: what it holds may still be
    /// good for a while. An empty one is of no use.
    fn check_writable(&self) -> Result<(), StoreError> {
        let Err(errno) = rustix::fs::access(&self.path, rustix::fs::Access::WRITE_OK) else {
            return Ok(());
        };
        let error = directory_error("cannot write to the state directory", &self.path, &errno.into());
        if self.keys()?.is_empty() {
            return Err(error);
        }
        tracing::error!("{error}; tokens are served while they last, and none can be refreshed");
        Ok(())
    }
}

fn open_flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("open flags are small numbers")
}

/// systemd names one or more directories, separated by colons; the first is ours.
fn default_path(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, StoreError> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(given) = variable("STATE_DIRECTORY") {
        let first = given.to_str().and_then(|list| list.split(':').next()).map(PathBuf::from);
        if let Some(path) = first.filter(|path| path.is_absolute()) {
            return Ok(path);
        }
    }
    if let Some(path) = absolute("XDG_STATE_HOME") {
        return Ok(path.join("bearward"));
    }
    absolute("HOME").map(|home| home.join(".local/state/bearward")).ok_or_else(|| {
        StoreError::Setup(
            "there is no place for the token store: neither $STATE_DIRECTORY, $XDG_STATE_HOME nor $HOME is set; \
             set `store.path` to a directory of its own, as `store: {kind: file, path: /var/lib/bearward}`"
                .into(),
        )
    })
}

fn is_ours(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    ending == RECORD
        || ending == LOCK
        || ending.starts_with("aside-")
        || ending.starts_with("corrupt-")
        || key_of_temporary(path).is_some()
}

fn key_of_temporary(path: &Path) -> Option<Name> {
    let inner = path.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix(TEMPORARY)?.strip_suffix('.')?;
    Name::try_new(inner.rsplit_once('.')?.0).ok()
}
