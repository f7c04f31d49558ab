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
/// So many reads in a row that need much less give room back.
const SMALL_READS: u8 = 8;

/// What was read of a connection.
#[derive(Debug)]
pub struct Reader {
    /// What belongs to nothing yet.
    pub unread: Bytes,
    /// How much is read at a time.
    room: usize,
    /// Reads in a row that would have had enough with much less.
    small: u8,
}

impl Default for Reader {
    fn default() -> Self {
        Self { unread: Bytes::new(), room: LEAST, small: 0 }
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
            spare::keep_buffer(buffer, room);
        } else {
            self.unread = buffer.freeze();
        }
        if outcome.is_ready() {
            self.adapt(count);
        }
        outcome
    }

    /// What is left of a message that was a little longer than the room is small: one such read says nothing.
    fn adapt(&mut self, count: usize) {
        let room = self.room;
        self.small = if count < room / 4 { self.small + 1 } else { 0 };
        if count >= room {
            self.room = (room * 2).min(MOST);
        } else if self.small >= SMALL_READS {
            self.room = (room / 2).max(LEAST);
            self.small = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn messages_of_one_length_settle_on_one_read_each() {
        let mut cx = Context::from_waker(Waker::noop());
        for length in [100, 4096, 5000, 16_500, 40_000] {
            let mut reader = Reader::default();
            let mut reads = 0;
            for turn in 0..20 {
                let message = vec![b'x'; length];
                let mut stream = message.as_slice();
                reads = 0;
                while !stream.is_empty() {
                    assert!(reader.poll_fill(&mut cx, &mut stream).is_ready());
                    reader.unread = Bytes::new();
                    reads += 1;
                }
                assert!(reads <= 4, "{length} {turn}");
            }
            assert_eq!(reads, 1, "{length}");
            for _ in 0..100 {
                assert!(reader.poll_fill(&mut cx, &mut b"x".as_slice()).is_ready());
                reader.unread = Bytes::new();
            }
            assert_eq!(reader.room, LEAST, "{length}");
        }
    }
}
