//! Time: the boot clock, the wall clock, and how tests move either.
//!
//! Owns: every reading of a clock that a decision about a token depends on. Lifetimes run on
//! `CLOCK_BOOTTIME`, which counts a suspended machine and knows no steps; the wall clock is only for
//! what other parties read (`iat`, `exp`, records on disk, answers of the API).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment on the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(Duration);

impl BootTime {
    /// From a duration since boot.
    pub const fn from_boot(since: Duration) -> Self {
        Self(since)
    }

    /// The time since boot.
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// Later by `by`; saturates.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Earlier by `by`; stops at boot.
    #[must_use]
    pub const fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment on the wall clock: milliseconds since 1970, UTC. May step either way between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnixTime(i64);

impl UnixTime {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Later by `by`; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `by`; saturates.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to here; `None` if `earlier` is later.
    pub fn checked_since(self, earlier: Self) -> Option<Duration> {
        u64::try_from(self.0.checked_sub(earlier.0)?).ok().map(Duration::from_millis)
    }

    /// RFC 3339 in UTC with seconds, as the API and the logs show it.
    pub fn rfc3339(self) -> String {
        let since = Duration::from_millis(u64::try_from(self.0).unwrap_or(0));
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since.min(Duration::from_secs(253_402_300_799)))
            .to_string()
    }
}

impl From<SystemTime> for UnixTime {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => Self(-i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

/// The source of both times.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clocks.
    #[default]
    System,
    /// tokio's clock with steps applied: what tests with paused time use.
    Manual(Arc<ManualClock>),
}

/// A clock that follows `tokio::time` and that a test can step.
#[derive(Debug)]
pub struct ManualClock {
    start: tokio::time::Instant,
    boot_millis: AtomicI64,
    wall_millis: AtomicI64,
}

impl ManualClock {
    /// Begins now on tokio's clock, at one day after boot and at `wall`.
    pub fn starting_at(wall: UnixTime) -> Arc<Self> {
        Arc::new(Self {
            start: tokio::time::Instant::now(),
            boot_millis: AtomicI64::new(86_400_000),
            wall_millis: AtomicI64::new(wall.millis()),
        })
    }

    /// The machine slept: both clocks move on, tokio's timers do not.
    pub fn suspend(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.boot_millis.fetch_add(by, Ordering::SeqCst);
        self.wall_millis.fetch_add(by, Ordering::SeqCst);
    }

    /// Somebody set the wall clock.
    pub fn step_wall(&self, by_millis: i64) {
        self.wall_millis.fetch_add(by_millis, Ordering::SeqCst);
    }

    fn elapsed_millis(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl Clock {
    /// The boot clock now. Tens of nanoseconds: the hot path may call it once a request.
    pub fn boot(&self) -> BootTime {
        match self {
            Self::System => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
                let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
                BootTime(Duration::new(seconds, nanos))
            }
            Self::Manual(manual) => {
                let millis = manual.boot_millis.load(Ordering::SeqCst) + manual.elapsed_millis();
                BootTime(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
            }
        }
    }

    /// The wall clock now.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn wall(&self) -> UnixTime {
        match self {
            Self::System => SystemTime::now().into(),
            Self::Manual(manual) => {
                UnixTime(manual.wall_millis.load(Ordering::SeqCst) + manual.elapsed_millis())
            }
        }
    }

    /// Sleeps until the boot clock reads `until`. Wakes at least every 30 s to look again, since
    /// tokio's timers stand still while the machine is suspended.
    pub async fn sleep_until(&self, until: BootTime) {
        loop {
            let left = until.since(self.boot());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_secs(30))).await;
        }
    }
}

/// What is given to read what came in while the process may have stood still.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// A deadline for an answer that may have arrived while this process was stopped (SIGSTOP, a frozen container).
///
/// On waking, timers are due before sockets were read, and a rotated refresh token may lie in one: there is
/// always one more look, since nobody can tell how long the process stood still.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: tokio::time::Instant,
    looked_again: bool,
}

impl Deadline {
    /// At a moment on tokio's clock.
    pub const fn at(at: tokio::time::Instant) -> Self {
        Self { at, looked_again: false }
    }

    /// The future's output, if it comes in time.
    pub async fn bound<F: Future>(&mut self, future: F) -> Result<F::Output, tokio::time::error::Elapsed> {
        let mut future = std::pin::pin!(future);
        loop {
            let elapsed = match tokio::time::timeout_at(self.at, future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(elapsed) => elapsed,
            };
            if self.looked_again {
                return Err(elapsed);
            }
            *self = Self { at: tokio::time::Instant::now() + SECOND_LOOK, looked_again: true };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_passes_and_whoever_stood_still_looks_once_more() {
        let now = tokio::time::Instant::now;
        let begun = now();
        let mut deadline = Deadline::at(begun + Duration::from_secs(30));
        assert!(deadline.bound(std::future::pending::<()>()).await.is_err());
        assert!(begun.elapsed() < Duration::from_millis(30_600), "{:?}", begun.elapsed());

        let mut deadline = Deadline::at(now() + Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(45)).await;
        // It is there, but not with the first poll.
        let answer = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            7
        };
        assert_eq!(deadline.bound(answer).await.ok(), Some(7));
        assert!(deadline.bound(std::future::pending::<()>()).await.is_err(), "and once only");
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspended_machine_wakes_within_thirty_seconds() {
        let manual = ManualClock::starting_at(UnixTime::from_millis(1_700_000_000_000));
        let clock = Clock::Manual(manual.clone());
        let begun = tokio::time::Instant::now();
        let until = clock.boot().plus(Duration::from_secs(8 * 3600));
        manual.suspend(Duration::from_secs(8 * 3600 - 10));
        clock.sleep_until(until).await;
        assert!(begun.elapsed() <= Duration::from_secs(30));
        assert!(clock.boot() >= until);
    }

    #[test]
    fn the_system_clocks_run() {
        let clock = Clock::System;
        assert!(clock.boot().since_boot() > Duration::ZERO);
        assert!(clock.wall().seconds() > 1_700_000_000);
        assert_eq!(UnixTime::from_millis(0).rfc3339(), "1970-01-01T00:00:00Z");
    }
}
