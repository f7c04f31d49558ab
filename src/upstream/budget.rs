//! The budget of repeated attempts: one for five requests, and a few for times of little traffic.
//!
//! Owns: the count, in one worker. An upstream in trouble must not be sent a multiple of its traffic.

use std::cell::Cell;

/// What a repeated attempt costs; a request brings 1.
const PRICE: u32 = 5;
/// The most that is saved: 20 attempts.
const MOST: u32 = 20 * PRICE;

/// One worker's budget for one upstream.
#[derive(Debug)]
pub struct Budget(Cell<u32>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(MOST))
    }
}

impl Budget {
    /// A request came.
    #[inline]
    pub fn earn(&self) {
        self.0.set((self.0.get() + 1).min(MOST));
    }

    /// A second has passed: one attempt more, however little traffic there is.
    pub fn sweep(&self) {
        self.0.set((self.0.get() + PRICE).min(MOST));
    }

    /// Whether one more attempt may be made; it is paid for.
    pub fn spend(&self) -> bool {
        let left = self.0.get().checked_sub(PRICE);
        left.inspect(|left| self.0.set(*left)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated_beyond_the_reserve() {
        let budget = Budget::default();
        let repeated = (0..1_000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        let repeated = repeated.count();
        assert!((215..=225).contains(&repeated), "{repeated}");
        budget.sweep();
        assert!(budget.spend());
    }
}
