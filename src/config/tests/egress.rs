//! Rules of egress listeners, and what one error hides of another.

use super::*;

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
    check(
        &rule("{match: {hosts: [a.example], ports: [https]}}"),
        &["`action` of `rule` is missing", "one of `upgrade`, `forward`, `tunnel`", "443 is that of https"],
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
    check(&of("'**.b'", "", "tunnel"), &of("'*.b'", ", ports: [443]", "tunnel"), true);
    check(&of("'**.b'", "", "tunnel"), &of("'**.a.b', x.y.b", "", "tunnel"), true);
    check(&of("'*.*.b'", "", "tunnel"), &of("'a.*.b'", "", "tunnel"), true);
    check(&of("'*.b'", "", "tunnel"), &of("'**.b'", "", "tunnel"), false);
    check(&of("'**.b'", "", "tunnel"), &of("b", "", "tunnel"), false);
    check(&of("'**.a.b'", "", "tunnel"), &of("'*.b'", "", "tunnel"), false);
    check(&of("a.b", ", path_prefix: /x", "deny"), &of("a.b", "", "forward"), false);
    check(&of("a.b", ", methods: [GET]", "forward"), &of("a.b", "", "forward"), false);
    let plain = |rule: &str| {
        warnings(&egress(&format!("    rules:\n      - {rule}\n"), ""))
            .contains("servers speak TLS on port 443")
    };
    assert!(plain(&of("a.b", ", ports: [443]", "forward")));
    assert!(plain("{match: {hosts: [a.b]}, action: forward, upstream_port: 443}"));
    assert!(!plain(&of("a.b", ", ports: [443]", "upgrade")));
    assert!(!plain(&of("a.b", ", ports: [8443]", "forward")));
    assert!(!plain("{match: {hosts: [a.b], ports: [443]}, action: forward, upstream_port: 80}"));
    let clients = "clients:\n  u: {unix_peer: {uid: [1]}}\n  c: {cidr: [10.0.0.0/8]}\n";
    let said = warnings(&egress("    clients: [u]\n    rules: []\n", clients));
    assert!(said.contains("nobody can be it here") && said.contains("everything is denied"), "{said}");
    let unix = egress("    clients: [c]\n    rules: [{action: deny}]\n", clients)
        .replace("127.0.0.1:3128", "unix:/run/x");
    assert!(warnings(&unix).contains("a Unix socket has none"));
}
