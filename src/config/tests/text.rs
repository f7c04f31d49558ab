//! The text before its meaning: variables, JSON, defaults, anchors, included files.

use super::*;

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
