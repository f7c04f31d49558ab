//! Connections that speak HTTP/2 (RFC 9113), each with many exchanges at once.
//!
//! Owns: which of them takes the next request, how long one lives, and finding out that the other side is gone. Each has
//! a task of its own on the worker's thread, which reads and writes for all its streams in turn: so what many requests
//! have to say goes out together.

mod connection;
mod fields;
mod stream;
mod upload;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::connection::Connection;
pub use self::connection::Place;
pub use self::fields::tidy;
pub(super) use self::stream::Stream;

/// How long a connection without a stream is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How old a connection gets before another one takes its place.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The open connections to one upstream.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: RefCell<Vec<Rc<Connection>>>,
}

/// What a look at the connections found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Room on a connection.
    Room,
    /// The same, on one that is to be replaced.
    Aged,
}

impl Connections {
    /// Room for one more stream. The first with room is taken, so that those behind become idle and end.
    pub(super) fn place(&self, now: Instant) -> Option<(Place, Found)> {
        let open = self.open.borrow();
        let connection = open.iter().find(|connection| connection.has_room())?;
        let found = if connection.age(now) < MAX_AGE { Found::Room } else { Found::Aged };
        Some((connection.place(now), found))
    }

    /// Takes a new connection in. Those that it replaces take no more requests.
    pub(super) fn add(&self, connection: Rc<Connection>, now: Instant) {
        let mut open = self.open.borrow_mut();
        // Nothing is cut: each ends when the last of its streams does.
        open.retain(|old| old.age(now) < MAX_AGE);
        open.push(connection);
    }

    /// Forgets what has ended or was idle for too long, and asks silent ones for a sign.
    pub(super) fn sweep(&self, now: Instant) {
        self.open.borrow_mut().retain(|connection| {
            !connection.is_over(now) && connection.idle_for(now).is_none_or(|idle| idle < IDLE_LIMIT)
        });
    }

    /// Takes no more requests; each connection ends with the last of its streams.
    pub(super) fn retire(&self) {
        self.open.borrow_mut().clear();
    }

    /// Connections without a stream.
    pub(super) fn idle(&self, now: Instant) -> usize {
        self.open.borrow().iter().filter(|connection| connection.idle_for(now).is_some()).count()
    }
}
