//! `bearward policy test`, and what `check` says of egress listeners.

use std::process::Command;

use serde_json::{Value, json};

use crate::egress::config;
use crate::egress_intercept::make_ca;
use crate::harness::run::Run;

/// Exit code, output and errors of the binary with this configuration.
fn ask(run: &Run, config: &Value, arguments: &[&str]) -> (Option<i32>, String, String) {
    let path = run.private().join("config.yaml");
    std::fs::write(&path, config.to_string()).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearward"));
    let (first, rest) = arguments.split_at(arguments.len().min(2));
    let output =
        command.args(first).arg("-c").arg(path).args(rest).env("NO_PROXY", "*").output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    run.keep("output.log", &text(&output.stdout));
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_rule_that_decides_is_named_with_every_reason_before_it() {
    let run = Run::new("egress-policy");
    let rules = json!([
        {"name": "no-secrets", "match": {"hosts": ["secret.example"]}, "action": "deny"},
        {"name": "far-only", "match": {"hosts": ["**"], "ports": [444], "clients": ["far"]}, "action": "tunnel"},
        {"name": "local", "match": {"hosts": ["127.0.0.1"], "ports": [80, 9901]}, "action": "forward", "credential": "it"},
        {"name": "web", "match": {"hosts": ["*"], "ports": [443]}, "action": "tunnel"},
        {"name": "ten", "match": {"hosts": ["10.0.0.1"]}, "action": "tunnel"},
    ]);
    let mut config =
        config(&run, &rules, &["http://127.0.0.1".to_owned(), "http://127.0.0.1:9901".to_owned()]);
    config["clients"] = json!({"far": {"cidr": ["192.0.2.0/24"]}});
    config["listeners"][0]["clients"] = json!(["far"]);
    config["admin"]["bind"] = json!("127.0.0.1:9901");
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        let (got, out, err) = ask(&run, &config, &[&["policy", "test"], arguments].concat());
        assert_eq!(got, Some(code), "{arguments:?} {out} {err}");
        for part in parts {
            assert!(out.contains(part) || err.contains(part), "`{part}` is not in: {out} {err}");
        }
    };
    check(
        &["CONNECT", "secret.example:443"],
        1,
        &["rule 1 `no-secrets` (deny): decides", "DENIED by the rule `no-secrets`"],
    );
    check(
        &["CONNECT", "x.example:444"],
        1,
        &[
            "none of its `hosts` matches",
            "rule 2 `far-only` (tunnel): no, the client",
            "another kind of request",
            "no rule allows it",
        ],
    );
    check(
        &["--client", "far", "CONNECT", "127.0.0.1:444"],
        0,
        &["rule 2 `far-only` (tunnel): decides", "ALLOWED"],
    );
    check(
        &["GET", "http://127.0.0.1/x?y"],
        0,
        &[
            "rule 3 `local` (forward): decides",
            "the token of `it` goes to http://127.0.0.1",
            "may be dialled",
            "ALLOWED",
        ],
    );
    check(
        &["GET", "http://2130706433:9901/x"],
        1,
        &["may not be dialled, this proxy itself listens there", "DENIED"],
    );
    check(&["CONNECT", "10.0.0.1:22"], 1, &["rule 5 `ten` (tunnel): decides", "a private address", "DENIED"]);
    check(
        &["CONNECT", "localhost:443"],
        0,
        &["the port is not among its `ports`", "rule 4 `web` (tunnel): decides", "ALLOWED"],
    );
    check(&["CONNECT", "localhost"], 2, &["host:port"]);
    check(&["GET", "/x"], 2, &["asks for a URL"]);
    check(&["--client", "nobody", "CONNECT", "a:1"], 2, &["there is no client `nobody`"]);
    check(&["--listener", "other", "CONNECT", "a:1"], 2, &["there is no egress listener `other`"]);
}

#[test]
fn every_action_is_explained_and_so_is_what_is_inside_an_interception() {
    let run = Run::new("egress-actions");
    let rules = json!([
        {"name": "no-admin", "match": {"hosts": ["1.1.1.1"], "path_prefix": "/admin"}, "action": "deny"},
        {"name": "inside", "match": {"hosts": ["1.1.1.1"], "ports": [443], "methods": ["GET"]}, "action": "intercept",
         "credential": "it", "rate_limit": {"requests": 9, "per": "1m", "burst": 3}, "concurrency": 7},
        {"name": "up", "match": {"hosts": ["1.1.1.1"], "ports": [80, 8443]}, "action": "upgrade"},
        {"name": "plain", "match": {"hosts": ["1.1.1.2"]}, "action": "forward"},
        {"name": "way", "match": {"hosts": ["1.1.1.2"]}, "action": "tunnel"},
        {"name": "stub", "match": {"hosts": ["id.example"]}, "action": "stub_token_endpoint"},
        {"name": "tried", "match": {"hosts": ["1.1.1.3"]}, "action": "deny", "dry_run": true},
        {"name": "key-only", "match": {"hosts": ["1.1.1.4"], "clients": ["by-key"]}, "action": "tunnel"},
        {"name": "user-only", "match": {"hosts": ["1.1.1.4"], "clients": ["by-user"]}, "action": "tunnel"},
    ]);
    let mut config = config(&run, &rules, &["https://1.1.1.1".to_owned()]);
    config["listeners"][0]["intercept"] = crate::egress_intercept::make_ca(&run, &["1.1.1.1"]);
    config["clients"] = json!({
        "by-key": {"api_key": {"sha256": ["0".repeat(64)]}}, "by-user": {"unix_peer": {"uid": [1]}},
        "by-address": {"cidr": ["192.0.2.0/24"]},
        "by-token": {"jwt": {"issuer": "i", "audience": "a", "jwks_uri": "https://id.example/jwks"}},
    });
    config["listeners"][0]["clients"] = json!(["by-key", "by-user", "by-address", "by-token"]);
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        let (got, out, err) = ask(&run, &config, &[&["policy", "test"], arguments].concat());
        assert_eq!(got, Some(code), "{arguments:?} {out} {err}");
        for part in parts {
            assert!(out.contains(part) || err.contains(part), "`{part}` is not in: {out} {err}");
        }
    };
    check(
        &["CONNECT", "1.1.1.1:443"],
        0,
        &[
            "`inside` (intercept): decides",
            "the token of `it` goes to https://1.1.1.1",
            "each request inside is judged",
        ],
    );
    check(
        &["GET", "https://1.1.1.1/x"],
        0,
        &[
            "with CONNECT:",
            "the request inside:",
            "`inside` (intercept): decides",
            "at most 9 in 60s, 3 at once",
            "at most 7 at a time",
        ],
    );
    check(&["GET", "https://1.1.1.1/admin/x"], 1, &["the request inside:", "DENIED by the rule `no-admin`"]);
    check(
        &["POST", "https://1.1.1.1/x"],
        1,
        &["the method is not among its `methods`", "DENIED: no rule allows it"],
    );
    check(&["GET", "http://1.1.1.1/x"], 0, &["`up` (upgrade): decides", "ALLOWED"]);
    check(&["GET", "https://1.1.1.1:8443/x"], 0, &["as few clients ask", "`up` (upgrade): decides"]);
    check(&["GET", "http://1.1.1.2/"], 0, &["`plain` (forward): decides"]);
    check(&["GET", "https://1.1.1.2/"], 0, &["`way` (tunnel): decides", "bytes pass untouched"]);
    check(&["POST", "http://id.example/token"], 0, &["answered here, with a placeholder"]);
    check(
        &["CONNECT", "1.1.1.3:443"],
        0,
        &["`tried` (deny): decides; it would be denied, but for `dry_run`"],
    );
    check(&["CONNECT", "1.1.1.4:443"], 1, &["the client is not among its `clients`"]);
    for (client, code, rule) in [
        ("by-key", 0, "`key-only` (tunnel): decides"),
        ("by-user", 0, "`user-only` (tunnel): decides"),
        ("by-address", 1, "no rule allows it"),
        ("by-token", 1, "no rule allows it"),
    ] {
        check(&["--client", client, "CONNECT", "1.1.1.4:443"], code, &[rule]);
    }
}

#[test]
fn mistakes_in_rules_are_told_with_their_remedy() {
    let run = Run::new("egress-mistakes");
    let check = |rule: Value, change: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut config = config(&run, &json!([rule]), &["https://api.example".to_owned()]);
        change(&mut config);
        let (code, _, err) = ask(&run, &config, &["check"]);
        assert_eq!(code, Some(2), "{rule} {err}");
        for part in parts {
            assert!(err.contains(part), "`{part}` is not in:\n{err}");
        }
    };
    let open = |config: &mut Value| {
        config["credentials"]["it"].as_object_mut().expect("a mapping").remove("allowed_upstreams");
    };
    let wild = json!({"match": {"hosts": ["*.example"]}, "action": "upgrade", "credential": "it"});
    check(
        wild,
        &open,
        &["does not say which origins `it` may go to", "`allowed_upstreams` of the credential"],
    );
    let range =
        json!({"match": {"hosts": ["a.example"], "ports": ["1-9"]}, "action": "upgrade", "credential": "it"});
    check(range, &open, &["does not say which origins `it` may go to"]);
    let other =
        json!({"match": {"hosts": ["b.example"], "ports": [80]}, "action": "upgrade", "credential": "it"});
    check(other, &|_| {}, &["`it` is not allowed for https://b.example"]);
    let plain =
        json!({"match": {"hosts": ["b.example"], "ports": [80]}, "action": "forward", "credential": "it"});
    check(plain, &open, &["would be sent unencrypted to http://b.example"]);
    let tunnel = json!({"match": {"hosts": ["b.example"]}, "action": "tunnel", "credential": "it"});
    check(tunnel, &|_| {}, &["`tunnel` injects no token"]);
    let path = json!({"match": {"hosts": ["b.example"], "path_prefix": "/x"}, "action": "tunnel"});
    check(path, &|_| {}, &["a tunnel shows neither method nor path"]);
    check(json!({"action": "tunnel"}), &|_| {}, &["names the hosts that it is for"]);
    check(
        json!({"match": {"hosts": ["a*.example"]}, "action": "tunnel"}),
        &|_| {},
        &["`*` stands for a whole label"],
    );
    check(json!({"match": {"hosts": ["a.example:443"]}, "action": "tunnel"}), &|_| {}, &["`ports: [443]`"]);
    check(
        json!({"match": {"hosts": ["a.example"], "ports": [0]}, "action": "tunnel"}),
        &|_| {},
        &["is not a port such as `443`"],
    );
    check(
        json!({"match": {"hosts": ["a.example"], "clients": ["x"]}, "action": "tunnel"}),
        &|_| {},
        &["does not ask for the client `x`"],
    );
    let network = |config: &mut Value| {
        config["listeners"][0]["egress_network"] = json!({"allow_private": ["10.0.0.1/8"]})
    };
    check(json!({"action": "deny"}), &network, &["bits behind the prefix", "10.0.0.0/8"]);
    let routes = |config: &mut Value| config["listeners"][0]["routes"] = json!([]);
    check(json!({"action": "deny"}), &routes, &["`routes` is for listeners of `kind: reverse`"]);
}

#[test]
fn what_is_intercepted_goes_on_over_tls_and_needs_a_ca_that_is_there() {
    let run = Run::new("egress-policy-intercept");
    let rules = json!([{"name": "in", "match": {"hosts": ["localhost"], "ports": [443]}, "action": "intercept", "credential": "it"}]);
    let mut config = config(&run, &rules, &["https://localhost".to_owned()]);
    let (cert, key) = (run.private().join("ca.crt"), run.private().join("ca.key"));
    config["listeners"][0]["intercept"] = json!({"ca_cert": {"file": cert}, "ca_key": {"file": key}});
    let (code, _, err) = ask(&run, &config, &["check"]);
    assert_eq!(code, Some(2), "{err}");
    let told =
        format!("bearward ca init --cert {} --key {} --permit localhost", cert.display(), key.display());
    assert!(err.contains(&told), "{err}");
    make_ca(&run, &["localhost"]);
    let (code, out, err) = ask(&run, &config, &["check"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("1 listener, 1 egress rule, 1 credential"), "{out}");
    let (code, out, err) = ask(&run, &config, &["policy", "test", "CONNECT", "localhost:443"]);
    assert_eq!(code, Some(0), "{out} {err}");
    assert!(out.contains("the token of `it` goes to https://localhost\n"), "{out}");
}
