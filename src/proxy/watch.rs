//! The deadlines of all streams of a connection over HTTP/2.
//!
//! Owns: the nearest of them, and waking who sleeps until then. Knows no stream.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use tokio::time::Instant;

/// The nearest deadline of the streams of a connection, and who sleeps until then.
#[derive(Debug, Default)]
pub struct Watch {
    nearest: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    /// When to look at the streams again.
    pub fn nearest(&self) -> Option<Instant> {
        self.nearest.get()
    }

    /// The streams were looked at.
    pub fn set(&self, nearest: Option<Instant>) {
        self.nearest.set(nearest);
    }

    /// Who sleeps.
    pub fn keep(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if kept.is_none() {
            *kept = Some(waker.clone());
        }
    }

    pub(super) fn note(&self, deadline: Instant) {
        if self.nearest.get().is_none_or(|nearest| deadline < nearest) {
            self.nearest.set(Some(deadline));
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}
