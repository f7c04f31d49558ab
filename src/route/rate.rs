//! How often and how many at a time: token buckets and places, shared by all workers of the process.
//!
//! Owns: counting without a lock. A bucket is one atomic number, the time at which it would be full again (GCRA), so that
//! nothing is filled by a timer. Buckets of clients lie in a table of fixed size: under more keys than it has room for, the one that is
//! nearest to full is forgotten, which gives its owner a full bucket again and never takes memory.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::ThrottleConfig;

/// Buckets of one limit: 256 KiB.
const SLOTS: usize = 16 * 1024;
/// How many of them a key may lie in.
const PROBES: usize = 8;

/// `rate_limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// `requests`: how many in `per`.
    pub requests: u32,
    /// `per`.
    pub per: Duration,
    /// `burst`: how many at once.
    pub burst: u32,
    /// `key`.
    pub key: RateKey,
}

/// `rate_limit.key`: who shares a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateKey {
    /// A client by its name; one without a name by its address.
    Client,
    /// An address; of IPv6, a network of 64 bits.
    Address,
    /// All.
    Route,
}

/// What a bucket says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: it may go on. Else: how long until one may.
    pub wait: Option<Duration>,
    /// How many more may come at once.
    pub remaining: u32,
    /// How long until the bucket is full.
    pub reset: Duration,
}

/// The buckets of one limit.
#[derive(Debug)]
pub struct Limiter {
    limit: RateLimit,
    begun: Instant,
    hasher: RandomState,
    slots: Box<[Slot]>,
}

/// A bucket: whose it is, and when it is full. 0: nobody's.
#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    full_at: AtomicU64,
}

impl Limiter {
    /// Full buckets.
    pub fn new(limit: RateLimit) -> Self {
        let slots = if limit.key == RateKey::Route { 1 } else { SLOTS };
        Self {
            limit,
            begun: Instant::now(),
            hasher: RandomState::new(),
            slots: (0..slots).map(|_| Slot::default()).collect(),
        }
    }

    /// The limit.
    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// Takes one from the bucket of `key`, if there is one.
    pub fn take(&self, key: &impl Hash) -> Verdict {
        let now = nanos(self.begun.elapsed()).saturating_add(1);
        let bucket = if self.slots.len() == 1 {
            &self.slots[0].full_at
        } else {
            self.bucket(self.hasher.hash_one(key).max(1), now)
        };
        let one = (nanos(self.limit.per) / u64::from(self.limit.requests.max(1))).max(1);
        let room = one.saturating_mul(u64::from(self.limit.burst.max(1)));
        let mut full_at = bucket.load(Relaxed);
        loop {
            let after = full_at.max(now).saturating_add(one);
            let owed = after - now;
            if owed > room {
                let owed = full_at.saturating_sub(now);
                return Verdict {
                    wait: Some(Duration::from_nanos(after - now - room)),
                    remaining: 0,
                    reset: Duration::from_nanos(owed),
                };
            }
            match bucket.compare_exchange_weak(full_at, after, Relaxed, Relaxed) {
                Ok(_) => {
                    let remaining = u32::try_from((room - owed) / one).unwrap_or(u32::MAX);
                    return Verdict { wait: None, remaining, reset: Duration::from_nanos(owed) };
                }
                Err(moved) => full_at = moved,
            }
        }
    }

    /// The bucket of a key. Two that find a free one at the same moment may share it for that moment: nothing is lost but
    /// one request of somebody who was not there before.
    fn bucket(&self, key: u64, now: u64) -> &AtomicU64 {
        let first = usize::try_from(key % self.slots.len() as u64).unwrap_or(0);
        let probed = || (0..PROBES).map(|step| &self.slots[(first + step) % self.slots.len()]);
        if let Some(own) = probed().find(|slot| slot.key.load(Relaxed) == key) {
            return &own.full_at;
        }
        let oldest = probed().min_by_key(|slot| slot.full_at.load(Relaxed)).unwrap_or(&self.slots[first]);
        let known = oldest.key.load(Relaxed);
        if oldest.key.compare_exchange(known, key, Relaxed, Relaxed).is_ok() {
            oldest.full_at.store(now, Relaxed);
        }
        &oldest.full_at
    }
}

/// What a route, a rule of an egress listener or a client may have: one for all workers.
#[derive(Debug)]
pub struct Allowance {
    /// `rate_limit`.
    pub rate: Option<Limiter>,
    /// `concurrency`.
    pub places: Option<Arc<Places>>,
}

impl Allowance {
    /// `None`: nothing is limited.
    pub fn of(config: ThrottleConfig) -> Option<Arc<Self>> {
        let ThrottleConfig { rate, concurrency } = config;
        (rate.is_some() || concurrency.is_some())
            .then(|| Arc::new(Self { rate: rate.map(Limiter::new), places: concurrency.map(Places::new) }))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Places for requests under way.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    taken: AtomicUsize,
}

/// A place that is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// This many.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0) })
    }

    /// Takes one, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken: usize| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(requests: u32, burst: u32, key: RateKey) -> Limiter {
        Limiter::new(RateLimit { requests, per: Duration::from_secs(1), burst, key })
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_and_then_its_rate() {
        for key in [RateKey::Route, RateKey::Client] {
            let limiter = limiter(10, 3, key);
            let left: Vec<_> = (0..3).map(|_| limiter.take(&"a").remaining).collect();
            assert_eq!(left, [2, 1, 0]);
            let refused = limiter.take(&"a");
            assert_eq!(refused.wait.map(|wait| wait.as_millis()), Some(100));
            assert_eq!((refused.remaining, refused.reset.as_millis()), (0, 300));
            tokio::time::advance(Duration::from_millis(101)).await;
            assert_eq!(limiter.take(&"a").wait, None);
            assert!(limiter.take(&"a").wait.is_some());
            tokio::time::advance(Duration::from_secs(60)).await;
            assert_eq!(limiter.take(&"a").remaining, 2, "it holds no more than a burst");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_has_a_bucket_and_all_of_them_bounded_memory() {
        let limiter = limiter(1, 1, RateKey::Address);
        assert_eq!(limiter.take(&"a").wait, None);
        assert!(limiter.take(&"a").wait.is_some());
        assert_eq!(limiter.take(&"b").wait, None);
        for key in 0..100_000_u32 {
            assert_eq!(limiter.take(&key).wait, None, "{key}");
        }
        assert_eq!(limiter.slots.len(), SLOTS);
    }

    #[test]
    fn threads_together_get_no_more_than_one_of_them_would() {
        let limiter = Arc::new(Limiter::new(RateLimit {
            requests: 1,
            per: Duration::from_secs(3600),
            burst: 1000,
            key: RateKey::Route,
        }));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let limiter = Arc::clone(&limiter);
                std::thread::spawn(move || (0..1000).filter(|_| limiter.take(&()).wait.is_none()).count())
            })
            .collect();
        let taken: usize = threads.into_iter().map(|thread| thread.join().expect("counted")).sum();
        assert_eq!(taken, 1000);
    }

    #[test]
    fn places_are_given_back() {
        let places = Places::new(2);
        let (one, two) = (places.take(), places.take());
        assert!(one.is_some() && two.is_some() && places.take().is_none());
        drop(one);
        assert!(places.take().is_some());
    }
}
