//! The real binary between real clients and a real upstream on Node.js: WebSockets, server-sent events, kept connections,
//! `Expect: 100-continue`, HTTP/1.0, HTTP/2.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use bearward::idp::{DEFAULT_CLIENT, DEFAULT_SECRET, Idp, Settings};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::bearward::Bearward;
use crate::harness::count;
use crate::harness::run::Run;
use crate::harness::server::{Server, node, python, servers};

/// A proxy before the upstream.
struct Between {
    run: Arc<Run>,
    bearward: Bearward,
    _upstream: Server,
    _idp: Idp,
}

impl Between {
    async fn start(name: &str) -> Self {
        let run = Arc::new(Run::new(name));
        run.client_secret(DEFAULT_CLIENT, DEFAULT_SECRET);
        let idp = Idp::start(Settings::default()).await.expect("the server starts");
        let seed = idp.new_seed();
        run.secret(seed.expose());
        let upstream = Server::upstream(&run).await;
        let credential = json!({
            "token_endpoint": idp.token_endpoint(),
            "client": {"id": DEFAULT_CLIENT, "auth": "client_secret_basic",
                       "secret": run.secret_file("client-secret", DEFAULT_SECRET)},
            "grant": "refresh_token",
            "refresh_token": run.secret_file("seed", seed.expose()),
        });
        let mut config = run.config(upstream.text("/origin"), &credential);
        config["log"]["level"] = "info".into();
        let bearward = Bearward::start(&run, &config).await;
        bearward.until_state("fresh", Duration::from_secs(10)).await;
        Self { run, bearward, _upstream: upstream, _idp: idp }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.bearward.proxy())
    }

    /// Runs a client to its end.
    async fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(servers())
            .env("NO_PROXY", "*")
            .env_remove("NODE_OPTIONS")
            .kill_on_drop(true);
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
        let output = output.expect("the client ends").expect("the client starts");
        self.run.keep("clients.log", &String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs a client that must succeed; what it printed.
    async fn succeeds(&self, program: impl AsRef<Path>, arguments: &[&str]) -> String {
        let output = self.run(program.as_ref(), arguments).await;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{printed}\n{errors}", output.status);
        printed
    }

    /// `curl` with what `-w` prints behind the body.
    async fn curl(&self, arguments: &[&str], written: &str) -> (String, Vec<String>) {
        let written = format!("\n%{{stderr}}{written}\n");
        let output = self.run(Path::new("curl"), &[&["-sS", "-w", &written], arguments].concat()).await;
        let words = String::from_utf8_lossy(&output.stderr).split_whitespace().map(str::to_owned).collect();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        (String::from_utf8_lossy(&output.stdout).trim().to_owned(), words)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_node_pass_web_sockets_events_and_kept_connections() {
    let between = Between::start("clients-node").await;
    let printed = between.succeeds(node(), &["clients.mjs", &between.url("")]).await;
    assert_eq!(printed.lines().count(), 3, "{printed}");
    printed.lines().for_each(count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_python_pass_web_sockets_events_and_kept_connections() {
    let between = Between::start("clients-python").await;
    let printed = between.succeeds(python(), &["clients.py", &between.url("")]).await;
    assert_eq!(printed.lines().count(), 3, "{printed}");
    printed.lines().for_each(count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_uploads_what_is_wanted_and_nothing_else() {
    let between = Between::start("clients-curl").await;
    let file = between.run.private().join("upload");
    std::fs::write(&file, vec![b'x'; 5 << 20]).expect("written");
    let file = file.to_str().expect("text");
    let expect = ["-H", "Expect: 100-continue", "-T", file];
    let (body, words) =
        between.curl(&[&expect[..], &[&between.url("/take")]].concat(), "%{http_code} %{time_total}").await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((words[0].as_str(), &body["bytes"]), ("200", &json!(5 << 20)));
    // Longer than a second: nobody said 100 and somebody waited for it.
    assert!(words[1].parse::<f64>().expect("seconds") < 0.9, "{words:?}");
    let (body, words) = between
        .curl(&[&expect[..], &[&between.url("/refuse")]].concat(), "%{http_code} %{size_upload}")
        .await;
    assert_eq!((body.as_str(), words), ("too long", vec!["413".to_owned(), "0".to_owned()]));
    count("curl with Expect: 100-continue: 5 MiB taken at once; 5 MiB refused with 413, 0 bytes sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http_1_0_are_served_and_kept_if_they_ask() {
    let between = Between::start("clients-http10").await;
    let url = between.url("/old");
    let (body, words) = between.curl(&["-0", &url], "%{http_code} %{http_version}").await;
    assert_eq!((words[0].as_str(), words[1].as_str()), ("200", "1"), "{words:?}");
    assert_eq!(
        serde_json::from_str::<Value>(&body).expect("JSON")["headers"]["via"].as_str().map(|via| &via[..4]),
        Some("1.0 ")
    );
    let (_, words) = between.curl(&["-0", "-d", "a=b", &url], "%{http_code}").await;
    assert_eq!(words, ["200"]);
    let twice = [url.as_str(), url.as_str(), url.as_str()];
    let (_, words) = between
        .curl(&[&["-0", "-H", "Connection: keep-alive"][..], &twice].concat(), "%{http_code}/%{num_connects}")
        .await;
    assert_eq!(words, ["200/1", "200/1", "200/1"], "curl closes after each answer of unknown length");
    let (_, words) = between.curl(&twice, "%{http_code}/%{num_connects}").await;
    assert_eq!(words, ["200/1", "200/0", "200/0"]);
    count("curl: HTTP/1.0 with and without a body; HTTP/1.1 with 3 requests on one connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http_2_are_served_by_prior_knowledge() {
    let between = Between::start("clients-http2").await;
    let file = between.run.private().join("upload");
    std::fs::write(&file, vec![b'x'; 1 << 20]).expect("written");
    let file = file.to_str().expect("text");
    let printed = between.succeeds("nghttp", &["-v", "--no-dep", &between.url("/two")]).await;
    assert!(printed.contains(":status: 200") && printed.contains("END_STREAM"), "{printed}");
    let printed = between.succeeds("nghttp", &["-d", file, &between.url("/two")]).await;
    assert_eq!(serde_json::from_str::<Value>(&printed).expect("JSON")["bytes"], 1 << 20, "{printed}");
    let (body, words) = between
        .curl(&["--http2-prior-knowledge", "-T", file, &between.url("/two")], "%{http_version} %{http_code}")
        .await;
    assert_eq!((words[0].as_str(), words[1].as_str()), ("2", "200"));
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["bytes"], 1 << 20);
    let printed =
        between.succeeds("h2load", &["-n", "2000", "-c", "4", "-m", "20", &between.url("/two")]).await;
    assert!(printed.contains("2000 succeeded, 0 failed, 0 errored"), "{printed}");
    count(
        "nghttp, h2load, curl over cleartext HTTP/2: GET, 1 MiB up, 2,000 requests on 4 connections, none failed",
    );
}
