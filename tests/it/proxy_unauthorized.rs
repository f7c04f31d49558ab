//! An upstream that refuses the token: one refresh, one more try, and no more than that.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearward::credential::{Published, State, TokenCell};
use bearward::route::{OnUnauthorized, Replay};
use tokio::time::Instant;

use crate::proxy_rig::{OriginServer, Rig, TOKEN, field_of, fields_of, publish, route, status};

/// Accepts one bearer and echoes the length of the body.
fn accepting(bearer: &'static str) -> OriginServer {
    OriginServer::scripted(move |stream, request| {
        let good = field_of(request, "authorization").as_deref() == Some(&format!("Bearer {bearer}"));
        let answer = if good {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        } else {
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
        };
        stream.write_all(answer.as_bytes()).is_ok()
    })
}

/// Stands for the refresher: answers each report of a refused generation with the next token. Counts them.
fn refresher(cell: &Arc<TokenCell>, bearer: &'static str) -> Arc<AtomicUsize> {
    let (cell, count) = (Arc::clone(cell), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    let mut rejections = cell.rejections();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            while rejections.changed().await.is_ok() {
                let refused = *rejections.borrow_and_update();
                counted.fetch_add(1, Ordering::SeqCst);
                publish(&cell, bearer, refused + 1);
            }
        });
    });
    count
}

#[test]
fn cases_54_and_77_any_request_with_a_short_body_is_sent_again_with_the_next_token() {
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000)),
        "PATCH / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_owned(),
    ] {
        let origin = accepting("next");
        let rig = Rig::to(&origin);
        let refreshes = refresher(&rig.cell, "next");
        let answer = rig.send(&request);
        assert_eq!(status(&answer), 200, "{request:?}: {answer}");
        let seen = origin.requests();
        let bearers: Vec<_> = seen.iter().flat_map(|request| fields_of(request, "authorization")).collect();
        assert_eq!(bearers, [format!("Bearer {TOKEN}"), "Bearer next".to_owned()]);
        let body = |request: &str| request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        if request.contains("chunked") {
            assert_eq!(body(&seen[1]), "abcde");
        } else {
            assert_eq!(body(&seen[0]), body(&seen[1]));
        }
        assert_eq!(refreshes.load(Ordering::SeqCst), 1);
        let traffic = rig.plane.snapshot().routes[0].traffic.clone();
        assert_eq!((traffic.unauthorized, traffic.replayed, traffic.requests), (1, 1, 1));
    }
}

#[test]
fn case_56_a_long_body_is_not_sent_again_and_the_refresh_still_happens() {
    let origin = accepting("next");
    let rig = Rig::to(&origin);
    let refreshes = refresher(&rig.cell, "next");
    let body = "x".repeat(70_000);
    let request =
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(status(&rig.send(&request)), 401);
    let deadline = Instant::now() + Duration::from_secs(5);
    while refreshes.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status(&rig.send(&request)), 200);
}

#[test]
fn case_53_a_token_that_is_newer_already_is_used_without_a_refresh() {
    let cell_of_rig: Arc<std::sync::OnceLock<Arc<TokenCell>>> = Arc::default();
    let cell = Arc::clone(&cell_of_rig);
    let origin = OriginServer::scripted(move |stream, request| {
        if field_of(request, "authorization").as_deref() == Some("Bearer next") {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok();
        }
        // The token changes while the request is under way.
        publish(cell.get().expect("set"), "next", 2);
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let rig = Rig::to(&origin);
    cell_of_rig.set(Arc::clone(&rig.cell)).expect("once");
    assert_eq!(status(&rig.get("/", "")), 200);
    assert_eq!(*rig.cell.rejections().borrow(), 0);
}

#[test]
fn case_55_a_route_that_refuses_every_token_costs_one_refresh_and_then_passes_its_401() {
    let origin = accepting("never");
    let rig = Rig::to(&origin);
    let refreshes = refresher(&rig.cell, "next");
    for _ in 0..20 {
        let answer = rig.get("/", "");
        assert_eq!(status(&answer), 401);
        assert!(answer.ends_with("no"), "{answer}");
    }
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
    assert_eq!(origin.requests().len(), 21);
}

#[test]
fn a_dead_credential_is_not_waited_for() {
    let origin = accepting("never");
    let rig = Rig::to(&origin);
    let token = rig.cell.published().token.clone();
    rig.cell.publish(Published { state: State::Dead, token, retry_at: None });
    let begun = Instant::now();
    assert_eq!(status(&rig.get("/", "")), 401);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(*rig.cell.rejections().borrow(), 0);
}

/// An upstream that refuses the first token with this challenge.
fn challenging(challenge: &'static str) -> OriginServer {
    OriginServer::scripted(move |stream, request| {
        let answer = if field_of(request, "authorization").as_deref() == Some("Bearer next") {
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else {
            format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n{challenge}\r\n")
        };
        stream.write_all(answer.as_bytes()).is_ok()
    })
}

#[test]
fn on_unauthorized_decides_what_is_refreshed_and_replayed() {
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    let check = |rules: OnUnauthorized, challenge: &'static str, request: &str, expected: (u16, usize)| {
        let origin = challenging(challenge);
        let mut route = route(&origin.url());
        route.on_unauthorized = rules;
        let rig = Rig::start(vec![route]);
        let refreshes = refresher(&rig.cell, "next");
        let got = status(&rig.send(request));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!((got, refreshes.load(Ordering::SeqCst)), expected, "{rules:?} {challenge:?} {request:?}");
    };
    let rules = OnUnauthorized::default();
    let invalid = "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n";
    check(rules, "", get, (200, 1));
    check(OnUnauthorized { refresh: false, ..rules }, invalid, get, (401, 0));
    check(OnUnauthorized { replay: Replay::None, ..rules }, invalid, get, (401, 1));
    check(OnUnauthorized { replay: Replay::Idempotent, ..rules }, invalid, get, (200, 1));
    check(OnUnauthorized { replay: Replay::Idempotent, ..rules }, invalid, post, (401, 1));
    check(OnUnauthorized { max_body: 4, ..rules }, invalid, post, (401, 1));
    check(OnUnauthorized { max_body: 5, ..rules }, invalid, post, (200, 1));
    check(OnUnauthorized { require_challenge: true, ..rules }, "", get, (401, 0));
    check(OnUnauthorized { require_challenge: true, ..rules }, invalid, get, (200, 1));
    // What a refresh cannot mend passes.
    let claims = "WWW-Authenticate: Bearer error=\"insufficient_claims\", claims=\"e30=\"\r\n";
    check(rules, claims, get, (401, 0));
}

#[test]
fn cases_57_and_58_what_no_refresh_can_mend_passes_and_starts_no_loop() {
    for (refusal, code) in [
        ("403 Forbidden\r\nWWW-Authenticate: Bearer error=\"insufficient_scope\", scope=\"write\"", 403),
        ("403 Forbidden", 403),
        ("401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"insufficient_claims\", claims=\"e30=\"", 401),
    ] {
        let origin = OriginServer::answering(&format!("HTTP/1.1 {refusal}\r\nContent-Length: 2\r\n\r\nno"));
        let rig = Rig::to(&origin);
        let refreshes = refresher(&rig.cell, "next");
        for _ in 0..10 {
            let answer = rig.get("/", "");
            assert_eq!(status(&answer), code, "{answer}");
            assert!(answer.ends_with("no"), "it passes as it is: {answer}");
        }
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(refreshes.load(Ordering::SeqCst), 0, "{refusal}");
        assert_eq!(origin.requests().len(), 10, "nothing is sent again: {refusal}");
    }
}
