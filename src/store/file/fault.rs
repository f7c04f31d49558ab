//! Words for what the system refuses: what was tried, where, why, and what a person can do about it.
//!
//! Never quotes what a file holds.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::store::StoreError;

/// The error of a failed call on `path`.
pub(super) fn io_error(action: &'static str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { action, place: path.display().to_string(), reason: reason(path, error) }
}

fn reason(path: &Path, error: &io::Error) -> String {
    let folder = path.parent().unwrap_or(path).display();
    let uid = rustix::process::geteuid().as_raw();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => {
            format!("no space is left: free some on the file system of {folder} (`df -h {folder}`)")
        }
        Some(Errno::DQUOT) => {
            format!("the disk quota of user {uid} is used up: raise it or free space in {folder}")
        }
        Some(Errno::ROFS) => "the file system is mounted read-only: mount it writable, or set `store.path` to a directory elsewhere".into(),
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "permission denied to user {uid}: give it the directory (`chown -R {uid} {folder}`, `chmod 700 {folder}`), and see that every directory above can be entered"
        ),
        Some(Errno::NOTDIR | Errno::EXIST) => {
            "something in this path is not a directory: move it away, or set `store.path` to another place"
                .into()
        }
        Some(Errno::NOENT) => {
            format!("it is gone: restore {folder} from a backup, or make it anew (`mkdir -m 700 {folder}`)")
        }
        Some(Errno::LOOP) => "it is a symbolic link: put the file itself in its place".into(),
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
    }
}
