//! Files of a credential that change while the process runs.
//!
//! Owns: that after one was replaced by something which cannot be used the last good one is used on, and how often that
//! was so. Never keeps what was good once over what is good now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::SetupError;

/// What was last read and could be used.
pub(super) struct LastGood<T> {
    kept: Mutex<Option<T>>,
    lapses: AtomicU64,
}

impl<T> Default for LastGood<T> {
    fn default() -> Self {
        Self { kept: Mutex::new(None), lapses: AtomicU64::new(0) }
    }
}

impl<T: Clone> LastGood<T> {
    /// What is kept.
    pub(super) fn get(&self) -> Option<T> {
        self.kept().clone()
    }

    /// Takes what was read; where it cannot be used, gives what was good before, and says so.
    pub(super) fn or_last(&self, what: &str, read: Result<T, SetupError>) -> Result<T, SetupError> {
        let mut kept = self.kept();
        match (read, &*kept) {
            (Ok(read), _) => {
                *kept = Some(read.clone());
                Ok(read)
            }
            (Err(error), Some(last)) => {
                self.lapses.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    %error,
                    "the changed {what} cannot be used; the last good one stays in use until it is mended"
                );
                Ok(last.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// How often the last good one stood in.
    pub(super) fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Option<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_one_stands_in_for_a_broken_one_and_for_nothing_else() {
        let last = LastGood::default();
        let broken = || Err(SetupError::Key("broken".into()));
        assert!(last.or_last("key", broken()).is_err(), "there was none");
        assert_eq!(last.or_last("key", Ok(1)).ok(), Some(1));
        assert_eq!(last.or_last("key", broken()).ok(), Some(1));
        assert_eq!(last.or_last("key", Ok(2)).ok(), Some(2));
        assert_eq!(last.or_last("key", broken()).ok(), Some(2));
        assert_eq!(last.lapses(), 2);
    }
}
