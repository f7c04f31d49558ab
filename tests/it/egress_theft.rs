//! Attempts to get hold of a token through an egress listener of the real binary. Two credentials, each bound to one origin;
//! spies wherever else a request could be led. Whatever is tried, a token is seen by its own upstream and by nobody else, the
//! client included.

use std::io::{Read, Write};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::egress;
use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, TOKEN, Wire};

const OTHER_TOKEN: &str = "access-token-of-another-credential";

/// Answers with the head that it got, as some debugging pages do, and with a redirect to where `to` says.
fn echoing(to: String) -> OriginServer {
    OriginServer::scripted(move |stream, request| {
        let body = request.replace(TOKEN, "MINE").replace(OTHER_TOKEN, "MINE");
        let head = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).is_ok()
    })
}

struct Scene {
    run: Arc<Run>,
    proxy: Bearward,
    one: OriginServer,
    two: OriginServer,
    spies: Vec<OriginServer>,
}

impl Scene {
    async fn start() -> Self {
        let run = Arc::new(Run::new("egress-theft"));
        let spies: Vec<OriginServer> = (0..2).map(|_| OriginServer::ok()).collect();
        let (one, two) = (echoing(format!("{}/stolen", spies[1].url())), OriginServer::ok());
        let ports = |origin: &OriginServer| json!([origin.address.port()]);
        let rules = json!([
            {"name": "one", "match": {"hosts": ["127.0.0.1"], "ports": ports(&one)}, "action": "forward", "credential": "it"},
            {"name": "two", "match": {"hosts": ["127.0.0.1"], "ports": ports(&two)}, "action": "forward", "credential": "other"},
            {"name": "one-elsewhere", "match": {"hosts": ["localhost", "*.example"]}, "action": "forward", "credential": "it"},
            {"name": "rest", "match": {"hosts": ["127.0.0.1"]}, "action": "forward"},
        ]);
        let mut config = egress::config(&run, &rules, &[one.url()]);
        run.secret(OTHER_TOKEN);
        config["credentials"]["other"] = json!({
            "grant": "static", "token": run.secret_file("other", OTHER_TOKEN), "allowed_upstreams": [two.url()],
        });
        let proxy = Bearward::start(&run, &config).await;
        Self { run, proxy, one, two, spies }
    }

    /// Sends bytes and takes what comes back until the connection is closed or nothing more comes.
    fn send(&self, bytes: &str) -> String {
        let mut wire = Wire::to(self.proxy.proxy());
        wire.0.set_read_timeout(Some(std::time::Duration::from_millis(700))).expect("a limit");
        wire.write(bytes);
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) = wire.0.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
        }
        let all = String::from_utf8_lossy(&all).into_owned();
        self.run.keep("answers.log", &all);
        all
    }

    fn judge(&self, what: &str, answer: &str) {
        for token in [TOKEN, OTHER_TOKEN] {
            assert!(!answer.contains(token), "{what}: the client sees a token: {answer}");
        }
        for (index, spy) in self.spies.iter().enumerate() {
            for request in spy.requests() {
                assert!(
                    !request.contains(TOKEN) && !request.contains(OTHER_TOKEN),
                    "{what}: spy {index}: {request}"
                );
            }
        }
        for request in self.one.requests() {
            assert!(!request.contains(OTHER_TOKEN), "{what}: {request}");
        }
        for request in self.two.requests() {
            assert!(!request.contains(TOKEN), "{what}: {request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_seen_by_its_bound_upstream_only() {
    let scene = Scene::start().await;
    let (one, two, spy) = (scene.one.url(), scene.two.url(), scene.spies[0].url());
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let (one_host, spy_host) = (host(&one), host(&spy));
    let get = |url: &str, fields: &str| {
        format!("GET {url}/x HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")
    };
    let attempts: Vec<(&str, String)> = vec![
        ("the bound origin", get(&one, "")),
        ("another port of the same host", get(&spy, "")),
        ("another host by a rule with a credential", get("http://evil.example", "")),
        ("another name of the same address", get(&one.replace("127.0.0.1", "localhost"), "")),
        ("the address spelt otherwise", get(&spy.replace("127.0.0.1", "0x7f.1"), "")),
        ("https for http", get(&one.replace("http:", "https:"), "")),
        ("Host beside an absolute form", get(&spy, &format!("X: y\r\nHost: {one_host}\r\n"))),
        ("user information", get(&spy.replace("http://", &format!("http://{one_host}@")), "")),
        (
            "user information that ends early",
            get(&one.replace("http://", &format!("http://{spy_host}#@")), ""),
        ),
        ("a backslash", get(&format!("http://{one_host}\\@{spy_host}"), "")),
        ("two authorities", get(&format!("http://{one_host},{spy_host}"), "")),
        (
            "X-Forwarded-Host",
            get(&one, &format!("X-Forwarded-Host: {spy_host}\r\nX-Original-URL: {spy}/x\r\n")),
        ),
        ("a list of hop-by-hop fields with the token's", get(&one, "Connection: authorization, host\r\n")),
        (
            "the client's own beside it",
            get(&one, "Authorization: Bearer mine\r\nauthorization: Basic eDp5\r\n"),
        ),
        ("TRACE", format!("TRACE {one}/x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")),
        ("trace, in another case", format!("trace {one}/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")),
        (
            "OPTIONS that ends here",
            format!("OPTIONS {one}/x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n"),
        ),
        (
            "CONNECT to the origin",
            format!("CONNECT {one_host} HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (
            "a second request in the body",
            format!(
                "POST {one}/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {spy}/y HTTP/1.1\r\nHost: a\r\n\r\n"
            ),
        ),
        (
            "trailers",
            format!(
                "POST {one}/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: authorization\r\nConnection: close\r\n\r\n0\r\nAuthorization: Bearer mine\r\nHost: {spy_host}\r\n\r\n"
            ),
        ),
        (
            "the other credential's origin on the same connection",
            format!(
                "GET {one}/a HTTP/1.1\r\nHost: a\r\n\r\nGET {two}/b HTTP/1.1\r\nHost: a\r\n\r\nGET {spy}/c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ),
        ),
        ("an upgrade", get(&one, "Upgrade: websocket\r\nConnection: upgrade\r\n")),
        (
            "the proxy's own page with a host",
            format!("GET /proxy.pac HTTP/1.1\r\nHost: {one_host}\r\nConnection: close\r\n\r\n"),
        ),
    ];
    for (what, bytes) in &attempts {
        let answer = scene.send(bytes);
        assert!(!answer.is_empty(), "{what}: no answer");
        scene.judge(what, &answer);
    }
    // It was not all refused: the bound upstreams had their tokens.
    let seen = |origin: &OriginServer, token: &str| {
        let requests = origin.requests();
        assert!(!requests.is_empty());
        requests
            .iter()
            .all(|request| request.contains(&format!("Bearer {token}")) && !request.contains("mine"))
    };
    assert!(seen(&scene.one, TOKEN) && seen(&scene.two, OTHER_TOKEN));
    assert!(!scene.spies[0].requests().is_empty(), "requests without a token did go on");
    assert!(scene.spies[1].requests().is_empty(), "a redirect was followed");
    let status = scene.proxy.admin("/api/v1/status").await;
    let metrics = scene.proxy.admin("/metrics").await;
    for text in [status.to_string(), metrics.to_string(), scene.run.everything()] {
        assert!(!text.contains(TOKEN) && !text.contains(OTHER_TOKEN));
    }
    let _: Value = serde_json::from_slice(&status.body).expect("JSON");
}
