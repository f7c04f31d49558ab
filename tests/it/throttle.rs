//! Rates and concurrency of routes, on the wire.

use std::io::Write;
use std::time::Duration;

use bearward::route::rate::{RateKey, RateLimit};

use crate::proxy_rig::{OriginServer, Rig, field_of, problem, route, status};

#[test]
fn a_rate_is_told_in_every_answer_and_what_exceeds_it_gets_429() {
    let origin = OriginServer::ok();
    let mut limited = route(&origin.url());
    let per = Duration::from_secs(600);
    limited.throttle.rate = Some(RateLimit { requests: 100, per, burst: 3, key: RateKey::Client });
    let rig = Rig::start(vec![limited]);
    for left in ["2", "1", "0"] {
        let answer = rig.get("/", "");
        assert_eq!(status(&answer), 200, "{answer}");
        assert_eq!(field_of(&answer, "ratelimit-policy").as_deref(), Some("\"default\";q=100;w=600"));
        let told = field_of(&answer, "ratelimit").expect("told");
        assert!(told.starts_with(&format!("\"default\";r={left};t=")), "{told}");
    }
    let answer = rig.get("/", "");
    assert_eq!(status(&answer), 429, "{answer}");
    assert_eq!(problem(&answer)["type"], "urn:bearward:problem:rate-exceeded");
    let wait: u64 = field_of(&answer, "retry-after").expect("told").parse().expect("a number");
    assert!((1..=6).contains(&wait), "{wait}");
    assert!(field_of(&answer, "ratelimit").expect("told").contains("r=0"));
    assert_eq!(origin.requests().len(), 3);
    assert_eq!(rig.plane.snapshot().routes[0].traffic.throttled, 1);
}

#[test]
fn a_place_is_taken_until_its_answer_has_left() {
    let origin = OriginServer::scripted(|stream, request| {
        if request.contains("/slow") {
            std::thread::sleep(Duration::from_millis(700));
        } else if request.contains("/stuck") {
            std::thread::sleep(Duration::from_secs(20));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let mut limited = route(&origin.url());
    limited.throttle.concurrency = Some(1);
    let rig = Rig::start(vec![limited]);
    let mut slow = rig.connect();
    slow.write("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    let refused = rig.get("/", "");
    assert_eq!(status(&refused), 429, "{refused}");
    assert_eq!(problem(&refused)["type"], "urn:bearward:problem:too-many-at-once");
    assert_eq!(status(&slow.answer()), 200);
    assert_eq!(status(&rig.get("/", "")), 200);
    // A client that leaves gives its place back too.
    let mut gone = rig.connect();
    gone.write("GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    drop(gone);
    // It may have closed its side only, and is answered for a second more.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(status(&rig.get("/", "")), 200);
}

#[test]
fn added_fields_come_beside_those_that_are_there() {
    let origin = OriginServer::answering("HTTP/1.1 200 OK\r\nVary: a\r\nContent-Length: 2\r\n\r\nok");
    let mut edited = route(&origin.url());
    let value = |text: &'static str| http::HeaderValue::from_static(text);
    edited.request_headers.add = vec![(http::header::ACCEPT_LANGUAGE, value("de"))];
    edited.response_headers.add = vec![(http::header::VARY, value("b"))];
    let rig = Rig::start(vec![edited]);
    let answer = rig.get("/", "Accept-Language: en\r\n");
    assert!(answer.contains("vary: a\r\n") && answer.contains("vary: b\r\n"), "{answer}");
    let request = origin.request().to_ascii_lowercase();
    assert!(request.contains("accept-language: en\r\naccept-language: de\r\n"), "{request}");
}
