//! Rates and places of clients and of egress rules, on every kind of listener of the real binary.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bearward::secret::Fingerprint;
use serde_json::{Value, json};

use crate::egress;
use crate::egress_intercept::Scene;
use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::{count, eventually};
use crate::proxy_rig::{OriginServer, Wire, field_of, problem, status};

/// So long that no test sees one more.
const LONG: &str = "1h";
const SOON: Duration = Duration::from_secs(10);

fn key_of(name: &str) -> String {
    format!("key-of-the-client-{name}")
}

/// A client with a key and these limits.
fn client(name: &str, limits: &Value) -> Value {
    let digest = Fingerprint::of(key_of(name).as_bytes()).to_hex();
    let mut client = json!({"api_key": {"sha256": [digest]}});
    for (key, value) in limits.as_object().expect("a mapping") {
        client[key] = value.clone();
    }
    client
}

fn ask(address: SocketAddr, line: &str, key: &str) -> String {
    let mut wire = Wire::to(address);
    let fields = if key.is_empty() { String::new() } else { format!("X-Api-Key: {}\r\n", key_of(key)) };
    wire.write(&format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    wire.answer()
}

fn refused(answer: &str, kind: &str) {
    assert_eq!(status(answer), 429, "{answer}");
    assert_eq!(problem(answer)["type"], format!("urn:bearward:problem:{kind}"), "{answer}");
    let wait: u64 = field_of(answer, "retry-after").expect("told").parse().expect("a number");
    assert!((1..=3600).contains(&wait), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_has_a_bucket_of_its_own_on_all_listeners_together() {
    let run = Arc::new(Run::new("allowance-clients"));
    let origin = OriginServer::ok();
    let (url, port) = (origin.url(), origin.address.port());
    let rules = json!([
        {"match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "forward"},
        {"match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "tunnel"},
        {"match": {"hosts": ["id.example"]}, "action": "stub_token_endpoint"},
    ]);
    let mut config = egress::config(&run, &rules, &[]);
    let limit = json!({"rate_limit": {"requests": 5, "per": LONG}});
    config["clients"] = json!({"one": client("one", &limit), "two": client("two", &limit), "free": client("free", &json!({}))});
    let all = json!(["one", "two", "free"]);
    config["listeners"][0]["clients"] = all.clone();
    let socket = run.private().join("reverse");
    let route = json!({"name": "api", "upstream": url, "rate_limit": {"requests": 50, "per": "30s"}});
    config["listeners"].as_array_mut().expect("a list").push(json!({
        "name": "reverse", "kind": "reverse", "bind": format!("unix:{}", socket.display()), "clients": all,
        "routes": [route],
    }));
    let proxy = Bearward::start(&run, &config).await;
    let address = proxy.proxy();
    let reverse = |key: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("connected");
        let head = format!(
            "GET /x HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {}\r\nConnection: close\r\n\r\n",
            key_of(key)
        );
        stream.write_all(head.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    // One bucket, whatever is asked for and wherever: five, and no more.
    let forwarded = ask(address, &format!("GET {url}/x"), "one");
    assert_eq!(status(&forwarded), 200, "{forwarded}");
    assert_eq!(field_of(&forwarded, "ratelimit-policy").as_deref(), Some("\"client\";q=5;w=3600"));
    assert!(field_of(&forwarded, "ratelimit").expect("told").starts_with("\"client\";r=4;t="), "{forwarded}");
    let tunnel = ask(address, &format!("CONNECT 127.0.0.1:{port}"), "one");
    assert_eq!(status(&tunnel), 200, "{tunnel}");
    assert!(field_of(&tunnel, "ratelimit").expect("told").starts_with("\"client\";r=3;t="), "{tunnel}");
    assert_eq!(status(&ask(address, "POST http://id.example/token", "one")), 200);
    let through = reverse("one");
    assert_eq!(status(&through), 200, "{through}");
    // The client's own first, then the route's.
    assert_eq!(
        field_of(&through, "ratelimit-policy").as_deref(),
        Some("\"client\";q=5;w=3600, \"default\";q=50;w=30"),
        "{through}"
    );
    assert_eq!(status(&ask(address, "GET http://elsewhere.example/", "one")), 403, "what is denied counts");
    for line in [
        format!("GET {url}/x"),
        format!("CONNECT 127.0.0.1:{port}"),
        "POST http://id.example/token".to_owned(),
        "GET http://elsewhere.example/".to_owned(),
    ] {
        refused(&ask(address, &line, "one"), "rate-exceeded");
    }
    let before = origin.requests().len();
    refused(&reverse("one"), "rate-exceeded");
    assert_eq!(origin.requests().len(), before);
    // Whoever shows no proof takes from nobody's bucket, and the others have theirs.
    assert_eq!(status(&ask(address, &format!("GET {url}/x"), "")), 407);
    assert_eq!(status(&ask(address, &format!("GET {url}/x"), "two")), 200);
    for _ in 0..20 {
        let free = ask(address, &format!("GET {url}/x"), "free");
        assert_eq!((status(&free), field_of(&free, "ratelimit")), (200, None), "{free}");
    }
    let metrics = proxy.admin("/metrics").await.to_string();
    for (name, times) in [("one", 5), ("two", 0), ("free", 0)] {
        let line = format!("bearward_client_throttled_total{{client=\"{name}\"}} {times}\n");
        assert!(metrics.contains(&line), "{line} {metrics}");
    }
    assert!(
        metrics.contains("bearward_throttled_total{listener=\"reverse\",route=\"api\"} 0\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_has_a_rate_for_each_client_and_curl_is_told() {
    let run = Arc::new(Run::new("allowance-rules"));
    let origin = OriginServer::ok();
    let (url, port) = (origin.url(), origin.address.port());
    let limit = json!({"requests": 2, "per": LONG});
    let rules = json!([
        {"name": "plain", "match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "forward", "rate_limit": limit},
        {"name": "way", "match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "tunnel",
         "rate_limit": {"requests": 3, "per": LONG, "key": "route"}},
        {"name": "rest", "match": {"hosts": ["localhost"]}, "action": "forward"},
    ]);
    let mut config = egress::config(&run, &rules, &[]);
    config["clients"] = json!({"one": client("one", &json!({})), "two": client("two", &json!({}))});
    config["listeners"][0]["clients"] = json!(["one", "two"]);
    let proxy = Bearward::start(&run, &config).await;
    let address = proxy.proxy();
    for key in ["one", "two"] {
        for _ in 0..2 {
            let answer = ask(address, &format!("GET {url}/x"), key);
            assert_eq!(status(&answer), 200, "{answer}");
            let policy = field_of(&answer, "ratelimit-policy");
            assert_eq!(policy.as_deref(), Some("\"default\";q=2;w=3600"), "{answer}");
        }
        refused(&ask(address, &format!("GET {url}/x"), key), "rate-exceeded");
        // The rule of another host has no limit.
        assert_eq!(status(&ask(address, &format!("GET http://localhost:{port}/x"), key)), 200);
    }
    let connect = format!("CONNECT 127.0.0.1:{port}");
    for key in ["one", "two", "one"] {
        assert_eq!(status(&ask(address, &connect, key)), 200);
    }
    refused(&ask(address, &connect, "two"), "rate-exceeded");
    let output = Command::new("curl")
        .args(["-sS", "-D", "-", "--max-time", "20", "--noproxy", "", "-x", &format!("http://{address}")])
        .args(["-H", &format!("X-Api-Key: {}", key_of("one")), &format!("{url}/x")])
        .output()
        .expect("curl runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.starts_with("HTTP/1.1 429 "), "{shown}");
    assert!(shown.contains("retry-after: ") && shown.contains("ratelimit: \"default\";r=0;t="), "{shown}");
    let metrics = proxy.admin("/metrics").await.to_string();
    for (rule, times) in [("plain", 3), ("way", 1), ("rest", 0)] {
        let line = format!("bearward_throttled_total{{listener=\"legacy\",route=\"{rule}\"}} {times}\n");
        assert!(metrics.contains(&line), "{line} {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_holds_its_places_until_it_ends() {
    let run = Arc::new(Run::new("allowance-places"));
    let origin = OriginServer::ok();
    let port = origin.address.port();
    let rules = json!([
        {"name": "way", "match": {"hosts": ["127.0.0.1"], "ports": [port]}, "action": "tunnel", "concurrency": 2},
        {"name": "other", "match": {"hosts": ["localhost"], "ports": [port]}, "action": "tunnel"},
    ]);
    let mut config = egress::config(&run, &rules, &[]);
    config["listeners"][0]["socks5"] = json!(true);
    config["clients"] =
        json!({"one": client("one", &json!({"concurrency": 1})), "here": {"cidr": ["127.0.0.0/8"]}});
    config["listeners"][0]["clients"] = json!(["one", "here"]);
    let proxy = Bearward::start(&run, &config).await;
    let address = proxy.proxy();
    let open = |host: &str, key: &str| {
        let mut wire = Wire::to(address);
        let fields = if key.is_empty() { String::new() } else { format!("X-Api-Key: {}\r\n", key_of(key)) };
        wire.write(&format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        (wire.answer(), wire)
    };
    let (answer, of_one) = open("127.0.0.1", "one");
    assert_eq!(status(&answer), 200, "{answer}");
    // The client's only place, also for another rule.
    refused(&open("localhost", "one").0, "too-many-at-once");
    // The rule's second place is for whoever comes, and SOCKS takes from the same.
    let socks = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        stream.write_all(&[5, 1, 0]).expect("written");
        let mut method = [0; 2];
        stream.read_exact(&mut method).expect("a method");
        let target = [&[5, 1, 0, 1, 127, 0, 0, 1][..], &port.to_be_bytes()].concat();
        stream.write_all(&target).expect("written");
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).expect("a reply");
        reply[1]
    };
    let mut second = TcpStream::connect(address).expect("connected");
    assert_eq!(socks(&mut second), 0);
    refused(&open("127.0.0.1", "").0, "too-many-at-once");
    assert_eq!(socks(&mut TcpStream::connect(address).expect("connected")), 1, "a general failure");
    assert_eq!(status(&open("localhost", "").0), 200, "another rule has no limit");
    drop(of_one);
    eventually("the client's place is free again", SOON, async || {
        (status(&open("localhost", "one").0) == 200).then_some(())
    })
    .await;
    drop(second);
    eventually("the rule's places are free again", SOON, async || {
        (status(&open("127.0.0.1", "").0) == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_an_intercepted_connection_each_request_counts_and_connect_does_not() {
    let origin = OriginServer::ok();
    let scene = Scene::with("allowance-intercept", origin.address, &["localhost"], |config, _| {
        config["listeners"][0]["rules"][0]["rate_limit"] = json!({"requests": 3, "per": LONG});
        config["clients"] =
            json!({"here": {"cidr": ["127.0.0.0/8"], "rate_limit": {"requests": 4, "per": LONG}}});
        config["listeners"][0]["clients"] = json!(["here"]);
    })
    .await;
    let get = "GET /x HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n".replace("PORT", &scene.port.to_string());
    let last = get.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answers = scene.inside("localhost", &[get.as_str(), &last].concat()).await.expect("a tunnel");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    let policy = "ratelimit-policy: \"client\";q=4;w=3600, \"default\";q=3;w=3600";
    assert_eq!(answers.matches(policy).count(), 2, "{answers}");
    assert_eq!(status(&scene.inside("localhost", &last).await.expect("a tunnel")), 200);
    let refused = scene.inside("localhost", &last).await.expect("a tunnel is opened all the same");
    assert_eq!(status(&refused), 429, "{refused}");
    assert_eq!(origin.requests().len(), 3);
    let curl =
        scene.client("curl", &["-sS", "-o", "/dev/null", "-w", "%{http_code}", &scene.url("/y")]).await;
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "429");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_with_a_limit_cost_little_memory_and_share_nothing() {
    let run = Arc::new(Run::new("allowance-many"));
    let origin = OriginServer::ok();
    let rules = json!([{"match": {"hosts": ["127.0.0.1"]}, "action": "forward"}]);
    let resident = async |clients: usize| {
        let mut config = egress::config(&run, &rules, &[]);
        let names: Vec<String> = (0..clients).map(|number| format!("client-{number}")).collect();
        let limit = json!({"rate_limit": {"requests": 1, "per": LONG}, "concurrency": 3});
        let all: serde_json::Map<_, _> =
            names.iter().map(|name| (name.clone(), client(name, &limit))).collect();
        config["clients"] = all.into();
        config["listeners"][0]["clients"] = json!(names);
        config["log"]["level"] = json!("info");
        let proxy = Bearward::start(&run, &config).await;
        for name in names.iter().step_by(clients / 10) {
            let line = format!("GET {}/x", origin.url());
            assert_eq!(status(&ask(proxy.proxy(), &line, name)), 200, "{name}");
            assert_eq!(status(&ask(proxy.proxy(), &line, name)), 429, "{name}");
        }
        let text = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    let (few, many) = (resident(10).await, resident(2000).await);
    let each = many.saturating_sub(few) * 1024 / 1990;
    count(&format!("a client with a rate and a concurrency: {each} bytes of memory"));
    assert!(each < 16 * 1024, "{few} {many}");
}
