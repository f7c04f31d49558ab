//! The private directory: where it is, who may read it, and how a file in it is replaced.
//!
//! Owns: modes, owners and the order of fsync. Group bits of what is ours are taken away (volumes that
//! are shared by a group add them); bits for others and foreign owners are refused, never mended, since
//! somebody may have read or replaced what stands there.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::fault::io_error;
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

/// What a reader does with a file that others may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loose {
    /// Refuses it.
    Refused,
    /// Reads it with a warning: it is about to be replaced by a private one, and a token that was just
    /// rotated must land.
    Warned,
}

impl Directory {
    /// Makes the directory if it is missing and checks that it is private.
    pub(super) fn open(configured: Option<&Path>) -> Result<Self, StoreError> {
        let path = match configured {
            Some(path) => path.to_owned(),
            None => default_path(|name| std::env::var_os(name))?,
        };
        let path = std::path::absolute(&path).map_err(|error| io_error("cannot use", &path, &error))?;
        let directory = Self { path };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory.path)
            .map_err(|error| io_error("cannot make the directory", &directory.path, &error))?;
        directory.check_itself()?;
        directory.check_parents();
        directory.check_files()?;
        directory.check_writable()?;
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
                std::fs::metadata(&self.path).map_err(|error| io_error("cannot read", &self.path, &error))?;
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        check_file(path, &metadata, loose)?;
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
        let mut temporary = tempfile::Builder::new()
            .prefix(&format!(".{key}."))
            .suffix(&format!(".{TEMPORARY}"))
            .rand_bytes(12)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.path)
            .map_err(failed)?;
        temporary.write_all(bytes).map_err(failed)?;
        temporary.as_file().sync_all().map_err(failed)?;
        still_allowed()?;
        temporary.persist(target).map_err(|error| failed(error.error))?;
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
            .map_err(|error| io_error("cannot sync the directory", &self.path, &error))
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
        let failed = |error: io::Error| io_error("cannot list the directory", &self.path, &error);
        std::fs::read_dir(&self.path)
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
            .collect()
    }

    fn check_itself(&self) -> Result<(), StoreError> {
        let metadata = std::fs::metadata(&self.path)
            .map_err(|error| io_error("cannot use the directory", &self.path, &error))?;
        let place = self.path.display();
        check_owner("directory", &self.path, &metadata)?;
        let mode = metadata.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(StoreError::Setup(format!(
                "the state directory {place} is open to other users (mode {:04o}): it must be private to bearward; \
                 take their rights away (`chmod 700 {place}`; for a systemd unit `StateDirectoryMode=0700`), or set \
                 `store.path` to a directory of its own",
                mode & 0o7777
            )));
        }
        if mode & 0o070 != 0 {
            std::fs::set_permissions(&self.path, Permissions::from_mode(mode & 0o7700))
                .map_err(|error| io_error("cannot take the group's rights away from", &self.path, &error))?;
            tracing::info!(path = %place, from = format!("{:04o}", mode & 0o7777), "took the group's rights away from the state directory");
        }
        Ok(())
    }

    /// Who may write to a directory above may put another one in the place of ours. The owner check
    /// keeps a stranger's out, so this is no more than a nuisance, and volumes are often made so.
    fn check_parents(&self) {
        for parent in self.path.ancestors().skip(1) {
            let Ok(metadata) = std::fs::metadata(parent) else { continue };
            let mode = metadata.permissions().mode();
            if mode & 0o002 != 0 && mode & 0o1000 == 0 {
                let (place, path) = (parent.display(), self.path.display());
                tracing::warn!(
                    "any user can write to {place}, so any user can move the state directory {path} away: \
                     `chmod o-w {place}`, or set `store.path` to another place"
                );
            }
        }
    }

    fn check_files(&self) -> Result<(), StoreError> {
        for path in self.entries()? {
            if !is_ours(&path) {
                continue;
            }
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) => check_file(&path, &metadata, Loose::Refused)?,
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
        let error = io_error("cannot write to the state directory", &self.path, &errno.into());
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

fn check_owner(what: &str, path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    let (uid, owner, place) = (rustix::process::geteuid().as_raw(), metadata.uid(), path.display());
    if owner == uid {
        return Ok(());
    }
    Err(StoreError::Setup(format!(
        "the {what} {place} belongs to user {owner}, and bearward runs as user {uid}: run it as user {owner}, give the \
         {what} to it (`chown {uid} {place}`), or set `store.path` to a directory of its own"
    )))
}

fn check_file(path: &Path, metadata: &Metadata, loose: Loose) -> Result<(), StoreError> {
    let place = path.display();
    if !metadata.is_file() {
        return Err(StoreError::Setup(format!(
            "{place} is not a plain file: move it away, and put the record itself in its place if it is elsewhere"
        )));
    }
    check_owner("file", path, metadata)?;
    let mode = metadata.permissions().mode();
    let others = mode & 0o007 != 0;
    if others && loose == Loose::Refused {
        return Err(StoreError::Setup(format!(
            "the file {place} can be used by other users (mode {:04o}): if nobody has read it take their rights away \
             (`chmod 600 {place}`), else revoke its tokens at the provider first",
            mode & 0o7777
        )));
    }
    if others {
        tracing::warn!("the file {place} could be used by other users; it is replaced by a private one");
    } else if mode & 0o070 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(mode & 0o7700))
            .map_err(|error| io_error("cannot take the group's rights away from", path, &error))?;
        tracing::info!(path = %place, "took the group's rights away from the file");
    }
    Ok(())
}
