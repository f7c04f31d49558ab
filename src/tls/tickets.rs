//! Session tickets: a client that comes again skips most of a handshake (RFC 8446, 2.2).
//!
//! Owns: the keys that tickets are sealed with. They are in memory only, one set a listener and configuration: a ticket
//! tells who a client was found to be, and one listener's finding must not count at another.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

/// How often a new key begins. A ticket is taken for at least this long and at most for twice as long.
pub(super) const ROTATION: std::time::Duration = std::time::Duration::from_secs(3600);

const NAME: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;

/// Seals and opens tickets for all workers, without a lock.
pub(super) struct Tickets {
    keys: ArcSwap<Keys>,
}

struct Keys {
    current: Arc<Key>,
    /// Opens, but seals no more.
    previous: Option<Arc<Key>>,
}

struct Key {
    /// Tells which key a ticket is for.
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl Tickets {
    /// With a first key. `None` without randomness.
    pub(super) fn new() -> Option<Self> {
        Some(Self { keys: ArcSwap::from_pointee(Keys { current: Key::random()?, previous: None }) })
    }

    /// Begins a new key and forgets the last but one.
    pub(super) fn rotate(&self) {
        if let Some(current) = Key::random() {
            let previous = Some(Arc::clone(&self.keys.load().current));
            self.keys.store(Arc::new(Keys { current, previous }));
        }
    }
}

impl Key {
    fn random() -> Option<Arc<Self>> {
        let (mut name, mut key) = ([0; NAME], Zeroizing::new([0; 32]));
        rand::fill(&mut name).ok()?;
        rand::fill(&mut *key).ok()?;
        Some(Arc::new(Self { name, key: RandomizedNonceKey::new(&AES_256_GCM, &*key).ok()? }))
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(ROTATION.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = &keys.current;
        let mut sealed = plain.to_vec();
        let nonce = key.key.seal_in_place_append_tag(Aad::from(&key.name), &mut sealed).ok()?;
        Some([&key.name, nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        if cipher.len() < NAME + NONCE + TAG {
            return None;
        }
        let (name, rest) = cipher.split_at(NAME);
        let (nonce, sealed) = rest.split_at(NONCE);
        let keys = self.keys.load();
        let known = [Some(&keys.current), keys.previous.as_ref()].into_iter().flatten();
        let key = known.into_iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let length = key.key.open_in_place(nonce, Aad::from(&key.name), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_one_rotation_more_and_nowhere_else() {
        let (tickets, others) = (Tickets::new().expect("keys"), Tickets::new().expect("keys"));
        let sealed = tickets.encrypt(b"session").expect("sealed");
        assert_ne!(sealed, tickets.encrypt(b"session").expect("sealed"));
        assert_eq!(tickets.decrypt(&sealed).as_deref(), Some(b"session".as_slice()));
        assert_eq!(others.decrypt(&sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "{at}");
            assert_eq!(tickets.decrypt(&sealed[..at]), None, "{at}");
        }
        tickets.rotate();
        assert_eq!(tickets.decrypt(&sealed).as_deref(), Some(b"session".as_slice()));
        tickets.rotate();
        assert_eq!(tickets.decrypt(&sealed), None);
    }
}
