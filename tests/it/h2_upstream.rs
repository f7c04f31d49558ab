//! Upstreams that speak HTTP/2: what they see, what the client gets, and what the end of a stream means.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bearward::upstream::HttpVersion;
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Method, Response, Version};

use crate::h2_origin::{Answer, H2Origin, RawOrigin, h2c, over_tls, send_all, whole};
use crate::h2_rig::{Client, DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, frame, request};
use crate::proxy_rig::{
    OriginServer, Rig, TOKEN, Wire, field_of, fields_of, problem, publish, read_head, status,
};
use crate::tls_rig::{Authority, Files};

fn rig(origin: &H2Origin) -> Rig {
    Rig::start(vec![h2c(origin.address)])
}

#[test]
fn a_request_takes_the_form_of_http2() {
    let origin = H2Origin::answering(|_| Answer::ok("hello").with("x-answer", "1"));
    let rig = rig(&origin);
    let answer = rig.get(
        "/a/b?c=d",
        "Authorization: Bearer of-the-client\r\nCookie: a=b; c=d\r\nX-Mine: 1\r\nX-Hop: 1\r\n\
         Connection: keep-alive, x-hop\r\nKeep-Alive: 1\r\nTE: gzip\r\n",
    );
    assert_eq!(status(&answer), 200);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(field_of(&answer, "x-answer").as_deref(), Some("1"));
    let seen = origin.request();
    assert_eq!((seen.head.version, &seen.head.method), (Version::HTTP_2, &Method::GET));
    assert_eq!(seen.head.uri.to_string(), format!("http://{}/a/b?c=d", origin.address));
    assert_eq!(seen.field("authorization"), Some(&*format!("Bearer {TOKEN}")));
    assert_eq!((seen.field("cookie"), seen.field("x-mine")), (Some("a=b; c=d"), Some("1")));
    assert_eq!(seen.field("x-forwarded-host"), Some("localhost"));
    for gone in ["host", "connection", "keep-alive", "te", "x-hop", "transfer-encoding"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    // HTTP/2 from end to end.
    let client = Client::to(rig.address);
    let got = client.get("/x", &[("te", "trailers"), ("cookie", "a=b"), ("cookie", "c=d")]);
    assert_eq!((got.status, got.text(), got.field("x-answer")), (200, "hello", Some("1")));
    let seen = origin.request();
    assert_eq!((seen.field("te"), seen.field("cookie")), (Some("trailers"), Some("a=b; c=d")));
    assert!(seen.field("via").expect("Via").starts_with("2 bearward-"));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn preserved_hosts_and_bare_targets_become_pseudo_fields() {
    let origin = H2Origin::answering(|_| Answer::ok(""));
    let mut preserving = h2c(origin.address);
    preserving.preserve_host = true;
    let rig = Rig::start(vec![preserving]);
    let check = |head: &str, expected: &str| {
        assert_eq!(status(&rig.send(&format!("{head}\r\n\r\n"))), 200, "{head}");
        assert_eq!(origin.request().head.uri.to_string(), expected, "{head}");
    };
    check("GET / HTTP/1.1\r\nHost: localhost", "http://localhost/");
    check("GET /?q HTTP/1.1\r\nHost: LOCALHOST:80", "http://LOCALHOST:80/?q");
    check("GET http://localhost HTTP/1.1\r\nHost: localhost", "http://localhost/");
    check("OPTIONS /%2F..a HTTP/1.1\r\nHost: localhost", "http://localhost/%2F..a");
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    let origin = H2Origin::answering(|seen| {
        let length = seen.body.len().to_string();
        let mut answer = Answer::ok("").with("x-told", seen.field("content-length").unwrap_or("none"));
        if seen.head.uri.path() == "/told" {
            answer = answer.with("content-length", &length);
        }
        answer.body = seen.body.clone();
        answer
    });
    let rig = rig(&origin);
    let long = "0123456789abcdef".repeat(128 * 1024);
    for path in ["/told", "/untold"] {
        for body in ["", "hello", &long] {
            let sized = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let chunked = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) }
            );
            for (sent, told) in [(sized, body.len().to_string()), (chunked, "none".to_owned())] {
                let answer = raw_whole(&rig, &sent);
                assert_eq!((status(&answer.0), answer.1 == body.as_bytes()), (200, true), "{}", answer.0);
                assert_eq!(field_of(&answer.0, "x-told"), Some(told));
            }
            let client = Client::to(rig.address);
            let got = client.send(request(Method::POST, path, &[]), body).expect("an answer");
            assert_eq!((got.status, got.body == body.as_bytes()), (200, true));
        }
    }
    assert_eq!(origin.connections(), 1);
}

/// Sends on a new connection and reads the whole answer: its head, and its body without chunks.
fn raw_whole(rig: &Rig, sent: &str) -> (String, Vec<u8>) {
    let mut wire = rig.connect();
    let mut writer = wire.0.try_clone().expect("cloned");
    let sent = sent.to_owned();
    let writing = std::thread::spawn(move || writer.write_all(sent.as_bytes()).expect("written"));
    let head = String::from_utf8(read_head(&mut wire.0).expect("a head")).expect("text");
    let mut body = Vec::new();
    if let Some(length) = field_of(&head, "content-length") {
        body.resize(length.parse().expect("a length"), 0);
        wire.0.read_exact(&mut body).expect("a body");
    } else {
        loop {
            let line = read_line(&mut wire);
            let length = usize::from_str_radix(line.trim(), 16).expect("a length");
            let mut chunk = vec![0; length + 2];
            wire.0.read_exact(&mut chunk).expect("a chunk");
            if length == 0 {
                break;
            }
            body.extend(&chunk[..length]);
        }
    }
    writing.join().expect("written");
    (head, body)
}

fn read_line(wire: &mut Wire) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        wire.0.read_exact(&mut byte).expect("a byte");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text")
}

#[test]
fn answers_without_bodies_leave_the_connection_in_order() {
    let origin = H2Origin::answering(|seen| match seen.head.uri.path() {
        "/204" => Answer::status(204),
        "/304" => Answer::status(304).with("content-length", "7").with("etag", "\"a\""),
        _ => Answer::status(200).with("content-length", "7"),
    });
    let rig = rig(&origin);
    let mut wire = rig.connect();
    let client = Client::to(rig.address);
    for (method, path, expected) in [("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/", 200)] {
        for _ in 0..2 {
            wire.write(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let head = String::from_utf8(read_head(&mut wire.0).expect("a head")).expect("text");
            assert_eq!(status(&head), expected, "{head}");
            let length = field_of(&head, "content-length");
            assert_eq!(length.as_deref(), (method == "HEAD").then_some("7"), "{head}");
        }
        let method = method.parse().expect("a method");
        let got = client.send(request(method, path, &[]), "").expect("an answer");
        assert_eq!((got.status, got.body.len()), (expected, 0));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn trailers_pass_from_end_to_end() {
    let origin = H2Origin::answering(|seen| {
        let told = seen.trailers.as_ref().map(|trailers| format!("{trailers:?}")).unwrap_or_default();
        let mut answer = Answer::ok("ok").with("x-told", &told).with("trailer", "grpc-status, authorization");
        answer.trailers = vec![("grpc-status", "0"), ("authorization", "a"), ("x-more", "b")];
        answer
    });
    let rig = rig(&origin);
    // HTTP/1.1: what is declared, to a client that takes it.
    let mut wire = rig.connect();
    wire.write(
        "POST / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: te, close\r\nTrailer: x-sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nAuthorization: b\r\n\r\n",
    );
    let answer = wire.rest();
    assert!(answer.ends_with("\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n"), "{answer}");
    assert_eq!(fields_of(&answer, "x-told"), ["{\"x-sum\": \"7\"}"]);
    assert_eq!(
        (origin.request().field("te"), origin.request().field("trailer")),
        (Some("trailers"), Some("x-sum"))
    );
    // HTTP/2: whatever may be a trailer.
    let client = Client::to(rig.address);
    let mut sender = client.sender.clone();
    let got = client.runtime.block_on(async move {
        let (answer, mut stream) =
            sender.send_request(request(Method::POST, "/", &[("te", "trailers")]), false).expect("sent");
        stream.send_data("ok".into(), false).expect("sent");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().expect("a value"));
        trailers.insert("x-forwarded-for", "1".parse().expect("a value"));
        stream.send_trailers(trailers).expect("sent");
        crate::h2_rig::whole(answer.await.expect("a head")).await.expect("a body")
    });
    let trailers = got.trailers.as_ref().expect("trailers");
    assert_eq!(
        (trailers.len(), &trailers["grpc-status"], &trailers["x-more"]),
        (2, &"0".parse().expect("0"), &"b".parse().expect("b"))
    );
    assert_eq!(got.field("x-told"), Some("{\"x-sum\": \"7\"}"));
}

#[test]
fn an_upstream_gets_as_many_streams_a_connection_as_it_takes() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (open, peak) = (Arc::clone(&now), Arc::clone(&most));
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(3);
    let origin = H2Origin::scripted(builder, move |_, mut respond| {
        let (open, peak) = (Arc::clone(&open), Arc::clone(&peak));
        async move {
            peak.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
            open.fetch_sub(1, Ordering::Relaxed);
            let _ = respond.send_response(Response::new(()), true);
        }
    });
    let rig = rig(&origin);
    let wires: Vec<_> = (0..12)
        .map(|_| {
            let mut wire = rig.connect();
            wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            wire
        })
        .collect();
    for mut wire in wires {
        assert_eq!(status(&wire.answer()), 200);
    }
    assert_eq!((origin.connections(), most.load(Ordering::Relaxed)), (4, 12));
    // One is enough for those that come one by one.
    for _ in 0..10 {
        assert_eq!(status(&rig.get("/", "")), 200);
    }
    assert_eq!(origin.connections(), 4);
}

#[test]
fn a_hundred_requests_at_once_share_a_connection() {
    let origin = H2Origin::answering(|_| Answer::ok("ok"));
    let rig = rig(&origin);
    let wires: Vec<_> = (0..100).map(|_| rig.connect()).collect();
    for round in 0..3 {
        for wire in &wires {
            let mut wire = wire.0.try_clone().expect("cloned");
            wire.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
        }
        for wire in &wires {
            let mut wire = Wire(wire.0.try_clone().expect("cloned"));
            assert_eq!(status(&wire.answer()), 200, "round {round}");
        }
    }
    assert_eq!((origin.connections(), origin.requests().len()), (1, 300));
}

const OK: [(&str, &str); 1] = [(":status", "200")];

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

#[test]
fn what_an_upstream_did_not_process_is_sent_once_more() {
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // How the first connection ends a request, and what becomes of a GET and of a POST.
    let check = |end: fn(u32) -> Vec<u8>, on_get: u16, on_post: u16| {
        for (request, expected) in [(get, on_get), (post, on_post)] {
            let origin = RawOrigin::scripted(move |mut peer, number| {
                while let Some(head) = peer.next(HEADERS) {
                    if head.flags & END_STREAM == 0 {
                        assert_eq!(peer.next(DATA).expect("a body").payload, b"hello");
                    }
                    if number == 0 {
                        peer.write(&end(head.stream));
                        return;
                    }
                    peer.headers(head.stream, END_STREAM, &OK);
                }
            });
            let rig = Rig::start(vec![h2c(origin.address)]);
            let answer = rig.send(request);
            assert_eq!(status(&answer), expected, "{request} {:?}", end(1));
            assert_eq!(origin.connections(), if expected == 200 { 2 } else { 1 });
        }
    };
    check(|_| goaway(0, 0), 200, 200);
    check(|stream| frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes()), 200, 200);
    // It may have been carried out.
    check(|stream| goaway(stream, 0), 502, 502);
    check(|stream| frame(RST_STREAM, 0, stream, &2_u32.to_be_bytes()), 502, 502);
    check(|_| Vec::new(), 502, 502);
}

#[test]
fn a_request_that_is_refused_twice_is_not_sent_a_third_time() {
    let origin = RawOrigin::scripted(|mut peer, _| {
        while let Some(head) = peer.next(HEADERS) {
            peer.write(&frame(RST_STREAM, 0, head.stream, &7_u32.to_be_bytes()));
        }
    });
    let rig = Rig::start(vec![h2c(origin.address)]);
    let answer = rig.get("/", "");
    assert_eq!((status(&answer), problem(&answer)["status"].as_u64()), (502, Some(502)));
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_goaway_ends_no_stream_that_is_being_served() {
    let origin = RawOrigin::scripted(|mut peer, number| {
        let Some(head) = peer.next(HEADERS) else { return };
        if number == 0 {
            peer.write(&goaway(head.stream, 0));
            std::thread::sleep(Duration::from_millis(300));
        }
        peer.headers(head.stream, 0, &OK);
        peer.write(&frame(DATA, END_STREAM, head.stream, number.to_string().as_bytes()));
        peer.next(GOAWAY);
    });
    let rig = Rig::start(vec![h2c(origin.address)]);
    let mut first = rig.connect();
    first.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    let second = raw_whole(&rig, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((status(&second.0), second.1), (200, b"1".to_vec()));
    assert!(first.rest().ends_with("\r\n1\r\n0\r\n0\r\n\r\n"));
}

#[test]
fn an_answer_that_is_reset_is_never_shown_as_whole() {
    for (reason, length) in [
        (Reason::INTERNAL_ERROR, None),
        (Reason::CANCEL, None),
        (Reason::NO_ERROR, None),
        (Reason::NO_ERROR, Some(9)),
    ] {
        let origin = H2Origin::scripted(h2::server::Builder::new(), move |_, mut respond| async move {
            let mut head = Response::new(());
            if let Some(length) = length {
                head.headers_mut().insert("content-length", http::HeaderValue::from(length));
            }
            let mut stream = respond.send_response(head, false).expect("sent");
            stream.send_data("half".into(), false).expect("sent");
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.send_reset(reason);
        });
        let rig = rig(&origin);
        let mut wire = rig.connect();
        wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = wire.rest();
        assert!(answer.contains("half") && !answer.ends_with("0\r\n\r\n"), "{reason:?}: {answer}");
        let client = Client::to(rig.address);
        let error = client.send(request(Method::GET, "/", &[]), "").expect_err("broken off");
        assert!(error.is_reset(), "{reason:?}: {error}");
        rig.settle(|_| rig.plane.snapshot().routes[0].traffic.errors == 2);
    }
}

#[test]
fn a_client_that_goes_away_cancels_its_stream_alone() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&cancelled);
    let origin = H2Origin::scripted(h2::server::Builder::new(), move |request, mut respond| {
        let count = Arc::clone(&count);
        async move {
            if request.uri().path() == "/quick" {
                let _ = respond.send_response(Response::new(()), true);
                return;
            }
            let answering = request.uri().path() == "/answering";
            let mut stream = None;
            if answering {
                let mut sent = respond.send_response(Response::new(()), false).expect("sent");
                sent.send_data("begun".into(), false).expect("sent");
                stream = Some(sent);
            }
            let reason = std::future::poll_fn(|cx| match &mut stream {
                Some(stream) => stream.poll_reset(cx),
                None => respond.poll_reset(cx),
            })
            .await;
            assert_eq!(reason.expect("a reset"), Reason::CANCEL);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let rig = rig(&origin);
    let mut other = rig.connect();
    for path in ["/silent", "/answering"] {
        let mut wire = rig.connect();
        wire.write(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let client = Client::to(rig.address);
        let mut sender = client.sender.clone();
        let pending = sender.send_request(request(Method::GET, path, &[]), true).expect("sent").0;
        std::thread::sleep(Duration::from_millis(200));
        drop((wire, pending));
        // A client that has closed its side may still listen, for a second.
        std::thread::sleep(Duration::from_millis(1500));
        other.write("GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status(&other.answer()), 200);
    }
    assert_eq!((cancelled.load(Ordering::Relaxed), origin.connections()), (4, 1));
}

#[test]
fn a_refused_token_is_replaced_and_the_request_sent_again() {
    let origin = H2Origin::answering(|seen| match seen.field("authorization") {
        Some("Bearer newer") => Answer::ok("").with("x-body", std::str::from_utf8(&seen.body).expect("text")),
        _ => Answer::status(401).with("www-authenticate", "Bearer error=\"invalid_token\""),
    });
    let rig = rig(&origin);
    let cell = Arc::clone(&rig.cell);
    let refreshing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        publish(&cell, "newer", 2);
    });
    let answer = rig.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((status(&answer), field_of(&answer, "x-body").as_deref()), (200, Some("hello")));
    refreshing.join().expect("published");
    assert_eq!((origin.requests().len(), origin.connections()), (2, 1));
}

#[test]
fn the_two_directions_of_a_stream_do_not_wait_for_each_other() {
    let origin = H2Origin::scripted(h2::server::Builder::new(), |request, mut respond| async move {
        let mut incoming = request.into_body();
        let mut outgoing = respond.send_response(Response::new(()), false).expect("sent");
        while let Some(Ok(piece)) = incoming.data().await {
            incoming.flow_control().release_capacity(piece.len()).expect("released");
            send_all(&mut outgoing, piece, false).await;
        }
        let _ = outgoing.send_data(Bytes::new(), true);
    });
    let rig = rig(&origin);
    let client = Client::to(rig.address);
    let mut sender = client.sender.clone();
    client.runtime.block_on(async move {
        let (answer, mut stream) = sender.send_request(request(Method::POST, "/", &[]), false).expect("sent");
        let mut answer = answer.await.expect("a head before the body").into_body();
        for word in ["one", "two", "three"] {
            stream.send_data(word.into(), false).expect("sent");
            let piece = answer.data().await.expect("a piece").expect("a piece");
            assert_eq!(piece, word);
            answer.flow_control().release_capacity(piece.len()).expect("released");
        }
        stream.send_data(Bytes::new(), true).expect("sent");
        while let Some(piece) = answer.data().await {
            assert_eq!(piece.expect("a clean end").len(), 0);
        }
    });
    // Over HTTP/1.1 as well.
    let mut wire = rig.connect();
    wire.write("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    read_head(&mut wire.0).expect("a head before the body");
    for word in ["one", "two"] {
        wire.write(&format!("3\r\n{word}\r\n"));
        assert_eq!((read_line(&mut wire), read_line(&mut wire)), ("3\r\n".into(), format!("{word}\r\n")));
    }
    wire.write("0\r\n\r\n");
    assert_eq!((read_line(&mut wire), read_line(&mut wire)), ("0\r\n".into(), "\r\n".into()));
}

#[test]
fn whoever_is_slow_slows_the_other_side_down() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let stop = Arc::new(AtomicBool::new(false));
    let origin = H2Origin::scripted(h2::server::Builder::new(), move |request, mut respond| {
        let count = Arc::clone(&count);
        async move {
            if request.method() == Method::POST {
                // Takes nothing for a while.
                tokio::time::sleep(Duration::from_secs(2)).await;
                let seen = whole(request).await.expect("a request");
                let mut head = Response::new(());
                head.headers_mut().insert("x-length", http::HeaderValue::from(seen.body.len()));
                let _ = respond.send_response(head, true);
                return;
            }
            let mut stream = respond.send_response(Response::new(()), false).expect("sent");
            for _ in 0..512 {
                send_all(&mut stream, Bytes::from_static(&[b'x'; 65536]), false).await;
                count.fetch_add(65536, Ordering::Relaxed);
            }
            let _ = stream.send_data(Bytes::new(), true);
        }
    });
    let rig = rig(&origin);
    let mut slow = rig.connect();
    slow.0.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
    slow.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    std::thread::sleep(Duration::from_millis(700));
    let at_once = sent.load(Ordering::Relaxed);
    // A window of 1 MiB, a piece in hand on each side, and what the kernel keeps of the client's connection.
    assert!(at_once < 16 * 1024 * 1024, "{at_once}");
    let mut body = Vec::new();
    slow.0.read_to_end(&mut body).expect("read");
    assert!(body.len() > 32 * 1024 * 1024 && body.ends_with(b"0\r\n\r\n"), "{}", body.len());
    // And the other way.
    let mut wire = rig.connect();
    wire.0.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
    wire.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777216\r\n\r\n");
    let (taken, over) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&stop));
    let (mut writer, count) = (wire.0.try_clone().expect("cloned"), Arc::clone(&taken));
    let writing = std::thread::spawn(move || {
        for _ in 0..256 {
            writer.write_all(&[b'x'; 65536]).expect("written");
            count.fetch_add(65536, Ordering::Relaxed);
        }
        over.store(true, Ordering::Relaxed);
    });
    std::thread::sleep(Duration::from_millis(1000));
    let at_once = taken.load(Ordering::Relaxed);
    assert!(at_once < 14 * 1024 * 1024 && !stop.load(Ordering::Relaxed), "{at_once}");
    assert_eq!(field_of(&wire.answer(), "x-length").as_deref(), Some("16777216"));
    writing.join().expect("written");
}

#[test]
fn a_body_that_breaks_off_is_reset_and_not_ended() {
    let outcome = Arc::new(std::sync::Mutex::new(None));
    let tell = Arc::clone(&outcome);
    let origin = H2Origin::scripted(h2::server::Builder::new(), move |request, _respond| {
        let tell = Arc::clone(&tell);
        async move {
            let mut stream = request.into_body();
            while let Some(piece) = stream.data().await {
                if let Err(error) = piece {
                    *tell.lock().expect("lock") = error.reason();
                    return;
                }
            }
            *tell.lock().expect("lock") = Some(Reason::NO_ERROR);
        }
    });
    let rig = rig(&origin);
    let mut wire = rig.connect();
    wire.write("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    std::thread::sleep(Duration::from_millis(200));
    drop(wire);
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while outcome.lock().expect("lock").is_none() && tokio::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(*outcome.lock().expect("lock"), Some(Reason::CANCEL));
}

#[test]
fn a_server_that_does_not_speak_http2_is_told_apart() {
    let origin = OriginServer::ok();
    let rig = Rig::start(vec![h2c(origin.address)]);
    let answer = rig.get("/", "");
    assert_eq!(
        (status(&answer), problem(&answer)["type"].as_str()),
        (502, Some("urn:bearward:problem:upstream-not-http2"))
    );
    assert!(!origin.requests().iter().any(|request| request.contains(TOKEN)));
}

pub(crate) fn server_config(authority: &Authority, alpn: &[&str]) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject;
    let pair = authority.issue(&["localhost"]);
    let chain =
        vec![rustls::pki_types::CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("certificate")];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key");
    let mut config = rustls::ServerConfig::builder_with_provider(bearward::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

#[test]
fn over_tls_the_upstream_chooses_the_protocol() {
    let authority = Authority::new();
    let files = Files::of(&authority.issue(&["localhost"]));
    files.write("ca.crt", &authority.certificate.pem());
    let ca = files.at("ca.crt");
    let check = |alpn: &[&str], http: HttpVersion, expected: Option<&str>| {
        let origin = H2Origin::secured(server_config(&authority, alpn), |_| Answer::ok("of http/2"));
        let rig = Rig::start(vec![over_tls(origin.address, &ca, http)]);
        let answer = rig.get("/", "");
        match expected {
            None => {
                assert!(answer.ends_with("of http/2\r\n0\r\n\r\n"), "{alpn:?} {http:?}: {answer}");
                assert_eq!(origin.request().head.uri.scheme_str(), Some("https"));
                assert_eq!(status(&rig.get("/", "")), 200);
                assert_eq!(origin.connections(), 1);
            }
            Some(expected) => {
                assert_eq!(status(&answer), 502, "{alpn:?} {http:?}: {answer}");
                assert_eq!(problem(&answer)["type"], format!("urn:bearward:problem:{expected}"));
                assert!(origin.requests().is_empty());
            }
        }
    };
    check(&["h2", "http/1.1"], HttpVersion::Auto, None);
    check(&["h2", "http/1.1"], HttpVersion::Http2, None);
    check(&["http/1.1", "h2"], HttpVersion::Http2, None);
    check(&["http/1.1"], HttpVersion::Http2, Some("upstream-not-http2"));
    check(&[], HttpVersion::Http2, Some("upstream-not-http2"));
    // This one would answer in HTTP/2 whatever was chosen: no request of HTTP/1.1 is taken for one of HTTP/2.
    check(&["h2", "http/1.1"], HttpVersion::Http1, Some("upstream-protocol"));
    check(&[], HttpVersion::Auto, Some("upstream-protocol"));
}
