//! Notices that a file was replaced or rewritten, also through the `..data` links of Kubernetes.
//!
//! Owns: what counts as a change. Never reads a file: a look costs one `stat` each.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files and how each looked last.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<(PathBuf, Option<Look>)>,
}

/// Symlinks are followed, so that a swapped link is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileWatch {
    /// Begins to watch: look first, read the file after, so that no change falls between.
    pub async fn begin(paths: Vec<PathBuf>) -> Self {
        let looks = look_at(paths.clone()).await;
        Self { files: paths.into_iter().zip(looks).collect() }
    }

    /// Whether any file looks different from the last time.
    pub async fn changed(&mut self) -> bool {
        let looks = look_at(self.files.iter().map(|(path, _)| path.clone()).collect()).await;
        let mut changed = false;
        for ((_, last), look) in self.files.iter_mut().zip(looks) {
            changed |= look != *last;
            *last = look;
        }
        changed
    }
}

/// All at once, on the blocking pool.
async fn look_at(paths: Vec<PathBuf>) -> Vec<Option<Look>> {
    if paths.is_empty() {
        return Vec::new();
    }
    let look = move || paths.iter().map(|path| look_of(path)).collect();
    #[allow(clippy::disallowed_methods, reason = "a few looks at files, joined at once")]
    let looks = tokio::task::spawn_blocking(look).await;
    // Cancelled only when the process stops.
    looks.unwrap_or_default()
}

fn look_of(path: &Path) -> Option<Look> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Look {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn case_79_a_swapped_data_link_is_a_change() {
        let mount = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| mount.path().join(name);
        for (version, text) in [("..v1", "one"), ("..v2", "two")] {
            std::fs::create_dir(at(version)).expect("create");
            std::fs::write(at(version).join("secret"), text).expect("write");
        }
        std::os::unix::fs::symlink("..v1", at("..data")).expect("link");
        std::os::unix::fs::symlink("..data/secret", at("secret")).expect("link");
        let mut watch = FileWatch::begin(vec![at("secret")]).await;
        assert!(!watch.changed().await);
        std::os::unix::fs::symlink("..v2", at("..data_tmp")).expect("link");
        std::fs::rename(at("..data_tmp"), at("..data")).expect("rename");
        assert!(watch.changed().await);
        assert!(!watch.changed().await);
        std::fs::remove_file(at("secret")).expect("remove");
        assert!(watch.changed().await, "gone");
        std::fs::write(at("secret"), "three").expect("write");
        assert!(watch.changed().await, "back");
    }
}
