//! Interim answers (RFC 9110, 15.2) to clients over HTTP/2, from upstreams of both kinds.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::h2_origin::{H2Origin, h2c};
use crate::h2_rig::{Client, request};
use crate::proxy_rig::{OriginServer, Rig, route, status};

/// Sends a request; the interim answers that came, and the status of the final one.
fn told(rig: &Rig, request: Request<()>, body: &'static str) -> (Vec<(u16, HeaderMap)>, u16) {
    let client = Client::to(rig.address);
    let mut sender = client.sender.clone();
    client.runtime.block_on(async move {
        let (mut answer, mut stream) = sender.send_request(request, body.is_empty()).expect("sent");
        if !body.is_empty() {
            stream.send_data(body.into(), true).expect("sent");
        }
        let mut interim = Vec::new();
        let head = std::future::poll_fn(|cx| {
            while let std::task::Poll::Ready(Some(Ok(head))) = answer.poll_informational(cx) {
                interim.push((head.status().as_u16(), head.headers().clone()));
            }
            std::pin::Pin::new(&mut answer).poll(cx)
        });
        let status = head.await.expect("an answer").status().as_u16();
        (interim, status)
    })
}

fn statuses(told: &(Vec<(u16, HeaderMap)>, u16)) -> Vec<u16> {
    told.0.iter().map(|(status, _)| *status).chain([told.1]).collect()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\r\n";

#[test]
fn hints_of_an_upstream_over_http_1_1_reach_a_client_over_http2() {
    let check = |before: &str, expected: &[u16]| {
        let origin = OriginServer::answering(&format!("{before}{OK}"));
        let rig = Rig::to(&origin);
        for _ in 0..2 {
            let told = told(&rig, request(Method::GET, "/", &[]), "");
            assert_eq!(statuses(&told), expected, "{before:?}");
            for (status, headers) in &told.0 {
                let names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
                assert_eq!(names, if *status == 103 { vec!["link"] } else { vec![] }, "{status}");
            }
        }
        // Over HTTP/1.1 nothing of it is seen.
        assert!(rig.get("/", "").starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(origin.connections(), 1);
    };
    check("", &[200]);
    check(HINTS, &[103, 200]);
    check(&[HINTS, "HTTP/1.1 102 Processing\r\n\r\n", HINTS].concat(), &[103, 102, 103, 200]);
    // Nobody waits for it.
    check("HTTP/1.1 100 Continue\r\n\r\n", &[200]);
    let mut most = vec![103; 16];
    most.push(200);
    check(&HINTS.repeat(100), &most);
}

#[test]
fn a_hint_comes_before_the_answer_is_there() {
    let seen = Arc::new(Mutex::new(false));
    let gone = Arc::clone(&seen);
    let origin = OriginServer::scripted(move |stream, _| {
        stream.write_all(HINTS.as_bytes()).expect("written");
        // Until the client has it.
        while !*gone.lock().expect("lock") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let mut sender = client.sender.clone();
    client.runtime.block_on(async move {
        let (mut answer, _) = sender.send_request(request(Method::GET, "/", &[]), true).expect("sent");
        let hint = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
        assert_eq!(hint.expect("a hint").expect("well-formed").status(), StatusCode::EARLY_HINTS);
        *seen.lock().expect("lock") = true;
        assert_eq!(answer.await.expect("an answer").status(), StatusCode::OK);
    });
}

#[test]
fn hints_of_an_upstream_over_http2_pass_and_no_switch_does() {
    let origin = H2Origin::scripted(h2::server::Builder::new(), |_, mut respond| async move {
        for status in [103, 102] {
            let hint = Response::builder().status(status).header("link", "</a>").body(()).expect("a head");
            respond.send_informational(hint).expect("sent");
        }
        let _ = respond.send_response(Response::new(()), true);
    });
    let rig = Rig::start(vec![h2c(origin.address)]);
    let told = told(&rig, request(Method::GET, "/", &[]), "");
    assert_eq!(statuses(&told), [103, 102, 200]);
    assert_eq!(told.0[0].1["link"], "</a>");
    assert_eq!(status(&rig.get("/", "")), 200);
    let endless = H2Origin::scripted(h2::server::Builder::new(), |_, mut respond| async move {
        for _ in 0..5000 {
            let hint = Response::builder().status(103).body(()).expect("a head");
            if respond.send_informational(hint).is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = respond.send_response(Response::new(()), true);
    });
    let rig = Rig::start(vec![h2c(endless.address)]);
    assert_eq!(status(&rig.get("/", "")), 502);
    let switching = OriginServer::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let rig = Rig::start(vec![route(&switching.url())]);
    assert_eq!(Client::to(rig.address).get("/", &[]).status, 502);
}

#[test]
fn a_client_over_http2_is_told_to_go_on() {
    let origin = OriginServer::scripted(|stream, _| {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("written");
        let mut body = [0; 5];
        stream.read_exact(&mut body).is_ok() && stream.write_all(OK.as_bytes()).is_ok()
    });
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let mut sender = client.sender.clone();
    let post = request(Method::POST, "/", &[("expect", "100-continue"), ("content-length", "5")]);
    let status = client.runtime.block_on(async move {
        let (mut answer, mut stream) = sender.send_request(post, false).expect("sent");
        let go = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
        assert_eq!(go.expect("a word").expect("well-formed").status(), StatusCode::CONTINUE);
        stream.send_data("hello".into(), true).expect("sent");
        answer.await.expect("an answer").status()
    });
    assert_eq!(status, StatusCode::OK);
}
