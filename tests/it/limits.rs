//! The limits of `limits:` and of routes, on the wire.

use std::time::Duration;

use bearward::listener::Limits;
use bearward::proxy::{ClientLimits, Underscores};

use crate::proxy_rig::{OriginServer, Rig, problem, route, status};

fn limits(client: ClientLimits) -> Limits {
    Limits { workers: Some(1), client, ..Limits::default() }
}

#[test]
fn targets_and_fields_beyond_the_limits_are_refused() {
    let origin = OriginServer::ok();
    let client = ClientLimits { uri_bytes: 300, header_count: 12, ..ClientLimits::default() };
    let rig = Rig::start_listener(vec![route(&origin.url())], Vec::new(), limits(client));
    let check = |target: usize, fields: usize, expected: u16| {
        let extra: String = (0..fields).map(|number| format!("X-{number}: 1\r\n")).collect();
        let answer = rig.get(&["/", &"a".repeat(target - 1)].concat(), &extra);
        assert_eq!(status(&answer), expected, "{answer}");
    };
    check(300, 11, 200);
    check(301, 1, 414);
    check(1, 12, 431);
}

#[test]
fn a_body_that_is_too_long_is_refused_however_its_length_is_told() {
    let origin = OriginServer::ok();
    let mut small = route(&origin.url());
    small.max_body = Some(10);
    let rig = Rig::start(vec![small]);
    let check = |length: &str, body: &str, expected: u16| {
        let answer = rig.send(&format!("POST / HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n{body}"));
        assert_eq!(status(&answer), expected, "{answer}");
        if expected == 413 {
            assert_eq!(problem(&answer)["type"], "urn:bearward:problem:body-too-large");
        }
    };
    check("Content-Length: 10", "0123456789", 200);
    check("Content-Length: 11", "0123456789a", 413);
    check("Transfer-Encoding: chunked", "a\r\n0123456789\r\n0\r\n\r\n", 200);
    check("Transfer-Encoding: chunked", "8\r\n01234567\r\n3\r\n012\r\n0\r\n\r\n", 413);
}

#[test]
fn a_head_that_does_not_come_is_told_408_and_an_idle_connection_is_closed_without_a_word() {
    let origin = OriginServer::ok();
    let client = ClientLimits {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..ClientLimits::default()
    };
    let rig = Rig::start_listener(vec![route(&origin.url())], Vec::new(), limits(client));
    let check = |sent: &str, expected: &str| {
        let mut wire = rig.connect();
        wire.write(sent);
        let rest = wire.rest();
        assert!(rest.starts_with(expected) && (rest.is_empty() || !expected.is_empty()), "{sent:?}: {rest}");
    };
    check("GET / HTTP/1.1\r\nHost: loc", "HTTP/1.1 408 ");
    check("", "");
    // Between two requests nothing may be said: the client might take it for the answer to its next one.
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&wire.answer()), 200);
    assert_eq!(wire.rest(), "");
}

#[test]
fn underscores_are_judged_as_the_listener_says() {
    let origin = OriginServer::ok();
    for (underscores, expected, passes) in
        [(Underscores::Reject, 400, false), (Underscores::Drop, 200, false), (Underscores::Keep, 200, true)]
    {
        let rig = Rig::start_changed(vec![route(&origin.url())], Limits::default(), |listener| {
            listener.underscores = underscores;
        });
        let before = origin.requests().len();
        assert_eq!(status(&rig.get("/", "X_Forwarded_For: 1.2.3.4\r\n")), expected, "{underscores:?}");
        let seen = origin.requests()[before..].concat().to_ascii_lowercase();
        assert_eq!(seen.contains("x_forwarded_for"), passes, "{underscores:?}: {seen}");
    }
}

#[test]
fn a_body_that_comes_too_slowly_is_given_up_and_one_that_comes_fast_enough_is_not() {
    let origin = OriginServer::ok();
    let client = ClientLimits { min_body_rate: 1000, ..ClientLimits::default() };
    let rig = Rig::start_listener(vec![route(&origin.url())], Vec::new(), limits(client));
    // Ten seconds are anybody's; from then on each byte is worth a millisecond.
    let send = |piece: usize| {
        let mut wire = rig.connect();
        wire.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n");
        let piece = "a".repeat(piece);
        let began = tokio::time::Instant::now();
        wire.0.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
        let mut sent = 0;
        while sent < 100_000 && began.elapsed() < Duration::from_secs(15) {
            wire.write(&piece);
            sent += piece.len();
            let mut byte = [0];
            if std::io::Read::read(&mut wire.0, &mut byte).is_ok_and(|length| length == 1) {
                return (began.elapsed(), format!("H{}", wire.rest()));
            }
        }
        wire.write(&"a".repeat(100_000 - sent));
        (began.elapsed(), wire.answer())
    };
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| send(100));
        let fast = scope.spawn(|| send(5000));
        let (took, answer) = slow.join().expect("joined");
        assert_eq!(problem(&answer)["type"], "urn:bearward:problem:body-timeout");
        assert!((Duration::from_secs(8)..Duration::from_secs(15)).contains(&took), "{took:?}");
        assert_eq!(status(&fast.join().expect("joined").1), 200);
    });
    assert_eq!(rig.plane.snapshot().routes[0].traffic.code_classes, [0, 1, 0, 1, 0]);
}
