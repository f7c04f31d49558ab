//! Secrets stay where they belong: a whole life at debug level, with every kind of failure, and then a search.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bearward::idp::{DEFAULT_CLIENT, DEFAULT_SECRET, Fault, FixedAnswer, Idp, Settings};
use bearward::names::Name;
use bearward::secret::Secret;
use bearward::store::file::FileStore;
use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::count;
use crate::harness::run::Run;
use crate::proxy_rig::OriginServer;

const SOON: Duration = Duration::from_secs(20);
const ADMIN_TOKEN: &str = "canary-admin-token-5b1f0c77";
/// The provider takes either of the client's secrets.
const OTHER_SECRET: &str = "canary of the second client secret: 7%&+=";
const ADMIN_PATHS: &[&str] =
    &["/api/v1/status", "/metrics", "/livez", "/readyz", "/readyz?verbose", "/nowhere"];

/// The secrets that stand in a text.
fn found<'s>(text: &str, secrets: &'s [String]) -> Vec<&'s str> {
    secrets.iter().filter(|secret| text.contains(secret.as_str())).map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_life_with_every_failure_shows_no_secret_anywhere() {
    let life = Life::new("leaks").await;
    let bearward = Bearward::start(&life.run, &life.config).await;
    bearward.until_state("fresh", SOON).await;
    life.note_tokens().await;
    life.look(&bearward).await;
    assert_eq!(bearward.get("/").await.status, 200);

    life.every_answer_of_the_provider(&bearward).await;
    life.upstream_refuses(&bearward).await;
    life.provider_gone(&bearward).await;
    life.command_line(&bearward);
    life.store_files_are_private();
    life.grant_dies(&bearward).await;
    assert!(bearward.stop().await.success());
    life.refused_configurations();

    let secrets = life.run.secrets();
    let everything = life.run.everything();
    // The search finds what is there: the text has the credential's traces, and the list has its tokens.
    assert!(secrets.len() > 20, "only {} secrets were in play", secrets.len());
    assert_eq!(found(&format!("x{}x", secrets[3]), &secrets), [secrets[3].as_str()]);
    for trace in [
        "invalid_client",
        "invalid_grant",
        "problem+json",
        "bearward_token_generation",
        "DEBUG",
        "\"log\":\"access\"",
        "\"log\":\"audit\"",
    ] {
        assert!(everything.contains(trace), "the life had no `{trace}`");
    }
    let leaked = found(&everything, &secrets);
    assert!(leaked.is_empty(), "{} secrets are in the open: {leaked:?}", leaked.len());
    count(&format!(
        "a whole life at debug level: {} lines searched for {} secrets and tokens: none found",
        everything.lines().count(),
        secrets.len()
    ));
}

struct Life {
    run: Arc<Run>,
    idp: Idp,
    config: Value,
}

impl Life {
    async fn new(name: &str) -> Self {
        let run = Arc::new(Run::new(name));
        run.client_secret(DEFAULT_CLIENT, DEFAULT_SECRET);
        run.client_secret(DEFAULT_CLIENT, OTHER_SECRET);
        run.secret(ADMIN_TOKEN);
        run.secret("of-the-client");
        let idp = Idp::start(Settings::default()).await.expect("the server starts");
        idp.change_clients(|clients| clients[0].secrets.push(Secret::new(OTHER_SECRET.to_owned())));
        idp.behave(|behaviour| {
            behaviour.access_token_lifetime = Duration::from_secs(4);
            behaviour.grace = Duration::from_secs(60);
        });
        let seed = idp.new_seed();
        run.secret(seed.expose());
        let credential = json!({
            "token_endpoint": idp.token_endpoint(),
            "client": {"id": DEFAULT_CLIENT, "auth": "client_secret_basic",
                       "secret": run.secret_file("client-secret", DEFAULT_SECRET)},
            "grant": "refresh_token",
            "refresh_token": run.secret_file("seed", seed.expose()),
            "rotation": {"grace": "60s"},
        });
        let mut config = run.config(&idp.api_url(), &credential);
        config["admin"]["token"] = run.secret_file("admin-token", ADMIN_TOKEN);
        Self { run, idp, config }
    }

    /// Writes the tokens down that the record holds and the server was sent.
    async fn note_tokens(&self) {
        let store = FileStore::open(Some(&self.run.state()), &[]).await.expect("the store opens");
        let record = store.load(&Name::try_new("it").expect("a name")).await.expect("it reads");
        let record = record.expect("it is there");
        for secret in [&record.refresh_token, &record.access_token].into_iter().flatten() {
            self.run.secret(secret.expose());
        }
        for entry in self.idp.log() {
            entry.parameter("refresh_token").into_iter().for_each(|token| self.run.secret(token));
            if let Some(basic) = &entry.authorization {
                self.run.secret(basic.expose().trim_start_matches("Basic "));
            }
        }
    }

    /// Asks for everything that the admin listener shows.
    async fn look(&self, bearward: &Bearward) {
        for path in ADMIN_PATHS {
            bearward.admin(path).await;
        }
    }

    /// Each way in which the provider can answer, with what was sent to it in the answer where there is room.
    async fn every_answer_of_the_provider(&self, bearward: &Bearward) {
        let secrets = [DEFAULT_SECRET, OTHER_SECRET];
        for number in 0..answers("").len() {
            let token =
                self.idp.log().pop().and_then(|entry| entry.parameter("refresh_token").map(str::to_owned));
            let echo = format!("you sent {} and {}", secrets[number % 2], token.expect("one was sent"));
            let fault = answers(&echo).swap_remove(number);
            let failed = bearward.credential().await["refreshes"]["failed"].as_u64();
            self.idp.faults().clear();
            self.idp.faults().always(fault.clone());
            let what = format!("a failure after {}", serde_json::to_value(&fault).expect("a fault"));
            let refused = bearward.until(&what, SOON, |it| it["refreshes"]["failed"].as_u64() > failed).await;
            assert!(!refused["last_error"].is_null(), "{refused}");
            bearward.get("/").await;
            self.look(bearward).await;
            self.idp.faults().clear();
            // A changed secret file is tried at once, whatever pause the failure brought.
            self.run.secret_file("client-secret", secrets[(number + 1) % 2]);
            bearward.until_state("fresh", SOON).await;
            self.note_tokens().await;
        }
    }

    async fn upstream_refuses(&self, bearward: &Bearward) {
        self.idp.kill_access_tokens();
        // Sent again with the next token where there is one in time: either is right here.
        assert!(matches!(bearward.get("/").await.status, 200 | 401), "the token was killed at its server");
        assert_eq!(bearward.get("/%00").await.status, 400);
        self.look(bearward).await;
        bearward.until_state("fresh", SOON).await;
        self.note_tokens().await;
    }

    async fn provider_gone(&self, bearward: &Bearward) {
        self.idp.close().await;
        bearward.until_state("expired", SOON).await;
        assert_eq!(bearward.get("/").await.status, 503);
        self.look(bearward).await;
        self.idp.reopen().await.expect("its port is free");
        bearward.until_state("fresh", Duration::from_secs(60)).await;
        self.note_tokens().await;
    }

    async fn grant_dies(&self, bearward: &Bearward) {
        self.note_tokens().await;
        self.idp.families().iter().for_each(|family| self.idp.revoke_family(family.id));
        bearward.until_state("dead", SOON).await;
        bearward.get("/").await;
        self.look(bearward).await;
        self.note_tokens().await;
    }

    fn command_line(&self, bearward: &Bearward) {
        let path = format!("/proc/{}/cmdline", bearward.pid());
        self.run.keep("cmdline.log", &std::fs::read_to_string(path).expect("it runs"));
    }

    fn store_files_are_private(&self) {
        let state = self.run.state();
        assert_eq!(mode(&state), 0o700);
        let files: Vec<_> = std::fs::read_dir(state).expect("it is there").filter_map(Result::ok).collect();
        assert!(files.len() >= 2, "a record and its lock");
        for file in files {
            assert_eq!(mode(&file.path()), 0o600, "{}", file.path().display());
        }
    }

    /// Configurations with secrets in them and with mistakes beside them: messages show neither.
    fn refused_configurations(&self) {
        const INLINE: &str = "canary-inline-secret-91c2d7";
        self.run.secret(INLINE);
        let mut mistaken = self.config.clone();
        mistaken["credentials"]["it"]["client"]["secret"] = json!({"value": INLINE});
        mistaken["credentials"]["it"]["client"]["secrets"] = json!({"value": INLINE});
        let mut wrong_type = self.config.clone();
        wrong_type["credentials"]["it"]["refresh_token"] = json!(INLINE);
        wrong_type["credentials"]["it"]["client"]["secret"] = json!([INLINE]);
        let valid = {
            let mut config = self.config.clone();
            config["credentials"]["it"]["client"]["secret"] = json!({"value": INLINE});
            config
        };
        for (number, (config, code)) in [(mistaken, 2), (wrong_type, 2), (valid, 0)].into_iter().enumerate() {
            // One key a line, as people write it.
            let text = serde_json::to_string_pretty(&config).expect("it is JSON");
            let path = self.run.private().join(format!("mistaken-{number}.yaml"));
            std::fs::write(&path, text).expect("it can be written");
            let output =
                Command::new(env!("CARGO_BIN_EXE_bearward")).args(["check", "-c"]).arg(&path).output();
            let output = output.expect("it runs");
            let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            self.run.keep("check.log", &printed);
            assert_eq!(output.status.code(), Some(code), "{printed}");
        }
    }
}

/// Answers of a provider that repeats what it was sent.
fn answers(echo: &str) -> Vec<Fault> {
    let oauth =
        |error: &str| json!({"error": error, "error_description": echo, "error_uri": echo}).to_string();
    let json = [("content-type", "application/json")];
    vec![
        Fault::status(400, &json, &oauth("temporarily_unavailable")),
        Fault::status(401, &json, &oauth("invalid_client")),
        Fault::status(400, &json, &oauth(echo)),
        Fault::status(500, &json, &oauth("server_error")),
        Fault::status(502, &[("content-type", "text/html")], &format!("<html>{echo}</html>")),
        Fault::status(503, &[("retry-after", "1"), ("x-echo", echo)], echo),
        Fault::status(307, &[("location", &format!("http://127.0.0.1:9/?{}", form(echo)))], ""),
        Fault::status(
            200,
            &json,
            &json!({"access_token": format!("{echo}\r\nX: y"), "expires_in": 4}).to_string(),
        ),
        Fault::status(200, &json, &json!({"access_token": echo, "token_type": "mac"}).to_string()),
        Fault::status(200, &json, &format!("{{\"access_token\": \"{echo}")),
        Fault::Answer(FixedAnswer { status: 200, body: echo.to_owned(), ..FixedAnswer::default() }),
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::CutAfter(200),
    ]
}

fn form(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// Two upstreams with a credential each and one without: an upstream's captures hold its own token and no other, whatever
/// clients and upstreams do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_80_a_canary_token_is_found_at_its_own_upstream_and_nowhere_else() {
    let run = Arc::new(Run::new("canaries"));
    let (canary, other) = ("canary-token-of-the-first-upstream", "canary-token-of-the-second-upstream");
    run.secret(canary);
    run.secret(other);
    let elsewhere = OriginServer::ok();
    let leads_away = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {}/taken\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url()
    );
    let refuses = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 0\r\n\r\n";
    let (own, second) = (OriginServer::answering(&leads_away), OriginServer::answering(refuses));
    let mut config =
        run.config(&own.url(), &json!({"grant": "static", "token": run.secret_file("own", canary)}));
    config["credentials"]["other"] = json!({"grant": "static", "token": run.secret_file("other", other)});
    let route = |name: &str, origin: &OriginServer| json!({"name": name, "match": {"path_prefix": format!("/{name}/")}, "upstream": origin.url()});
    let (mut own_route, mut second_route) = (route("own", &own), route("second", &second));
    own_route["credential"] = json!("it");
    second_route["credential"] = json!("other");
    config["listeners"][0]["routes"] = json!([own_route, second_route, route("plain", &elsewhere)]);
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", SOON).await;
    for path in [
        "/own/a",
        "/own/../plain/b",
        "/plain/%2e%2e/own/c",
        "/plain/d",
        "/second/e",
        "/own/f?to=/plain/g",
        "/none",
    ] {
        for _ in 0..3 {
            bearward.get(path).await;
        }
    }
    for path in ADMIN_PATHS {
        bearward.admin(path).await;
    }
    let captures = |origin: &OriginServer| origin.requests().join("\n");
    assert!(captures(&own).contains(canary) && captures(&second).contains(other), "each has its own");
    assert!(!captures(&elsewhere).is_empty(), "the third was asked as well");
    for (origin, secret) in [(&own, other), (&second, canary), (&elsewhere, canary), (&elsewhere, other)] {
        assert!(!captures(origin).contains(secret), "{}", captures(origin));
    }
    assert!(bearward.stop().await.success());
    let everything = run.everything();
    assert!(everything.contains("bearward_token_generation"), "the search finds what is there");
    assert!(!everything.contains(canary) && !everything.contains(other));
}

/// The kernel gives `/proc/PID` of a process whose memory may not be dumped to root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_dumps_are_off() {
    const NOBODY: u32 = 65534;
    let life = Life::new("core-dumps").await;
    let root = rustix::process::geteuid().is_root();
    let copy = life.run.private().join("bearward");
    std::fs::copy(env!("CARGO_BIN_EXE_bearward"), &copy).expect("the binary can be copied");
    let bearward = Bearward::start_with(&life.run, &life.config, |command| {
        if root {
            use std::os::unix::process::CommandExt;
            let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            give_away(life.run.private(), NOBODY);
            *command = Command::new(&copy);
            command.args(arguments).uid(NOBODY).gid(NOBODY).current_dir("/");
            command.stdin(std::process::Stdio::null());
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        }
    })
    .await;
    let process = format!("/proc/{}", bearward.pid());
    let status = std::fs::read_to_string(format!("{process}/status")).expect("it runs");
    let owner = if root { NOBODY } else { rustix::process::geteuid().as_raw() };
    assert!(status.contains(&format!("\nUid:\t{owner}\t")), "{status}");
    let shown = std::fs::metadata(format!("{process}/environ")).expect("it runs").uid();
    assert_eq!(shown, 0, "its memory belongs to uid {shown}: it could be dumped");
}

fn give_away(path: &Path, to: u32) {
    std::os::unix::fs::chown(path, Some(to), Some(to)).expect("root may");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("it can be listed") {
            give_away(&entry.expect("it can be listed").path(), to);
        }
    }
}
