//! Interim answers (1xx) on their way to clients over HTTP/1.1.
//!
//! Owns: that they pass where the listener says so, before the answer is there, and to nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearward::listener::Limits;

use crate::proxy_rig::{OriginServer, Rig, read_head, route};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\r\n";

fn passing(origin: &OriginServer) -> Rig {
    let limits = Limits { workers: Some(1), ..Limits::default() };
    Rig::start_changed(vec![route(&origin.url())], limits, |listener| listener.interim_responses = true)
}

fn connect(rig: &Rig) -> TcpStream {
    let stream = TcpStream::connect(rig.address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    stream
}

/// The first lines of what the client gets, and the rest of the heads of interim answers.
fn told(rig: &Rig, version: &str, fields: &str) -> Vec<String> {
    let mut stream = connect(rig);
    let request = format!(
        "POST / HTTP/{version}\r\nHost: localhost\r\nContent-Length: 2\r\n{fields}Connection: close\r\n\r\nhi"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    let heads = text.split("\r\n\r\n").filter(|head| head.starts_with("HTTP/"));
    heads.map(|head| if head.contains(" 200 ") { "200".to_owned() } else { head.to_owned() }).collect()
}

#[test]
fn they_pass_to_clients_of_http_1_1_where_the_listener_says_so() {
    let check = |before: &str, version: &str, fields: &str, expected: &[&str]| {
        let origin = OriginServer::answering(&format!("{before}{OK}"));
        let rig = passing(&origin);
        for _ in 0..2 {
            assert_eq!(told(&rig, version, fields), expected, "{before:?} {version}");
        }
        assert_eq!(origin.connections(), 1);
        let silent = Rig::to(&origin);
        assert_eq!(told(&silent, "1.1", ""), ["200"], "{before:?}");
    };
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload";
    check("", "1.1", "", &["200"]);
    check(HINTS, "1.1", "", &[hint, "200"]);
    check(HINTS, "1.0", "", &["200"]);
    let several = [HINTS, "HTTP/1.1 102 Processing\r\n\r\n", HINTS].concat();
    check(&several, "1.1", "", &[hint, "HTTP/1.1 102 Processing", hint, "200"]);
    // Nobody waits for it.
    check("HTTP/1.1 100 Continue\r\n\r\n", "1.1", "", &["200"]);
    check(
        "HTTP/1.1 100 Continue\r\n\r\n",
        "1.1",
        "Expect: 100-continue\r\n",
        &["HTTP/1.1 100 Continue", "200"],
    );
    let mut most = vec![hint; 16];
    most.push("200");
    check(&HINTS.repeat(100), "1.1", "", &most);
}

#[test]
fn a_hint_comes_before_the_answer_is_there() {
    let seen = Arc::new(Mutex::new(false));
    let gone = Arc::clone(&seen);
    let origin = OriginServer::scripted(move |stream, _| {
        stream.write_all(HINTS.as_bytes()).expect("written");
        // Until the client has it.
        while !*gone.lock().expect("lock") {
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let rig = passing(&origin);
    let mut stream = connect(&rig);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let hint = String::from_utf8(read_head(&mut stream).expect("a hint")).expect("text");
    assert!(hint.starts_with("HTTP/1.1 103 "), "{hint}");
    *seen.lock().expect("lock") = true;
    let answer = String::from_utf8(read_head(&mut stream).expect("an answer")).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
