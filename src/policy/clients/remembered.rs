//! Proofs that were good: what one worker need not verify again.
//!
//! Owns: a bounded table under keyed digests. Neither a password nor a token can be read from it.

use std::cell::RefCell;
use std::collections::HashMap;

use super::Digest;
use crate::secret::Fingerprint;

/// Proofs that are remembered in a worker, of each sort.
const CAPACITY: usize = 4096;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    passwords: RefCell<HashMap<Digest, (usize, Fingerprint)>>,
    tokens: RefCell<HashMap<Digest, Token>>,
}

/// A token that was good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Whose.
    pub(super) index: usize,
    /// Until then: seconds since 1970.
    pub(super) until: u64,
    /// With which keys.
    pub(super) serial: u64,
}

impl Remembered {
    pub(super) fn password(&self, digest: &Digest) -> Option<(usize, Fingerprint)> {
        self.passwords.borrow().get(digest).copied()
    }

    pub(super) fn add_password(&self, digest: Digest, index: usize, hash: Fingerprint) {
        put(&mut self.passwords.borrow_mut(), digest, (index, hash));
    }

    pub(super) fn token(&self, digest: &Digest) -> Option<Token> {
        self.tokens.borrow().get(digest).copied()
    }

    pub(super) fn add_token(&self, digest: Digest, token: Token) {
        put(&mut self.tokens.borrow_mut(), digest, token);
    }
}

/// Whoever is forgotten is verified anew. Who makes it full are clients whose proofs were good.
fn put<V>(table: &mut HashMap<Digest, V>, digest: Digest, value: V) {
    if table.len() >= CAPACITY {
        table.clear();
    }
    table.insert(digest, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_never_grows_beyond_its_capacity() {
        let remembered = Remembered::default();
        for number in 0..10_000_u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            remembered.add_token(digest, Token { index: 1, until: 2, serial: 3 });
            assert!(remembered.token(&digest).is_some());
        }
        assert!(remembered.tokens.borrow().len() <= CAPACITY);
    }
}
