//! Health of an upstream's addresses, known to all workers.
//!
//! Owns: passive ejection (RFC has none; consecutive failures, growing pauses) and the word of active checks. Decides
//! about one address; that never all of them are left out is the balancer's rule.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{StatusCode, Uri};
use tokio::time::Instant;

/// `ejection` of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// `failures`: so many in a row leave an address out: 5.
    pub failures: u32,
    /// `time`: for how long at first; doubled each time: 10 s.
    pub time: Duration,
    /// `max_time`: 5 min.
    pub max_time: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, time: Duration::from_secs(10), max_time: Duration::from_secs(300) }
    }
}

/// `health` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// `path`.
    pub path: Uri,
    /// `interval`: between two checks of an address.
    pub interval: Duration,
    /// `timeout`: of one check.
    pub timeout: Duration,
    /// `healthy`: so many good ones in a row bring an address back.
    pub healthy: u32,
    /// `unhealthy`: so many bad ones in a row leave it out.
    pub unhealthy: u32,
    /// `expect_status`; none: any 2xx.
    pub expect_status: Vec<StatusCode>,
}

impl HealthCheck {
    /// Whether an answer with this status is a good one.
    pub fn expects(&self, status: StatusCode) -> bool {
        if self.expect_status.is_empty() { status.is_success() } else { self.expect_status.contains(&status) }
    }
}

/// Where an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(Arc<Path>),
    /// A name that is resolved by who connects, or by the outbound proxy.
    Name(Arc<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What is known of one address. Written when something goes wrong, or right again.
#[derive(Debug)]
pub struct Health {
    address: Address,
    failures: AtomicU32,
    /// Without a long good time in between.
    ejections: AtomicU32,
    /// Milliseconds since the board was made; 0: never.
    ejected_until: AtomicU64,
    unhealthy: AtomicBool,
    checked: AtomicBool,
    /// Good checks in a row while unhealthy, bad ones while healthy.
    streak: AtomicU32,
}

/// The addresses of one upstream, for all workers and the control plane.
#[derive(Debug)]
pub struct Board {
    began: Instant,
    ejection: Ejection,
    /// By the place of its origin. Held only when names were resolved and when somebody looks.
    known: Mutex<Vec<(usize, Weak<Health>)>>,
    ejected: AtomicU64,
}

/// One address as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressHealth {
    /// The place of its origin among the upstream's.
    pub origin: usize,
    /// The address.
    pub address: String,
    /// What it is.
    pub state: HealthState,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// Nothing speaks against it.
    Available,
    /// Active checks succeed.
    Healthy,
    /// Active checks fail.
    Unhealthy,
    /// Left out for a while, after failures in a row.
    Ejected,
}

impl HealthState {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Available, Self::Healthy, Self::Unhealthy, Self::Ejected];

    /// As it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
        }
    }
}

impl Board {
    /// Nothing known.
    pub fn new(ejection: Ejection) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            ejection,
            known: Mutex::default(),
            ejected: AtomicU64::new(0),
        })
    }

    /// What all workers know of this address of the origin at this place.
    pub fn health(&self, origin: usize, address: &Address) -> Arc<Health> {
        let mut known = self.known();
        known.retain(|(_, health)| health.strong_count() > 0);
        let found = known.iter().filter(|(of, _)| *of == origin).filter_map(|(_, health)| health.upgrade());
        if let Some(health) = { found }.find(|health| health.address == *address) {
            return health;
        }
        let health = Arc::new(Health {
            address: address.clone(),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            unhealthy: AtomicBool::new(false),
            checked: AtomicBool::new(false),
            streak: AtomicU32::new(0),
        });
        known.push((origin, Arc::downgrade(&health)));
        health
    }

    /// All addresses now.
    pub fn addresses(&self) -> Vec<AddressHealth> {
        let now = self.millis(Instant::now());
        let known = self.known();
        let alive = known.iter().filter_map(|(origin, health)| Some((*origin, health.upgrade()?)));
        let mut all: Vec<_> = alive
            .map(|(origin, health)| AddressHealth {
                origin,
                address: health.address.to_string(),
                state: health.state(now),
            })
            .collect();
        all.sort_by(|one, other| (one.origin, &one.address).cmp(&(other.origin, &other.address)));
        all
    }

    /// How often an address was ejected.
    pub fn ejected(&self) -> u64 {
        self.ejected.load(Relaxed)
    }

    /// The time as the addresses count it.
    pub fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// A request or connection failed at the address.
    #[cold]
    pub fn failed(&self, health: &Health, now: Instant) {
        let now = self.millis(now);
        let rules = self.ejection;
        let until = health.ejected_until.load(Relaxed);
        if health.failures.fetch_add(1, Relaxed) + 1 < rules.failures || until > now {
            return;
        }
        // After its pause one failure is enough.
        health.failures.store(rules.failures.saturating_sub(1), Relaxed);
        let pause = self.pause(health.ejections.load(Relaxed));
        let next = now.saturating_add(pause);
        if health.ejected_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok() {
            health.ejections.fetch_add(1, Relaxed);
            self.ejected.fetch_add(1, Relaxed);
            let address = health.address.to_string();
            tracing::warn!(
                address,
                pause_ms = pause,
                "an upstream address is left out: it failed too often in a row"
            );
        }
    }

    /// A request succeeded at the address.
    #[inline]
    pub fn succeeded(&self, health: &Health, now: Instant) {
        if health.failures.load(Relaxed) != 0 || health.ejections.load(Relaxed) != 0 {
            self.recovered(health, now);
        }
    }

    #[cold]
    fn recovered(&self, health: &Health, now: Instant) {
        let now = self.millis(now);
        let until = health.ejected_until.load(Relaxed);
        if until > now {
            // It was sent before the ejection, or because all were left out.
            return;
        }
        health.failures.store(0, Relaxed);
        let ejections = health.ejections.load(Relaxed);
        if ejections > 0 && now > until.saturating_add(self.pause(ejections - 1)) {
            health.ejections.store(0, Relaxed);
        }
    }

    /// Milliseconds after so many ejections before.
    fn pause(&self, ejections: u32) -> u64 {
        let factor = 1_u32.checked_shl(ejections).unwrap_or(u32::MAX);
        let pause = self.ejection.time.saturating_mul(factor).min(self.ejection.max_time);
        u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
    }

    fn known(&self) -> MutexGuard<'_, Vec<(usize, Weak<Health>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// Whether requests go elsewhere where they can. `now`: [`Board::millis`].
    #[inline]
    pub fn is_out(&self, now: u64) -> bool {
        self.ejected_until.load(Relaxed) > now || self.unhealthy.load(Relaxed)
    }

    /// What an active check said.
    pub fn checked(&self, good: bool, rules: &HealthCheck) {
        self.checked.store(true, Relaxed);
        let unhealthy = self.unhealthy.load(Relaxed);
        if good != unhealthy {
            self.streak.store(0, Relaxed);
            return;
        }
        let needed = if good { rules.healthy } else { rules.unhealthy };
        if self.streak.fetch_add(1, Relaxed) + 1 >= needed {
            self.streak.store(0, Relaxed);
            self.unhealthy.store(!good, Relaxed);
            let address = self.address.to_string();
            if good {
                tracing::info!(address, "an upstream address answers its health checks again");
            } else {
                tracing::warn!(address, "an upstream address fails its health checks and is left out");
            }
        }
    }

    fn state(&self, now: u64) -> HealthState {
        if self.unhealthy.load(Relaxed) {
            HealthState::Unhealthy
        } else if self.ejected_until.load(Relaxed) > now {
            HealthState::Ejected
        } else if self.checked.load(Relaxed) {
            HealthState::Healthy
        } else {
            HealthState::Available
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::Ip(text.parse().expect(text))
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_eject_for_a_time_that_doubles() {
        let board = Board::new(Ejection { failures: 3, ..Ejection::default() });
        let health = board.health(0, &address("10.0.0.1:1"));
        let out = || health.is_out(board.millis(Instant::now()));
        let fail = || board.failed(&health, Instant::now());
        fail();
        fail();
        board.succeeded(&health, Instant::now());
        fail();
        fail();
        assert!(!out());
        fail();
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            assert!(out(), "{pause}");
            assert_eq!(board.addresses()[0].state, HealthState::Ejected);
            fail();
            tokio::time::advance(Duration::from_secs(pause) - Duration::from_millis(1)).await;
            assert!(out(), "{pause}");
            tokio::time::advance(Duration::from_millis(2)).await;
            assert!(!out(), "{pause}");
            fail();
        }
        assert_eq!(board.ejected(), 8);
        tokio::time::advance(Duration::from_secs(601)).await;
        board.succeeded(&health, Instant::now());
        (0..3).for_each(|_| fail());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(!out(), "a long good time is forgotten nothing against");
    }

    #[test]
    fn checks_in_a_row_turn_an_address_away_and_bring_it_back() {
        let rules = HealthCheck {
            path: Uri::from_static("/"),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
            expect_status: Vec::new(),
        };
        let board = Board::new(Ejection::default());
        let health = board.health(0, &address("10.0.0.1:1"));
        let states: Vec<_> = "+--+---+-++"
            .chars()
            .map(|sign| {
                health.checked(sign == '+', &rules);
                health.state(1).as_str()
            })
            .collect();
        let (well, ill) = ("healthy", "unhealthy");
        assert_eq!(states, [well, well, well, well, well, well, ill, ill, ill, ill, well]);
        assert!(rules.expects(StatusCode::NO_CONTENT) && !rules.expects(StatusCode::FOUND));
    }

    #[test]
    fn an_address_is_known_once_and_forgotten_with_its_last_user() {
        let board = Board::new(Ejection::default());
        let one = board.health(0, &address("10.0.0.1:1"));
        let same = board.health(0, &address("10.0.0.1:1"));
        let other = board.health(1, &address("10.0.0.1:1"));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        assert_eq!(board.addresses().len(), 2);
        drop((one, same));
        assert_eq!(board.addresses().len(), 1);
    }
}
