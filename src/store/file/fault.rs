//! Words for what the system refuses: what was tried, where, why, and what a person can do about it.
//!
//! Never quotes what a file holds.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::store::StoreError;

/// The error of a failed call on a file in the directory.
pub(super) fn io_error(action: &'static str, path: &Path, error: &io::Error) -> StoreError {
    let folder = path.parent().unwrap_or(path).display();
    let uid = rustix::process::geteuid().as_raw();
    let reason = match errno(error) {
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "permission denied to user {uid}: give it the directory (`chown -R {uid} {folder}`, `chmod 700 {folder}`), \
             and see that it can enter every directory above"
        ),
        Some(Errno::NOENT) => {
            format!("it is gone: restore {folder} from a backup, or make it anew (`mkdir -m 700 {folder}`)")
        }
        Some(Errno::LOOP) => "it is a symbolic link: put the file itself in its place".into(),
        _ => reason(&folder.to_string(), error),
    };
    StoreError::Io { action, place: path.display().to_string(), reason }
}

/// The error of a failed call on the directory itself.
pub(super) fn directory_error(action: &'static str, path: &Path, error: &io::Error) -> StoreError {
    let place = path.display().to_string();
    let uid = rustix::process::geteuid().as_raw();
    let reason = match errno(error) {
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "permission denied to user {uid}: make it or give it to that user as root (`install -d -m 700 -o {uid} \
             {place}`), see that it can enter every directory above, or set `store.path` to another place"
        ),
        Some(Errno::NOENT) => {
            format!("it is gone: restore it from a backup, or make it anew (`mkdir -m 700 {place}`)")
        }
        _ => reason(&place, error),
    };
    StoreError::Io { action, place, reason }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// What is the same for files and directories.
fn reason(folder: &str, error: &io::Error) -> String {
    let uid = rustix::process::geteuid().as_raw();
    match errno(error) {
        Some(Errno::NOSPC) => {
            format!("no space is left: free some on the file system of {folder} (`df -h {folder}`)")
        }
        Some(Errno::DQUOT) => {
            format!("the disk quota of user {uid} is used up: raise it or free space in {folder}")
        }
        Some(Errno::ROFS) => {
            "the file system is mounted read-only: mount it writable, or set `store.path` to a \
                              directory elsewhere"
                .into()
        }
        Some(Errno::NOTDIR | Errno::EXIST) => {
            "something in this path is not a directory: move it away, or set `store.path` to another place"
                .into()
        }
        Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => {
            "this file system gives no locks: set `store.path` to a local disk, or mount it with locks".into()
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            "too many open files: raise the limit (`LimitNOFILE=` of the unit, `ulimit -n`)".into()
        }
        Some(Errno::IO) => "the disk reports an error: look at the kernel's log (`dmesg`)".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_remedy() {
        let check = |errno: Errno, expected: &str| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let shown = io_error("cannot write", Path::new("/state/a.record"), &error).to_string();
            assert!(shown.starts_with("cannot write /state/a.record: "), "{shown}");
            assert!(shown.contains(expected), "{shown}");
        };
        check(Errno::NOSPC, "free some on the file system of /state (`df -h /state`)");
        check(Errno::ROFS, "mount it writable");
        check(Errno::ACCESS, "`chmod 700 /state`");
        check(Errno::NOTDIR, "not a directory");
        check(Errno::NOENT, "`mkdir -m 700 /state`");
        check(Errno::IO, "`dmesg`");
        check(Errno::NOLCK, "gives no locks");
    }

    #[test]
    fn what_is_advised_for_the_directory_never_touches_the_one_above() {
        let check = |errno: Errno, expected: &str| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let shown = directory_error("cannot use", Path::new("/var/lib/bearward"), &error).to_string();
            assert!(shown.contains(expected), "{shown}");
            assert!(!shown.contains("/var/lib`") && !shown.contains("chown"), "{shown}");
        };
        check(Errno::ACCESS, " /var/lib/bearward`), see that");
        check(Errno::NOENT, "`mkdir -m 700 /var/lib/bearward`");
        check(Errno::NOSPC, "`df -h /var/lib/bearward`");
    }
}
