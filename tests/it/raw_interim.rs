//! Rows of raw bytes about what is no final answer or no whole head: interim answers (RFC 9110, 15.2), heads that the parser
//! refuses, clients that close their side (RFC 9112, 9).

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::proxy_rig::{OriginServer, Rig, problem, status};
use crate::raw_rig::{Row, answered, row, run};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn interim() -> Vec<Row> {
    let mut rows = Vec::new();
    for before in [
        "HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\nX-Interim: 1\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nSet-Cookie: x-interim=1\r\n\r\n",
        "HTTP/1.1 110 x\r\n\r\nHTTP/1.1 199\r\n\r\n",
    ] {
        let answer = format!("{before}{OK}");
        rows.push(
            answered(&format!("{before:?}"), answer, false)
                .answers(&[200])
                .gets("hello")
                .gets_not("x-interim"),
        );
    }
    let many = |count: usize| "HTTP/1.1 102 Processing\r\nX-Interim: 1\r\n\r\n".repeat(count);
    rows.extend([
        answered("a thousand of them", format!("{}{OK}", many(1000)), false).answers(&[200]).gets_not("x-interim"),
        answered("more than anybody waits for", format!("{}{OK}", many(20_000)), true).answers(&[502]).once(),
        answered("nothing but one, by GET", "HTTP/1.1 103 x\r\n\r\n", true).answers(&[502]).once(),
        answered("nothing but half of a head, by GET", "HTTP/1.1 20", true).answers(&[502]).once(),
        answered(
            "a switch behind one",
            "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\npoison",
            true,
        )
        .answers(&[502])
        .gets_not("poison"),
        answered("a switch to another", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", true)
            .answers(&[502]),
        answered("a head that begins with an empty line", format!("\r\n{OK}"), false).answers(&[200]).gets("hello"),
        answered("a head with bare line feeds", OK.replace("\r\n", "\n"), false).answers(&[200]).gets("\r\n\r\nhello"),
        answered("no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false).answers(&[200]),
        answered("a reason beyond ASCII", "HTTP/1.1 200 Gr\u{fc}n\r\nContent-Length: 0\r\n\r\n", false).answers(&[200]),
        answered("a 205 with a body", "HTTP/1.1 205 x\r\nContent-Length: 2\r\n\r\nok", false).answers(&[205]).gets("ok"),
        answered("a 426", "HTTP/1.1 426 x\r\nConnection: upgrade\r\nUpgrade: HTTP/2\r\nContent-Length: 0\r\n\r\n", false)
            .answers(&[426])
            .gets_not("upgrade: "),
        answered("a 407", "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", false)
            .answers(&[407])
            .gets_not("proxy-authenticate"),
        answered("a 204 with a bad length", "HTTP/1.1 204 x\r\nContent-Length: x\r\n\r\n", true).answers(&[502]),
        answered("a 304 with two lengths", "HTTP/1.1 304 x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", true)
            .answers(&[502]),
        answered("a 200 in gzip to HEAD", "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip\r\n\r\n", true).by("HEAD").answers(&[502]),
        answered("a bad length beside a coding", "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\nContent-Length: -1\r\n\r\n0\r\n\r\n", true)
            .answers(&[502]),
        answered("kept by HTTP/1.0", "HTTP/1.0 200 x\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", false)
            .answers(&[200])
            .keeps_upstream(false),
    ]);
    rows
}

/// Refused by the parser below: told like any other refusal.
fn heads() -> Vec<Row> {
    let told = |what: &str, sends: String, status: u16, slug: &str| {
        row(what, sends)
            .closes(&[status])
            .gets(&format!("\"urn:bearward:problem:{slug}\""))
            .gets("content-type: application/problem+json\r\n")
            .gets("proxy-status: bearward; error=http_request_error\r\n")
            .gets("connection: close\r\n")
            .gets("\r\ndate: ")
            .gets("x-request-id: ")
    };
    let head = "GET /x HTTP/1.1\r\nHost: localhost\r\n";
    vec![
        told("no request at all", "NONSENSE\r\n\r\n".into(), 400, "bad-head"),
        told("another version", "GET /x HTTP/2.0\r\nHost: localhost\r\n\r\n".into(), 400, "bad-head"),
        told("a bad name", format!("{head}Bad Name: x\r\n\r\n"), 400, "bad-head"),
        told("a bad name that is markup", format!("{head}<script>: x\r\n\r\n"), 400, "bad-head").gets_not("script"),
        told("a long field", format!("{head}X: {}\r\n\r\n", "a".repeat(40_000)), 431, "head-too-large"),
        told("many fields", format!("{head}{}\r\n", "X: y\r\n".repeat(200)), 431, "head-too-large"),
        told("a long target", format!("GET /{} HTTP/1.1\r\n", "a".repeat(40_000)), 414, "uri-too-long"),
        row("behind a good one", format!("{head}\r\n{head}Bad Name: x\r\n\r\n"))
            .closes(&[200, 400])
            .gets("\"urn:bearward:problem:bad-head\""),
        row("behind a body", "POST /1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello\0\0\r\n\r\n")
            .closes(&[200, 400])
            .gets("\"urn:bearward:problem:bad-head\""),
        // What looks like the parser's answer and is an upstream's passes as it came.
        answered(
            "an answer that looks like the parser's",
            "HTTP/1.1 200 OK\r\nContent-Length: 66\r\n\r\nHTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            false,
        )
        .answers(&[200])
        .gets("\r\n\r\nHTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
    ]
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [interim(), heads()].concat()
}

#[test]
fn interim_answers_are_no_answers() {
    run(interim());
}

#[test]
fn heads_that_the_parser_refuses_are_told_like_others() {
    run(heads());
}

#[test]
fn a_client_that_closes_its_side_is_still_answered() {
    let origin = OriginServer::scripted(|stream, request| {
        let slow = request.starts_with("POST");
        std::thread::sleep(Duration::from_millis(if slow { 300 } else { 0 }));
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let rig = Rig::to(&origin);
    let get = "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    let cut = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc";
    let half = "GET /x HTTP/1.1\r\nHost: loc";
    let check = |sent: &str, expected: &[u16]| {
        let mut wire = rig.connect();
        wire.write(sent);
        wire.0.shutdown(Shutdown::Write).expect("shut down");
        let began = tokio::time::Instant::now();
        let mut got = Vec::new();
        wire.0.read_to_end(&mut got).expect("read to the end");
        assert!(began.elapsed() < Duration::from_secs(4), "{sent:?}: {:?}", began.elapsed());
        let got = String::from_utf8(got).expect("text");
        let statuses: Vec<u16> = got.match_indices("HTTP/1.1 ").map(|(at, _)| status(&got[at..])).collect();
        assert_eq!(statuses, expected, "{sent:?}: {got}");
    };
    check(get, &[200]);
    check(post, &[200]);
    check(&[get, post, get].concat(), &[200, 200, 200]);
    check(cut, &[400]);
    check(half, &[]);
    check(&[get, half].concat(), &[200]);
    let whole = origin.requests();
    assert_eq!(whole.len(), 6, "a body that was cut reached the origin: {whole:?}");
}

#[test]
fn a_late_head_is_told_why() {
    let client = bearward::proxy::ClientLimits {
        header_timeout: Duration::from_millis(300),
        ..bearward::proxy::ClientLimits::default()
    };
    let limits =
        bearward::listener::Limits { workers: Some(1), client, ..bearward::listener::Limits::default() };
    let origin = OriginServer::ok();
    let rig = Rig::start_listener(vec![crate::proxy_rig::route(&origin.url())], Vec::new(), limits);
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.1\r\nHost: loc");
    let answer = wire.rest();
    assert_eq!(
        (status(&answer), problem(&answer)["type"].as_str()),
        (408, Some("urn:bearward:problem:head-timeout"))
    );
    rig.settle(|listener| listener.unrouted.code_classes[3] == 1);
}
