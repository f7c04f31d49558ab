//! Egress listeners of the real binary: rules, absolute-form, CONNECT, and where a token goes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::h2_rig::Client;
use crate::harness::bearward::Bearward;
use crate::harness::eventually;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, TOKEN, Wire, field_of, problem, status};

/// A configuration with an egress listener; `credential` may go to `allowed`.
pub(crate) fn config(run: &Run, rules: &Value, allowed: &[String]) -> Value {
    run.secret(TOKEN);
    json!({
        "listeners": [{
            "name": "legacy",
            "kind": "egress",
            "bind": "127.0.0.1:0",
            "egress_network": {"allow_private": ["127.0.0.0/8"]},
            "rules": rules,
        }],
        "credentials": {"it": {
            "grant": "static", "token": run.secret_file("token", TOKEN), "allowed_upstreams": allowed,
        }},
        "store": {"kind": "file", "path": run.state()},
        "admin": {"bind": "127.0.0.1:0"},
        "log": {"level": "debug", "format": "json"},
    })
}

/// Sends raw bytes and reads one answer.
fn ask(proxy: &Bearward, request: &str) -> String {
    let mut wire = Wire::to(proxy.proxy());
    wire.write(request);
    wire.answer()
}

pub(crate) fn absolute(proxy: &Bearward, url: &str, extra: &str) -> String {
    ask(proxy, &format!("GET {url} HTTP/1.1\r\nHost: ignored.example\r\n{extra}\r\n"))
}

fn connect(proxy: &Bearward, target: &str) -> (String, TcpStream) {
    let mut wire = Wire::to(proxy.proxy());
    wire.write(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
    (wire.answer(), wire.0)
}

/// A server that sends back what it gets, and at the end of it how much that was.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut buffer, mut total) = (vec![0; 16 * 1024], 0);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    total += length;
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
                let _ = stream.write_all(format!("|{total}").as_bytes());
            });
        }
    });
    address
}

/// Credentials of users have no token of their own: they stand in no list beside those that do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_sends_the_token_of_its_own_credential_whatever_others_there_are() {
    let run = Arc::new(Run::new("egress-credentials"));
    let origin = OriginServer::ok();
    let rules = json!([{"match": {"hosts": ["127.0.0.1"], "ports": [origin.address.port()]}, "action": "forward", "credential": "it"}]);
    let mut config = config(&run, &rules, &[origin.url()]);
    config["credentials"]["a-first-one-of-users"] = json!({
        "grant": "password", "token_endpoint": "http://127.0.0.1:9/token",
        "client": {"id": "legacy", "secret": {"value": "the-secret-of-legacy"}},
    });
    config["credentials"]["the-next-one"] =
        json!({"grant": "static", "token": run.secret_file("other", "the-token-of-another-credential")});
    let proxy = Bearward::start(&run, &config).await;
    let answer = absolute(&proxy, &origin.url(), "");
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(field_of(&origin.request(), "authorization").as_deref(), Some(&*format!("Bearer {TOKEN}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_rule_decides_and_what_none_takes_is_denied() {
    let run = Arc::new(Run::new("egress-rules"));
    let (origin, closed) = (OriginServer::ok(), OriginServer::ok());
    let (port, other) = (origin.address.port(), closed.address.port());
    let rules = json!([
        {"name": "not-this", "match": {"hosts": ["127.0.0.1"], "ports": [port], "path_prefix": "/admin"}, "action": "deny"},
        {"name": "only-get", "match": {"hosts": ["127.0.0.1"], "ports": [port], "methods": ["GET"]}, "action": "forward"},
        {"name": "way", "match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "tunnel"},
        {"name": "stub", "match": {"hosts": ["id.example"], "path_prefix": "/token"}, "action": "stub_token_endpoint"},
        {"name": "nobody", "match": {"hosts": ["127.0.0.1"], "clients": ["batch"]}, "action": "forward"},
    ]);
    let mut config = config(&run, &rules, &[]);
    config["clients"] = json!({"batch": {"cidr": ["192.0.2.0/24"]}, "all": {"cidr": ["127.0.0.0/8"]}});
    config["listeners"][0]["clients"] = json!(["batch", "all"]);
    let proxy = Bearward::start(&run, &config).await;
    let here = format!("http://127.0.0.1:{port}");
    let check = |url: &str, expected: u16, rule: Option<&str>| {
        let answer = absolute(&proxy, url, "");
        assert_eq!(status(&answer), expected, "{url} {answer}");
        if expected == 403 {
            assert_eq!(problem(&answer)["rule"].as_str(), rule, "{url}");
            let token = field_of(&answer, "proxy-status");
            assert_eq!(token.as_deref(), Some("bearward; error=http_request_denied"));
        }
    };
    check(&here, 200, None);
    check(&format!("{here}/x?y"), 200, None);
    check(&format!("http://2130706433:{port}/x"), 200, None);
    check(&format!("{here}/admin"), 403, Some("not-this"));
    check(&format!("{here}/x/../admin/y"), 403, Some("not-this"));
    check(&format!("{here}/%61dmin"), 403, Some("not-this"));
    for read_so_by_others in
        ["//admin", "/x/%2e%2e/admin/y", "/admin%2fy", "/admin;x/y", "/x%2f..%2fadmin", "/%2e/admin"]
    {
        check(&format!("{here}{read_so_by_others}"), 400, None);
    }
    check(&format!("{here}/a%2fb"), 200, None);
    check(&format!("{here}/administration"), 200, None);
    check(&format!("http://127.0.0.1:{other}/"), 403, None);
    check(&format!("http://localhost:{port}/"), 403, None);
    check("http://elsewhere.example/", 403, None);
    let posted = ask(&proxy, &format!("POST {here}/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(status(&posted), 403, "{posted}");
    let overridden = absolute(&proxy, &format!("{here}/x"), "X-HTTP-Method-Override: DELETE\r\n");
    assert_eq!(status(&overridden), 405, "{overridden}");
    assert_eq!(status(&connect(&proxy, &format!("127.0.0.1:{port}")).0), 200);
    assert_eq!(status(&connect(&proxy, &format!("127.0.0.1:{other}")).0), 403);
    assert_eq!(closed.connections(), 0);
    let body = "grant_type=client_credentials";
    let stub = ask(
        &proxy,
        &format!(
            "POST http://id.example/token HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    assert_eq!(status(&stub), 200, "{stub}");
    let token: Value = serde_json::from_str(stub.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    assert_eq!(
        (&token["token_type"], &token["access_token"]),
        (&json!("Bearer"), &json!("bearward-placeholder"))
    );
    assert_eq!(field_of(&stub, "cache-control").as_deref(), Some("no-store"));
    eventually("both denials are logged", Duration::from_secs(10), async || {
        let log = run.everything();
        (log.contains("\"decision\":\"denied\"") && log.contains("no rule allows it")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absolute_form_is_read_one_way_only() {
    let run = Arc::new(Run::new("egress-absolute"));
    let origin = OriginServer::ok();
    let port = origin.address.port();
    let rules = json!([{"match": {"hosts": ["127.0.0.1"]}, "action": "forward", "credential": "it"}]);
    let config = config(&run, &rules, &[origin.url()]);
    let proxy = Bearward::start(&run, &config).await;
    let here = format!("127.0.0.1:{port}");
    let check = |request: &str, expected: u16, kind: &str| {
        let answer = ask(&proxy, &request.replace("HERE", &here));
        assert_eq!(status(&answer), expected, "{request:?} {answer}");
        if !kind.is_empty() {
            let wanted = format!("urn:bearward:problem:{kind}");
            assert_eq!(problem(&answer)["type"].as_str(), Some(&*wanted), "{request:?}");
        }
    };
    check("GET http://HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 200, "");
    check("GET http://HERE HTTP/1.1\r\nHost: HERE\r\n\r\n", 200, "");
    check("GET HTTP://HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 200, "");
    // Host is not heard beside an absolute-form, but it is one.
    check("GET http://HERE/x HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200, "");
    check("GET http://HERE/x HTTP/1.0\r\n\r\n", 200, "");
    check("GET http://HERE/x HTTP/1.1\r\n\r\n", 400, "bad-host");
    check("GET http://HERE/x HTTP/1.1\r\nHost: a\r\nHost: HERE\r\n\r\n", 400, "bad-host");
    check("GET http://HERE/x HTTP/1.1\r\nHost: u@HERE\r\n\r\n", 400, "bad-host");
    check("GET /x HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "origin-form");
    check("GET //HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "origin-form");
    check("GET http://evil.example@HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "bad-host");
    check("GET http://HERE@evil.example/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "bad-host");
    check("GET http://127.0.0.1:0/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "bad-host");
    check("GET http://127.0.0.1:65536/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "");
    check("GET https://HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 403, "egress-denied");
    check("GET ftp://HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "bad-scheme");
    check("GET ws://HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "bad-scheme");
    check("GET http://HERE/x#y HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "bad-path");
    check("GET http://HERE/a\\b HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "bad-path");
    check("GET http://HERE/%00 HTTP/1.1\r\nHost: HERE\r\n\r\n", 400, "bad-path");
    check("TRACE http://HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 405, "method");
    check("trace http://HERE/x HTTP/1.1\r\nHost: HERE\r\n\r\n", 405, "method");
    check("OPTIONS http://HERE/x HTTP/1.1\r\nHost: HERE\r\nMax-Forwards: 0\r\n\r\n", 204, "");
    check("OPTIONS * HTTP/1.1\r\nHost: HERE\r\n\r\n", 204, "");
    for request in origin.requests() {
        assert_eq!(field_of(&request, "host"), Some(here.clone()), "{request}");
        assert!(request.starts_with("GET /"), "{request}");
    }
    assert_eq!(origin.requests().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_goes_to_its_bound_origin_and_nothing_of_the_client_beside_it() {
    let run = Arc::new(Run::new("egress-token"));
    let (origin, other) = (OriginServer::ok(), OriginServer::ok());
    let rules = json!([
        {"match": {"hosts": ["**"], "path_prefix": "/api"}, "action": "forward", "credential": "it"},
        {"match": {"hosts": ["**"]}, "action": "forward"},
    ]);
    let proxy = Bearward::start(&run, &config(&run, &rules, &[origin.url()])).await;
    let (here, port) = (origin.url(), origin.address.port());
    let sent = "Authorization: Basic bXk6b3du\r\nProxy-Authorization: Basic dTpw\r\nProxy-Connection: keep-alive\r\n\
                X-Forwarded-For: 10.9.8.7\r\nForwarded: for=10.9.8.7\r\nDPoP: proof\r\nConnection: authorization, close\r\n";
    assert_eq!(status(&absolute(&proxy, &format!("{here}/api/x"), sent)), 200);
    let request = origin.request();
    assert_eq!(field_of(&request, "authorization"), Some(format!("Bearer {TOKEN}")));
    for gone in
        ["proxy-authorization", "proxy-connection", "x-forwarded-for", "forwarded", "x-real-ip", "dpop"]
    {
        assert_eq!(field_of(&request, gone), None, "{request}");
    }
    assert!(!request.contains("127.0.0.1\r\nx-") && !request.contains("10.9.8.7"), "{request}");
    // Another port, another name for the same address, another host.
    for elsewhere in [format!("{}/api/x", other.url()), format!("http://localhost:{port}/api/x")] {
        let answer = absolute(&proxy, &elsewhere, "");
        assert_eq!(status(&answer), 403, "{answer}");
        assert_eq!(problem(&answer)["type"], "urn:bearward:problem:not-bound");
    }
    assert_eq!((origin.requests().len(), other.connections()), (1, 0));
    // A rule without a credential leaves the client's own; it never shares a connection with the one that has it.
    assert_eq!(status(&absolute(&proxy, &format!("{here}/own"), "Authorization: Basic bXk6b3du\r\n")), 200);
    let own = origin.requests().pop().expect("a request");
    assert_eq!(field_of(&own, "authorization").as_deref(), Some("Basic bXk6b3du"));
    assert_eq!(origin.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_takes_host_and_port_and_nothing_else() {
    let run = Arc::new(Run::new("egress-connect"));
    let echo = echo();
    let rules = json!([{"match": {"hosts": ["**"]}, "action": "tunnel"}]);
    let proxy = Bearward::start(&run, &config(&run, &rules, &[])).await;
    let port = echo.port();
    let check = |request: &str, expected: u16| {
        let answer = ask(&proxy, &request.replace("PORT", &port.to_string()));
        assert_eq!(status(&answer), expected, "{request:?} {answer}");
        if expected == 200 {
            assert_eq!(field_of(&answer, "content-length"), None, "{answer}");
            assert_eq!(field_of(&answer, "transfer-encoding"), None, "{answer}");
        }
    };
    for good in
        ["127.0.0.1:PORT", "localhost:PORT", "LOCALHOST.:PORT", "2130706433:PORT", "[::ffff:7f00:1]:PORT"]
    {
        check(&format!("CONNECT {good} HTTP/1.1\r\nHost: {good}\r\n\r\n"), 200);
    }
    check("CONNECT 127.0.0.1:PORT HTTP/1.0\r\n\r\n", 200);
    check("CONNECT 127.0.0.1:PORT HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 0\r\n\r\n", 200);
    check("CONNECT 127.0.0.1:PORT HTTP/1.1\r\n\r\n", 400);
    check("CONNECT 127.0.0.1:PORT HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    check("CONNECT 127.0.0.1:PORT HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400);
    check("CONNECT 127.0.0.1:PORT HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    for bad in [
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:99999999999",
        "127.0.0.1:+1",
        "127.0.0.1:0x50",
        "127.0.0.1:80:80",
        "127.0.0.1:PORT/",
        "127.0.0.1:PORT/x",
        "/127.0.0.1:PORT",
        "127.0.0.1:PORT?x",
        "127.0.0.1:PORT#x",
        "u@127.0.0.1:PORT",
        "u:p@127.0.0.1:PORT",
        "http://127.0.0.1:PORT",
        "http://127.0.0.1:PORT/",
        ":PORT",
        "PORT",
        "*",
        "::1:PORT",
        "[::1:PORT",
        "[::1]PORT",
        "[fe80::1%25lo]:PORT",
        "[127.0.0.1]:PORT",
        "a..b:PORT",
        "a%2eb:PORT",
        "a,b:PORT",
        "256.1.1.1:PORT",
        "1.2.3.4.5:PORT",
    ] {
        check(&format!("CONNECT {bad} HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_passes_bytes_untouched_and_each_end_by_itself() {
    let run = Arc::new(Run::new("egress-tunnel"));
    let echo = echo();
    let rules = json!([{"name": "way", "match": {"hosts": ["127.0.0.1"]}, "action": "tunnel"}]);
    let proxy = Bearward::start(&run, &config(&run, &rules, &[])).await;
    let mut wire = Wire::to(proxy.proxy());
    // The first bytes of the tunnel come with the head; they look like a request and are none of ours.
    let early = "GET / HTTP/1.1\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    wire.write(&format!("CONNECT {echo} HTTP/1.1\r\nHost: {echo}\r\n\r\n{early}"));
    let answer = wire.answer();
    assert_eq!(status(&answer), 200, "{answer}");
    let mut stream = wire.0;
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let mut writer = stream.try_clone().expect("cloned");
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).expect("written");
        // We have said all; the other side still speaks.
        writer.shutdown(Shutdown::Write).expect("shut down");
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("read");
    writing.join().expect("it only writes");
    let metrics = String::from_utf8(proxy.admin("/metrics").await.body).expect("text");
    let sent = format!(
        "bearward_tunnel_bytes_total{{listener=\"legacy\",route=\"way\",from=\"client\"}} {}",
        early.len() + bytes.len()
    );
    assert!(metrics.contains(&sent), "{metrics}");
    assert!(metrics.contains("bearward_tunnels{listener=\"legacy\",route=\"way\"} "), "{metrics}");
    let expected = [early.as_bytes(), &bytes, format!("|{}", early.len() + bytes.len()).as_bytes()].concat();
    assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_without_a_byte_ends_and_one_with_some_does_not() {
    let run = Arc::new(Run::new("egress-idle"));
    let echo = echo();
    let rules = json!([{"match": {"hosts": ["127.0.0.1"]}, "action": "tunnel", "tunnel_idle": "1s"}]);
    let proxy = Bearward::start(&run, &config(&run, &rules, &[])).await;
    let (answer, mut stream) = connect(&proxy, &echo.to_string());
    assert_eq!(status(&answer), 200);
    let begun = tokio::time::Instant::now();
    let mut byte = [0];
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        stream.write_all(b"x").expect("written");
        stream.read_exact(&mut byte).expect("the tunnel is open");
    }
    assert_eq!(stream.read(&mut byte).unwrap_or(0), 0, "it is closed");
    let lived = begun.elapsed();
    assert!(lived >= Duration::from_millis(2900), "{lived:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_works_over_http2_beside_requests() {
    let run = Arc::new(Run::new("egress-h2"));
    let (origin, echo) = (OriginServer::ok(), echo());
    let rules = json!([
        {"match": {"hosts": ["127.0.0.1"], "ports": [echo.port()]}, "action": "tunnel"},
        {"match": {"hosts": ["127.0.0.1"], "ports": [origin.address.port()]}, "action": "forward", "credential": "it"},
    ]);
    let proxy = Bearward::start(&run, &config(&run, &rules, &[origin.url()])).await;
    let (address, url, target) = (proxy.proxy(), origin.url(), echo.to_string());
    let work = std::thread::spawn(move || {
        let client = Client::to(address);
        let get = Request::builder().method(Method::GET).uri(format!("{url}/x")).body(()).expect("a request");
        assert_eq!(client.send(get, "").expect("an answer").status, 200);
        let connect = |target: &str| {
            Request::builder().method(Method::CONNECT).uri(target).body(()).expect("a request")
        };
        client.runtime.block_on(async {
            let mut sender = client.sender.clone().ready().await.expect("ready");
            let (denied, _) = sender.send_request(connect("127.0.0.1:1"), false).expect("sent");
            assert_eq!(denied.await.expect("an answer").status(), 403);
            let mut sender = client.sender.clone().ready().await.expect("ready");
            let (answer, mut outgoing) = sender.send_request(connect(&target), false).expect("sent");
            let answer = answer.await.expect("an answer");
            assert_eq!((answer.status().as_u16(), answer.headers().get("content-length")), (200, None));
            let mut incoming = answer.into_body();
            outgoing.send_data(Bytes::from(vec![b'x'; 40_000]), true).expect("sent");
            let mut got = Vec::new();
            while let Some(piece) = incoming.data().await {
                let piece = piece.expect("a piece");
                incoming.flow_control().release_capacity(piece.len()).expect("released");
                got.extend(piece);
            }
            assert_eq!((got.len(), &got[40_000..]), (40_006, b"|40000".as_slice()));
        });
    });
    work.join().expect("it ends well");
    assert_eq!(field_of(&origin.request(), "authorization"), Some(format!("Bearer {TOKEN}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_what_it_would_deny_and_guards_the_network_all_the_same() {
    let run = Arc::new(Run::new("egress-dry-run"));
    let (origin, echo) = (OriginServer::ok(), echo());
    let rules = json!([
        {"name": "off", "match": {"hosts": ["127.0.0.1"], "path_prefix": "/off"}, "action": "deny"},
        {"match": {"hosts": ["**"], "path_prefix": "/api"}, "action": "forward", "credential": "it"},
    ]);
    let mut config = config(&run, &rules, &["https://api.example".to_owned()]);
    config["listeners"][0]["dry_run"] = json!(true);
    let proxy = Bearward::start(&run, &config).await;
    let url = origin.url();
    assert_eq!(status(&absolute(&proxy, &format!("{url}/off"), "")), 200);
    assert_eq!(status(&absolute(&proxy, &format!("{url}/unruled"), "")), 200);
    assert_eq!(status(&connect(&proxy, &echo.to_string()).0), 200);
    assert_eq!(status(&absolute(&proxy, &format!("{url}/api"), "")), 403);
    let answer = absolute(&proxy, "http://10.0.0.1/", "");
    assert_eq!(problem(&answer)["type"], "urn:bearward:problem:address-forbidden");
    let own = proxy.admin_address();
    assert_eq!(status(&absolute(&proxy, &format!("http://{own}/livez"), "")), 403);
    for request in origin.requests() {
        assert_eq!(field_of(&request, "authorization"), None, "{request}");
    }
    let log = run.everything();
    assert!(log.contains("\"decision\":\"would_be_denied\",\"rule\":\"off\""), "{log}");
    assert!(log.contains("\"decision\":\"would_be_denied\",\"rule\":\"none\""), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pac_file_leads_what_rules_name_through_the_listener() {
    let run = Arc::new(Run::new("egress-pac"));
    let rules = json!([
        {"match": {"hosts": ["api.example.com"], "ports": [443]}, "action": "tunnel"},
        {"match": {"hosts": ["*.one.example"]}, "action": "forward"},
        {"match": {"hosts": ["**.deep.example"], "ports": [80, "8000-8999"]}, "action": "forward"},
    ]);
    let proxy = Bearward::start(&run, &config(&run, &rules, &[])).await;
    let answer = ask(&proxy, &format!("GET /proxy.pac HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.proxy()));
    assert_eq!(field_of(&answer, "content-type").as_deref(), Some("application/x-ns-proxy-autoconfig"));
    let script = answer.split_once("\r\n\r\n").expect("a body").1;
    let cases = [
        ("https://api.example.com/", "api.example.com", true),
        ("https://API.example.com/", "API.example.com.", true),
        ("https://api.example.com:8443/", "api.example.com", false),
        ("http://api.example.com/", "api.example.com", false),
        ("http://a.one.example/", "a.one.example", true),
        ("http://a.b.one.example/", "a.b.one.example", false),
        ("http://one.example/", "one.example", false),
        ("http://aone.example/", "aone.example", false),
        ("http://a.b.deep.example:8080/x", "a.b.deep.example", true),
        ("http://a.b.deep.example:9000/x", "a.b.deep.example", false),
        ("http://a.deep.example.evil.test/", "a.deep.example.evil.test", false),
    ];
    let calls = cases.map(|(url, host, _)| format!("console.log(FindProxyForURL({url:?}, {host:?}));"));
    let output =
        Command::new("node").arg("-e").arg([script, &calls.concat()].concat()).output().expect("node runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let through = format!("PROXY {}", proxy.proxy());
    for ((url, _, expected), got) in cases.iter().zip(text.lines()) {
        assert_eq!(got, if *expected { through.as_str() } else { "DIRECT" }, "{url}");
    }
    assert_eq!(text.lines().count(), cases.len(), "{}", String::from_utf8_lossy(&output.stderr));
}
