//! Switching protocols: what is offered on, what is taken, and the tunnel that follows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy_rig::{
    OriginServer, Rig, TOKEN, Wire, field_of, fields_of, problem, publish, route, status,
};

/// A WebSocket client's opening request.
const OPENING: &str = "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer of-the-client\r\n\r\n";
/// The answer to it.
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, says `hello` at once, then sends back what comes, and `bye` after the end of it.
fn echo(stream: &mut TcpStream, _: &str) -> bool {
    stream.write_all(format!("{SWITCH}hello").as_bytes()).expect("written");
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => stream.write_all(&buffer[..length]).expect("echoed"),
            Err(_) => return false,
        }
    }
    let _ = stream.write_all(b"bye");
    false
}

fn read_exactly(wire: &mut Wire, length: usize) -> String {
    let mut bytes = vec![0; length];
    wire.0.read_exact(&mut bytes).expect("bytes");
    String::from_utf8(bytes).expect("text")
}

fn codes(rig: &Rig) -> [u64; 5] {
    rig.plane.snapshot().routes[0].traffic.code_classes
}

#[test]
fn a_websocket_passes_both_ways_with_our_token() {
    let origin = OriginServer::scripted(echo);
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    // The first bytes of the new protocol come with the request, and behind the 101.
    wire.write(&format!("{OPENING}early"));
    let answer = wire.answer();
    assert_eq!(status(&answer), 101, "{answer}");
    assert_eq!(fields_of(&answer, "connection"), ["upgrade"]);
    assert_eq!(fields_of(&answer, "upgrade"), ["websocket"]);
    assert_eq!(field_of(&answer, "sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for absent in ["content-length", "transfer-encoding"] {
        assert_eq!(fields_of(&answer, absent), Vec::<String>::new(), "{answer}");
    }
    let mut first = [read_exactly(&mut wire, 5), read_exactly(&mut wire, 5)];
    first.sort_unstable();
    assert_eq!(first, ["early", "hello"]);
    let request = origin.request();
    assert_eq!(fields_of(&request, "connection"), ["upgrade"]);
    assert_eq!(fields_of(&request, "upgrade"), ["websocket"]);
    assert_eq!(fields_of(&request, "authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!(fields_of(&request, "sec-websocket-version"), ["13"]);

    let large = "0123456789abcdef".repeat(64 * 1024);
    let mut writer = wire.0.try_clone().expect("clone");
    let sent = large.clone();
    let writing = std::thread::spawn(move || writer.write_all(sent.as_bytes()).expect("written"));
    assert_eq!(read_exactly(&mut wire, large.len()), large);
    writing.join().expect("joined");
    assert_eq!((codes(&rig), rig.plane.snapshot().listeners[0].connections), ([1, 0, 0, 0, 0], 1));

    // The client has said all; the upstream has not.
    wire.0.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(wire.rest(), "bye");
    assert_eq!(codes(&rig), [1, 0, 0, 0, 0]);
}

#[test]
fn an_upstream_that_has_said_all_is_still_heard() {
    let (heard, hears) = std::sync::mpsc::channel();
    let origin = OriginServer::scripted(move |stream, _| {
        stream.write_all(format!("{SWITCH}done").as_bytes()).expect("written");
        stream.shutdown(Shutdown::Write).expect("half-closed");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("read");
        heard.send(rest).expect("sent");
        false
    });
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write(OPENING);
    assert_eq!(status(&wire.answer()), 101);
    assert_eq!(wire.rest(), "done");
    wire.write("and one more thing");
    wire.0.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(hears.recv_timeout(Duration::from_secs(5)).expect("heard"), "and one more thing");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer_and_the_connections_stay() {
    let origin = OriginServer::answering(
        "HTTP/1.1 403 Forbidden\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno",
    );
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    for _ in 0..2 {
        wire.write(OPENING);
        let answer = wire.answer();
        assert_eq!(status(&answer), 403);
        assert!(answer.ends_with("\r\n\r\nno"), "{answer}");
        assert_eq!(fields_of(&answer, "upgrade"), Vec::<String>::new());
    }
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&wire.answer()), 403);
    let requests = origin.requests();
    assert_eq!((requests.len(), origin.connections()), (3, 1));
    assert_eq!(fields_of(&requests[2], "upgrade"), Vec::<String>::new());
    assert_eq!(codes(&rig), [0, 0, 0, 3, 0]);
}

#[test]
fn a_switch_that_was_not_asked_for_opens_no_tunnel() {
    let check = |request: &str, switch: &'static str| {
        let origin = OriginServer::scripted(move |stream, _| {
            let _ = stream.write_all(format!("{switch}raw").as_bytes());
            false
        });
        let rig = Rig::to(&origin);
        let answer = rig.send(request);
        assert_eq!(status(&answer), 502, "{request:?}: {answer}");
        assert_eq!(problem(&answer)["type"], "urn:bearward:problem:upstream-upgrade");
        assert!(!answer.contains("raw"));
        assert_eq!(codes(&rig), [0, 0, 0, 0, 1]);
    };
    check("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", SWITCH);
    check("GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n", SWITCH);
    check(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    );
    check(OPENING, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n");
    check(OPENING, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n");
    check(OPENING, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
}

#[test]
fn only_what_may_be_offered_is_offered() {
    let check = |head: &str, body: &str, expected: &[&str]| {
        let origin = OriginServer::ok();
        let answer = Rig::to(&origin).send(&format!("{head}\r\n{body}"));
        assert_eq!(status(&answer), 200, "{head:?}: {answer}");
        let request = origin.request();
        assert_eq!(fields_of(&request, "upgrade"), expected, "{head:?}: {request}");
        let connection: &[&str] = if expected.is_empty() { &[] } else { &["upgrade"] };
        assert_eq!(fields_of(&request, "connection"), connection, "{head:?}");
        assert_eq!(fields_of(&request, "http2-settings"), Vec::<String>::new());
    };
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n";
    check(
        &format!(
            "{get}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        ),
        "",
        &["websocket"],
    );
    check(&format!("{get}Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/2.0\r\n"), "", &[]);
    check(&format!("{get}Upgrade: websocket\r\n"), "", &[]);
    check("GET / HTTP/1.0\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", "", &[]);
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: tcp\r\n";
    check(&format!("{post}Content-Length: 0\r\n"), "", &["tcp"]);
    check(&format!("{post}Content-Length: 2\r\n"), "hi", &[]);
    check(&format!("{post}Transfer-Encoding: chunked\r\n"), "2\r\nhi\r\n0\r\n\r\n", &[]);
}

#[test]
fn a_route_without_a_credential_passes_the_clients_own() {
    let origin = OriginServer::scripted(echo);
    let mut route = route(&origin.url());
    route.credential = None;
    let rig = Rig::start(vec![route]);
    let mut wire = rig.connect();
    wire.write(OPENING);
    assert_eq!(status(&wire.answer()), 101);
    assert_eq!(read_exactly(&mut wire, 5), "hello");
    assert_eq!(fields_of(&origin.request(), "authorization"), ["Bearer of-the-client"]);
}

#[test]
fn an_upgrade_whose_token_is_refused_is_tried_again_with_a_newer_one() {
    let origin = OriginServer::scripted(|stream, request| {
        if field_of(request, "authorization").as_deref() == Some("Bearer next") {
            return echo(stream, request);
        }
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let rig = Rig::to(&origin);
    let cell = std::sync::Arc::clone(&rig.cell);
    let mut rejections = cell.rejections();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(rejections.changed()).expect("refused");
        publish(&cell, "next", 2);
    });
    let mut wire = rig.connect();
    wire.write(OPENING);
    assert_eq!(status(&wire.answer()), 101);
    assert_eq!(read_exactly(&mut wire, 5), "hello");
    let upgrades: Vec<_> =
        origin.requests().iter().flat_map(|request| fields_of(request, "upgrade")).collect();
    assert_eq!(upgrades, ["websocket", "websocket"]);
}

#[test]
fn a_tunnel_is_cut_at_the_end_of_the_grace() {
    let origin = OriginServer::scripted(echo);
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write(OPENING);
    assert_eq!(status(&wire.answer()), 101);
    assert_eq!(read_exactly(&mut wire, 5), "hello");
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let talking = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        wire.write("still");
        assert_eq!(read_exactly(&mut wire, 5), "still");
        wire.rest()
    });
    let cut = runtime.block_on(rig.plane.drain(Duration::from_secs(1)));
    assert_eq!(cut, 1);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(talking.join().expect("the tunnel worked until then"), "");
}

#[test]
fn a_tunnel_that_ends_is_no_longer_open() {
    let origin = OriginServer::scripted(echo);
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write(OPENING);
    assert_eq!(status(&wire.answer()), 101);
    drop(wire);
    let deadline = Instant::now() + Duration::from_secs(5);
    while rig.plane.snapshot().listeners[0].connections > 0 {
        assert!(Instant::now() < deadline, "the tunnel did not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}
