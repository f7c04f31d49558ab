//! Logging in with the real binary: a person with a browser at npm `oidc-provider`, forged answers, revocation, and
//! refresh tokens that are brought and moved by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::http;
use crate::harness::run::Run;
use crate::harness::server::{Server, node};
use crate::harness::traffic::{Traffic, tally};
use crate::harness::{count, eventually};

const ROTATIONS: u64 = 30;
const PAUSE: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_logs_in_with_a_browser_and_the_tokens_rotate_over_a_restart() {
    login_and_rotate("browser", |run, config| {
        let login = Login::begin(run, config, &["--no-browser"]);
        let page = person(&login.address("http://"), None);
        assert!(page.contains("You are logged in"), "{page}");
        login
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_logs_in_on_another_device_and_the_tokens_rotate_over_a_restart() {
    login_and_rotate("device", |run, config| {
        let login = Login::begin(run, config, &["--device"]);
        let address = login.address("http://");
        let code = login.word(|word| word.len() == 9 && word.as_bytes()[4] == b'-');
        let page = person(&address, Some(&code));
        assert!(page.contains("sign-in was successful"), "{page}");
        login
    })
    .await;
}

/// With `dpop`, the code is redeemed with a proof, and what it brings is bound to the key that the store keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_login_brings_is_bound_to_a_key_and_goes_on_being_proved_after_a_restart() {
    let run = Arc::new(Run::new("login-dpop"));
    let client = json!({"id": "legacy_client", "auth": "none"});
    let options = json!({"interactive": true, "dpop": true, "access_token_ttl": 4, "clients": [client]});
    let server = Server::oidc_provider(&run, &options).await;
    let credential = json!({
        "issuer": server.text("/issuer"),
        "client": {"id": "legacy_client", "auth": "none"},
        "grant": "refresh_token",
        "scope": "openid offline_access",
        "refresh": {"at": 0.25, "min_interval": "1s"},
        "dpop": {"alg": "ES256"},
    });
    let config = run.config(server.text("/origin"), &credential);
    let mut bearward = Bearward::start(&run, &config).await;
    bearward.until_state("awaiting_login", Duration::from_secs(20)).await;
    let output = tokio::task::block_in_place(|| {
        let login = Login::begin(&run, &config, &["--no-browser"]);
        let page = person(&login.address("http://"), None);
        assert!(page.contains("You are logged in"), "{page}");
        login.end()
    });
    assert!(output.contains("it: logged in"), "{output}");
    for turn in 0..2 {
        let begun = bearward.until_state("fresh", Duration::from_secs(10)).await;
        let begun = begun["refreshes"]["ok"].as_u64().expect("a count");
        let turned = eventually("three rotations", Duration::from_secs(30), async || {
            // The provider's own endpoint takes a proof with each request.
            assert_eq!(bearward.get("/me").await.status, 200, "{turn}");
            let state = bearward.credential().await;
            (state["refreshes"]["ok"].as_u64() >= Some(begun + 3)).then_some(state)
        })
        .await;
        assert_eq!(turned["refreshes"]["failed"], 0, "{turned}");
        assert!(bearward.stop().await.success());
        bearward = Bearward::start(&run, &config).await;
    }
    let state = server.state().await;
    let errors = state["errors"].as_array().expect("a list");
    assert!(errors.iter().all(|one| one["error"] == "use_dpop_nonce"), "{state}");
    assert!(bearward.stop().await.success());
    server.note_secrets(&run).await;
}

async fn login_and_rotate(how: &str, log_in: impl FnOnce(&Run, &Value) -> Login) {
    let run = Arc::new(Run::new(&format!("login-{how}")));
    let (server, config) = provider(&run).await;
    let bearward = Bearward::start(&run, &config).await;
    let waiting = bearward.until_state("awaiting_login", Duration::from_secs(20)).await;
    assert!(waiting["remedy"].as_str().is_some_and(|text| text.contains("bearward login it")), "{waiting}");
    assert_eq!(bearward.get("/resource/report").await.status, 503);

    let login = tokio::task::block_in_place(|| log_in(&run, &config));
    let output = login.end();
    assert!(output.contains("it: logged in"), "{output}");
    bearward.until_state("fresh", Duration::from_secs(2)).await;

    let before = rotate(&run, &bearward, how).await;
    assert!(bearward.stop().await.success());
    let bearward = Bearward::start(&run, &config).await;
    let after = rotate(&run, &bearward, how).await;
    count(&format!("login by {how}: {before} rotations, a restart, {after} rotations, no request failed"));
    let posts = server.state().await["posts_by_refresh_token"].clone();
    let most = posts.as_object().expect("a map").values().filter_map(Value::as_u64).max();
    assert_eq!(most, Some(1), "a refresh token was sent twice");
    assert!(bearward.stop().await.success());
    server.note_secrets(&run).await;
}

/// Thirty rotations under traffic; how many there were.
async fn rotate(run: &Arc<Run>, bearward: &Bearward, how: &str) -> u64 {
    bearward.until_state("fresh", Duration::from_secs(10)).await;
    let traffic = Traffic::begin(run, bearward.proxy(), "/resource/report", 2, PAUSE);
    let begun = bearward.credential().await["refreshes"]["ok"].as_u64().expect("a count");
    let rotated = bearward
        .until("30 rotations", Duration::from_secs(120), |it| {
            it["refreshes"]["ok"].as_u64() >= Some(begun + ROTATIONS)
        })
        .await;
    let outcomes = traffic.end().await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200), "{how}: {}", tally(&outcomes));
    assert_eq!(rotated["refreshes"]["failed"], 0, "{rotated}");
    rotated["refreshes"]["ok"].as_u64().expect("a count") - begun
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_answer_to_the_login_is_taken() {
    let run = Arc::new(Run::new("login-forged"));
    let (server, config) = provider(&run).await;
    let login = Login::begin(&run, &config, &["--no-browser"]);
    let asked = url::Url::parse(&login.address("http://")).expect("a URL");
    let of = |name: &str| asked.query_pairs().find(|(known, _)| known == name).expect(name).1.into_owned();
    let back = url::Url::parse(&of("redirect_uri")).expect("a URL");
    let address = format!("127.0.0.1:{}", back.port().expect("a port")).parse().expect("an address");
    let state = of("state");
    for (path, status) in [
        ("/callback?code=stolen&state=guessed".to_owned(), 400),
        ("/callback?code=stolen".to_owned(), 400),
        (format!("/callback?code=a&code=b&state={state}"), 400),
        (format!("/callback?state={state}&iss={}", server.text("/issuer")), 400),
        ("/favicon.ico".to_owned(), 404),
        ("/".to_owned(), 404),
    ] {
        assert_eq!(http::get(address, &path).await.expect("it answers").status, status, "{path}");
    }
    assert_eq!(server.state().await["token_posts"], 0, "nothing was redeemed");

    let mixed_up = format!("/callback?code=other&state={state}&iss=http%3A%2F%2Fevil.example");
    let page = http::get(address, &mixed_up).await.expect("it answers");
    assert_eq!(page.status, 502);
    let output = login.end();
    assert!(output.contains("names another issuer"), "{output}");
    assert_eq!(server.state().await["token_posts"], 0, "a mixed-up code is not redeemed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_says_why_and_leaves_the_store_alone() {
    let run = Arc::new(Run::new("login-refused"));
    let (_server, config) = provider(&run).await;
    let login = Login::begin(&run, &config, &["--manual"]);
    let asked = url::Url::parse(&login.address("http://")).expect("a URL");
    let state = asked.query_pairs().find(|(name, _)| name == "state").expect("state").1.into_owned();
    let issuer = config["credentials"]["it"]["issuer"].as_str().expect("an issuer");
    let mut login = login;
    login.write("http://127.0.0.1/callback?code=a&state=another\n");
    login.write(&format!(
        "http://127.0.0.1/callback?error=access_denied&error_description=no+thanks&state={state}&iss={issuer}\n"
    ));
    let output = login.end();
    assert!(output.contains("not the address of this login"), "{output}");
    assert!(output.contains("access_denied (no thanks)"), "{output}");
    let listed = command(&run, &config, &["store", "list"], "");
    assert!(printed(&listed).contains("no records"), "{}", printed(&listed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_is_imported_moved_and_revoked() {
    let run = Arc::new(Run::new("store-commands"));
    let (server, config) = provider(&run).await;
    let seed = server.text("/refresh_tokens/legacy_client");
    run.secret(seed);
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("awaiting_login", Duration::from_secs(20)).await;

    let imported = command(&run, &config, &["store", "import", "it"], &format!("{seed}\n"));
    assert!(imported.status.success(), "{}", printed(&imported));
    bearward.until_state("fresh", Duration::from_secs(5)).await;
    assert_eq!(bearward.get("/resource/report").await.status, 200);
    let refused = command(&run, &config, &["store", "import", "it"], "two words\n");
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));

    // To another store, while nobody uses the first.
    assert!(bearward.stop().await.success());
    let key = run.private().join("export-key");
    std::fs::write(&key, "a pass phrase for the way").expect("written");
    let exported =
        command(&run, &config, &["store", "export", "--key-file", key.to_str().expect("text")], "");
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let file = run.private().join("export");
    std::fs::write(&file, &exported.stdout).expect("written");
    run.keep("export.log", &String::from_utf8_lossy(&exported.stdout));
    let mut other = config.clone();
    other["store"]["path"] = json!(run.private().join("other-state"));
    let from = [
        "store",
        "import",
        "--from",
        file.to_str().expect("text"),
        "--key-file",
        key.to_str().expect("text"),
    ];
    let moved = command(&run, &other, &from, "");
    assert!(moved.status.success(), "{}", printed(&moved));
    let bearward = Bearward::start(&run, &other).await;
    bearward.until_state("fresh", Duration::from_secs(5)).await;
    assert_eq!(bearward.get("/resource/report").await.status, 200);

    let listed = command(&run, &other, &["store", "list", "--json"], "");
    let line: Value = serde_json::from_slice(&listed.stdout).expect("one line");
    assert_eq!((&line["credential"], &line["refresh_token"]), (&json!("it"), &json!(true)));

    let revoked = command(&run, &other, &["revoke", "it"], "");
    assert!(revoked.status.success(), "{}", printed(&revoked));
    bearward.until_state("awaiting_login", Duration::from_secs(3)).await;
    eventually("nothing is served", Duration::from_secs(3), async || {
        (bearward.get("/resource/report").await.status == 503).then_some(())
    })
    .await;
    let again = command(&run, &other, &["revoke", "it"], "");
    assert!(again.status.success() && printed(&again).contains("nothing to revoke"), "{}", printed(&again));
    // The token that was revoked is dead at the provider, not only forgotten here.
    let errors = server.state().await["errors"].as_array().expect("a list").len();
    let dead = command(&run, &config, &["status", "--admin", &bearward.admin_address().to_string()], "");
    assert!(printed(&dead).contains("awaiting_login"), "{}", printed(&dead));
    assert_eq!(errors, 0, "no request of ours was refused on the way");
    assert!(bearward.stop().await.success());
    server.note_secrets(&run).await;
}

#[tokio::test]
async fn a_login_that_cannot_work_says_so_at_once() {
    let run = Run::new("login-mistakes");
    let base = run.config(
        "http://127.0.0.1:9",
        &json!({"token_endpoint": "http://127.0.0.1:9/token", "client": {"id": "c", "auth": "none"}, "grant": "refresh_token"}),
    );
    let check = |change: &dyn Fn(&mut Value), arguments: &[&str], code: i32, expected: &str| {
        let mut config = base.clone();
        change(&mut config);
        let output = command(&run, &config, arguments, "");
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    };
    let nothing = |_: &mut Value| ();
    check(&nothing, &["login", "other"], 2, "there is no credential `other`; there is it");
    check(&nothing, &["login", "it"], 2, "login: {authorization_endpoint");
    check(&nothing, &["login", "it", "--device"], 2, "login: {device_authorization_endpoint");
    check(&nothing, &["revoke", "it"], 2, "login: {revocation_endpoint");
    check(
        &|config| config["store"] = json!({"kind": "memory", "allow_volatile": true}),
        &["login", "it"],
        1,
        "kind: file",
    );
    check(
        &|config| {
            config["credentials"]["it"]["login"] = json!({
                "authorization_endpoint": "http://127.0.0.1:9/authorize", "redirect_uri": "https://app.example/cb"});
        },
        &["login", "it"],
        2,
        "--manual",
    );
    check(
        &|config| {
            config["credentials"]["it"]["login"] =
                json!({"authorization_endpoint": "http://idp.example/authorize"});
        },
        &["login", "it"],
        2,
        "plain http",
    );
    check(
        &|config| {
            config["credentials"]["it"]["login"] =
                json!({"authorization_endpoint": "http://127.0.0.1:9/authorize"});
        },
        &["login", "it", "--no-browser", "--timeout", "1s"],
        1,
        "nobody logged in in time",
    );
    check(
        &|config| config["credentials"]["it"]["grant"] = json!("client_credentials"),
        &["login", "it"],
        2,
        "only `grant: refresh_token` needs a login",
    );
}

/// npm `oidc-provider` where a person logs in, and a configuration for it without a seed.
async fn provider(run: &Arc<Run>) -> (Server, Value) {
    let client = json!({"id": "legacy_client", "auth": "none"});
    let options = json!({"interactive": true, "access_token_ttl": 3, "clients": [client]});
    let server = Server::oidc_provider(run, &options).await;
    let credential = json!({
        "issuer": server.text("/issuer"),
        "client": {"id": "legacy_client", "auth": "none"},
        "grant": "refresh_token",
        "scope": "openid offline_access",
        "refresh": {"min_interval": "1s"},
    });
    let config = run.config(server.text("/origin"), &credential);
    (server, config)
}

/// `bearward login it` under way.
pub(crate) struct Login {
    child: Child,
    seen: String,
    rest: BufReader<std::process::ChildStderr>,
}

impl Login {
    /// Starts it and reads what it prints until it waits.
    pub(crate) fn begin(run: &Run, config: &Value, arguments: &[&str]) -> Self {
        let mut child = bearward(run, config, &[&["login", "it"], arguments].concat());
        let mut rest = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut seen = String::new();
        while !seen.contains("Waiting for the login") && !seen.contains("paste it here") {
            let read = rest.read_line(&mut seen).expect("it can be read");
            assert!(read > 0, "it ended: {seen}");
        }
        Self { child, seen, rest }
    }

    /// The first word that begins so.
    pub(crate) fn address(&self, begins: &str) -> String {
        self.word(|word| word.starts_with(begins) && word.len() > begins.len() + 14)
    }

    fn word(&self, is: impl Fn(&str) -> bool) -> String {
        let found = self.seen.split_whitespace().find(|word| is(word));
        found.unwrap_or_else(|| panic!("not in {}", self.seen)).to_owned()
    }

    fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    }

    /// Waits for the end; all that was printed.
    pub(crate) fn end(mut self) -> String {
        self.rest.read_to_string(&mut self.seen).expect("it can be read");
        self.child.wait().expect("it is our child");
        self.seen
    }
}

fn bearward(run: &Run, config: &Value, arguments: &[&str]) -> Child {
    let file = tempfile::Builder::new().prefix("login-").suffix(".yaml").tempfile_in(run.private());
    let (mut file, path) = file.expect("a file can be made").keep().expect("it can stay");
    file.write_all(config.to_string().as_bytes()).expect("it can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearward"));
    command.args(arguments);
    match arguments[0] {
        "status" => {}
        _ => drop(command.arg("-c").arg(path)),
    }
    command.env_remove("RUST_BACKTRACE").env_remove("DISPLAY").env_remove("BROWSER");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary can be started")
}

pub(crate) fn command(run: &Run, config: &Value, arguments: &[&str], input: &str) -> Output {
    let mut child = bearward(run, config, arguments);
    // It may end without reading.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    run.keep("commands.log", &printed(&output));
    output
}

pub(crate) fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A person with headless Chromium: what the last page said.
fn person(address: &str, code: Option<&str>) -> String {
    let servers: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
    let mut command = Command::new(node());
    command.arg("browser.mjs").arg(address).args(code).current_dir(servers);
    let output = command.output().expect("node can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
