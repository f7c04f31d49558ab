//! The admin and health listeners of the real binary: probes, status, metrics, who may change something, draining.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use bearward::idp::{DEFAULT_CLIENT, DEFAULT_SECRET, Idp, Settings};
use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::http;
use crate::harness::run::Run;

const SOON: Duration = Duration::from_secs(20);

struct Scene {
    run: Arc<Run>,
    idp: Idp,
    config: Value,
}

impl Scene {
    async fn new(name: &str) -> Self {
        let run = Arc::new(Run::new(name));
        run.client_secret(DEFAULT_CLIENT, DEFAULT_SECRET);
        let idp = Idp::start(Settings::default()).await.expect("the server starts");
        let seed = idp.new_seed();
        run.secret(seed.expose());
        let credential = json!({
            "token_endpoint": idp.token_endpoint(),
            "client": {"id": DEFAULT_CLIENT, "auth": "client_secret_basic",
                       "secret": run.secret_file("client-secret", DEFAULT_SECRET)},
            "grant": "refresh_token",
            "refresh_token": run.secret_file("seed", seed.expose()),
        });
        let config = run.config(&idp.api_url(), &credential);
        Self { run, idp, config }
    }

    async fn start(&self) -> Bearward {
        Bearward::start(&self.run, &self.config).await
    }
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bearward"))
        .args(arguments)
        .env_remove("BEARWARD_ADMIN_TOKEN")
        .output()
        .expect("the binary runs")
}

#[allow(clippy::disallowed_methods, reason = "joined at once")]
async fn off_thread(arguments: &[&str]) -> (i32, String, String) {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let output = tokio::task::spawn_blocking(move || {
        command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await
    .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_contract_is_there() {
    let scene = Scene::new("admin-metrics").await;
    let bearward = scene.start().await;
    bearward.until_state("fresh", SOON).await;
    assert_eq!(bearward.get("/hello").await.status, 200);
    let metrics = bearward.admin("/metrics").await;
    let text = String::from_utf8(metrics.body.clone()).expect("it is text");
    for sample in [
        "bearward_requests_total{listener=\"legacy\",route=\"api\",code_class=\"2xx\"} 1\n",
        "bearward_request_duration_seconds_bucket{le=\"+Inf\",listener=\"legacy\",route=\"api\"} 1\n",
        "bearward_upstream_duration_seconds_count{listener=\"legacy\",route=\"api\"} 1\n",
        "bearward_connections{listener=\"legacy\"}",
        "bearward_upstream_connections{state=\"idle\"}",
        "bearward_token_expiry_timestamp_seconds{credential=\"it\"} 1",
        "bearward_token_generation{credential=\"it\"} 1",
        "bearward_refresh_total{credential=\"it\",outcome=\"ok\"} 1\n",
        "bearward_refresh_total{credential=\"it\",outcome=\"ambiguous\"} 0\n",
        "bearward_refresh_duration_seconds_count{credential=\"it\"} 1\n",
        "bearward_unauthorized_total{credential=\"it\",action=\"replayed\"} 0\n",
        "bearward_store_errors_total{credential=\"it\"} 0\n",
        "bearward_credential_state{credential=\"it\",state=\"fresh\"} 1",
        "bearward_build_info{version=",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_start_time_seconds ",
    ] {
        assert!(text.contains(sample), "{sample} in:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(
        metrics.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_has_every_field_of_the_contract() {
    let scene = Scene::new("admin-status").await;
    let bearward = scene.start().await;
    let credential = bearward.until_state("fresh", SOON).await;
    for field in [
        "name",
        "state",
        "generation",
        "expires_at",
        "expires_in_seconds",
        "refresh_at",
        "refresh_token_expires_at",
        "last_refresh_at",
        "last_error",
        "refreshes",
        "store",
    ] {
        assert!(credential.get(field).is_some(), "{field} in {credential}");
    }
    assert_eq!(credential["refreshes"], json!({"ok": 1, "failed": 0}));
    assert_eq!(credential["store"]["kind"], "file");
    assert_eq!(credential["last_error"], Value::Null);
    let status: Value = serde_json::from_slice(&bearward.admin("/api/v1/status").await.body).expect("JSON");
    assert_eq!(status["listeners"][0]["kind"], "reverse");
    assert_eq!(status["listeners"][0]["address"], bearward.proxy().to_string());
    assert_eq!(status["routes"][0]["credential"], "it");
    assert_eq!(status["routes"][0]["upstream"], scene.idp.api_url().trim_end_matches('/'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_credential_without_a_token_keeps_the_proxy_unready() {
    let mut scene = Scene::new("admin-readiness").await;
    scene.config["credentials"]["it"]["refresh_token"] =
        scene.run.secret_file("bad", "no-such-refresh-token");
    scene.config["credentials"]["it"]["required"] = json!(true);
    let bearward = scene.start().await;
    bearward.until_state("dead", SOON).await;
    let ready = bearward.admin("/readyz").await;
    let text = String::from_utf8_lossy(&ready.body).into_owned();
    assert_eq!(ready.status, 503, "{text}");
    assert!(text.contains("credential it: dead"), "{text}");
    assert_eq!(bearward.admin("/livez").await.status, 200);
    let answer = bearward.get("/hello").await;
    assert_eq!(answer.status, 503);
    let body: Value = serde_json::from_slice(&answer.body).expect("a problem document");
    assert_eq!((&body["credential"], &body["state"]), (&json!("it"), &json!("dead")));
    drop(bearward);

    scene.config["credentials"]["it"]["required"] = json!(false);
    let bearward = scene.start().await;
    bearward.until("it was tried", SOON, |credential| credential["state"] == "dead").await;
    assert_eq!(bearward.admin("/readyz").await.status, 200);
    let verbose = bearward.admin("/readyz?verbose").await;
    assert!(String::from_utf8_lossy(&verbose.body).contains("[!] credential it: dead"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_needs_the_token_of_the_admin_listener() {
    let mut scene = Scene::new("admin-refresh").await;
    scene.run.secret("admin-token-0123456789");
    scene.config["admin"]["token"] = scene.run.secret_file("admin-token", "admin-token-0123456789");
    let token_file = scene.run.private().join("admin-token").display().to_string();
    let bearward = scene.start().await;
    bearward.until_state("fresh", SOON).await;
    let admin = bearward.admin_address().to_string();

    let (code, _, said) = off_thread(&["refresh", "it", "--admin", &admin]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("Authorization: Bearer <admin.token>"), "{said}");
    assert_eq!(scene.idp.log().len(), 1, "nothing was asked of the provider");

    // The spacing of token requests is waited for, not an error.
    let (code, said, errors) =
        off_thread(&["refresh", "it", "--admin", &admin, "--token-file", &token_file]).await;
    assert_eq!((code, said.as_str()), (0, "it: refreshed, generation 2\n"), "{errors}");
    let (code, _, said) =
        off_thread(&["refresh", "other", "--admin", &admin, "--token-file", &token_file]).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("there are: it"), "{said}");

    let (code, said, _) = off_thread(&["status", "--admin", &admin]).await;
    assert_eq!(code, 0);
    assert!(said.contains("fresh") && said.contains("legacy/api"), "{said}");
    let (code, said, _) = off_thread(&["status", "--json", "--admin", &admin]).await;
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON")["credentials"][0]["generation"], 2);
    drop(bearward);
    let (code, _, said) = off_thread(&["status", "--admin", &admin]).await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("Is `bearward run` up"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_listener_has_probes_and_metrics_only() {
    let mut scene = Scene::new("admin-health").await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").port();
    let health: SocketAddr = ([127, 0, 0, 1], port).into();
    scene.config["health"] = json!({"bind": health.to_string()});
    let bearward = scene.start().await;
    bearward.until_state("fresh", SOON).await;
    for (path, expected) in
        [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/api/v1/status", 404), ("/", 404)]
    {
        assert_eq!(http::get(health, path).await.expect("it answers").status, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_costs_no_refresh_token() {
    let mut scene = Scene::new("admin-port").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("bound").to_string();
    for key in ["listener", "admin"] {
        let mut config = scene.config.clone();
        if key == "admin" {
            config["admin"]["bind"] = json!(address);
        } else {
            config["listeners"][0]["bind"] = json!(address);
        }
        std::mem::swap(&mut config, &mut scene.config);
        let Err(failed) = Bearward::try_start(&scene.run, &scene.config, |_| ()).await else {
            panic!("it started on a port in use");
        };
        std::mem::swap(&mut config, &mut scene.config);
        assert_eq!(failed.status.code(), Some(1), "{}", failed.printed);
        assert!(failed.printed.contains(&address), "{}", failed.printed);
        assert!(scene.idp.log().is_empty(), "a token request was sent");
        assert!(!scene.run.state().exists(), "the state directory was made");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods, reason = "joined below")]
async fn a_request_under_way_is_finished_before_the_proxy_stops() {
    let scene = Scene::new("admin-drain").await;
    let bearward = scene.start().await;
    bearward.until_state("fresh", SOON).await;
    let proxy = bearward.proxy();
    let slow = tokio::spawn(async move { http::get(proxy, "/delay/1500").await });
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (status, answer) = tokio::join!(bearward.stop(), slow);
    assert_eq!(answer.expect("it ran").expect("the request was answered").status, 200);
    assert!(status.success());
    assert!(http::get(proxy, "/hello").await.is_err(), "nobody listens any more");
}
