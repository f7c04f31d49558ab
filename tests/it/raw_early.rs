//! Bodies and answers that cross each other (RFC 9110, 10.1.1; RFC 9112, 9.5 and 9.6): an answer before the body, a body that
//! nobody wants, a client that goes away.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy_rig::{OriginServer, Rig, fields_of, read_head, route, status};

const HOST: &str = "Host: localhost\r\n";
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// All that comes until the connection ends.
fn to_the_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(length @ 1..) => bytes.extend_from_slice(&piece[..length]),
            Ok(0) => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An origin that reads a head, answers, and closes without a look at the body.
fn hasty(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                if read_head(&mut stream).is_some() && stream.write_all(answer.as_bytes()).is_ok() {
                    let _ = stream.shutdown(Shutdown::Write);
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            });
        }
    });
    url
}

#[test]
fn an_answer_that_comes_before_the_body_arrives_however_much_of_it_is_to_come() {
    let answer = "HTTP/1.1 413 x\r\nConnection: close\r\nContent-Length: 7\r\n\r\nno room";
    let rig = Rig::start(vec![route(&hasty(answer))]);
    for (framing, size) in [("length", 100), ("length", 5_000_000), ("chunks", 100), ("chunks", 5_000_000)] {
        let mut wire = rig.connect();
        let body = "x".repeat(size);
        let request = match framing {
            "length" => format!("POST /x HTTP/1.1\r\n{HOST}Content-Length: {size}\r\n\r\n{body}"),
            _ => format!(
                "POST /x HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
            ),
        };
        let mut writer = wire.0.try_clone().expect("cloned");
        let writing = std::thread::spawn(move || {
            let _ = writer.write_all(request.as_bytes());
        });
        let mut bytes = vec![0; 15];
        wire.0.read_exact(&mut bytes).expect("an answer");
        assert_eq!(status(&String::from_utf8_lossy(&bytes)), 413, "{framing} {size}");
        let _ = wire.0.shutdown(Shutdown::Both);
        writing.join().expect("it only writes");
    }
}

#[test]
fn a_body_that_was_not_asked_for_is_no_request() {
    let answers =
        ["HTTP/1.1 417 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 401 x\r\nContent-Length: 2\r\n\r\nno"];
    for answer in answers {
        let origin = OriginServer::scripted(move |stream, request| {
            let own = request.contains("expect: ");
            stream
                .write_all(
                    if own { answer } else { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }.as_bytes(),
                )
                .is_ok()
        });
        let mut api = route(&origin.url());
        api.on_unauthorized.refresh = false;
        let rig = Rig::start(vec![api]);
        let mut wire = rig.connect();
        wire.write(&format!(
            "POST /x HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            HIDDEN.len()
        ));
        let head = String::from_utf8(read_head(&mut wire.0).expect("a head")).expect("text");
        assert_eq!(status(&head), status(answer), "{head}");
        assert_eq!(fields_of(&head, "connection"), ["close"], "{head}");
        // The client had begun to send it.
        let _ = wire.0.write_all(HIDDEN.as_bytes());
        let rest = to_the_end(&mut wire.0);
        assert!(!rest.contains("HTTP/1.1 "), "{rest}");
        assert!(origin.requests().iter().all(|request| !request.contains("smuggled")));
    }
}

#[test]
fn a_refused_body_beyond_all_bounds_ends_the_connection() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    let began = Instant::now();
    let mut writer = wire.0.try_clone().expect("cloned");
    let writing = std::thread::spawn(move || {
        let _ = writer
            .write_all(format!("POST /%00 HTTP/1.1\r\n{HOST}Content-Length: 900000000\r\n\r\n").as_bytes());
        let piece = vec![b'x'; 1 << 16];
        let mut sent = 0_u64;
        while sent < 900_000_000 && writer.write_all(&piece).is_ok() {
            sent += piece.len() as u64;
        }
        sent
    });
    let got = to_the_end(&mut wire.0);
    assert_eq!(status(&got), 400, "{got}");
    assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{got}");
    let sent = writing.join().expect("it only writes");
    assert!(sent < 30_000_000, "{sent} bytes of a refused body were read");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_client_that_goes_away_in_its_body_leaves_no_whole_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let (heard, hears) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                let _ = heard.send(String::from_utf8_lossy(&bytes).into_owned());
            });
        }
    });
    let rig = Rig::start(vec![route(&url)]);
    for (lines, part) in [
        ("Content-Length: 100\r\n", "hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX: y\r\n"),
    ] {
        for half in [false, true] {
            let mut wire = rig.connect();
            wire.write(&format!("PUT /x HTTP/1.1\r\n{HOST}{lines}\r\n{part}"));
            // So that the head goes on before the end.
            std::thread::sleep(Duration::from_millis(30));
            if half {
                wire.0.shutdown(Shutdown::Write).expect("half-closed");
                let got = to_the_end(&mut wire.0);
                assert!(got.is_empty() || status(&got) == 400, "{got}");
            }
            drop(wire);
            let message = hears.recv_timeout(Duration::from_secs(5)).expect("the origin's connection ends");
            assert!(message.contains("hello"), "{lines:?} {part:?} half: {half}: {message}");
            assert!(!message.ends_with("0\r\n\r\n"), "{lines:?} {part:?} half: {half}: {message}");
        }
    }
}
