//! Tests of certificates that access tokens are bound to: which upstreams are shown them, and what cannot be.

use super::tests::parse_plain;

/// A folder with `a.crt`, `a.key`, `b.crt`, `b.key`.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("tempdir");
    for name in ["a", "b"] {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec![format!("{name}.example")]).expect("params");
        let certificate = params.self_signed(&key).expect("certificate");
        std::fs::write(folder.path().join(format!("{name}.crt")), certificate.pem()).expect("written");
        std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
    folder
}

/// `F(a)` stands for `cert: {file: …a.crt}, key: {file: …a.key}`, `C(a)` for the same of a client.
fn text(folder: &tempfile::TempDir, listener: &str, credentials: &str) -> String {
    let mut text = format!(
        "listeners:\n  - {{name: l, bind: 127.0.0.1:8080, {listener}}}\ncredentials: {{{credentials}}}\n"
    );
    for name in ["a", "b"] {
        let path = |ending: &str| folder.path().join(format!("{name}.{ending}")).display().to_string();
        for (short, word) in [("F", "cert"), ("C", "certificate")] {
            let long = format!("{word}: {{file: {}}}, key: {{file: {}}}", path("crt"), path("key"));
            text = text.replace(&format!("{short}({name})"), &long);
        }
    }
    text
}

const ENDPOINT: &str = "token_endpoint: https://id.example.com/token, grant: client_credentials";

fn by_certificate(more: &str) -> String {
    format!("one: {{{ENDPOINT}, client: {{id: x, auth: tls_client_auth, C(a)}}{more}}}")
}

#[test]
fn the_certificate_of_bound_tokens_is_shown_to_each_upstream_that_they_may_go_to() {
    let folder = files();
    let plain = format!("two: {{{ENDPOINT}, client: {{id: x, secret: {{value: some-secret}}}}}}");
    let both = format!("{}, {plain}", by_certificate(""));
    let reverse = |credential: &str| {
        format!(
            "kind: reverse, clients: [c], routes: [{{name: r, upstream: \"https://api.example.com\", credential: {credential}}}]"
        )
    };
    let rule = "kind: egress, rules: [{match: {hosts: [api.example.com], ports: [443]}, action: upgrade, credential: one}]";
    for (listener, credentials, shows) in [
        (reverse("one"), by_certificate(""), true),
        (reverse("one"), by_certificate(", certificate_bound: true"), true),
        (reverse("one"), by_certificate(", certificate_bound: false"), false),
        (reverse("two"), both.clone(), false),
        (reverse("{per_client: {c: one}, default: two}"), both, true),
        (rule.to_owned(), by_certificate(""), true),
    ] {
        let clients = "clients: {c: {cidr: [127.0.0.1/32]}}\n";
        let text = text(&folder, &listener, &credentials) + clients;
        let config = parse_plain(&text).unwrap_or_else(|problems| panic!("{text}{problems}"));
        let rules = config.listeners[0].egress.iter().flat_map(|egress| &egress.rules);
        let all = config.listeners[0].routes.iter().chain(rules.map(|rule| &rule.route));
        let shown: Vec<_> = all.map(|route| route.upstream.tls.identity.as_ref()).collect();
        assert_eq!(shown.len(), 1);
        let expected = shows.then(|| folder.path().join("a.crt"));
        assert_eq!(shown[0].map(|identity| identity.cert.clone()), expected, "{text}");
    }
}

#[test]
fn a_bound_token_is_not_sent_where_its_certificate_is_not_shown() {
    let folder = files();
    let route = |upstream: &str| {
        format!("kind: reverse, routes: [{{name: r, upstream: {upstream}, credential: one}}]")
    };
    let other = route("{urls: [\"https://api.example.com\"], tls: {F(b)}}");
    let same = route("{urls: [\"https://api.example.com\"], tls: {F(a)}}");
    let cleartext = route("\"http://127.0.0.1:9\"");
    let said = by_certificate(", certificate_bound: true");
    let errors = |listener: &str, credentials: &str| match parse_plain(&text(&folder, listener, credentials))
    {
        Ok(config) => config.warnings.iter().map(|warning| warning.plain.clone()).collect::<String>(),
        Err(problems) => format!("refused: {problems}"),
    };
    let told = errors(&other, &by_certificate(""));
    assert!(told.starts_with("refused: ") && told.contains("shows another one to the upstream"), "{told}");
    assert!(!errors(&same, &said).contains("refused"), "{}", errors(&same, &said));
    let told = errors(&cleartext, &said);
    assert!(told.starts_with("refused: ") && told.contains("no certificate is shown there"), "{told}");
    // Providers know clients by certificates and bind nothing to them: nobody said that this one does.
    let told = errors(&cleartext, &by_certificate(""));
    assert!(!told.contains("refused") && told.contains("no certificate is shown there"), "{told}");
    let told = errors(&cleartext, &by_certificate(", certificate_bound: false"));
    assert!(!told.contains("no certificate is shown there"), "{told}");
    // One upstream is shown one certificate.
    let two = format!(
        "{}, two: {{{ENDPOINT}, client: {{id: y, auth: tls_client_auth, C(b)}}}}",
        by_certificate("")
    );
    let picks = "kind: reverse, clients: [c], routes: [{name: r, upstream: \"https://api.example.com\", \
                 credential: {per_client: {c: two}, default: one}}]";
    let text = text(&folder, picks, &two) + "clients: {c: {cidr: [127.0.0.1/32]}}\n";
    let told = parse_plain(&text).expect_err("refused").to_string();
    assert!(told.contains("routes of their own"), "{told}");
}
