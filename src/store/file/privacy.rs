//! Who may use what is stored: owners and modes.
//!
//! Owns: what is refused and what is mended. Group bits of what is ours are taken away (volumes that are
//! shared by a group add them); bits for others and foreign owners are refused, never mended, since
//! somebody may have read or replaced what stands there.

use std::fs::{Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::fault::{directory_error, io_error};
use crate::store::StoreError;

/// What a reader does with a file that others may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loose {
    /// Refuses it.
    Refused,
    /// Reads it with a warning: it is about to be replaced by a private one, and a token that was just
    /// rotated must land.
    Warned,
}

/// Refuses a directory that others can enter, mends one that the group can.
pub(super) fn check_directory(path: &Path) -> Result<(), StoreError> {
    let metadata =
        std::fs::metadata(path).map_err(|error| directory_error("cannot use the directory", path, &error))?;
    let place = path.display();
    check_owner("directory", path, &metadata)?;
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
        std::fs::set_permissions(path, Permissions::from_mode(mode & 0o7700))
            .map_err(|error| directory_error("cannot take the group's rights away from", path, &error))?;
        tracing::info!(path = %place, from = format!("{:04o}", mode & 0o7777), "took the group's rights away from the state directory");
    }
    Ok(())
}

/// Who may write to a directory above may put another one in the place of ours. The owner check
/// keeps a stranger's out, so this is no more than a nuisance, and volumes are often made so.
pub(super) fn warn_of_loose_parents(path: &Path) {
    for parent in path.ancestors().skip(1) {
        let Ok(metadata) = std::fs::metadata(parent) else { continue };
        let mode = metadata.permissions().mode();
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            let (place, path) = (parent.display(), path.display());
            tracing::warn!(
                "any user can write to {place}, so any user can move the state directory {path} away: \
                 `chmod o-w {place}`, or set `store.path` to another place"
            );
        }
    }
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

/// The same for a file, which must be a plain one.
pub(super) fn check_file(path: &Path, metadata: &Metadata, loose: Loose) -> Result<(), StoreError> {
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
