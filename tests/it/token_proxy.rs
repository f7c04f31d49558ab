//! Token requests through a real forward proxy that wants to know its clients: a second bearward as an egress listener. What
//! it lets through, what it refuses, and what is said when it is not there.

use std::sync::Arc;
use std::time::Duration;

use bearward::policy::clients::basic::hash_password;
use serde_json::{Value, json};

use crate::clients_rig::basic;
use crate::egress_intercept::tls_front;
use crate::harness::bearward::Bearward;
use crate::harness::eventually;
use crate::harness::run::Run;
use crate::replay_rig::Provider;
use crate::tls_rig::Authority;

const TOKENS: &str = r#"{"access_token":"AT","token_type":"bearer","expires_in":3600}"#;
const USER: &str = "gateway";
const PASSWORD: &str = "pass:word of the proxy";

/// A provider over TLS, and over plain HTTP beside it.
struct Party {
    run: Arc<Run>,
    provider: Provider,
    tls_port: u16,
    plain_port: u16,
}

impl Party {
    async fn new(name: &str) -> Self {
        let run = Arc::new(Run::new(name));
        run.secret(PASSWORD);
        run.secret(basic(USER, PASSWORD).trim_start_matches("Basic "));
        let provider = Provider::start(TOKENS).await;
        let plain: std::net::SocketAddr =
            provider.origin().trim_start_matches("http://").parse().expect("an address");
        let authority = Authority::new();
        let tls_port = tls_front(&authority.issue(&["localhost"]), plain).await;
        std::fs::write(run.private().join("ca.crt"), authority.certificate.pem()).expect("written");
        Self { run, provider, tls_port, plain_port: plain.port() }
    }

    /// A forward proxy for one client, with these rules.
    async fn proxy(&self, rules: Value) -> Bearward {
        let hash = hash_password(PASSWORD.as_bytes()).expect("a hash");
        let config = json!({
            "listeners": [{"name": "legacy", "kind": "egress", "bind": "127.0.0.1:0", "clients": ["gateway"],
                           "egress_network": {"allow_private": ["127.0.0.0/8", "::1/128"]}, "rules": rules}],
            "clients": {"gateway": {"basic": {"username": USER, "password_hash": {"value": hash}}}},
            "store": {"kind": "memory"},
            "admin": {"bind": "127.0.0.1:0"},
            "log": {"level": "debug", "format": "json"},
        });
        Bearward::start(&self.run, &config).await
    }

    /// The proxy whose credential asks through `outbound_proxy`.
    async fn asks(&self, endpoint: &str, outbound_proxy: &str) -> Bearward {
        let credential = json!({
            "token_endpoint": endpoint,
            "client": {"id": "legacy", "secret": {"value": "the-secret-of-the-client"}},
            "grant": "client_credentials",
            "tls": {"ca": {"file": self.run.private().join("ca.crt")}},
            "outbound_proxy": outbound_proxy,
        });
        let mut config = self.run.config("http://127.0.0.1:9", &credential);
        config["store"] = json!({"kind": "memory"});
        Bearward::start(&self.run, &config).await
    }

    fn tls(&self) -> String {
        format!("https://localhost:{}/token", self.tls_port)
    }

    fn plain(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.plain_port)
    }
}

fn through(proxy: &Bearward, login: &str) -> String {
    format!("http://{login}{}", proxy.proxy())
}

const LOGIN: &str = "gateway:pass%3Aword%20of%20the%20proxy@";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_request_goes_through_a_proxy_that_wants_a_password() {
    let party = Party::new("token-proxy").await;
    let rules = json!([
        {"name": "way", "match": {"hosts": ["localhost"], "ports": [party.tls_port]}, "action": "tunnel"},
        {"name": "plain", "match": {"hosts": ["127.0.0.1"], "ports": [party.plain_port]}, "action": "forward"},
    ]);
    let proxy = party.proxy(rules).await;
    for (turn, endpoint) in [party.tls(), party.plain()].iter().enumerate() {
        let bearward = party.asks(endpoint, &through(&proxy, LOGIN)).await;
        bearward.until_state("fresh", Duration::from_secs(20)).await;
        let asked = party.provider.asked();
        assert_eq!(asked.len(), turn + 1, "{endpoint}");
        let request = asked.last().expect("one");
        assert_eq!(request.header("proxy-authorization"), None, "the proxy's password is the proxy's");
        assert!(
            request.header("authorization").is_some_and(|value| value.starts_with("Basic ")),
            "{endpoint}"
        );
        // It did go through the proxy, which forwards what is not a tunnel.
        assert_eq!(request.header("via").is_some(), turn == 1, "{endpoint}");
        assert!(bearward.stop().await.success());
    }
    assert!(proxy.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_refuses_is_told_and_tried_again_with_nothing_at_stake() {
    let party = Party::new("token-proxy-refusals").await;
    let way = json!([{"name": "way", "match": {"hosts": ["localhost"], "ports": [party.tls_port]}, "action": "tunnel"}]);
    let elsewhere =
        json!([{"name": "way", "match": {"hosts": ["id.example"], "ports": [443]}, "action": "tunnel"}]);
    let (open, closed) = (party.proxy(way).await, party.proxy(elsewhere).await);
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        listener.local_addr().expect("an address")
    };
    let unreachable = format!("https://localhost:{}/token", nobody.port());
    let to_nobody = party
        .proxy(json!([{"name": "way", "match": {"hosts": ["localhost"], "ports": [nobody.port()]}, "action": "tunnel"}]))
        .await;
    for (endpoint, outbound, error, said) in [
        (party.tls(), through(&open, ""), "proxy", "wants another user and password (407)"),
        (
            party.tls(),
            through(&open, "gateway:another%20one@"),
            "proxy",
            "wants another user and password (407)",
        ),
        (party.tls(), through(&closed, LOGIN), "proxy", "does not open a way to this server"),
        (unreachable, through(&to_nobody, LOGIN), "proxy", "does not open a way to this server"),
        (
            party.tls(),
            format!("http://{LOGIN}{nobody}"),
            "connect",
            "no connection through the outbound proxy",
        ),
        // The way is there, and what is at its end is another than the endpoint says.
        (
            party.tls().replace("localhost", "127.0.0.1"),
            through(&open, LOGIN),
            "proxy",
            "does not open a way to this server",
        ),
    ] {
        let bearward = party.asks(&endpoint, &outbound).await;
        let told = eventually("a failure is told", Duration::from_secs(20), async || {
            let state = bearward.credential().await;
            state["last_error"].is_object().then_some(state)
        })
        .await;
        let failure = &told["last_error"];
        let description = failure["description"].as_str().unwrap_or_default();
        assert_eq!(
            (&failure["class"], &failure["error"]),
            (&json!("clean"), &json!(error)),
            "{outbound}: {told}"
        );
        assert!(description.contains(said), "{outbound}: {told}");
        assert!(description.contains("through the outbound proxy http://127.0.0.1:"), "{outbound}: {told}");
        assert!(!description.contains("gateway"), "no user and no password: {told}");
        assert!(failure["retry_at"].is_string(), "{outbound}: {told}");
        assert_eq!(bearward.get("/").await.status, 503);
        assert!(bearward.stop().await.success());
    }
    assert_eq!(party.provider.asked().len(), 0, "no request went around the proxy");
    for proxy in [open, closed, to_nobody] {
        assert!(proxy.stop().await.success());
    }
}

/// The proxy comes later: nothing was lost, nobody had to do anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_comes_back_is_used_without_a_word() {
    let party = Party::new("token-proxy-later").await;
    let rules = json!([{"name": "way", "match": {"hosts": ["localhost"], "ports": [party.tls_port]}, "action": "deny"}]);
    let refusing = party.proxy(rules).await;
    let port = refusing.proxy().port();
    let bearward = party.asks(&party.tls(), &through(&refusing, LOGIN)).await;
    bearward.until("a failure", Duration::from_secs(20), |it| it["last_error"].is_object()).await;
    assert!(refusing.stop().await.success());
    let hash = hash_password(PASSWORD.as_bytes()).expect("a hash");
    let config = json!({
        "listeners": [{"name": "legacy", "kind": "egress", "bind": format!("127.0.0.1:{port}"), "clients": ["gateway"],
                       "egress_network": {"allow_private": ["127.0.0.0/8", "::1/128"]},
                       "rules": [{"match": {"hosts": ["localhost"], "ports": [party.tls_port]}, "action": "tunnel"}]}],
        "clients": {"gateway": {"basic": {"username": USER, "password_hash": {"value": hash}}}},
        "store": {"kind": "memory"},
        "admin": {"bind": "127.0.0.1:0"},
    });
    let willing = Bearward::start(&party.run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(30)).await;
    assert!(bearward.stop().await.success());
    assert!(willing.stop().await.success());
}
