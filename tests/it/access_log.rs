//! The access and the audit log of the real binary.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bearward::idp::{DEFAULT_CLIENT, DEFAULT_SECRET, Idp, Settings};
use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::{count, eventually};

const SOON: Duration = Duration::from_secs(20);

struct World {
    run: Arc<Run>,
    _idp: Idp,
    config: Value,
}

impl World {
    async fn new(name: &str) -> Self {
        let run = Arc::new(Run::new(name));
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
        let mut config = run.config(&idp.api_url(), &credential);
        let path = |name: &str| run.private().join(name);
        config["log"]["access"] = json!({"file": path("access.log")});
        config["log"]["audit"] = json!({"file": path("audit.log")});
        Self { run, _idp: idp, config }
    }

    fn lines(&self, log: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.run.private().join(log)).expect("it is text");
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_exchange_is_one_line_of_the_access_log_and_each_use_one_of_the_audit_log() {
    let world = World::new("access-log").await;
    let bearward = Bearward::start(&world.run, &world.config).await;
    bearward.until_state("fresh", SOON).await;
    for number in 0..20 {
        assert_eq!(bearward.get(&format!("/echo/{number}?token=of-the-query")).await.status, 200);
    }
    assert_eq!(bearward.get("/%00").await.status, 400);
    {
        // Leaves in the middle of its request's body.
        let mut client = TcpStream::connect(bearward.proxy()).expect("connected");
        let head = "POST /left HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf";
        client.write_all(head.as_bytes()).expect("written");
        std::thread::sleep(Duration::from_millis(300));
    }
    // Without waiting for anything else: within a second or so the lines are there.
    eventually("the lines are written", SOON, async || (world.lines("access.log").len() >= 22).then_some(()))
        .await;
    let metrics = bearward.admin("/metrics").await.to_string();
    assert!(metrics.contains("bearward_access_log_dropped_total 0"), "{metrics}");
    assert!(bearward.stop().await.success());

    let access = world.lines("access.log");
    assert_eq!(access.len(), 22, "{access:?}");
    let one = access.iter().find(|line| line["path"] == "/echo/7").expect("it is there");
    let told = json!({"log": "access", "listener": "legacy", "route": "api", "credential": "it", "status": 200,
                      "client": "127.0.0.1", "method": "GET", "protocol": "HTTP/1.1", "bytes_in": 0});
    for (key, value) in told.as_object().expect("an object") {
        assert_eq!(&one[key], value, "{key} in {one}");
    }
    assert!(one["bytes_out"].as_u64() > Some(10) && one["upstream_ms"].as_f64() > Some(0.0), "{one}");
    assert!(one["request_id"].as_str().is_some_and(|id| id.len() == 24), "{one}");
    let refused = access.iter().find(|line| line["status"] == 400 && line["route"].is_null());
    assert_eq!(refused.expect("it is there")["problem"], "bad-path");
    let left = access.iter().find(|line| line["path"] == "/left").expect("it is there");
    assert_eq!(left["bytes_in"], 4, "{left}");

    let audit = world.lines("audit.log");
    assert_eq!(audit.iter().filter(|line| line["outcome"] == "used").count(), 20, "{audit:?}");
    assert!(audit.iter().all(|line| line["credential"] == "it" && line["client"] == "127.0.0.1"));
    let all = [access, audit].concat().iter().map(Value::to_string).collect::<String>();
    let secrets = world.run.secrets();
    assert!(!secrets.iter().any(|secret| all.contains(secret)) && !all.contains("of-the-query"));
    count(
        "access log: 22 exchanges, 22 lines; 20 uses of a credential audited; no query and no secret in them",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_the_last_moment_reach_standard_output_and_nothing_does_when_both_are_off() {
    for (on, lines) in [(true, 2), (false, 0)] {
        let mut world = World::new("access-log-standard").await;
        world.config["log"]["access"] = json!({"enabled": on, "format": "combined"});
        world.config["log"]["audit"] = json!({"enabled": on});
        let bearward = Bearward::start(&world.run, &world.config).await;
        bearward.until_state("fresh", SOON).await;
        assert_eq!(bearward.get("/last-moment").await.status, 200);
        assert!(bearward.stop().await.success());
        let printed = || world.run.everything();
        let found = || {
            let all = printed();
            all.matches("\"GET /last-moment HTTP/1.1\" 200 ").count()
                + all.matches("\"log\":\"audit\"").count()
        };
        if on {
            eventually("they are printed", SOON, async || (found() == lines).then_some(())).await;
        }
        assert_eq!(found(), lines, "{}", printed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_opened_is_told_before_anything_is_served() {
    let mut world = World::new("access-log-nowhere").await;
    world.config["log"]["access"] = json!({"file": world.run.private().join("nowhere/access.log")});
    let failed = Bearward::try_start(&world.run, &world.config, |_| ()).await;
    let failed = failed.err().expect("it does not start");
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.printed.contains("nowhere/access.log cannot be opened"), "{}", failed.printed);
}
