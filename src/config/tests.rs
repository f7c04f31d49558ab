//! Tests of whole configurations.

use std::collections::BTreeMap;

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

fn parse_plain(text: &str) -> Result<Config, Problems> {
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
    assert_eq!(credential.allowed_upstreams, [route.upstream.origin.clone()]);
    assert_eq!(credential.min_interval, Duration::from_secs(5));
    assert_eq!(credential.default_lifetime, Duration::from_secs(600));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}

#[test]
fn show() {
    println!("{}", errors(&with("bind: 127.0.0.1:8080", "bnid: 8080\n    bind: localhost:80")));
    println!("{}", errors(&with("credential: example", "credential: exmaple")));
    println!("{}", errors(&with("secret: {value: \"hunter2-hunter2\"}", "secret: hunter2-hunter2")));
    println!(
        "{}",
        errors(&with("secret: {value: \"hunter2-hunter2\"}", "secret: {value: \"hunter2\"-hunter2}"))
    );
    println!(
        "{}",
        errors(&with("grant: refresh_token", "grant: refresh_tokn\n    clinet: 3\n    parameters: [1]"))
    );
    println!("{}", errors(&with("https://api.example.com", "https://api.example.com/v1")));
    println!("{}", errors(&with("https://api.example.com", "http://api.example.com")));
    let _ = BTreeMap::<u8, u8>::new();
}
