//! `bearward client add` and `client hash` as a user meets them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use bearward::secret::Fingerprint;

fn client(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bearward"))
        .arg("client")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It may have ended without reading.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// What `check` says of a listener for this client.
fn check(clients: &str, listener: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("config.yaml");
    let listener = format!(
        "listeners:\n  - {{name: a, kind: reverse, bind: '127.0.0.1:0', clients: [erp], {listener}routes: [{{name: r, upstream: 'http://127.0.0.1:1'}}]}}\n"
    );
    std::fs::write(&path, [listener.as_str(), clients].concat()).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_bearward"))
        .args(["check", "-c"])
        .arg(path)
        .output()
        .expect("it starts");
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_block_of_each_kind_is_valid_as_it_is_printed() {
    for kind in ["api_key", "basic", "jwt", "cidr", "unix_peer"] {
        let output = client(&["add", "erp", "--kind", kind], b"");
        let printed = text(&output.stdout);
        assert!(output.status.success(), "{kind}: {}", text(&output.stderr));
        assert!(printed.starts_with(&format!("clients:\n  erp: {{{kind}: ")), "{printed}");
        let (code, said) = check(&printed, "");
        assert_eq!(code, Some(0), "{kind}: {said}");
        // Only what it made itself is a secret, and it stands in a comment.
        let secret = printed.lines().last().and_then(|line| line.strip_prefix("# "));
        let makes = matches!(kind, "api_key" | "basic");
        assert_eq!(secret.is_some(), makes, "{printed}");
        assert_eq!(text(&output.stderr).contains("change the block"), !makes, "{kind}");
    }
    let output = client(&["add", "erp", "--kind", "mtls"], b"");
    let (code, said) = check(&text(&output.stdout), "");
    assert_eq!(code, Some(2));
    assert!(said.contains("the listener asks for none"), "{said}");
}

#[test]
fn a_key_is_shown_once_and_never_the_same() {
    let made = || {
        let printed = text(&client(&["add", "erp", "--kind", "api_key"], b"").stdout);
        let key = printed.lines().last().and_then(|line| line.strip_prefix("# ")).expect("a key").to_owned();
        assert!(key.starts_with("bw_") && key.len() > 40, "{key}");
        assert!(printed.contains(&Fingerprint::of(key.as_bytes()).to_hex()), "{printed}");
        assert_eq!(printed.matches(&key).count(), 1);
        key
    };
    assert_ne!(made(), made());
}

#[test]
fn a_hash_is_of_the_line_that_was_given() {
    let hash = |input: &[u8]| {
        let output = client(&["hash"], input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let (one, other) = (hash(b"correct horse\n"), hash(b"correct horse\r\n"));
    assert_ne!(one, other, "each has a salt of its own");
    for made in [&one, &other, &hash("p\u{e4}ss w\u{f6}rd".as_bytes()), &hash(b" \n")] {
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && made.lines().count() == 1, "{made}");
        let (code, said) = check(
            &format!("clients:\n  erp: {{basic: {{username: erp, password_hash: {{value: '{made}'}}}}}}\n"),
            "",
        );
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_in_words_and_shows_no_password() {
    let long = [b'x'; 4097];
    let cases: &[(&[&str], &[u8], &str)] = &[
        (&["hash"], b"", "there is no password"),
        (&["hash"], b"\n", "there is no password"),
        (&["hash"], b"hunter2\nhunter3\n", "one line of at most 4096 bytes"),
        (&["hash"], &long, "one line of at most 4096 bytes"),
        (&["hash"], b"hunter2\xff\n", "the password cannot be read"),
        (&["hash", "hunter2"], b"", "unexpected argument"),
        (&["add", "a b", "--kind", "api_key"], b"", "`a b` is no name of a client"),
        (&["add", "", "--kind", "api_key"], b"", "is no name of a client"),
        (&["add", "../x", "--kind", "api_key"], b"", "is no name of a client"),
        (&["add", "erp"], b"", "--kind"),
        (&["add", "erp", "--kind", "password"], b"", "possible values"),
        (&["add", "erp", "--kind", "api-key"], b"", "api_key"),
    ];
    for (arguments, input, expected) in cases {
        let output = client(arguments, input);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("hunter3") && (!said.contains("hunter2") || arguments.len() > 1), "{said}");
    }
}
