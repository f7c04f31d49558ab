//! Tests of whole configurations.

use super::*;

const GOOD: &str = r#"
listeners:
  - name: legacy
    kind: reverse
    bind: 127.0.0.1:8080
    routes:
      - name: api
        match: {path_prefix: /api/}
        upstream: https://api.example.com
        credential: example
credentials:
  example:
    token_endpoint: https://id.example.com/token
    client: {id: abc, secret: {value: "hunter2-hunter2"}}
    grant: refresh_token
    refresh_token: {value: "seed-hunter3"}
"#;

fn vars(_: &str) -> Option<String> {
    None
}

pub(super) fn parse_plain(text: &str) -> Result<Config, Problems> {
    parse_with(text, "config.yaml", &vars)
}

fn errors(text: &str) -> String {
    match parse_plain(text) {
        Ok(_) => panic!("valid:\n{text}"),
        Err(problems) => problems.to_string(),
    }
}

/// Replaces one part of the good configuration.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn a_small_configuration_has_the_documented_defaults() {
    let config = parse_plain(GOOD).unwrap_or_else(|problems| panic!("{problems}"));
    let listener = &config.listeners[0];
    assert_eq!(listener.bind, BindAddress::Tcp(([127, 0, 0, 1], 8080).into()));
    let route = &listener.routes[0];
    assert_eq!((route.path_prefix.as_str(), &route.hosts), ("/api/", &None));
    assert_eq!(route.timeouts, crate::upstream::Timeouts::default());
    let credential = &config.credentials[0];
    assert_eq!(credential.allowed_upstreams, std::slice::from_ref(&route.upstream.origin));
    assert_eq!(credential.min_interval, Duration::from_secs(5));
    assert_eq!(credential.default_lifetime, Duration::from_secs(600));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}

#[test]
fn a_broken_upstream_hides_no_unknown_credential() {
    let text = with("credential: example", "credential: exmaple")
        .replace("https://api.example.com", "https://api.example.com/v1");
    let message = errors(&text);
    assert!(message.contains("a path cannot stand here"), "{message}");
    assert!(message.contains("there is no credential `exmaple`"), "{message}");
}

/// An egress listener with these lines, `clients:` or `credentials:` at will.
fn egress(lines: &str, others: &str) -> String {
    format!("listeners:\n  - name: out\n    kind: egress\n    bind: 127.0.0.1:3128\n{lines}{others}")
}

#[test]
fn no_error_hides_another() {
    let check = |text: &str, expected: &[&str]| {
        let message = errors(text);
        for part in expected {
            assert!(message.contains(part), "`{part}` is not in:\n{message}");
        }
    };
    let rule = |rule: &str| egress(&format!("    rules:\n      - {rule}\n"), "");
    let unknown = "there is no credential `nobody`";
    // Without any `credentials:`, beside whatever else is wrong.
    check(
        &rule("{match: {hosts: [a.example]}, action: intercept, credential: nobody}"),
        &["no CA to intercept with", unknown, "`credentials:` has none"],
    );
    check(
        &rule("{match: {hosts: [a.example]}, action: foward, credential: nobody}"),
        &["did you mean `forward`?", unknown],
    );
    check(
        &rule("{match: {hosts: [a.example]}, credential: nobody}"),
        &["the key `action` of `rule` is missing", unknown],
    );
    check(
        &rule("{match: {hosts: [a.example]}, action: tunnel, credential: nobody}"),
        &["injects no token", unknown],
    );
    check(
        &egress(
            "    via_proxy: {url: 'http://p:3128', password: {value: x}}\n    rules: [{match: {hosts: [a.example]}, action: forward, credential: nobody}]\n",
            "",
        ),
        &["`password` needs `username`", unknown],
    );
    check(
        &egress(
            "    rules: [{action: tunnel, on_unauthorized: {max_body: 2MiB}}]\n    clients: [nobody]\n",
            "",
        ),
        &["names the hosts", "at most 1MiB", "there is no client `nobody`"],
    );
    // Files that are missing: each of them.
    check(
        &egress(
            "    tls: {cert: {file: /no/a}, key: {file: /no/b}, client_ca: {file: /no/c}}\n    rules: [{action: deny}]\n",
            "",
        ),
        &["/no/a: no such file", "/no/b: no such file", "/no/c: no such file"],
    );
    check(
        &egress(
            "    intercept: {ca_cert: {file: /no/a}, ca_key: {file: /no/b}}\n    rules: [{action: deny}]\n",
            "",
        ),
        &["neither /no/a nor /no/b is there"],
    );
    check(
        &rule(
            "{match: {hosts: [a.example]}, action: upgrade, tls: {ca: {file: /no/a}, cert: {file: /no/b}, key: {file: /no/c}}}",
        ),
        &["/no/a: no such file", "/no/b: no such file", "/no/c: no such file"],
    );
    // A kind that cannot be read hides neither rules nor routes.
    check(
        &rule("{match: {hosts: ['a*.example']}, action: tunnel}").replace("kind: egress", "kind: egres"),
        &["did you mean `egress`?", "`*` stands for a whole label"],
    );
    check(
        &with("kind: reverse", "kind: revers").replace("127.0.0.1:8080", "10.0.0.1:8080"),
        &["did you mean `reverse`?", "whoever reaches 10.0.0.1:8080"],
    );
    // Clients.
    check(
        &egress(
            "    rules: [{action: deny}]\n",
            "clients:\n  'a b': {api_key: {}}\n  j: {jwt: {issuer: i, audience: [], leeway: 6m}}\n",
        ),
        &["is no name of a client", "the client has no key", "`jwks_uri` or `jwks`"],
    );
    check(
        &egress(
            "    rules: [{action: deny}]\n",
            "clients:\n  j: {jwt: {issuer: i, audience: [], leeway: 6m, jwks: {file: /no/a}}}\n",
        ),
        &["`audience` names nobody", "at most 5m", "/no/a"],
    );
    // Routes and credentials.
    check(
        &with(
            "upstream: https://api.example.com",
            "upstream: {urls: [https://a.example], http: h2c, ejection: {time: 2m, max_time: 1m}}",
        )
        .replace("credential: example", "credential: example\n        on_unauthorized: {max_body: 2MiB}"),
        &["`h2c` is cleartext", "`max_time` is shorter", "at most 1MiB"],
    );
    check(
        &with("grant: refresh_token", "grant: password\n    inject: []"),
        &["`refresh_token` has no meaning with this grant", "`inject` is empty"],
    );
    // Plain http, limits that nothing reaches, networks for hosts.
    check(
        &egress(
            "    rules: [{action: deny, concurrency: 3, rate_limit: {requests: 1}}]\n",
            "clients:\n  j: {jwt: {issuer: i, audience: a, jwks_uri: 'http://far.example/j'}}\n",
        ),
        &["would come over plain http", "no effect on a rule that says `deny`"],
    );
    check(
        &rule("{match: {hosts: ['10.0.0.0/8', 'https://a', 'a..b'], ports: 443}, action: tunnel}"),
        &["a network is no host", "write the host alone", "parted by single dots", "put it in brackets"],
    );
    // What cannot be read is reported once, and nothing that follows from it.
    for broken in ["credentials: [a]", "include: /no/such.yaml"] {
        let text = rule("{match: {hosts: [a.example], ports: [80]}, action: upgrade, credential: nobody}")
            + broken
            + "\n";
        let problems = parse_plain(&text).expect_err("invalid");
        assert_eq!(problems.rendered.len(), 1, "{problems}");
    }
}

#[test]
fn rules_that_are_never_reached_and_clients_that_nobody_can_be_are_warned_of() {
    let warnings = |text: &str| {
        let config = parse_plain(text).unwrap_or_else(|problems| panic!("{problems}"));
        config.warnings.iter().map(|warning| warning.plain.clone()).collect::<String>()
    };
    let check = |one: &str, other: &str, shadowed: bool| {
        let text = egress(&format!("    rules:\n      - {one}\n      - {other}\n"), "");
        assert_eq!(warnings(&text).contains("rule 2 is never reached"), shadowed, "{one} {other}");
    };
    let of = |hosts: &str, more: &str, action: &str| {
        format!("{{match: {{hosts: [{hosts}]{more}}}, action: {action}}}")
    };
    check(&of("'**'", "", "tunnel"), &of("a.b", "", "tunnel"), true);
    check(&of("'*.b'", "", "tunnel"), &of("a.b", ", ports: [443]", "tunnel"), true);
    check("{action: deny}", &of("a.b", "", "forward"), true);
    check(&of("a.b", ", ports: ['1-99']", "upgrade"), &of("A.b.", ", ports: [80]", "forward"), true);
    check(&of("a.b", "", "forward"), &of("a.b", "", "tunnel"), false);
    check(&of("a.b", "", "tunnel"), &of("a.b", "", "intercept").replace("intercept", "deny"), false);
    check(&of("a.b", ", ports: [443]", "tunnel"), &of("a.b", "", "tunnel"), false);
    check(&of("'*.b'", "", "tunnel"), &of("b", "", "tunnel"), false);
    check(&of("a.b", ", path_prefix: /x", "deny"), &of("a.b", "", "forward"), false);
    check(&of("a.b", ", methods: [GET]", "forward"), &of("a.b", "", "forward"), false);
    let clients = "clients:\n  u: {unix_peer: {uid: [1]}}\n  c: {cidr: [10.0.0.0/8]}\n";
    let said = warnings(&egress("    clients: [u]\n    rules: []\n", clients));
    assert!(said.contains("nobody can be it here") && said.contains("everything is denied"), "{said}");
    let unix = egress("    clients: [c]\n    rules: [{action: deny}]\n", clients)
        .replace("127.0.0.1:3128", "unix:/run/x");
    assert!(warnings(&unix).contains("a Unix socket has none"));
}

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

#[test]
fn variables_are_replaced_after_parsing_and_decide_the_type() {
    let vars = |name: &str| match name {
        "PORT" => Some("8081".to_owned()),
        "FLAG" => Some("true".to_owned()),
        "ID" => Some("12345".to_owned()),
        "EVIL" => Some("x}, grant: {static".to_owned()),
        _ => None,
    };
    let text = GOOD
        .replace("127.0.0.1:8080", "127.0.0.1:${PORT}\n    allow_unauthenticated: ${FLAG}")
        .replace("id: abc", "id: \"${ID}\"")
        .replace("grant: refresh_token", "grant: refresh_token\n    required: \"${FLAG}\"\n    scope: ${EVIL}\n    audience: '${PORT} $${PORT}'\n    parameters: {a: $${PORT}}".replace("a: $${PORT}", "a: \"$${PORT}\"").as_str())
        .replace("credentials:", "limits: {connections: \"${PORT}\"}\ncredentials:");
    let config = parse_with(&text, "config.yaml", &vars).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.listeners[0].bind, BindAddress::Tcp(([127, 0, 0, 1], 8081).into()));
    assert!(config.listeners[0].allow_unauthenticated);
    assert_eq!(config.limits.connections, 8081);
    let credential = &config.credentials[0];
    assert!(credential.required);
    assert_eq!(credential.oauth.client_id, "12345");
    assert_eq!(credential.oauth.scope.as_deref(), Some("x}, grant: {static"));
    assert_eq!(credential.oauth.audience.as_deref(), Some("${PORT} $${PORT}"));
    assert_eq!(credential.oauth.parameters["a"], "${PORT}");
}

#[test]
fn json_is_yaml() {
    let text = r#"{"listeners": [{"name": "a", "kind": "reverse", "bind": "[::1]:0", "routes": [
        {"name": "r", "upstream": {"urls": ["https://a.example.com"], "outbound_proxy": "http://proxy:3128"}}]}],
        "outbound_proxy": null, "health": {"bind": "127.0.0.1:0"}}"#;
    let config = parse_plain(text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.listeners[0].routes[0].upstream.outbound_proxy.is_some());
    assert!(config.health.is_some());
}

#[test]
fn defaults_stand_below_each_entry() {
    let text = GOOD.replace(
        "credentials:",
        "defaults:
  route: {timeouts: {connect: 1s, first_byte: 2s}, preserve_host: true}
  credential: {client: {auth: client_secret_post, secret: {file: /nonexistent}}, required: true}
credentials:",
    );
    let text = text.replace("credential: example", "credential: example\n        timeouts: {connect: 9s}");
    let config = parse_plain(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let route = &config.listeners[0].routes[0];
    assert_eq!(route.timeouts.connect, Duration::from_secs(9));
    assert_eq!(route.timeouts.first_byte, Duration::from_secs(2));
    assert_eq!(route.timeouts.request_idle, Duration::from_secs(30));
    assert!(route.preserve_host && config.credentials[0].required);
    let post = crate::oauth::ClientAuth::Post { secret: SecretSource::Value("hunter2-hunter2".into()) };
    assert_eq!(config.credentials[0].oauth.client_auth, post);
}

#[test]
fn anchors_and_merge_keys_work_within_limits() {
    let text = GOOD.replace("credential: example", "credential: example\n        timeouts: &t {connect: 3s}\n      - {name: b, match: {path_prefix: /b}, upstream: https://b.example.com, timeouts: {<<: *t, first_byte: 4s}}");
    let config = parse_plain(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.listeners[0].routes[1].timeouts.connect, Duration::from_secs(3));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..9 {
        let aliases = vec![format!("*a{}", n - 1); 9].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    assert!(errors(&bomb).contains("the file is too large"));
    assert!(errors(&format!("{}{}", "[".repeat(100), "]".repeat(100))).contains("nested too deeply"));
    assert!(!errors(&"[".repeat(100_000)).is_empty());
    assert!(errors("a: &a [*a]").contains("inside its own anchor"));
}

#[test]
fn an_included_file_is_named_where_it_is_wrong() {
    let folder = tempfile::tempdir().expect("tempdir");
    std::fs::create_dir(folder.path().join("d")).expect("mkdir");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect(name);
    write("main.yaml", &format!("include: [d/*.yaml]\n{GOOD}"));
    write("d/token", "t0ken");
    let more = "credentials:\n  more: {grant: static, token: {file: token}}\n";
    write("d/a.yaml", more);
    let main = folder.path().join("main.yaml");
    let config = load(&main).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.credentials.len(), 2);
    assert_eq!(config.files, [main.clone(), folder.path().join("d/a.yaml")]);
    write("d/b.yaml", more);
    let message = load(&main).expect_err("twice").to_string();
    assert!(message.contains("`more` is given twice") && message.contains("d/b.yaml:2:3"), "{message}");
    write("d/b.yaml", "store: {kind: memory}\n");
    let message = load(&main).expect_err("store").to_string();
    assert!(message.contains("unknown key `store` in `included file`"), "{message}");
    std::fs::remove_file(folder.path().join("d/b.yaml")).expect("remove");
    std::fs::remove_file(folder.path().join("d/token")).expect("remove");
    let message = load(&main).expect_err("no token").to_string();
    assert!(message.contains("d/a.yaml:2:32") && message.contains("no such file"), "{message}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().expect("tempdir");
    let check = |bytes: Option<&[u8]>, expected: &str| {
        let path = folder.path().join("c.yaml");
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).expect("write");
        }
        let message = load(&path).expect_err("unreadable").to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(None, "c.yaml: no such file");
    check(Some(b"a: 1\nb: \xff\n"), "line 2 is not UTF-8");
    check(Some(b""), "the file is empty");
    check(Some(b"a: 1\n---\nb: 2\n"), "a second document begins here");
    check(Some(b"listeners:\n\t- a\n"), "indent with spaces");
    let message = load(folder.path()).expect_err("directory").to_string();
    assert!(message.contains("it is a directory"), "{message}");
}

#[test]
fn a_missing_seed_is_a_warning_since_it_may_be_spent() {
    let text = with(r#"refresh_token: {value: "seed-hunter3"}"#, "refresh_token: {file: /nonexistent/seed}");
    let config = parse_plain(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.warnings.iter().any(|warning| warning.plain.contains("the seed of `example`")));
}

#[test]
fn a_proxy_of_the_environment_that_is_not_used_is_warned_about() {
    let vars = |name: &str| (name == "HTTPS_PROXY").then(|| "http://proxy:3128".to_owned());
    let warned = |text: &str| {
        let config = parse_with(text, "config.yaml", &vars).unwrap_or_else(|problems| panic!("{problems}"));
        config.warnings.iter().any(|warning| warning.plain.contains("HTTPS_PROXY is set"))
    };
    assert!(warned(GOOD));
    assert!(!warned(&with("credentials:", "outbound_proxy: null\ncredentials:")));
    assert!(!warned(&with("credentials:", "outbound_proxy: http://p:1\ncredentials:")));
}

#[test]
fn the_example_is_valid_and_says_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.yaml");
    let config = load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.listeners[0].name.as_str(), "legacy");
    assert_eq!(config.credentials[0].name.as_str(), "example");
}

#[test]
fn the_admin_address_is_read_without_the_secrets_of_the_rest() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("config.yaml");
    let text = with("secret: {value: \"hunter2-hunter2\"}", "secret: {file: /nonexistent/secret}");
    std::fs::write(&path, format!("{text}admin: {{bind: 127.0.0.1:9955}}\n")).expect("write");
    assert!(load(&path).is_err());
    let admin = load_admin(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(admin.bind, BindAddress::Tcp(([127, 0, 0, 1], 9955).into()));
    std::fs::write(&path, "admin: {bind: here}\n").expect("write");
    assert!(load_admin(&path).expect_err("no address").to_string().contains("`here` is not an address"));
}

/// The secrets of [`GOOD`].
const SECRETS: [&str; 2] = ["hunter2", "hunter3"];

fn assert_hidden(text: &str) {
    let (errors, warnings) = match parse_plain(text) {
        Ok(config) => (Vec::new(), config.warnings),
        Err(problems) => (problems.rendered, problems.warnings),
    };
    for shown in errors.iter().chain(&warnings).flat_map(|shown| [&shown.plain, &shown.coloured]) {
        for secret in SECRETS {
            assert!(!shown.contains(secret), "{text}\n\nshows it:\n{shown}");
        }
    }
}

#[test]
fn a_secret_is_never_shown_whatever_is_broken_around_it() {
    let protected = |at: usize| {
        SECRETS.iter().any(|secret| {
            GOOD.match_indices(secret).any(|(start, _)| (start..start + secret.len()).contains(&at))
        })
    };
    for (at, _) in GOOD.char_indices().filter(|(at, _)| !protected(*at)) {
        let rest = &GOOD[at + GOOD[at..].chars().next().map_or(1, char::len_utf8)..];
        assert_hidden(&format!("{}{rest}", &GOOD[..at]));
        for inserted in
            ["x", ":", " ", "\"", "{", "}", "\n", "\t", "#", "- ", "|", "&a ", "*a", "!x ", "${", ", "]
        {
            assert_hidden(&format!("{}{inserted}{}", &GOOD[..at], &GOOD[at..]));
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ \n\ta-z0-9:,{}&*!|>'\"%@`#?$.\\[\\]\\-/ü\u{feff}\u{2028}]{0,200}") {
        let _ = parse_plain(&text);
    }

    #[test]
    fn no_edit_of_a_configuration_makes_it_panic(at in 0..GOOD.len(), cut in 0..40_usize, put in ".{0,8}") {
        if GOOD.is_char_boundary(at) {
            let end = (at + cut).min(GOOD.len());
            let _ = parse_plain(&format!("{}{put}{}", &GOOD[..at], &GOOD[end..]));
        }
    }
}

/// `docs/` holds what the blocks say; BEARWARD_BLESS=1 writes it anew.
#[test]
fn the_generated_files_are_current() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for (name, text) in [("configuration.md", reference()), ("configuration.schema.json", schema_text())] {
        let path = docs.join(name);
        if std::env::var_os("BEARWARD_BLESS").is_some() {
            std::fs::create_dir_all(&docs).expect("docs/");
            std::fs::write(&path, &text).expect(name);
        }
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            present == text,
            "docs/{name} is out of date: run BEARWARD_BLESS=1 cargo test --lib config::"
        );
    }
}
