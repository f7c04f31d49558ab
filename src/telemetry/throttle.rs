//! A limit on log lines that clients can cause.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// Lines a second.
const LINES: u64 = 20;

/// Admits so many lines a second and counts the others. Threads that race may admit a few more.
#[derive(Debug)]
pub struct Throttle {
    begun: Instant,
    second: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }
}

impl Throttle {
    /// Whether a line may be written now; if so, how many were not since the last one.
    pub fn admit(&self) -> Option<u64> {
        let second = self.begun.elapsed().as_secs();
        if self.second.swap(second, Relaxed) != second {
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) < LINES {
            Some(self.suppressed.swap(0, Relaxed))
        } else {
            self.suppressed.fetch_add(1, Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_lines_is_cut_and_counted() {
        let throttle = Throttle::default();
        let admitted = (0..1000).filter(|_| throttle.admit().is_some()).count();
        assert_eq!(admitted, 20);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(throttle.admit(), Some(980));
        assert_eq!(throttle.admit(), Some(0));
    }
}
