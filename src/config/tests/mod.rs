//! Tests of whole configurations.

mod egress;
mod problems;
mod secrets;
mod text;

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
