//! The one timer of a client connection.
//!
//! Owns: waking the connection's task at its nearest deadline. A deadline that moves away costs nothing: the timer
//! stays where it is and is set anew when it fires.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep};

/// A timer that is set again only when it must.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: bool,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(Instant::now())), armed: false }
    }

    /// Whether `deadline` has passed; if not, the task is woken no later than then. Always called from one task.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        if self.armed && !self.sleep.is_elapsed() && self.sleep.deadline() <= deadline {
            return false;
        }
        if Instant::now() >= deadline {
            self.armed = false;
            return true;
        }
        self.sleep.as_mut().reset(deadline);
        // Without budget the poll below registers nothing, but wakes the task at once.
        self.armed = tokio::task::coop::has_budget_remaining();
        self.sleep.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_is_met() {
        let begun = Instant::now();
        let mut timer = Timer::new();
        let deadline = std::cell::Cell::new(begun + Duration::from_secs(10));
        let moves = std::cell::Cell::new(0);
        std::future::poll_fn(|cx| {
            if moves.get() == 0 {
                assert!(!timer.poll(cx, deadline.get()));
                deadline.set(begun + Duration::from_secs(25));
                moves.set(1);
            }
            if timer.poll(cx, deadline.get()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        assert_eq!(begun.elapsed().as_secs(), 25);
        let sooner = Instant::now() + Duration::from_secs(1);
        std::future::poll_fn(|cx| {
            assert!(!timer.poll(cx, sooner + Duration::from_secs(60)) || Instant::now() >= sooner);
            if timer.poll(cx, sooner) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        assert_eq!(begun.elapsed().as_secs(), 26);
    }
}
