//! Raw bytes to an egress listener of the real binary: what lies behind a CONNECT is never a request of the client's, and what
//! is forwarded says who forwarded it (RFC 9110, 7.6.3 and 9.3.6; RFC 9931).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::egress::config;
use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, Wire, fields_of, status};

/// Sends all at once and reads to the end of the stream, or for so long.
fn converse(proxy: &Bearward, bytes: &str) -> String {
    let mut stream = TcpStream::connect(proxy.proxy()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(4))).expect("timeout");
    stream.write_all(bytes.as_bytes()).expect("written");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("the connection ends");
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_behind_a_refused_connect_is_no_request() {
    let run = Arc::new(Run::new("raw-egress-connect"));
    let origin = OriginServer::ok();
    let (here, port) = (origin.address, origin.address.port());
    let rules = json!([
        {"match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "forward"},
        {"match": {"hosts": ["localhost"]}, "action": "tunnel"},
    ]);
    let proxy = Bearward::start(&run, &config(&run, &rules, &[])).await;
    let hidden = format!("GET http://{here}/smuggled HTTP/1.1\r\nHost: {here}\r\nConnection: close\r\n\r\n");
    for (target, lines, expected) in [
        ("evil.example:443", "", 403),
        ("evil.example:443", "Content-Length: 0\r\n", 403),
        ("evil.example:443", "Connection: keep-alive\r\nProxy-Connection: keep-alive\r\n", 403),
        // Nobody listens there.
        ("localhost:1", "", 502),
        ("evil.example", "", 400),
        ("evil.example:0", "", 400),
        ("evil.example:443/", "", 400),
        ("http://evil.example:443", "", 400),
        ("evil.example:443", "Content-Length: 5\r\n", 400),
        ("evil.example:443", "Transfer-Encoding: chunked\r\n", 400),
        ("evil.example:443", "Host: twice\r\n", 400),
    ] {
        let got = converse(&proxy, &format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n{hidden}"));
        assert_eq!(status(&got), expected, "{target} {lines:?}: {got}");
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{target} {lines:?}: {got}");
        assert_eq!(fields_of(&got, "connection"), ["close"], "{target} {lines:?}: {got}");
    }
    assert_eq!(origin.requests(), Vec::<String>::new());
    // Behind another refusal it is one.
    let denied = "GET http://evil.example/ HTTP/1.1\r\nHost: a\r\n\r\n";
    let got = converse(&proxy, &format!("{denied}{hidden}"));
    assert_eq!(origin.requests().len(), 1, "{got}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forwarded_says_who_forwarded_it_both_ways() {
    let run = Arc::new(Run::new("raw-egress-via"));
    let answers = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", vec!["1.1 "]),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", vec!["1.0 "]),
        ("HTTP/1.1 200 OK\r\nVia: 1.0 fred\r\nContent-Length: 0\r\n\r\n", vec!["1.0 fred", "1.1 "]),
        ("HTTP/1.1 204 x\r\n\r\n", vec!["1.1 "]),
        ("HTTP/1.1 502 x\r\nContent-Length: 0\r\n\r\n", vec!["1.1 "]),
    ];
    for (answer, expected) in answers {
        let origin = OriginServer::scripted(move |stream, _| {
            let _ = stream.write_all(answer.as_bytes());
            false
        });
        let rules = json!([{"match": {"hosts": ["127.0.0.1"]}, "action": "forward"}]);
        let proxy = Bearward::start(&run, &config(&run, &rules, &[])).await;
        let mut wire = Wire::to(proxy.proxy());
        wire.write(&format!("GET {}/x HTTP/1.1\r\nHost: a\r\n\r\n", origin.url()));
        let got = wire.answer();
        let said = fields_of(&got, "via");
        assert_eq!(said.len(), expected.len(), "{got}");
        assert!(said.iter().zip(&expected).all(|(said, expected)| said.starts_with(expected)), "{got}");
        assert_eq!(fields_of(&origin.request(), "via").len(), 1);
        proxy.stop().await;
    }
}
