//! What the access and the audit log tell of egress listeners: every action, every decision, SOCKS as well.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::egress::absolute;
use crate::egress_intercept::Scene;
use crate::harness::bearward::Bearward;
use crate::harness::{count, eventually};
use crate::proxy_rig::{OriginServer, Wire, status};

fn send(proxy: &Bearward, request: &str) -> u16 {
    let mut wire = Wire::to(proxy.proxy());
    wire.write(request);
    status(&wire.answer())
}

/// The reply to CONNECT by SOCKS5.
fn socks(proxy: &Bearward, host: &str, port: u16) -> u8 {
    let mut stream = TcpStream::connect(proxy.proxy()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    stream.write_all(&[5, 1, 0]).expect("written");
    let length = u8::try_from(host.len()).expect("short");
    let mut reply = [0; 12];
    stream.read_exact(&mut reply[..2]).expect("a method");
    if reply[1] != 0 {
        return reply[1];
    }
    stream
        .write_all(&[&[5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()].concat())
        .expect("written");
    stream.read_exact(&mut reply[2..]).expect("a reply");
    reply[3]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_decision_is_told_with_action_and_authority() {
    let origin = OriginServer::ok();
    let (url, port) = (origin.url(), origin.address.port());
    let scene = Scene::with("egress-log", origin.address, &["localhost"], |config, tls_port| {
        let rules = config["listeners"][0]["rules"].as_array_mut().expect("a list");
        let tls = rules[0]["tls"].clone();
        rules.extend([
            json!({"name": "no", "match": {"hosts": ["secret.example"]}, "action": "deny"}),
            json!({"name": "would-not", "match": {"hosts": ["127.0.0.1"], "ports": [port], "path_prefix": "/tried"},
                   "action": "deny", "dry_run": true}),
            json!({"name": "up", "match": {"hosts": ["localhost"], "ports": [80]}, "action": "upgrade",
                   "upstream_port": tls_port, "tls": tls, "credential": "it"}),
            json!({"name": "plain", "match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "forward"}),
            json!({"name": "way", "match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "tunnel"}),
            json!({"name": "stub", "match": {"hosts": ["id.example"]}, "action": "stub_token_endpoint"}),
        ]);
        config["listeners"][0]["socks5"] = json!(true);
        config["clients"] = json!({"here": {"cidr": ["127.0.0.0/8"]}});
        config["listeners"][0]["clients"] = json!(["here"]);
        config["log"]["access"] = json!({});
        config["log"]["audit"] = json!({});
    })
    .await;
    let (proxy, tls_port) = (&scene.proxy, scene.port);
    assert_eq!(status(&absolute(proxy, &format!("{url}/plain"), "")), 200);
    assert_eq!(status(&absolute(proxy, "http://localhost/up", "")), 200);
    assert_eq!(status(&absolute(proxy, "http://secret.example/x", "")), 403);
    assert_eq!(status(&absolute(proxy, "http://nowhere.example/x", "")), 403);
    assert_eq!(status(&absolute(proxy, &format!("{url}/tried"), "")), 200);
    assert_eq!(
        send(proxy, "POST http://id.example/token HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        200
    );
    assert_eq!(send(proxy, &format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: a\r\n\r\n")), 200);
    assert_eq!(send(proxy, "CONNECT secret.example:443 HTTP/1.1\r\nHost: a\r\n\r\n"), 403);
    let inside = format!("GET /inside HTTP/1.1\r\nHost: localhost:{tls_port}\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&scene.inside("localhost", &inside).await.expect("a tunnel")), 200);
    assert_eq!(socks(proxy, "127.0.0.1", port), 0);
    assert_eq!(socks(proxy, "SECRET.example.", 443), 2);
    assert_eq!(socks(proxy, "nowhere.example", 443), 2);
    let lines = eventually("the lines are written", Duration::from_secs(10), async || {
        let all = scene.run.everything();
        let lines: Vec<Value> = all.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let told: Vec<Value> = lines.into_iter().filter(|line| line["log"].is_string()).collect();
        (told.iter().filter(|line| line["log"] == "access").count() >= 13).then_some(told)
    })
    .await;
    let of = |log: &str| lines.iter().filter(|line| line["log"] == log).cloned().collect::<Vec<Value>>();
    let (access, audit) = (of("access"), of("audit"));
    assert_eq!(access.len(), 13, "{access:?}");
    let here = format!("127.0.0.1:{port}");
    let secure = format!("localhost:{tls_port}");
    let check = |log: &[Value], expected: &Value| {
        let fits = |line: &&Value| {
            let fields = expected.as_object().expect("an object");
            fields.iter().all(|(key, value)| line.get(key).unwrap_or(&Value::Null) == value)
        };
        let found = log.iter().filter(fits).count();
        assert_eq!(found, 1, "{expected}\n{log:#?}");
    };
    for expected in [
        json!({"route": "plain", "decision": "allowed", "action": "forward", "authority": here, "path": "/plain"}),
        json!({"route": "up", "decision": "allowed", "action": "upgrade", "authority": "localhost:80", "credential": "it"}),
        json!({"route": "no", "decision": "denied", "action": "deny", "authority": "secret.example:80", "problem": "egress-denied"}),
        json!({"route": null, "decision": "denied", "action": null, "authority": "nowhere.example:80", "status": 403}),
        json!({"route": "dry-run", "decision": "would_be_denied", "action": "deny", "authority": here, "path": "/tried"}),
        json!({"route": "stub", "decision": "allowed", "action": "stub_token_endpoint", "authority": "id.example:80"}),
        json!({"route": "way", "decision": "allowed", "action": "tunnel", "path": here, "method": "CONNECT", "protocol": "HTTP/1.1"}),
        json!({"route": "no", "decision": "denied", "path": "secret.example:443", "protocol": "HTTP/1.1"}),
        json!({"route": "api", "decision": "allowed", "action": "intercept", "path": secure, "method": "CONNECT"}),
        json!({"route": "api", "decision": "allowed", "action": "intercept", "path": "/inside", "authority": secure, "client": "127.0.0.1"}),
        json!({"route": "way", "decision": "allowed", "action": "tunnel", "path": here, "protocol": "SOCKS5", "status": 200}),
        json!({"route": "no", "decision": "denied", "path": "secret.example:443", "protocol": "SOCKS5", "status": 403}),
        json!({"route": null, "decision": "denied", "authority": "nowhere.example:443", "protocol": "SOCKS5"}),
    ] {
        check(&access, &expected);
    }
    for line in access.iter().chain(&audit) {
        assert_eq!((&line["client"], &line["client_name"]), (&json!("127.0.0.1"), &json!("here")), "{line}");
        assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 24), "{line}");
    }
    // Uses of the token, and everything that is denied or would be.
    assert_eq!(audit.len(), 8, "{audit:#?}");
    assert_eq!(
        audit.iter().filter(|line| line["outcome"] == "used" && line["credential"] == "it").count(),
        2
    );
    assert_eq!(audit.iter().filter(|line| line["outcome"] == "denied" && line["status"] == 403).count(), 5);
    check(
        &audit,
        &json!({"outcome": "would_be_denied", "authority": here, "status": 200, "credential": null}),
    );
    count("egress listeners: 13 decisions, 13 lines of the access log; 6 denials and 2 uses audited");
}
