//! Requests and answers over HTTP/2: what the origin must and must not see, what the client gets.

use std::io::Write;
use std::time::Duration;

use http::{Method, Request};

use crate::h2_rig::{
    Client, DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, SETTINGS, frame, plain, request,
};
use crate::proxy_rig::{OriginServer, Rig, TOKEN, field_of, fields_of, route};

fn answer(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_request_passes_with_our_token_and_in_the_form_of_the_upstream() {
    let origin = OriginServer::answering(&answer("X-Answer: 1\r\nKeep-Alive: timeout=5\r\n", "hello"));
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let got = client.get("/a/b?c=d", &[("authorization", "Bearer of-the-client"), ("x-mine", "1")]);
    assert_eq!((got.status, got.text()), (200, "hello"));
    assert_eq!((got.field("x-answer"), got.field("content-length")), (Some("1"), Some("5")));
    assert_eq!((got.field("keep-alive"), got.field("connection")), (None, None));
    let seen = origin.request();
    assert!(seen.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{seen}");
    assert_eq!(fields_of(&seen, "authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!(fields_of(&seen, "host"), [origin.address.to_string()]);
    assert_eq!(fields_of(&seen, "x-forwarded-host"), ["localhost"]);
    assert_eq!(fields_of(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(fields_of(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(fields_of(&seen, "x-mine"), ["1"]);
    assert!(field_of(&seen, "via").expect("Via").starts_with("2 bearward-"), "{seen}");
    assert_eq!(fields_of(&seen, "transfer-encoding"), Vec::<String>::new());
}

#[test]
fn bodies_pass_both_ways() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let check = |fields: &[(&str, &str)], body: &str, expected: &str| {
        let got = client.send(request(Method::POST, "/", fields), body).expect("an answer");
        assert_eq!((got.status, got.text()), (200, "ok"));
        let seen = origin.requests().pop().expect("a request");
        assert!(seen.ends_with(expected), "{seen}");
    };
    check(&[("content-length", "5")], "hello", "\r\n\r\nhello");
    check(&[], "hello", "\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    check(&[("content-length", "0")], "", "\r\n\r\n");
    check(&[("content-length", "5"), ("content-length", "5")], "hello", "\r\n\r\nhello");
    let long = "0123456789abcdef".repeat(16 * 1024);
    let length = long.len().to_string();
    check(&[("content-length", &length)], &long, &format!("\r\n\r\n{long}"));
    assert_eq!(origin.connections(), 1);
    for seen in origin.requests() {
        assert!(fields_of(&seen, "content-length").len() < 2, "{seen}");
    }
}

#[test]
fn many_streams_are_served_at_once() {
    let origin = OriginServer::scripted(|stream, _| {
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(answer("", "ok").as_bytes()).is_ok()
    });
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let began = tokio::time::Instant::now();
    let answers = (0..50).map(|_| {
        let mut sender = client.sender.clone();
        client.runtime.spawn(async move {
            let (answer, _) = sender.send_request(request(Method::GET, "/", &[]), true).expect("sent");
            crate::h2_rig::whole(answer.await.expect("a head")).await.expect("a body").status
        })
    });
    let answers: Vec<_> = answers.collect();
    for answer in answers {
        assert_eq!(client.runtime.block_on(answer).expect("joined"), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(rig.plane.snapshot().routes[0].traffic.code_classes, [0, 50, 0, 0, 0]);
}

#[test]
fn a_stream_whose_upstream_is_late_is_answered_while_others_go_on() {
    let origin = OriginServer::scripted(|stream, request| {
        if request.starts_with("GET /slow") {
            std::thread::sleep(Duration::from_secs(5));
        }
        stream.write_all(answer("", "ok").as_bytes()).is_ok()
    });
    let mut route = route(&origin.url());
    route.timeouts.first_byte = Duration::from_millis(300);
    let rig = Rig::start(vec![route]);
    let client = Client::to(rig.address);
    let mut sender = client.sender.clone();
    let slow = client.runtime.spawn(async move {
        let (answer, _) = sender.send_request(request(Method::GET, "/slow", &[]), true).expect("sent");
        crate::h2_rig::whole(answer.await.expect("a head")).await.expect("a body")
    });
    for _ in 0..5 {
        assert_eq!(client.get("/fast", &[]).status, 200);
    }
    let began = tokio::time::Instant::now();
    let late = client.runtime.block_on(slow).expect("joined");
    assert_eq!((late.status, late.problem().as_str()), (504, "upstream-timeout"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(client.get("/fast", &[]).status, 200);
}

#[test]
fn a_body_that_does_not_come_is_answered_with_408() {
    let origin = OriginServer::ok();
    let mut route = route(&origin.url());
    route.timeouts.request_idle = Duration::from_millis(300);
    let rig = Rig::start(vec![route]);
    let client = Client::to(rig.address);
    let mut sender = client.sender.clone();
    let got = client.runtime.block_on(async move {
        let post = request(Method::POST, "/", &[("content-length", "5")]);
        let (answer, mut stream) = sender.send_request(post, false).expect("sent");
        stream.send_data("he".into(), false).expect("sent");
        crate::h2_rig::whole(answer.await.expect("a head")).await.expect("a body")
    });
    assert_eq!((got.status, got.problem().as_str()), (408, "body-timeout"));
    assert_eq!(client.get("/", &[]).status, 200);
}

#[test]
fn the_first_bytes_tell_the_protocol() {
    let rig = Rig::to(&OriginServer::ok());
    // Piece by piece.
    let mut raw = Raw(std::net::TcpStream::connect(rig.address).expect("connected"));
    raw.0.set_nodelay(true).expect("nodelay");
    for piece in crate::h2_rig::PREFACE.chunks(5) {
        raw.write(piece).expect("written");
        std::thread::sleep(Duration::from_millis(10));
    }
    raw.write(&frame(SETTINGS, 0, 0, &[])).expect("written");
    raw.headers(1, END_STREAM, &plain("GET", "/"));
    assert_eq!(raw.next(HEADERS).map(|frame| frame.stream), Some(1));
    assert_eq!(raw.next(DATA).map(|frame| frame.payload), Some(b"ok".to_vec()));
    // Words that begin like the preface.
    let mut wire = rig.connect();
    for piece in ["P", "OST / HTTP/1.1\r\nHost: local", "host\r\nContent-Length: 0\r\n\r\n"] {
        wire.write(piece);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(wire.answer().starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn the_authority_is_one_and_valid() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let check = |fields: &[(&str, &str)], expected: Result<u16, u32>| {
        assert_eq!(outcome_of(&rig, fields), expected, "{fields:?}");
    };
    let (get, http) = ((":method", "GET"), (":scheme", "http"));
    let path = (":path", "/");
    check(&[get, http, (":authority", "localhost"), path], Ok(200));
    check(&[get, (":scheme", "https"), (":authority", "localhost"), path], Ok(200));
    check(&[get, http, (":authority", "localhost"), path, ("host", "localhost")], Ok(200));
    check(&[get, http, (":authority", "localhost"), path, ("host", "LocalHost")], Ok(200));
    check(&[get, http, path, ("host", "localhost")], Ok(200));
    check(&[get, http, (":authority", "localhost"), path, ("host", "other")], Ok(400));
    check(&[get, http, (":authority", "localhost"), path, ("host", "localhost:1")], Ok(400));
    check(&[get, http, (":authority", "localhost"), path, ("host", "")], Ok(400));
    check(
        &[get, http, (":authority", "localhost"), path, ("host", "localhost"), ("host", "localhost")],
        Ok(400),
    );
    check(&[get, http, path], Ok(400));
    check(&[get, http, path, ("host", "localhost"), ("host", "localhost")], Ok(400));
    check(&[get, http, (":authority", "other.example"), path], Ok(421));
    check(&[get, (":scheme", "ftp"), (":authority", "localhost"), path], Ok(400));
}

/// What a head leads to that nothing follows: the status of the answer, or the code of an error.
fn outcome_of(rig: &Rig, fields: &[(&str, &str)]) -> Result<u16, u32> {
    let mut raw = Raw::to(rig.address, &[]);
    raw.headers(1, END_STREAM, fields);
    loop {
        let frame = raw.read().expect("an outcome");
        match frame.kind {
            HEADERS => return Ok(status_of(&frame.payload)),
            RST_STREAM | GOAWAY if frame.code() != 0 => return Err(frame.code()),
            _ => {}
        }
    }
}

#[test]
fn a_head_in_another_form_than_http2_has_reaches_no_origin() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let (get, http, host, path) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/"));
    let plain = [get, http, host, path];
    let with = |field: (&'static str, &'static str)| [plain.as_slice(), &[field]].concat();
    let target = |path: &'static str| vec![get, http, host, (":path", path)];
    let rows: Vec<Vec<(&str, &str)>> = vec![
        with(("X-Upper", "1")),
        with(("bad name", "1")),
        with(("bad:name", "1")),
        with(("", "1")),
        with(("x\r\ny", "1")),
        with(("x-a", "a\r\nb: c")),
        with(("x-a", "a\0b")),
        with(("x-a", "a\nb")),
        with(("connection", "close")),
        with(("connection", "x-a")),
        with(("keep-alive", "1")),
        with(("proxy-connection", "1")),
        with(("transfer-encoding", "chunked")),
        with(("upgrade", "websocket")),
        with(("te", "gzip")),
        with(("te", "trailers, deflate")),
        with((":path", "/other")),
        with((":method", "POST")),
        with((":authority", "evil.example")),
        with((":status", "200")),
        with((":unknown", "1")),
        with((":protocol", "websocket")),
        with(("content-length", "5")),
        with(("content-length", "-1")),
        with(("content-length", "+0")),
        with(("content-length", "x")),
        vec![get, http, host, ("x-a", "1"), path],
        vec![http, host, path],
        vec![get, host, path],
        vec![get, http, host],
        vec![(":method", "GE T"), http, host, path],
        vec![(":method", ""), http, host, path],
        vec![(":method", "GET / HTTP/1.1\r\nx: y"), http, host, path],
        target(""),
        target("x"),
        target("*"),
        target("/a b"),
        target("/a\r\nb"),
        target("/\\a"),
        target("/%00"),
        target("/%2e%2e/a"),
        target("http://evil.example/"),
        vec![get, http, (":authority", "user@localhost"), path],
        vec![get, http, (":authority", ""), path],
        vec![get, http, (":authority", "localhost:0"), path],
        vec![get, http, (":authority", "localhost, evil"), path],
        vec![get, http, (":authority", "localhost/x"), path],
        vec![get, (":scheme", ""), host, path],
        vec![get, (":scheme", "javascript"), host, path],
        vec![(":method", "CONNECT"), http, host, path],
        vec![(":method", "TRACE"), http, host, path],
        vec![(":method", "trace"), http, host, path],
    ];
    for fields in &rows {
        let outcome = outcome_of(&rig, fields);
        assert!(matches!(outcome, Ok(400 | 405) | Err(1)), "{fields:?}: {outcome:?}");
    }
    assert_eq!(origin.requests(), Vec::<String>::new());
    for fields in
        [with(("te", "trailers")), with(("x_a", "1")), with(("x-a", "")), target("/%2F"), target("//")]
    {
        assert_eq!(outcome_of(&rig, &fields), Ok(200), "{fields:?}");
    }
    // The codec cuts a fragment off before anybody sees it: it goes nowhere.
    assert_eq!(outcome_of(&rig, &target("/a?b#c")), Ok(200));
    assert!(origin.requests().last().is_some_and(|seen| seen.starts_with("GET /a?b HTTP/1.1\r\n")));
    crate::harness::count(&format!(
        "{} heads in other forms than HTTP/2's; none reached the origin",
        rows.len()
    ));
}

/// The status at the beginning of a header block, where it is an index of the static table or a literal.
fn status_of(block: &[u8]) -> u16 {
    let known = [200, 204, 206, 304, 400, 404, 500];
    match block[0] {
        index @ 0x88..=0x8e => known[usize::from(index - 0x88)],
        _ => {
            // `:status` by its index, and a value that may be Huffman-coded: digits have five or six bits.
            let length = usize::from(block[1] & 0x7f);
            let value = &block[2..2 + length];
            if block[1] & 0x80 == 0 {
                std::str::from_utf8(value).expect("digits").parse().expect("a number")
            } else {
                huffman_digits(value)
            }
        }
    }
}

/// RFC 7541, B: `0` to `2` have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let (mut at, mut number) = (0, 0);
    while at + 5 <= bits.len() {
        let take = |count: usize| bits[at..at + count].iter().fold(0, |sum, bit| sum << 1 | u16::from(*bit));
        let five = take(5);
        let digit = if five < 3 {
            at += 5;
            five
        } else if at + 6 <= bits.len() && (0x19..=0x1f).contains(&take(6)) {
            let digit = take(6) - 0x19 + 3;
            at += 6;
            digit
        } else {
            break;
        };
        number = number * 10 + digit;
    }
    number
}

#[test]
fn a_path_that_no_route_has_is_told() {
    let origin = OriginServer::ok();
    let mut api = route(&origin.url());
    api.path_prefix = "/api/".to_owned();
    api.methods = vec![Method::GET];
    let rig = Rig::start(vec![api]);
    let client = Client::to(rig.address);
    let check = |method: Method, path: &str, expected: (u16, &str)| {
        let got = client.send(request(method, path, &[]), "").expect("an answer");
        assert_eq!((got.status, got.problem().as_str()), expected, "{path}");
        let length = got.body.len().to_string();
        assert_eq!(got.field("content-length"), Some(length.as_str()));
        assert!(got.field("x-request-id").is_some() && got.field("proxy-status").is_some());
    };
    check(Method::GET, "/other", (404, "no-route"));
    check(Method::POST, "/api/x", (405, "method"));
    check(Method::TRACE, "/api/x", (405, "method"));
    check(Method::GET, "/api/%00", (400, "bad-path"));
    let long = format!("/api/{}", "a".repeat(8 * 1024));
    check(Method::GET, &long, (414, "uri-too-long"));
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn connect_opens_no_tunnel() {
    let rig = Rig::to(&OriginServer::ok());
    let client = Client::to(rig.address);
    let connect =
        Request::builder().method(Method::CONNECT).uri("localhost:443").body(()).expect("a request");
    let got = client.send(connect, "").expect("an answer");
    assert_eq!((got.status, got.problem().as_str()), (405, "no-tunnel"));
}

#[test]
fn an_answers_trailers_pass_without_what_may_not_be_one() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\n";
    let origin =
        OriginServer::answering(&format!("{chunked}X-Sum: 7\r\nAuthorization: a\r\nHost: b\r\n\r\n"));
    let rig = Rig::to(&origin);
    let got = Client::to(rig.address).get("/", &[("te", "trailers")]);
    assert_eq!((got.status, got.text(), got.field("transfer-encoding")), (200, "ok", None));
    let trailers = got.trailers.expect("trailers");
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-sum"]);
    let seen = origin.request();
    assert_eq!(
        (fields_of(&seen, "te"), fields_of(&seen, "connection")),
        (vec!["trailers".into()], vec!["te".into()])
    );
}
