//! What is said of mistakes.

use super::*;

#[test]
fn each_mistake_has_a_message_with_its_place_and_remedy() {
    let check = |from: &str, to: &str, expected: &[&str]| {
        let message = errors(&with(from, to));
        for part in expected {
            assert!(message.contains(part), "`{part}` is not in:\n{message}");
        }
    };
    let secret = r#"secret: {value: "hunter2-hunter2"}"#;
    let seed = r#"refresh_token: {value: "seed-hunter3"}"#;
    check("kind: reverse", "kid: reverse", &["unknown key `kid`", "config.yaml:4:5", "did you mean `kind`?"]);
    check(
        "kind: reverse",
        "kind: reverse\n    kind: reverse",
        &["`kind` is given twice", "config.yaml:5:5", "first here"],
    );
    check(
        "kind: reverse",
        "kind: egress",
        &["`routes` is for listeners of `kind: reverse`", "`rules` of `listener`"],
    );
    check("kind: reverse", "kind: egres", &["did you mean `egress`?"]);
    check(
        "kind: reverse",
        "kind: reverse\n    intercept: {}",
        &["`intercept` is for listeners of `kind: egress`", "`ca_cert` of `intercept`"],
    );
    let also = |line: &str| format!("kind: reverse\n    {line}");
    check(
        "kind: reverse",
        &also("trusted_proxies: [10.1.0.0/8]"),
        &["`10.1.0.0/8` is not a network", "bits behind the prefix", "write `10.0.0.0/8`"],
    );
    check(
        "kind: reverse",
        &also("proxy_protocol: required"),
        &["trusted proxies only", "trusted_proxies: ["],
    );
    check(
        "kind: reverse",
        &also("proxy_protocol: optional\n    trusted_proxies: [unix]"),
        &["none can connect here", "Unix socket"],
    );
    check("kind: reverse", &also("proxy_protocol: on"), &["`on` is not a known PROXY protocol mode"]);
    check(
        "kind: reverse",
        &also("tls: {cert: {file: a.crt}}"),
        &["the key `key` of `listener tls` is missing"],
    );
    check(
        "kind: reverse",
        &also("tls: {cert: {file: /nonexistent/a.crt}, key: {value: x}}"),
        &["the certificate cannot be read", "/nonexistent/a.crt: no such file"],
    );
    check("kind: reverse", "", &["the key `kind` of `listener` is missing", "config.yaml:3:5"]);
    check("bind: 127.0.0.1:8080", "bind: 8080", &["expected an address", "found a number"]);
    check("bind: 127.0.0.1:8080", "bind: localhost:80", &["write `127.0.0.1:80`"]);
    check(
        "bind: 127.0.0.1:8080",
        "bind: 10.0.0.1:80",
        &["config.yaml:5:11", "not a loopback address", "allow_unauthenticated"],
    );
    check("bind: 127.0.0.1:8080", "bind: ${NOWHERE}", &["NOWHERE is not set", "${NOWHERE:-default}"]);
    check("bind: 127.0.0.1:8080", "bind: [1]", &["expected an address", "found a list"]);
    check(
        "bind: 127.0.0.1:8080",
        "bind: 127.0.0.1:9901",
        &["listener `legacy` and `admin` have one address"],
    );
    check("path_prefix: /api/", "path_prefix: api", &["must begin with `/`"]);
    check("path_prefix: /api/", "hosts: [\"http://a\"]", &["only the host may stand here"]);
    check(
        "https://api.example.com",
        "https://api.example.com/v1",
        &["a path cannot stand here", "rewrite_prefix"],
    );
    check("https://api.example.com", "api.example.com", &["the scheme is missing", "https://"]);
    check("https://api.example.com", "http://api.example.com", &["unencrypted", "allow_plaintext"]);
    check(
        "credential: example",
        "credential: exmaple",
        &["no credential `exmaple`", "did you mean `example`?"],
    );
    check("credential: example", "on_unauthorized: {replay: al}", &["is not a known replay", "`idempotent`"]);
    check("credential: example", "on_unauthorized: {max_body: 2MiB}", &["at most 1MiB"]);
    check("credential: example", "timeouts: {connect: 5}", &["add a unit", "`5s`"]);
    check("credential: example", "request_headers: {set: {Host: x}}", &["`host`", "preserve_host"]);
    check(
        "credential: example",
        "credential: example\n        request_headers: {set: {Authorization: x}}",
        &["`authorization` is set by the route's credential"],
    );
    check(
        "credential: example",
        "credential: example\n      - {name: b, match: {path_prefix: /api/}, upstream: https://b.example.com}",
        &["the routes `api` and `b` match the same requests", "first here"],
    );
    check(
        "  example:",
        "  example:\n    allowed_upstreams: [https://b.example.com]",
        &["not allowed for https://api.example.com", "it may go to https://b.example.com"],
    );
    let urls = |urls: &str, more: &str| format!("upstream: {{urls: [{urls}]{more}}}");
    let (one, two) = ("https://api.example.com", "https://b.example.com");
    for (upstream, words) in [
        (urls(&format!("{one}, http://b.example.com"), ""), &["the same scheme", "the first one's"][..]),
        (urls(&format!("{one}, {one}"), ""), &["given twice"]),
        (urls("", ""), &["`urls` is empty"]),
        (urls("\"unix:app.sock\"", ""), &["the whole path of a socket"]),
        (urls("\"unix:/a.sock\"", ", outbound_proxy: \"http://p:1\""), &["not reached through a proxy"]),
        (urls(one, ", health: {path: healthz}"), &["begin it with `/`"]),
        (urls(one, ", health: {path: /h, expect_status: 99}"), &["from 200 to 599"]),
        (urls(one, ", ejection: {time: 1m, max_time: 1s}"), &["shorter than `time`"]),
        (urls(one, ", balance: least_requests"), &["did you mean `least_request`?"]),
    ] {
        check("upstream: https://api.example.com", &upstream, words);
    }
    let text = with("  example:", &format!("  example:\n    allowed_upstreams: [{one}]"));
    let several = text.replacen("upstream: https://api.example.com", &urls(&format!("{one}, {two}"), ""), 1);
    assert!(errors(&several).contains(&format!("not allowed for {two}")), "{}", errors(&several));
    check("  example:", "  ex ample:", &["no credential", "is not a name"]);
    check("https://id.example.com", "http://id.example.com", &["plain http", "in the clear"]);
    check("token_endpoint: https://id.example.com/token", "", &["neither `token_endpoint` nor `issuer`"]);
    check("grant: refresh_token", "grant: refresh_tokn", &["did you mean `refresh_token`?"]);
    check("grant: refresh_token", "grant: device_code", &["not supported by this version"]);
    check("grant: refresh_token", "grant: password", &["say `grant: refresh_token`"]);
    check("grant: refresh_token", "grant: token_exchange", &["needs `subject_token`"]);
    check("grant: refresh_token", "grant: custom", &["needs `custom`"]);
    for (inject, words) in [
        ("{header: Host}", "no token is put into `host`"),
        ("{header: Cookie}", "write `cookie: NAME`"),
        ("{header: X-Key, value: fixed}", "the token has no place in this value"),
        ("{header: X-Key, scheme: A, value: \"{token}\"}", "both say what stands before the token"),
        ("{header: X-Key, cookie: SID}", "write a list"),
        ("{query: key}", "allow_query: true"),
        ("{cookie: \"a b\"}", "no name of a cookie"),
        ("{cookie: a, scheme: A}", "use `value`"),
        ("{allow_query: true}", "this names no place"),
        ("[{header: X-Key}, {header: x-key}]", "into the same place twice"),
        ("[]", "no request would carry the token"),
        ("{header: X-Org, response: /org}", "add `{header: Authorization}`"),
        ("[{header: X-Key}, {response: /org}]", "write the `header`"),
        ("[{header: X-Key}, {header: Host, response: /org}]", "nothing of an answer is put into `host`"),
        ("[{header: X-Key}, {header: X-Org, response: org}]", "is not a JSON pointer"),
        ("[{header: X-Key}, {header: X-Org, response: /org, value: a}]", "stands alone"),
        ("[{header: X-Key}, {header: X-Key, response: /org}]", "two values"),
        ("[{header: X-Org, response: /org}, {header: X-Org, response: /b}, {header: X-Key}]", "two values"),
    ] {
        check(seed, &format!("inject: {inject}"), &[words]);
    }
    check(seed, "certificate_bound: true", &["no client certificate that tokens could be bound to"]);
    check(secret, "auth: tls_client_auth", &["needs `certificate` and `key`"]);
    check(secret, "auth: tls_client_auth, secret: {value: x}", &["two ways to authenticate"]);
    let custom = |inner: &str| format!("grant: custom\n    custom: {{{inner}}}");
    let url = "url: \"https://id.example.com/s\"";
    for (inner, words) in [
        (format!("{url}, form: {{a: \"{{refresh_tokn}}\"}}"), "did you mean `{refresh_token}`?"),
        (format!("{url}, response: {{access_token: data.token}}"), "write `/data/token`"),
        (format!("{url}, form: {{a: b}}, json: {{a: b}}"), "a request has one body"),
        (format!("{url}, headers: {{Host: b}}"), "set by the connection itself"),
        (url.to_owned(), "this seed would never be redeemed"),
        ("form: {a: b}".to_owned(), "the key `url` of `custom` is missing"),
    ] {
        check("grant: refresh_token", &custom(&inner), &[words]);
    }
    check("grant: refresh_token", "grant: static", &["`client` has no meaning", "needs `token`"]);
    check(
        "grant: refresh_token",
        "grant: jwt_bearer",
        &["needs `user_assertion`", "`refresh_token` has no meaning"],
    );
    check(secret, "", &["no way to authenticate", "auth: none"]);
    check(secret, "secret: {env: BEARWARD_TEST_UNSET}", &["BEARWARD_TEST_UNSET is not set"]);
    check(secret, "secret: {file: /nonexistent/secret}", &["/nonexistent/secret: no such file"]);
    check(secret, "secret: {vault: x}", &["`vault` is not a source of secrets"]);
    check(secret, "secret: hunter2-hunter2", &["expected a secret", "{value:"]);
    check(secret, "key: {file: /nonexistent/key.pem}", &["/nonexistent/key.pem", "config.yaml:14:28"]);
    check(seed, "parameters: {scope: x}", &["the parameter `scope`", "own key `scope`"]);
    check(seed, "rotation: {mode: single}", &["did you mean `single_use`?"]);
    check(
        "credentials:",
        "store: {kind: memory}\ncredentials:",
        &["memory store would lose", "allow_volatile"],
    );
    check("credentials:", "store: {kind: etcd}\ncredentials:", &["`etcd`", "not supported by this version"]);
    check("credentials:", "version: 2\ncredentials:", &["write `version: 1`"]);
    check("credentials:", "health: {}\ncredentials:", &["`bind` of `health` is missing"]);
    check(
        "credentials:",
        "defaults: {route: {timeouts: {connect: x}}}\ncredentials:",
        &["`x` is not a duration"],
    );
    check("credentials:", "limits: {header_bytes: 1KiB}\ncredentials:", &["from 4 KiB to 1 MiB"]);
}

#[test]
fn case_23_two_client_authentication_methods_are_refused() {
    let secret = r#"secret: {value: "hunter2-hunter2"}"#;
    let check = |to: &str| {
        let message = errors(&with(secret, to));
        assert!(message.contains("two ways to authenticate"), "{message}");
    };
    check(&format!("{secret}, key: {{file: k.pem}}"));
    check(&format!("{secret}, assertion: {{file: a.jwt}}"));
    check(&format!("auth: private_key_jwt, {secret}, key: {{file: k.pem}}"));
    check(&format!("auth: client_secret_post, {secret}, key: {{file: k.pem}}"));
    check(&format!("auth: none, {secret}"));
    check("auth: private_key_jwt, key: {file: k.pem}, assertion: {file: a.jwt}");
}

#[test]
fn all_problems_are_reported_at_once_each_with_its_line() {
    let text = GOOD
        .replace("kind: reverse", "kind: reverse\n    bnid: 1")
        .replace("/api/", "api")
        .replace("https://api", "ftp://api")
        .replace("client: {id: abc,", "client: {id: 5,");
    let problems = parse_plain(&text).expect_err("invalid");
    assert_eq!(problems.rendered.len(), 4, "{problems}");
    for (problem, line) in problems.rendered.iter().zip([5, 9, 10, 15]) {
        assert!(problem.plain.contains(&format!("config.yaml:{line}:")), "{problem}");
    }
}

#[test]
fn later_capabilities_are_refused() {
    let message = errors(&with("credentials:", "telemetry: {}\ncredentials:"));
    assert!(message.contains("unknown key `telemetry`"), "{message}");
    assert!(message.contains("not supported by this version"), "{message}");
}
