//! How long everything of an exchange may take.
//!
//! Owns: the deadlines. They are plain cells; the connection's task holds the one timer that watches the nearest of them, so
//! that a request arms no timer of its own.

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::{Client, Phase};

/// How long an exchange has to notice that its deadline passed.
const NOTICE: Duration = Duration::from_secs(1);

/// What to do when the nearest deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Close the connection.
    Close,
    /// Poll the connection again: the exchange looks at its deadlines.
    Poll,
}

impl Client {
    /// A deadline was set: the connection must not sleep beyond it.
    #[inline]
    fn note(&self, deadline: Option<Instant>) {
        if let (Some(watch), Some(deadline)) = (&self.watch, deadline) {
            watch.note(deadline);
        }
    }

    /// The upstream has until `deadline`; `None`: it is not its turn.
    #[inline]
    pub(in crate::proxy) fn await_upstream(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
        self.upstream_late.set(false);
        self.note(deadline);
    }

    /// The upstream has `limit` from now on, unless its time runs already.
    pub(in crate::proxy) fn await_upstream_unless_set(&self, limit: Duration) {
        if self.deadline.get().is_none() {
            let deadline = Some(Instant::now() + limit);
            self.deadline.set(deadline);
            self.note(deadline);
        }
    }

    /// The client has to make room for an answer.
    pub fn await_room(&self) {
        self.await_upstream_unless_set(self.link.limits.idle_timeout);
    }

    /// The client has made room.
    pub fn room_made(&self) {
        self.await_upstream(Some(Instant::now() + self.link.limits.idle_timeout));
    }

    /// Whether the upstream let its deadline pass.
    #[inline]
    pub fn upstream_is_late(&self) -> bool {
        self.upstream_late.get()
    }

    /// The client owes the next piece of its body.
    pub(in crate::proxy) fn await_body(&self, limit: Duration, waker: &Waker) {
        if self.body_deadline.get().is_none() {
            let now = Instant::now();
            let limit = match self.unhurried.get() {
                true => limit,
                false => limit.min(self.link.limits.patience(self.received.get(), self.waited.get())),
            };
            let deadline = Some(now + limit);
            self.waits_since.set(Some(now));
            self.body_deadline.set(deadline);
            self.note(deadline);
        }
        self.body_waker.replace(Some(waker.clone()));
    }

    /// A piece of the body came.
    #[inline]
    pub(in crate::proxy) fn body_arrived(&self, length: usize) {
        self.body_deadline.set(None);
        if let Some(since) = self.waits_since.take() {
            self.waited.set(self.waited.get() + since.elapsed());
        }
        self.received.set(self.received.get() + length as u64);
    }

    /// The body is one side of a conversation: it comes when there is something to say.
    pub(in crate::proxy) fn unhurried(&self) {
        self.unhurried.set(true);
    }

    /// Whether the client let the deadline of its body pass.
    #[inline]
    pub(in crate::proxy) fn body_is_late(&self) -> bool {
        self.body_late.get()
    }

    /// The nearest deadline.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.deadline.get(), self.body_deadline.get()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// [`Client::next_deadline`] has passed at `now`.
    pub fn deadline_passed(&self, now: Instant) -> Due {
        if self.phase.get() != Phase::Serving {
            return Due::Close;
        }
        if self.deadline.get().is_some_and(|deadline| deadline <= now) {
            if self.upstream_late.replace(true) {
                // Nobody looked: the answer waits for a client that does not read.
                return Due::Close;
            }
            self.deadline.set(Some(now + NOTICE));
        }
        if self.body_deadline.get().is_some_and(|deadline| deadline <= now) {
            self.body_deadline.set(None);
            self.body_late.set(true);
            if let Some(waker) = self.body_waker.take() {
                waker.wake();
            }
        }
        Due::Poll
    }

    /// Looks at the deadlines of a stream at `now`; its task acts on what is found. Returns the next deadline.
    pub fn look(&self, now: Instant) -> Option<Instant> {
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            if self.deadline_passed(now) == Due::Close {
                self.cut.set(true);
                self.deadline.set(None);
                self.body_deadline.set(None);
            }
            if let Some(task) = &*self.task.borrow() {
                task.wake_by_ref();
            }
        }
        self.next_deadline()
    }
}
