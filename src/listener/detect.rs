//! Which protocol a client on a cleartext connection speaks: its first bytes tell.
//!
//! Owns: reading them, once; what was read is handed to the protocol's own reader.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::stream::Protocol;

/// What an HTTP/2 client that knows its server says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read at once: the head of a usual request.
const FIRST_READ: usize = 2048;

/// Reads until the protocol shows. What was read so far is in `read`.
pub(super) fn poll_protocol(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    read: &mut Bytes,
) -> Poll<Protocol> {
    loop {
        let mut space = [const { std::mem::MaybeUninit::uninit() }; FIRST_READ];
        let mut buf = ReadBuf::uninit(&mut space);
        let outcome = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf));
        let came = buf.filled();
        if outcome.is_err() || came.is_empty() {
            // The end comes up again for the protocol's own reader.
            return Poll::Ready(Protocol::Http1);
        }
        *read = if read.is_empty() { Bytes::copy_from_slice(came) } else { [read, came].concat().into() };
        if let Some(protocol) = judge(read) {
            return Poll::Ready(protocol);
        }
    }
}

/// Gives what was read to the protocol's own reader.
pub(super) fn hand_over(read: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let length = read.len().min(buf.remaining());
    buf.put_slice(&read.split_to(length));
    if read.is_empty() {
        // Does not keep the memory.
        *read = Bytes::new();
    }
}

fn judge(read: &[u8]) -> Option<Protocol> {
    let length = read.len().min(PREFACE.len());
    if read[..length] != PREFACE[..length] {
        Some(Protocol::Http1)
    } else {
        (length == PREFACE.len()).then_some(Protocol::Http2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_preface_is_http2() {
        let check = |read: &[u8], expected: Option<Protocol>| assert_eq!(judge(read), expected, "{read:?}");
        check(b"P", None);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None);
        check(PREFACE, Some(Protocol::Http2));
        check(&[PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat(), Some(Protocol::Http2));
        check(b"POST / HTTP/1.1\r\n", Some(Protocol::Http1));
        check(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(Protocol::Http1));
        check(b"GET / HTTP/1.1\r\n\r\n", Some(Protocol::Http1));
    }
}
