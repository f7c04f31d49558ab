//! Failed attempts: who guesses has to wait, longer each time.
//!
//! Owns: a table of fixed size that all workers share without a lock. A key is an address with what it tried to be, so
//! that one program with an old password does not keep out its neighbours; beside it each address has a larger
//! allowance for everything that it tries. Keys are hashed with a secret of the process: nobody can aim at a place.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::BootTime;

/// Sets of places.
const SETS: usize = 4096;
/// Places of a set.
const WAYS: usize = 4;
/// Failures without a wait, for one name from one address.
const FREE: u8 = 5;
/// Failures without a wait, for all names from one address.
const FREE_OF_ADDRESS: u8 = 100;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// After this long without a failure all is forgotten.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// Ticks a second of the times in the table.
const TICKS: u64 = 8;

/// The table.
#[derive(Debug)]
pub struct Throttle {
    /// 24 bits of the key's hash, 8 of failures, 32 of the time of the last one.
    places: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// How an attempt stands that was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It is one of the free ones.
    Free,
    /// The first that is followed by a wait.
    First,
    /// A further one.
    Waited,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u64,
    failures: u8,
    last: u64,
}

impl Entry {
    fn unpack(place: u64) -> Self {
        Self { tag: place >> 40, failures: (place >> 32 & 0xff) as u8, last: place & 0xffff_ffff }
    }

    fn pack(self) -> u64 {
        self.tag << 40 | u64::from(self.failures) << 32 | self.last & 0xffff_ffff
    }

    fn is_live(self, now: u64) -> bool {
        self.failures > 0 && now.saturating_sub(self.last) < MEMORY.as_secs() * TICKS
    }

    /// How long until the next attempt.
    fn wait(self, free: u8, now: u64) -> Option<Duration> {
        let over = self.failures.checked_sub(free)?;
        let pause = (TICKS << over.min(16)).min(LONGEST.as_secs() * TICKS);
        let left = (self.last + pause).checked_sub(now).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left * 1000 / TICKS))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self { places: (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }
}

impl Throttle {
    /// Whether an attempt must wait, and how long. Counts nothing.
    pub fn wait(&self, address: Option<IpAddr>, name: &[u8], now: BootTime) -> Option<Duration> {
        let now = ticks(now);
        let one = self.find(self.key(address, Some(name)), now).and_then(|(_, entry)| entry.wait(FREE, now));
        let all = self.find(self.key(address, None), now);
        one.max(all.and_then(|(_, entry)| entry.wait(FREE_OF_ADDRESS, now)))
    }

    /// Counts an attempt as failed until it is known to be good: parallel guesses are not free.
    pub fn count(&self, address: Option<IpAddr>, name: &[u8], now: BootTime) -> Counted {
        let now = ticks(now);
        self.add(self.key(address, None), now);
        match self.add(self.key(address, Some(name)), now) {
            failures if failures < FREE => Counted::Free,
            FREE => Counted::First,
            _ => Counted::Waited,
        }
    }

    /// The attempt was good.
    pub fn clear(&self, address: Option<IpAddr>, name: &[u8], now: BootTime) {
        let now = ticks(now);
        if let Some((place, _)) = self.find(self.key(address, Some(name)), now) {
            place.store(0, Relaxed);
        }
        if let Some((place, entry)) = self.find(self.key(address, None), now) {
            place.store(Entry { failures: entry.failures - 1, ..entry }.pack(), Relaxed);
        }
    }

    fn key(&self, address: Option<IpAddr>, name: Option<&[u8]>) -> u64 {
        let network = address.map(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            // Whoever has one address of a /64 has all of them.
            IpAddr::V6(ip) => ip.to_bits() >> 64 | 1 << 127,
        });
        self.hasher.hash_one((network, name))
    }

    fn set(&self, key: u64) -> (&[AtomicU64], u64) {
        let at = usize::try_from(key % SETS as u64).unwrap_or_default() * WAYS;
        // Never 0, so that an empty place is nobody's.
        (&self.places[at..at + WAYS], key >> 40 | 1)
    }

    fn find(&self, key: u64, now: u64) -> Option<(&AtomicU64, Entry)> {
        let (set, tag) = self.set(key);
        let mut entries = set.iter().map(|place| (place, Entry::unpack(place.load(Relaxed))));
        entries.find(|(_, entry)| entry.tag == tag && entry.is_live(now))
    }

    /// Adds a failure and returns how many there are. Of a full set whoever failed least is forgotten.
    fn add(&self, key: u64, now: u64) -> u8 {
        if let Some((place, entry)) = self.find(key, now) {
            let failures = entry.failures.saturating_add(1);
            place.store(Entry { failures, last: now, ..entry }.pack(), Relaxed);
            return failures;
        }
        let (set, tag) = self.set(key);
        let least = set.iter().min_by_key(|place| {
            let entry = Entry::unpack(place.load(Relaxed));
            if entry.is_live(now) { u16::from(entry.failures) } else { 0 }
        });
        if let Some(place) = least {
            place.store(Entry { tag, failures: 1, last: now }.pack(), Relaxed);
        }
        1
    }
}

fn ticks(now: BootTime) -> u64 {
    u64::try_from(now.since_boot().as_millis()).unwrap_or(u64::MAX) * TICKS / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds + 1000))
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn who_guesses_waits_longer_each_time() {
        let throttle = Throttle::default();
        let address = ip("192.0.2.1");
        let mut tried = Vec::new();
        for second in 0..400 {
            if throttle.wait(address, b"batch", at(second)).is_none() {
                throttle.count(address, b"batch", at(second));
                tried.push(second);
            }
        }
        assert_eq!(tried, [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67, 127, 187, 247, 307, 367]);
        assert_eq!(throttle.wait(address, b"batch", at(367 + 900)), None, "forgotten");
    }

    #[test]
    fn the_neighbours_of_a_guesser_are_let_in() {
        let throttle = Throttle::default();
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..20 {
            throttle.count(one, b"batch", at(0));
        }
        assert!(throttle.wait(one, b"batch", at(1)).is_some());
        assert_eq!(throttle.wait(one, b"erp", at(1)), None);
        assert_eq!(throttle.wait(other, b"batch", at(1)), None);
        assert_eq!(throttle.wait(None, b"batch", at(1)), None);
        throttle.clear(one, b"batch", at(1));
        assert_eq!(throttle.wait(one, b"batch", at(1)), None);
    }

    #[test]
    fn many_names_from_one_address_have_one_allowance() {
        let throttle = Throttle::default();
        let address = ip("2001:db8::1");
        for name in 0..101_u32 {
            throttle.count(address, &name.to_be_bytes(), at(0));
        }
        assert!(throttle.wait(address, b"another", at(0)).is_some());
        assert!(throttle.wait(ip("2001:db8::ffff"), b"another", at(0)).is_some(), "the same /64");
        assert_eq!(throttle.wait(ip("2001:db8:0:1::1"), b"another", at(0)), None);
    }

    #[test]
    fn a_flood_of_addresses_leaves_the_table_as_large_as_it_was() {
        let throttle = Throttle::default();
        for address in 0..200_000_u32 {
            throttle.count(Some(std::net::Ipv4Addr::from(address).into()), b"batch", at(0));
        }
        assert_eq!(throttle.places.len(), SETS * WAYS);
        let guesser = ip("192.0.2.1");
        for _ in 0..20 {
            throttle.count(guesser, b"batch", at(1));
        }
        assert!(throttle.wait(guesser, b"batch", at(1)).is_some());
    }
}
