//! Answers over HTTP/1.1 to clients that are slow to read them.
//!
//! Owns: that an answer which breaks off ends the connection however long the client takes, and that nothing follows it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::proxy_rig::{OriginServer, Rig};

const SENT: usize = 4 * 1024 * 1024;

#[test]
fn nothing_follows_an_answer_that_broke_off() {
    let check = |head: &'static str, frame: fn(usize) -> String, tail: &'static str| {
        let origin = OriginServer::scripted(move |stream, _| {
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(frame(SENT).as_bytes());
            let _ = stream.write_all(&vec![b'x'; SENT]);
            let _ = stream.write_all(tail.as_bytes());
            false
        });
        let rig = Rig::to(&origin);
        let mut stream = TcpStream::connect(rig.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2);
        stream.write_all(request.as_bytes()).expect("sent");
        // More than all buffers on the way hold: the end comes while the proxy waits for this client.
        std::thread::sleep(Duration::from_millis(400));
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        let text = String::from_utf8_lossy(&got);
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{head:?}");
        let body = &got[text.find("\r\n\r\n").expect("a head") + 4..];
        assert!(body.len() > SENT / 2, "{head:?}: {} bytes", body.len());
        assert!(!body.ends_with(b"0\r\n\r\n"), "{head:?}: it looks whole");
        assert_eq!(origin.requests().len(), 1, "{head:?}");
    };
    let none = |_| String::new();
    check("HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n", none, "");
    let chunk = |length| format!("{length:x}\r\n");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, "");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, "\r\nno size\r\n");
}

/// A client of HTTP/1.0 knows the end of an answer by the end of the connection.
#[test]
fn an_answer_that_broke_off_ends_with_a_reset_where_the_connection_tells_the_end() {
    let check = |answer: &'static str, whole: bool| {
        let origin = OriginServer::scripted(move |stream, _| {
            let _ = stream.write_all(answer.as_bytes());
            // The proxy passes on what it has.
            std::thread::sleep(Duration::from_millis(100));
            false
        });
        let rig = Rig::to(&origin);
        let mut stream = TcpStream::connect(rig.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut got = Vec::new();
        let ended = stream.read_to_end(&mut got).map_err(|error| error.kind());
        let text = String::from_utf8_lossy(&got);
        assert!(text.ends_with("\r\n\r\nhello"), "{text:?}");
        let expected = if whole { Ok(got.len()) } else { Err(ErrorKind::ConnectionReset) };
        assert_eq!(ended, expected, "{answer:?}");
    };
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false);
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true);
    check("HTTP/1.1 200 OK\r\n\r\nhello", true);
}
