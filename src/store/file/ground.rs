//! What the directory stands on: a warning where a file system forgets.
//!
//! Owns: the file systems whose files do not outlive a boot or a container. They are allowed, since a
//! trial run needs no more.

use std::path::Path;

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const OVERLAYFS: u64 = 0x794c_7630;

/// Says once that what is stored here will not last, where that is so.
pub(super) fn warn_if_volatile(path: &Path) {
    let Ok(about) = rustix::fs::statfs(path) else { return };
    // Its type has another width and sign on each platform; the numbers have 32 bits.
    if let Some(warning) = warning(about.f_type as u64 & 0xffff_ffff) {
        tracing::warn!("the state directory {} is on {warning}", path.display());
    }
}

fn warning(kind: u64) -> Option<&'static str> {
    match kind {
        TMPFS | RAMFS => Some(
            "a file system in memory: its refresh tokens are gone at the next boot; set `store.path` to a directory on a disk",
        ),
        OVERLAYFS => Some(
            "the writable layer of a container: its refresh tokens are gone when the container is removed; mount a volume \
             and set `store.path` to a directory on it",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("log").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(path: &str) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || warn_if_volatile(Path::new(path)));
        let bytes = log.0.lock().expect("log").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn file_systems_that_forget_are_warned_about() {
        // Every Linux has a tmpfs here, and a proc file system there.
        assert!(logged("/dev/shm").contains("WARN"), "{}", logged("/dev/shm"));
        assert!(logged("/dev/shm").contains("/dev/shm is on a file system in memory"));
        assert_eq!(logged("/proc"), "");
        assert!(warning(OVERLAYFS).expect("a warning").contains("mount a volume"));
    }
}
