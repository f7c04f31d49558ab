//! Reading from a connection.
//!
//! Owns: how much is read at a time, and that what was read goes on in the memory that it was read into.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::spare;

/// How much is read at a time: from a connection that did not fill more, and at most.
const LEAST: usize = 4 * 1024;
const MOST: usize = 64 * 1024;

/// What was read of a connection.
#[derive(Debug)]
pub struct Reader {
    /// What belongs to nothing yet.
    pub unread: Bytes,
    /// How much is read at a time.
    room: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { unread: Bytes::new(), room: LEAST }
    }
}

impl Reader {
    /// Of a connection of which this much was read before.
    pub fn new(unread: Bytes) -> Self {
        Self { unread, ..Self::default() }
    }

    /// Reads what is there behind what was read before; 0: the other side has closed.
    pub fn poll_fill<T>(&mut self, cx: &mut Context<'_>, stream: &mut T) -> Poll<io::Result<usize>>
    where
        T: AsyncRead + Unpin,
    {
        let room = self.room;
        let mut buffer = if self.unread.is_empty() {
            spare::take_buffer(room)
        } else {
            let mut buffer = std::mem::take(&mut self.unread)
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            buffer.reserve(room);
            buffer
        };
        let before = buffer.len();
        let outcome = pin!(stream.read_buf(&mut buffer)).poll(cx);
        let count = buffer.len() - before;
        if buffer.is_empty() {
            spare::keep_buffer(buffer);
        } else {
            self.unread = buffer.freeze();
        }
        if count >= room {
            self.room = (room * 2).min(MOST);
        } else if count < room / 4 && outcome.is_ready() {
            self.room = (room / 2).max(LEAST);
        }
        outcome
    }
}
