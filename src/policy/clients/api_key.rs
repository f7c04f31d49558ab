//! Keys in a header field.
//!
//! Owns: comparing them. Only digests are held, and each comparison looks at every one of them.

use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::secret::Fingerprint;

/// The digests of one client's keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(Vec<[u8; 32]>);

impl Keys {
    pub(super) fn new(digests: &[Fingerprint]) -> Self {
        Self(digests.iter().map(|digest| *digest.as_bytes()).collect())
    }

    /// Whether `digest` is one of them; takes the same time wherever they differ.
    pub(super) fn contain(&self, digest: &Fingerprint) -> bool {
        let same = |known: &[u8; 32]| verify_slices_are_equal(known, digest.as_bytes()).is_ok();
        self.0.iter().fold(false, |found, known| found | same(known))
    }
}

/// Reads digests from a file: one a line, `#` begins a comment.
pub(super) fn read(path: &Path) -> Result<Vec<Fingerprint>, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let mut digests = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let digest = Fingerprint::from_hex(line);
        digests.push(digest.ok_or_else(|| {
            format!("line {} of {} is not the SHA-256 of a key: 64 hex digits", index + 1, path.display())
        })?);
    }
    if digests.is_empty() {
        return Err(format!("{} holds no digest of a key", path.display()));
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_digest_only() {
        let keys = Keys::new(&[Fingerprint::of(b"one"), Fingerprint::of(b"two")]);
        let check = |key: &str, expected: bool| {
            assert_eq!(keys.contain(&Fingerprint::of(key.as_bytes())), expected, "{key}");
        };
        check("one", true);
        check("two", true);
        check("three", false);
        check("", false);
        check(&Fingerprint::of(b"one").to_hex(), false);
        assert!(!Keys::default().contain(&Fingerprint::of(b"one")));
    }

    #[test]
    fn a_file_of_digests_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("keys");
        let one = Fingerprint::of(b"one");
        let check = |text: &str, expected: Result<usize, &str>| {
            std::fs::write(&path, text).expect("written");
            match (read(&path), expected) {
                (Ok(found), Ok(count)) => assert_eq!(found.len(), count, "{text:?}"),
                (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        };
        check(&format!("# batch\n{}  # since May\n\n{}\n", one.to_hex(), one.to_hex()), Ok(2));
        check(&format!("{}\nkey\n", one.to_hex()), Err("line 2 of"));
        check("# none\n", Err("holds no digest"));
    }
}
