//! `bearward check` and `bearward schema` as a user meets them: output, exit codes, nothing touched.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn bearward(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearward"));
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .current_dir(folder)
        .env("MACHINE_CLIENT_SECRET", "machine-secret")
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A copy of the examples, with the secrets that they name.
fn examples() -> TempDir {
    let folder = tempfile::tempdir().expect("tempdir");
    for part in ["", "credentials.d"] {
        let from = Path::new(ROOT).join("examples").join(part);
        let to = folder.path().join(part);
        std::fs::create_dir_all(&to).expect("folder");
        for entry in std::fs::read_dir(from).expect("examples/").flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
            }
        }
    }
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("key");
    let certificate = rcgen::CertificateParams::new(["id.example.com".to_owned()])
        .expect("name")
        .self_signed(&key)
        .expect("sign");
    let write = |name: &str, text: &str| {
        let path = folder.path().join("secrets").join(name);
        std::fs::create_dir_all(folder.path().join("secrets")).expect("secrets/");
        std::fs::write(path, text).expect(name);
    };
    write("client_secret", "client-secret\n");
    write("refresh_token", "seed\n");
    write("vendor_token", "vendor-token\n");
    write("store_key", "a pass phrase of some length\n");
    write("key.pem", &key.serialize_pem());
    write("certificate.pem", &certificate.pem());
    write("ca.pem", &certificate.pem());
    folder
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).expect("folder").flatten().map(|entry| entry.path()).collect();
    names.sort();
    names
}

#[test]
fn every_example_is_valid_and_checking_it_touches_nothing() {
    let folder = examples();
    let before = names(folder.path());
    let mut count = 0;
    for path in before.iter().filter(|path| path.extension().is_some_and(|ending| ending == "yaml")) {
        let output = bearward(&["check", "-c", &path.display().to_string()], folder.path());
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{}: {err}", path.display());
        assert!(out.contains(": valid; 1 listener,"), "{out}");
        assert_eq!(err, "", "{}", path.display());
        count += 1;
    }
    assert!(count >= 3, "{count} examples");
    assert_eq!(names(folder.path()), before);
}

#[test]
fn the_shipped_configuration_is_valid_on_a_fresh_machine() {
    let path = format!("{ROOT}/config.example.yaml");
    let folder = tempfile::tempdir().expect("tempdir");
    let output = bearward(&["check", "-c", &path], folder.path());
    assert_eq!(text(&output.stdout), format!("{path}: valid; 1 listener, 1 route, 1 credential\n"));
    assert_eq!(text(&output.stderr), "");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn the_egress_part_of_the_shipped_configuration_is_valid_without_its_marks() {
    let shipped = std::fs::read_to_string(format!("{ROOT}/config.example.yaml")).expect("it is there");
    let unmarked = |line: &str| {
        let rest = line.strip_prefix("  #").filter(|rest| rest.starts_with("- ") || rest.starts_with("  "));
        rest.map_or_else(|| format!("{line}\n"), |rest| format!("  {rest}\n"))
    };
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, shipped.lines().map(unmarked).collect::<String>()).expect("written");
    let output = bearward(&["check"], folder.path());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && err.is_empty(), "{err}");
    assert!(out.contains("valid; 2 listeners,"), "{out}");
}

#[test]
fn problems_go_to_stderr_without_colour_and_end_with_a_count() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, "listeners:\n  - name: a\n    bnid: x\nlimits: {connections: none}\n")
        .expect("write");
    let output = bearward(&["check"], folder.path());
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(output.stdout.is_empty());
    assert!(!err.contains('\u{1b}'), "{err:?}");
    for part in [
        "unknown key `bnid` in `listener`",
        "config.yaml:3:5",
        "did you mean `bind`?",
        "the key `kind` of `listener` is missing",
        "config.yaml:4:23",
        "config.yaml: invalid; ",
    ] {
        assert!(err.contains(part), "`{part}` is not in:\n{err}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().expect("tempdir");
    let output = bearward(&["check", "-c", "nowhere.yaml"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot read nowhere.yaml: no such file"));
    let output = bearward(&["check"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("config.yaml"));
}

#[test]
fn an_invalid_configuration_does_not_run() {
    let folder = tempfile::tempdir().expect("tempdir");
    let text_of = "listeners:\n  - {name: a, kind: reverse, bind: '0.0.0.0:0', routes: [{name: r, upstream: 'https://a.example'}]}\nstore: {path: state}\n";
    std::fs::write(folder.path().join("config.yaml"), text_of).expect("write");
    let before = names(folder.path());
    let output = bearward(&["run"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("allow_unauthenticated"), "{}", text(&output.stderr));
    assert_eq!(names(folder.path()), before);
}

#[test]
fn a_secret_in_a_broken_file_is_never_printed() {
    let folder = tempfile::tempdir().expect("tempdir");
    let check = |credential: &str| {
        let whole = format!("credentials:\n  c:\n    grant: refresh_token\n    {credential}\n");
        std::fs::write(folder.path().join("config.yaml"), whole).expect("write");
        let output = bearward(&["check"], folder.path());
        assert_eq!(output.status.code(), Some(2));
        let err = text(&output.stderr);
        assert!(!err.contains("hunter2"), "{err}");
    };
    check("client: {id: a, secret: hunter2}");
    check("client: {id: a, secret: {value: hunter2, env: X}}");
    check("client: {id: a, secret: {value:hunter2}}");
    check("client: {id: a, secret: {value: \"hunter2}}");
    check("client_secret: hunter2");
    check("refresh_token: hunter2");
    check("refresh_token: {vlaue: hunter2}");
    check("outbound_proxy: http://user:hunter2@proxy:3128");
    check("parameters: {client_secret: hunter2}");
}

#[test]
fn the_schema_is_the_one_in_the_repository() {
    let output = bearward(&["schema"], Path::new(ROOT));
    assert!(output.status.success());
    let shipped = std::fs::read_to_string(format!("{ROOT}/docs/configuration.schema.json")).expect("docs/");
    assert_eq!(text(&output.stdout), shipped);
    let schema: serde_json::Value = serde_json::from_str(&shipped).expect("JSON");
    assert_eq!(schema["properties"]["listeners"]["items"]["$ref"], "#/$defs/listener");
}

#[test]
fn a_live_check_says_what_is_there_and_what_is_not() {
    let folder = tempfile::tempdir().expect("tempdir");
    let there = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let config = format!(
        "listeners:
  - {{name: a, kind: reverse, bind: '127.0.0.1:0', routes: [{{name: r, upstream: 'http://{there}', credential: c}}]}}
credentials:
  c:
    token_endpoint: http://{gone}/token
    client: {{id: a, auth: none}}
    grant: client_credentials
",
        there = there.local_addr().expect("address")
    );
    std::fs::write(folder.path().join("config.yaml"), config).expect("write");
    let output = bearward(&["check", "--live"], folder.path());
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}{}", text(&output.stderr));
    assert!(
        out.contains(&format!("ok      upstream http://{}", there.local_addr().expect("address"))),
        "{out}"
    );
    assert!(out.contains("failed  token endpoint") && out.contains("it refused the connection"), "{out}");
}
