//! What real clients do inside an interception: gRPC, WebSockets over both versions of HTTP, over tunnels of both, and
//! through SOCKS5.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::egress_intercept::Scene;
use crate::grpc;
use crate::harness::run::Run;
use crate::harness::server::{Server, node, python};
use crate::harness::{count, eventually};
use crate::proxy_rig::{OriginServer, TOKEN, field_of};
use crate::tls_rig::{Authority, Files};

/// An interception before the upstream on Node.js.
async fn before_node(name: &str, change: impl FnOnce(&mut Value, u16)) -> (Scene, Server) {
    let upstream = Server::upstream(&Run::new(&format!("{name}-upstream"))).await;
    let plain = upstream.text("/origin").trim_start_matches("http://").parse().expect("an address");
    (Scene::with(name, plain, &["localhost"], change).await, upstream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_grpc_call_passes_inside_with_our_token_status_and_deadline() {
    let authority = Authority::new();
    let files = Files::of(&authority.issue(&["localhost"]));
    let server = grpc::Server::start(&[&files.at("tls.crt"), &files.at("tls.key")]);
    let scene = Scene::to("inside-grpc", server.port, &authority, |_| ()).await;
    let (proxy, ca) = (format!("http://{}", scene.proxy.proxy()), scene.ca.clone());
    let address = format!("localhost:{}", scene.port);
    let calls = std::thread::spawn(move || grpc::calls_through(&proxy, &address, &ca));
    assert_eq!(calls.join().expect("it ends well"), grpc::expected());
    // Nothing went round the proxy.
    let metrics = scene.proxy.admin("/metrics").await.to_string();
    let counted = metrics
        .lines()
        .find_map(|line| {
            line.strip_prefix(
                "bearward_requests_total{listener=\"legacy\",route=\"api\",code_class=\"2xx\"} ",
            )
        })
        .and_then(|number| number.parse::<u64>().ok());
    assert!(counted >= Some(58), "{metrics}");
    count(
        "grpcio through an interception: unary, streams both ways, trailers, deadline, cancellation, 50 at once",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_over_http2_carry_both_versions_and_their_web_sockets() {
    let (scene, _upstream) = before_node("inside-h2", |_, _| ()).await;
    let proxy = format!("http://{}", scene.proxy.proxy());
    let printed = scene.succeeds(node(), &["inside.mjs", &proxy, &scene.url("")]).await;
    assert_eq!(printed.lines().count(), 4, "{printed}");
    printed.lines().for_each(count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socks_leads_into_an_interception_and_never_round_it() {
    let origin = OriginServer::ok();
    let scene = Scene::with("inside-socks", origin.address, &["localhost"], |config, port| {
        config["listeners"][0]["socks5"] = json!(true);
        let rules = config["listeners"][0]["rules"].as_array_mut().expect("rules");
        let condition = json!({"hosts": ["localhost"], "ports": [port], "path_prefix": "/admin"});
        rules.insert(0, json!({"name": "no-admin", "match": condition, "action": "deny"}));
    })
    .await;
    let socks = scene.proxy.proxy().to_string();
    let ask = async |version: &str, path: &str| {
        let own = ["-H", "Authorization: Bearer of-the-client", "-w", "\n%{http_code} %{http_version}"];
        let url = scene.url(path);
        let arguments = [&["-sS", version, "--socks5-hostname", &socks][..], &own, &[&url]].concat();
        scene.succeeds("curl", &arguments).await
    };
    for (version, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        assert_eq!(ask(version, "/x").await, format!("ok\n200 {spoken}"));
        let denied = ask(version, "/admin").await;
        assert!(
            denied.contains("\"rule\":\"no-admin\"") && denied.ends_with(&format!("\n403 {spoken}")),
            "{denied}"
        );
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    for request in requests {
        assert_eq!(field_of(&request, "authorization"), Some(format!("Bearer {TOKEN}")), "{request}");
    }
    // PySocks below requests.
    let printed =
        scene.succeeds(python(), &["proxied.py", &format!("socks5h://{socks}"), &scene.url("/y")]).await;
    assert_eq!(printed.trim(), "200");
}

/// As docs/interception.md tells it.
pub(crate) async fn chromium_trusts(scene: &Scene, name: &str, ca: &Path) {
    let database = scene.run.private().join(".pki/nssdb");
    let of = format!("sql:{}", database.display());
    if !database.exists() {
        std::fs::create_dir_all(&database).expect("made");
        scene.succeeds("certutil", &["-d", &of, "-N", "--empty-password"]).await;
    }
    let ca = ca.to_str().expect("text");
    scene.succeeds("certutil", &["-d", &of, "-A", "-t", "C,,", "-n", name, "-i", ca]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_speaks_http2_to_the_proxy_and_inside_it_and_opens_a_web_socket() {
    let authority = Authority::new();
    let front = Files::of(&authority.issue(&["localhost"]));
    front.write("ca.crt", &authority.certificate.pem());
    let log = front.at("access.log");
    let (scene, _upstream) = before_node("inside-chromium", |config, _| {
        let (cert, key) = (front.at("tls.crt"), front.at("tls.key"));
        config["listeners"][0]["tls"] = json!({"cert": {"file": cert}, "key": {"file": key}});
        config["log"]["access"] = json!({"file": log});
    })
    .await;
    chromium_trusts(&scene, "bearward", &scene.ca).await;
    chromium_trusts(&scene, "proxy", &front.at("ca.crt")).await;
    let proxy = format!("https://localhost:{}", scene.proxy.proxy().port());
    let printed = scene.succeeds(node(), &["surf.mjs", &proxy, &scene.url("/page")]).await;
    let seen: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(seen, json!({"status": 200, "protocol": "h2", "target": "/page", "message": "hello"}));
    // What it spoke outside, and with the WebSocket inside.
    let spoken = |path: &str| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let mut lines =
            text.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
        lines.find(|line| line["path"] == path)
    };
    let own = format!("localhost:{}", scene.port);
    for (method, path) in [("CONNECT", own.as_str()), ("GET", "/page"), ("GET", "/socket")] {
        let line = eventually(path, Duration::from_secs(20), async || spoken(path)).await;
        let told = [&line["method"], &line["protocol"], &line["authority"]];
        assert_eq!(told, [&json!(method), &json!("HTTP/2"), &json!(own)], "{line}");
    }
    count("Chromium over HTTP/2 to the proxy, HTTP/2 inside an interception, a WebSocket in that (RFC 8441)");
}
