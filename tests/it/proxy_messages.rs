//! Framing, truncation, retries, time limits, and the life of connections.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearward::clock::Clock;
use bearward::credential::{Published, State};
use bearward::listener::Limits;
use tokio::time::Instant;

use crate::proxy_rig::{
    OriginServer, Rig, TOKEN, field_of, fields_of, problem, publish, publish_until, read_head, route, status,
};

#[test]
fn framing_is_strict() {
    let check = |request: &str, expected: u16| {
        let origin = OriginServer::ok();
        let rig = Rig::to(&origin);
        let mut wire = rig.connect();
        wire.write(request);
        let answer = wire.answer();
        assert_eq!(status(&answer), expected, "{request:?}: {answer}");
        assert_eq!(origin.requests().len(), usize::from(expected == 200), "{request:?}");
    };
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    check(&post("Content-Length: 0\r\n"), 200);
    check(&post("Content-Length: 1\r\nContent-Length: 2\r\n"), 400);
    check(&post("Content-Length: -1\r\n"), 400);
    check(&post("Content-Length: +1\r\n"), 400);
    check(&post("Content-Length: 1x\r\n"), 400);
    check(&post("Content-Length: 99999999999999999999\r\n"), 400);
    check(&post("Transfer-Encoding: gzip\r\n"), 400);
    check(&post("Transfer-Encoding: chunked, gzip\r\n"), 400);
    check(&post("Transfer-Encoding: xchunked\r\n"), 400);
    check("POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    check("GET / HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n", 400);
    check("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400);
    check("GET / HTTP/1.1\r\nHost: localhost\r\nX : a\r\n\r\n", 400);
    check("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 400);
    check("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400);
    check("GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400);
    check(&format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(40_000)), 431);
    check(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: 1\r\n".repeat(101)), 431);
}

#[test]
fn heads_that_are_refused_below_are_counted() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write("NONSENSE\r\n\r\n");
    assert_eq!(status(&wire.rest()), 400);
    wait_until(|| rig.plane.snapshot().listeners[0].refused_heads == 1);
}

#[test]
fn an_answer_with_both_framings_is_delivered_and_its_connection_closed() {
    let origin = OriginServer::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let rig = Rig::to(&origin);
    for _ in 0..2 {
        let answer = rig.get("/", "");
        assert!(answer.ends_with("2\r\nok\r\n0\r\n\r\n"), "{answer}");
        assert_eq!(fields_of(&answer, "content-length"), Vec::<String>::new());
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn truncation_is_passed_on_as_truncation() {
    let check = |answer: &'static str| {
        let origin = OriginServer::scripted(move |stream, _| {
            let _ = stream.write_all(answer.as_bytes());
            false
        });
        let rig = Rig::to(&origin);
        let mut wire = rig.connect();
        wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let got = wire.rest();
        assert!(!got.ends_with("0\r\n\r\n"), "{got}");
        assert!(
            got.len() < 10
                || field_of(&got, "content-length")
                    .is_none_or(|length| !got.ends_with(&"x".repeat(length.parse().expect("number"))))
        );
        wait_until(|| rig.plane.snapshot().routes[0].traffic.errors == 1);
    };
    check("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhel");
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let origin = OriginServer::scripted(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it");
        false
    });
    let answer = Rig::to(&origin).get("/", "");
    assert!(answer.ends_with("9\r\nall of it\r\n0\r\n\r\n"), "{answer}");
}

#[test]
fn answers_without_a_body_have_none() {
    let check = |method: &str, answer: &'static str, expected: u16, length: Option<&str>| {
        let origin = OriginServer::answering(answer);
        let rig = Rig::to(&origin);
        let mut wire = rig.connect();
        for _ in 0..2 {
            wire.write(&format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let head = String::from_utf8(read_head(&mut wire.0).expect("a head")).expect("text");
            assert_eq!(
                (status(&head), field_of(&head, "content-length").as_deref()),
                (expected, length),
                "{head}"
            );
        }
        assert_eq!(origin.connections(), 1);
    };
    check("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 200, Some("1000"));
    check("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None);
    check("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", 304, None);
    check("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, None);
    check("GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, None);
}

#[test]
fn an_http_1_0_client_gets_an_answer_and_a_closed_connection() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.0\r\n\r\n");
    let all = wire.rest();
    assert!(all.starts_with("HTTP/1.0 200") && all.ends_with("\r\n\r\nok"), "{all}");
    let request = origin.request();
    assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    assert!(field_of(&request, "via").is_some_and(|via| via.starts_with("1.0 ")), "{request}");
}

#[test]
fn a_kept_connection_that_was_closed_costs_no_request() {
    let origin = OriginServer::scripted(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        false
    });
    let rig = Rig::to(&origin);
    for method in ["GET", "POST", "PUT", "PATCH"] {
        let answer =
            rig.send(&format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(status(&answer), 200, "{method}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(origin.requests().len(), 4);
}

/// The first request on each connection is answered; the second is read, and the connection closed.
fn closing_on_second() -> (OriginServer, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let origin = OriginServer::scripted(move |stream, _| {
        // Odd requests (the first on a connection, or a retry) are answered.
        if count.fetch_add(1, Ordering::SeqCst) == 1 {
            return false;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    (origin, seen)
}

#[test]
fn an_idempotent_request_is_sent_again_once_when_a_kept_connection_closes() {
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let (origin, seen) = closing_on_second();
        let rig = Rig::to(&origin);
        let request = format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status(&rig.send(&request)), 200);
        assert_eq!(status(&rig.send(&request)), 200, "{method}");
        assert_eq!((seen.load(Ordering::SeqCst), origin.connections()), (3, 2), "{method}");
    }
}

#[test]
fn a_request_that_may_have_had_an_effect_is_not_sent_again() {
    for request in [
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let (origin, seen) = closing_on_second();
        let rig = Rig::to(&origin);
        assert_eq!(status(&rig.send(request)), 200);
        let answer = rig.send(request);
        assert_eq!(status(&answer), 502, "{answer}");
        assert_eq!(
            field_of(&answer, "proxy-status").as_deref(),
            Some("bearward; error=connection_terminated")
        );
        assert_eq!(seen.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn a_new_connection_that_closes_is_not_tried_again() {
    let origin = OriginServer::scripted(|_, _| false);
    let rig = Rig::to(&origin);
    assert_eq!(status(&rig.get("/", "")), 502);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn failures_of_the_upstream_are_told_with_their_kind() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let check = |upstream: &str, expected: u16, token: &str| {
        let mut failing = route(upstream);
        failing.timeouts.first_byte = Duration::from_millis(300);
        failing.timeouts.connect = Duration::from_millis(500);
        let rig = Rig::start(vec![failing]);
        let answer = rig.get("/", "");
        assert_eq!(status(&answer), expected, "{answer}");
        assert_eq!(field_of(&answer, "proxy-status"), Some(format!("bearward; error={token}")));
        assert_eq!(problem(&answer)["status"], expected);
        assert!(problem(&answer)["request_id"].as_str().is_some_and(|id| !id.is_empty()));
        assert_eq!(rig.plane.snapshot().routes[0].traffic.errors, 1);
    };
    check(&format!("http://{closed}"), 502, "connection_refused");
    check("http://no-such-host.invalid", 502, "dns_error");
    let silent = OriginServer::scripted(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        false
    });
    check(&silent.url(), 504, "http_response_timeout");
    let nonsense = OriginServer::answering("HELLO\r\n\r\n");
    check(&nonsense.url(), 502, "http_protocol_error");
    let plain = OriginServer::answering("HTTP/1.1 400 No\r\n\r\n");
    check(&format!("https://{}", plain.address), 504, "connection_timeout");
}

#[test]
fn without_a_usable_token_the_client_learns_which_and_why() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let now = Clock::System.boot();
    let retry_at = Some(now.plus(Duration::from_secs(30)));
    rig.cell.publish(Published { state: State::AwaitingLogin, token: None, retry_at });
    let answer = rig.get("/", "");
    assert_eq!(status(&answer), 503);
    assert_eq!(field_of(&answer, "retry-after").as_deref(), Some("30"));
    assert_eq!(
        field_of(&answer, "proxy-status").as_deref(),
        Some("bearward; error=proxy_configuration_error")
    );
    let document = problem(&answer);
    assert_eq!(
        (&document["credential"], &document["state"]),
        (&"primavera".into(), &"awaiting_login".into())
    );
    publish_until(&rig.cell, TOKEN, 1, now);
    let answer = rig.get("/", "");
    assert_eq!((status(&answer), problem(&answer)["state"].as_str()), (503, Some("expired")));
    assert!(!answer.contains(TOKEN));
    assert_eq!(origin.connections(), 0);
    publish(&rig.cell, "another-token", 2);
    assert_eq!(status(&rig.get("/", "")), 200);
    assert_eq!(fields_of(&origin.request(), "authorization"), ["Bearer another-token"]);
}

#[test]
fn a_route_may_wait_for_a_token() {
    let origin = OriginServer::ok();
    let mut patient = route(&origin.url());
    patient.wait_for_token = Duration::from_secs(5);
    let rig = Rig::start(vec![patient]);
    rig.cell.publish(Published { state: State::Starting, token: None, retry_at: None });
    let cell = Arc::clone(&rig.cell);
    let begun = Instant::now();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(150));
        publish(&cell, TOKEN, 1);
    });
    assert_eq!(status(&rig.get("/", "")), 200);
    assert!(begun.elapsed() >= Duration::from_millis(140) && begun.elapsed() < Duration::from_secs(4));
    later.join().expect("published");
}

#[test]
fn a_slow_body_ends_in_408() {
    let origin = OriginServer::ok();
    let mut impatient = route(&origin.url());
    impatient.timeouts.request_idle = Duration::from_millis(200);
    let rig = Rig::start(vec![impatient]);
    let mut wire = rig.connect();
    wire.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc");
    let answer = wire.answer();
    assert_eq!(status(&answer), 408, "{answer}");
}

#[test]
fn an_answer_that_stalls_is_cut() {
    let origin = OriginServer::scripted(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        std::thread::sleep(Duration::from_secs(5));
        false
    });
    let mut impatient = route(&origin.url());
    impatient.timeouts.response_idle = Duration::from_millis(200);
    let rig = Rig::start(vec![impatient]);
    let begun = Instant::now();
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(wire.rest().ends_with("abc"));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let (sender, ended) = std::sync::mpsc::channel();
    let origin = OriginServer::scripted(move |stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 65_536];
        while stream.write_all(&piece).is_ok() {}
        let _ = sender.send(());
        false
    });
    let mut impatient = route(&origin.url());
    impatient.timeouts.response_idle = Duration::from_millis(300);
    let rig = Rig::start(vec![impatient]);
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ended.recv_timeout(Duration::from_secs(8)).expect("the origin's connection is closed");
    wait_until(|| rig.plane.snapshot().listeners[0].connections == 0);
}

#[test]
fn an_answer_to_an_unwanted_body_arrives() {
    let origin = OriginServer::ok();
    let mut api = route(&origin.url());
    api.path_prefix = "/api".into();
    let rig = Rig::start(vec![api]);
    rig.cell.publish(Published { state: State::Dead, token: None, retry_at: None });
    for (path, expected) in [("/none", 404), ("/api", 503)] {
        let mut wire = rig.connect();
        let body = "x".repeat(800_000);
        wire.write(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(status(&wire.answer()), expected);
        // The connection goes on.
        wire.write("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status(&wire.answer()), 204);
    }
}

#[test]
fn a_large_answer_flows_at_the_clients_pace() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = OriginServer::scripted(move |stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        (0..256).all(|_| {
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(&piece).is_ok()
        })
    });
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    read_head(&mut wire.0).expect("a head");
    std::thread::sleep(Duration::from_millis(500));
    // What the client has not read lies in socket buffers, not in the proxy.
    let ahead = sent.load(Ordering::SeqCst);
    assert!(ahead < 20, "the origin sent {ahead} MiB that nobody had read");
    let (mut left, mut piece) = (268_435_456_usize, vec![0; 1 << 20]);
    while left > 0 {
        let n = wire.0.read(&mut piece).expect("read");
        assert!(n > 0, "{left} bytes are missing");
        left -= n;
    }
}

#[test]
fn a_body_is_withheld_until_the_upstream_asks_for_it() {
    let origin = OriginServer::scripted(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        let mut body = [0; 3];
        stream.read_exact(&mut body).is_ok()
            && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").is_ok()
            && stream.write_all(&body).is_ok()
    });
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    let interim = String::from_utf8(read_head(&mut wire.0).expect("a head")).expect("text");
    assert_eq!(status(&interim), 100);
    wire.write("abc");
    assert!(wire.answer().ends_with("abc"));
    assert_eq!(field_of(&origin.request(), "expect").as_deref(), Some("100-continue"));
}

#[test]
fn a_body_that_the_upstream_does_not_want_is_never_asked_for() {
    let origin = OriginServer::answering("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    let all = wire.rest();
    assert!(all.starts_with("HTTP/1.1 417") && !all.contains("100 Continue"), "{all}");
}

#[test]
fn an_answer_may_begin_before_its_request_ends() {
    // It answers after the head, then reads the body, then ends the answer.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let origin = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepted");
        let head = read_head(&mut stream).expect("a head");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")
            .expect("written");
        let mut body = vec![0; 500_000];
        stream.read_exact(&mut body).expect("the whole body");
        stream.write_all(b"4\r\nlate\r\n0\r\n\r\n").expect("written");
        head
    });
    let rig = Rig::start(vec![route(&format!("http://{address}"))]);
    let mut wire = rig.connect();
    wire.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n");
    let head = read_head(&mut wire.0).expect("the head comes before the body was sent");
    assert_eq!(status(&String::from_utf8_lossy(&head)), 200);
    wire.write(&"x".repeat(500_000));
    let mut rest = String::new();
    while !rest.ends_with("0\r\n\r\n") {
        let mut piece = [0; 64];
        let n = wire.0.read(&mut piece).expect("read");
        assert!(n > 0, "{rest}");
        rest.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    assert!(rest.contains("early") && rest.contains("late"), "{rest}");
    origin.join().expect("the origin saw everything");
}

#[test]
fn a_client_that_leaves_frees_the_upstream() {
    let gone = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&gone);
    let origin = OriginServer::scripted(move |stream, _| {
        // The end of the stream is what the proxy does when its client leaves.
        let mut byte = [0];
        if matches!(stream.read(&mut byte), Ok(0) | Err(_)) {
            seen.store(1, Ordering::SeqCst);
        }
        false
    });
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_until(|| !origin.requests().is_empty());
    drop(wire);
    wait_until(|| gone.load(Ordering::SeqCst) == 1);
}

#[test]
fn an_idle_connection_is_closed_and_a_request_under_way_is_finished_at_shutdown() {
    let origin = OriginServer::scripted(|stream, _| {
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let rig = Rig::to(&origin);
    let mut idle = rig.connect();
    idle.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    idle.answer();
    let mut busy = rig.connect();
    busy.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_until(|| origin.requests().len() == 2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let address = rig.address;
    let client = std::thread::spawn(move || (idle.rest(), busy.rest()));
    let begun = Instant::now();
    let cut = runtime.block_on(rig.plane.drain(Duration::from_secs(5)));
    assert_eq!(cut, 0);
    assert!(begun.elapsed() < Duration::from_secs(3));
    let (idle, busy) = client.join().expect("joined");
    assert_eq!(idle, "");
    assert!(busy.ends_with("ok"), "{busy}");
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn what_does_not_finish_in_time_is_cut_and_counted() {
    let origin = OriginServer::scripted(|_, _| {
        std::thread::sleep(Duration::from_secs(5));
        false
    });
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_until(|| !origin.requests().is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    assert_eq!(runtime.block_on(rig.plane.drain(Duration::from_millis(100))), 1);
    assert_eq!(wire.rest(), "");
}

#[test]
fn connections_beyond_the_limit_wait_their_turn() {
    let origin = OriginServer::ok();
    let limits = Limits { connections: 1, workers: Some(2), ..Limits::default() };
    let rig = Rig::start_listener(vec![route(&origin.url())], Vec::new(), limits);
    let mut first = rig.connect();
    first.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    first.answer();
    let mut second = rig.connect();
    second.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(origin.requests().len(), 1);
    drop(first);
    assert_eq!(status(&second.answer()), 200);
}

#[test]
fn connections_go_to_the_least_loaded_worker_and_are_counted() {
    let origin = OriginServer::ok();
    let limits = Limits { workers: Some(2), ..Limits::default() };
    let rig = Rig::start_listener(vec![route(&origin.url())], Vec::new(), limits);
    let mut wires: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    for wire in &mut wires {
        wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wire.answer();
    }
    let snapshot = rig.plane.snapshot();
    assert_eq!((snapshot.listeners[0].connections, snapshot.listeners[0].kind), (4, "reverse"));
    assert_eq!(snapshot.routes[0].traffic.code_classes, [0, 4, 0, 0, 0]);
    assert_eq!(snapshot.routes[0].traffic.duration.count(), 4);
    assert_eq!(snapshot.routes[0].traffic.upstream_duration.count(), 4);
    // Two workers, two pools: a connection each.
    assert_eq!(origin.connections(), 2);
    wait_until(|| rig.plane.snapshot().upstream_connections.idle == 2);
    drop(wires);
    wait_until(|| rig.plane.snapshot().listeners[0].connections == 0);
}

/// Polls for at most five seconds.
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "it never came true");
        std::thread::sleep(Duration::from_millis(5));
    }
}
