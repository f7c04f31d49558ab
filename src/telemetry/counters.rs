//! Counters of the data plane: one writer each, read by the control plane.
//!
//! Owns: plain counting without a locked instruction. A worker is the only writer of its block, so a relaxed load
//! and a relaxed store are enough; blocks are aligned so that two workers never write one cache line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call it: two writers would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one; see [`Counter::add`].
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one away: for gauges.
    #[inline]
    pub fn decrement(&self) {
        self.add(u64::MAX);
    }

    /// Replaces the number: for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// What was counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets of every duration histogram, in microseconds; one more bucket has no bound.
pub const BUCKET_BOUNDS_MICROS: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 60_000_000,
];

/// Durations in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKET_BOUNDS_MICROS.len() + 1],
    sum_micros: Counter,
}

impl Histogram {
    /// Counts one duration. Only the owning thread may call it.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS_MICROS.iter().position(|bound| micros <= *bound);
        self.buckets[bucket.unwrap_or(BUCKET_BOUNDS_MICROS.len())].increment();
        self.sum_micros.add(micros);
    }

    /// Adds what was counted to `sum`.
    pub fn read_into(&self, sum: &mut HistogramSnapshot) {
        for (into, from) in sum.buckets.iter_mut().zip(&self.buckets) {
            *into += from.get();
        }
        sum.sum_micros += self.sum_micros.get();
    }
}

/// A histogram as it was at one moment. Buckets are not cumulative; the last one has no upper bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Counts, in the order of [`BUCKET_BOUNDS_MICROS`].
    pub buckets: [u64; BUCKET_BOUNDS_MICROS.len() + 1],
    /// Sum of all durations, microseconds.
    pub sum_micros: u64,
}

impl HistogramSnapshot {
    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What one worker counts for one route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteCounters {
    /// Answers by first digit of their status: `[0]` is 1xx.
    pub code_classes: [Counter; 5],
    /// Answers that the proxy made because it could not forward, or answers that broke off.
    pub errors: Counter,
    /// Requests that were refused because of a rate or of too many at once.
    pub throttled: Counter,
    /// Answers 401 to a request that carried our token.
    pub unauthorized: Counter,
    /// Requests that were sent again with a newer token after a 401.
    pub replayed: Counter,
    /// Tunnels that are open: CONNECT, and SOCKS.
    pub tunnels: Counter,
    /// Bytes that went through tunnels: from clients, to clients.
    pub tunnel_bytes: [Counter; 2],
    /// From the first byte of a request to the last of its answer; of an upgrade to the 101, not to the tunnel's end.
    pub duration: Histogram,
    /// From the request handed to an upstream connection to the head of the answer.
    pub upstream_duration: Histogram,
}

impl RouteCounters {
    /// Counts an answer.
    #[inline]
    pub fn answered(&self, status: u16, duration: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.code_classes[class].increment();
        self.duration.observe(duration);
    }
}

/// What one worker counts for one client.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ClientCounters {
    /// Answers by first digit of their status: `[0]` is 1xx.
    pub code_classes: [Counter; 5],
    /// Requests that were refused because of its own rate or of too many of it at once.
    pub throttled: Counter,
}

impl ClientCounters {
    /// Counts an answer.
    #[inline]
    pub fn answered(&self, status: u16) {
        self.code_classes[usize::from(status / 100).clamp(1, 5) - 1].increment();
    }
}

/// Why requests were refused before it was known who sends them, or because of it; in the order of
/// [`DenialCounters::reasons`].
pub const DENIAL_REASONS: [&str; 5] = ["missing", "wrong", "forbidden", "throttled", "busy"];

/// What one worker counts of one listener's refused clients.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct DenialCounters {
    /// In the order of [`DENIAL_REASONS`].
    pub reasons: [Counter; DENIAL_REASONS.len()],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_bucket() {
        let check = |micros: u64, bucket: usize| {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_micros(micros));
            let mut sum = HistogramSnapshot::default();
            histogram.read_into(&mut sum);
            assert_eq!(sum.buckets.iter().position(|n| *n == 1), Some(bucket), "{micros}");
            assert_eq!((sum.count(), sum.sum_micros), (1, micros));
        };
        check(0, 0);
        check(500, 0);
        check(501, 1);
        check(60_000_000, 14);
        check(60_000_001, 15);
    }

    #[test]
    fn a_gauge_goes_down_again() {
        let counter = Counter::default();
        counter.add(3);
        counter.decrement();
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn odd_statuses_stay_in_range() {
        let counters = RouteCounters::default();
        for status in [100, 200, 599, 999] {
            counters.answered(status, Duration::ZERO);
        }
        assert_eq!(counters.code_classes.iter().map(Counter::get).collect::<Vec<_>>(), [1, 1, 0, 0, 2]);
    }
}
