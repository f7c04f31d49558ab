//! Ways round the rules of an egress listener that others have been met with, tried against the real binary: spellings of
//! hosts, the process's own ports, the PAC script, and proofs with tricks in them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::clients_proofs::{Issuer, claims, hash};
use crate::clients_rig::{basic, write};
use crate::egress::config;
use crate::harness::bearward::Bearward;
use crate::harness::count;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, TOKEN, Wire, status};

fn send(proxy: &Bearward, bytes: &[u8]) -> String {
    use std::io::Write;
    let mut wire = Wire::to(proxy.proxy());
    wire.0.write_all(bytes).expect("written");
    wire.answer()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_host_and_no_way_to_our_own_ports_goes_round_the_rules() {
    let run = Arc::new(Run::new("egress-bypass"));
    let origin = OriginServer::ok();
    let port = origin.address.port();
    let rules = json!([
        {"name": "token", "match": {"hosts": ["api.example"], "ports": [port]}, "action": "forward", "credential": "it"},
        {"name": "here", "match": {"hosts": ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"]}, "action": "forward"},
        {"name": "way", "match": {"hosts": ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"]}, "action": "tunnel"},
    ]);
    let mut config = config(&run, &rules, &[format!("http://api.example:{port}")]);
    config["credentials"]["it"]["required"] = json!(false);
    config["listeners"][0]["rules"][0]["allow_plaintext"] = json!(true);
    config["listeners"][0]["egress_network"] =
        json!({"allow_private": ["127.0.0.0/8", "::1", "0.0.0.0/8", "::"]});
    let proxy = Bearward::start(&run, &config).await;
    let (own, admin) = (proxy.proxy().port(), proxy.admin_address().port());
    let mut tried = 0;
    // Our own ports, by every spelling of this machine: with CONNECT and in absolute-form.
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "127.8.9.10",
    ] {
        for port in [own, admin] {
            for request in [
                format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: a\r\n\r\n"),
                format!("GET http://{host}:{port}/metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
            ] {
                let answer = send(&proxy, request.as_bytes());
                assert!([403, 502].contains(&status(&answer)), "{request} {answer}");
                assert!(!answer.contains("bearward_"), "{request} {answer}");
                tried += 1;
            }
        }
    }
    // Spellings of a host that some parser takes for another.
    for host in [
        "%61pi.example",
        "api.example%2e",
        "api%2eexample",
        "api.example..",
        ".api.example",
        "api.example%00",
        "api.example%20",
        "\u{430}pi.example",
        "api\u{3002}example",
        "\u{ff41}pi.example",
        "api.ex\u{ad}ample",
        "api.example,127.0.0.1",
        "api.example;127.0.0.1",
        "127.0.0.1@api.example",
        "api.example\\@127.0.0.1",
        "[api.example]",
        "api.example:0",
        "api.example:+1",
        "[fe80::1%25lo]",
        "[::1%lo]",
        "api.example:\u{661}",
    ] {
        let target =
            if host.ends_with(|last: char| last.is_numeric()) && host.contains(':') && !host.contains('.') {
                host.to_owned()
            } else {
                format!("{host}:{port}")
            };
        let answer = send(&proxy, format!("GET http://{target}/x HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!([400, 403].contains(&status(&answer)), "{target} {answer}");
        tried += 1;
    }
    // A homograph in ASCII is another name, which no rule takes.
    let answer = send(
        &proxy,
        format!("GET http://xn--pi-7kc.example:{port}/x HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
    );
    assert_eq!(status(&answer), 403, "{answer}");
    // The script holds nothing of a Host field that could be more than a host.
    for host in [
        "a'+alert(1)+'",
        "a\"",
        "a;b",
        "a/b",
        "u@a",
        "a b",
        "a\\",
        "<script>",
        "a%27",
        "a\u{7f}",
        "[::1",
        "a:1:2",
        "a\u{2028}",
    ] {
        let answer = send(&proxy, format!("GET /proxy.pac HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(status(&answer), 400, "{host:?} {answer}");
        assert!(!answer.contains("FindProxyForURL"), "{host:?} {answer}");
        tried += 1;
    }
    assert_eq!(origin.requests().len(), 0);
    assert!(!run.everything().contains(TOKEN));
    count(&format!("egress bypass: {tried} spellings, own ports and Host fields refused"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proofs_with_tricks_in_them_let_nobody_in() {
    let (run, origin, issuer) = (Arc::new(Run::new("egress-proofs")), OriginServer::ok(), Issuer::new("one"));
    let jwks = write(&run.private().join("jwks.json"), &json!({"keys": [issuer.jwk()]}).to_string());
    let rules = json!([{"match": {"hosts": ["127.0.0.1"]}, "action": "forward"}]);
    let mut config = config(&run, &rules, &[]);
    config["clients"] = json!({
        "user": {"basic": {"username": "batch", "password_hash": {"value": hash("the-password")}}},
        "token": {"jwt": {"issuer": "https://id.example.com", "audience": "bearward", "jwks": {"file": jwks}}},
    });
    config["listeners"][0]["clients"] = json!(["user", "token"]);
    let proxy = Bearward::start(&run, &config).await;
    let encode = |value: &Value| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
    };
    let good = issuer.sign(&claims(json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let headed = |header: Value| format!("Bearer {}.{}.{}", encode(&header), parts[1], parts[2]);
    let proofs: Vec<String> = vec![
        basic("batch\n", "the-password"),
        basic("batch\0", "the-password"),
        basic("ba\u{7f}tch\u{1b}[2J", "the-password"),
        basic("batch\r\nX-Injected: 1", "the-password"),
        basic("BATCH", "the-password"),
        basic("batch", "the-password\0"),
        basic("", ""),
        format!("{} ", basic("batch", "the-password").replace("Basic ", "Basic\t")),
        headed(json!({"alg": "none"})),
        headed(json!({"alg": "HS256", "kid": "one"})),
        headed(json!({"alg": "ES256", "kid": "../../etc/passwd"})),
        headed(json!({"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": false})),
        headed(json!({"alg": "ES256", "jku": "http://127.0.0.1/keys", "kid": "two"})),
        headed(json!({"alg": "ES256", "jwk": issuer.jwk(), "kid": "three"})),
        format!("Bearer {}.{}.", parts[0], parts[1]),
        format!("Bearer {}.{}.{}", parts[0], encode(&claims(json!({"sub": "another"}))), parts[2]),
        format!("Bearer {good}.x"),
        format!("Bearer {}", "a".repeat(20_000)),
    ];
    for proof in &proofs {
        let request =
            format!("GET {}/x HTTP/1.1\r\nHost: a\r\nProxy-Authorization: {proof}\r\n\r\n", origin.url());
        let code = status(&send(&proxy, request.as_bytes()));
        // Whoever is wrong too often waits.
        assert!([407, 429].contains(&code), "{code} {proof}");
    }
    assert!(origin.requests().is_empty());
    let log = run.everything();
    assert!(!log.contains("X-Injected") && !log.contains('\u{1b}') && !log.contains("the-password"), "{log}");
    let request =
        format!("GET {}/x HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer {good}\r\n\r\n", origin.url());
    assert_eq!(status(&send(&proxy, request.as_bytes())), 200, "a good token passes all the same");
    count(&format!("egress proofs: {} with tricks in them refused", proofs.len()));
}
