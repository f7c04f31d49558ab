//! The lease of a file store: an exclusive `flock` on a file beside the record.
//!
//! Owns: taking it, and noticing that it is worth nothing any more. The kernel gives it back when the
//! process dies, however it dies, and takes it from nobody who lives: a holder that is stopped keeps it,
//! so nobody else writes meanwhile and its late write is no stale one. All that can make a lease
//! worthless is somebody who removes or replaces the lock file; that is looked for before each write.
//! Lock files are therefore never removed here.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::fault::io_error;
use crate::names::Name;
use crate::store::StoreError;

/// A locked lock file. Unlocked when dropped.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
    key: Name,
}

impl LockFile {
    /// Takes the lock unless somebody has it.
    pub(super) fn try_take(path: PathBuf, key: &Name) -> Result<Option<Self>, StoreError> {
        let failed = |error: io::Error| io_error("cannot lock", &path, &error);
        // Twice: the file may have been replaced between its opening and its locking.
        for _ in 0..2 {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let lock = Self { file, path: path.clone(), key: key.clone() };
            if lock.check().is_ok() {
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    /// Whether the file that is locked is still the one that others would lock.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let here = self.file.metadata().map_err(|error| io_error("cannot read", &self.path, &error))?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (here.dev(), here.ino()) == (there.dev(), there.ino()) => Ok(()),
            Ok(_) => Err(self.lost()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.lost()),
            Err(error) => Err(io_error("cannot read", &self.path, &error)),
        }
    }

    pub(super) fn key(&self) -> &Name {
        &self.key
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn lost(&self) -> StoreError {
        StoreError::LeaseLost { key: self.key.clone() }
    }
}

/// The process that holds the lock of a file, where the kernel tells: it names no process of another
/// container, and some file systems show other device numbers than it does.
pub(super) fn holder(path: &Path) -> Option<u32> {
    let metadata = std::fs::metadata(path).ok()?;
    let device = metadata.dev();
    let file =
        format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), metadata.ino());
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &file)
}

/// Reads lines such as `3: FLOCK  ADVISORY  WRITE 4711 fe:00:12345 0 EOF`; who waits has an arrow.
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, pid, locked, ..] if locked == file => pid.parse().ok().filter(|pid| *pid != 0),
        _ => None,
    })
}

impl Drop for LockFile {
    /// Unlocks, rather than only closing: a child process that was forked at this moment and has not
    /// yet executed its program holds a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(path = %self.path.display(), %error, "the lock is given back by closing it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_locks_is_read() {
        let table = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 fe:00:78 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 fe:00:79 0 EOF\n";
        let check =
            |file: &str, expected: Option<u32>| assert_eq!(holder_in(table, file), expected, "{file}");
        check("fe:00:77", None);
        check("fe:00:78", Some(12));
        check("fe:00:79", None);
        check("fe:00:7", None);
    }
}
