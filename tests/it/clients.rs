//! Who may use a listener: each kind of client on the real binary, with what an attacker tries.

use std::sync::Arc;
use std::time::Duration;

use bearward::secret::Fingerprint;
use serde_json::json;

use crate::clients_rig::{Wire, ask, config, start, token_of, write};
use crate::harness::bearward::Bearward;
use crate::harness::eventually;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, field_of, fields_of, status};

const KEY: &str = "bw_0123456789abcdef0123456789abcdef";

fn digest(key: &str) -> String {
    Fingerprint::of(key.as_bytes()).to_hex()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_lets_its_client_in_and_ends_here() {
    let (run, origin) = (Arc::new(Run::new("clients-api-key")), OriginServer::ok());
    run.secret(KEY);
    let clients = json!({"batch": {"api_key": {"header": "X-Api-Key", "sha256": [digest(KEY)]}}});
    let bearward = start(&run, &config(&origin, &clients)).await;
    let check = |fields: &[(&str, &str)], expected: u16| {
        let (status, answer) = ask(bearward.proxy(), fields);
        assert_eq!(status, expected, "{fields:?}: {answer}");
        answer
    };
    let refused = check(&[], 401);
    assert_eq!(field_of(&refused, "www-authenticate").as_deref(), Some("ApiKey realm=\"bearward\""));
    assert!(refused.contains("urn:bearward:problem:client-unknown"), "{refused}");
    check(&[("X-Api-Key", "another")], 401);
    check(&[("X-Api-Key", &digest(KEY))], 401);
    check(&[("X-Api-Key", "")], 401);
    check(&[("Authorization", KEY)], 401);
    check(&[("X_Api_Key", KEY)], 401);
    check(&[("X-Api-Keys", KEY)], 401);
    check(&[("X-Api-Key", KEY), ("X-Api-Key", KEY)], 401);
    check(&[("Proxy-Authorization", KEY)], 401);
    assert!(origin.requests().is_empty());
    check(&[("x-api-key", KEY), ("Connection", "x-api-key"), ("Authorization", "Bearer own")], 200);
    let request = origin.request();
    assert_eq!(fields_of(&request, "authorization"), [format!("Bearer {}", token_of("it"))]);
    assert!(!request.to_ascii_lowercase().contains("x-api-key") && !request.contains(KEY), "{request}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_keys_is_read_again_and_a_broken_one_changes_nothing() {
    let (run, origin) = (Arc::new(Run::new("clients-key-file")), OriginServer::ok());
    let path = run.private().join("keys");
    write(&path, &digest(KEY));
    let clients = json!({"batch": {"api_key": {"keys": {"file": path}}}});
    let bearward = start(&run, &config(&origin, &clients)).await;
    assert_eq!(ask(bearward.proxy(), &[("X-Api-Key", KEY)]).0, 200);
    write(&path, "no digest");
    let told = "it stays as it was";
    eventually("the broken file is told", Duration::from_secs(20), async || {
        run.everything().contains(told).then_some(())
    })
    .await;
    assert_eq!(ask(bearward.proxy(), &[("X-Api-Key", KEY)]).0, 200);
    write(&path, &digest("another-key-of-the-batch"));
    eventually("the old key is refused", Duration::from_secs(20), async || {
        (ask(bearward.proxy(), &[("X-Api-Key", KEY)]).0 == 401).then_some(())
    })
    .await;
    assert_eq!(ask(bearward.proxy(), &[("X-Api-Key", "another-key-of-the-batch")]).0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_refuses_to_start() {
    let (run, origin) = (Arc::new(Run::new("clients-unreadable")), OriginServer::ok());
    let gone = run.private().join("gone");
    for (clients, told) in [
        (json!({"batch": {"api_key": {"keys": {"file": gone}}}}), "cannot read"),
        (json!({"batch": {"api_key": {}}}), "the client has no key"),
        (json!({"batch": {"api_key": {"sha256": ["the-key-itself"]}}}), "is not the SHA-256 of a key"),
        (json!({"batch": {"cidr": []}}), "the list of networks is empty"),
        (json!({"batch": {}}), "a client shows in one way who it is"),
        (json!({"batch": {"mtls": {}}}), "the listener asks for none"),
    ] {
        let config = config(&origin, &clients);
        let failed = Bearward::try_start(&run, &config, |_| ()).await.err().expect("it does not start");
        assert_eq!(failed.status.code(), Some(2), "{clients}");
        assert!(failed.printed.contains(told), "{clients}: {}", failed.printed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_lets_in_whom_trusted_proxies_name_and_nobody_who_names_himself() {
    let (run, origin) = (Arc::new(Run::new("clients-cidr")), OriginServer::ok());
    let clients = json!({"office": {"cidr": ["10.1.0.0/16"]}});
    let mut trusting = config(&origin, &clients);
    let bearward = start(&run, &trusting).await;
    let named = [("X-Forwarded-For", "10.1.2.3"), ("Forwarded", "for=10.1.2.3")];
    assert_eq!(ask(bearward.proxy(), &named).0, 403);
    drop(bearward);
    trusting["listeners"][0]["trusted_proxies"] = json!(["127.0.0.1"]);
    let bearward = start(&run, &trusting).await;
    assert_eq!(ask(bearward.proxy(), &[("X-Forwarded-For", "10.1.2.3")]).0, 200);
    assert_eq!(ask(bearward.proxy(), &[("X-Forwarded-For", "10.1.2.3, 192.0.2.1")]).0, 403);
    assert_eq!(ask(bearward.proxy(), &[]).0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_narrows_whom_the_listener_lets_in() {
    let (run, origin) = (Arc::new(Run::new("clients-narrow")), OriginServer::ok());
    let clients = json!({
        "batch": {"api_key": {"sha256": [digest(KEY)]}},
        "erp": {"api_key": {"sha256": [digest("the-key-of-erp")]}},
        "here": {"cidr": ["127.0.0.0/8"]},
    });
    let mut config = config(&origin, &clients);
    let routes = config["listeners"][0]["routes"].as_array_mut().expect("routes");
    let mut narrow = routes[0].clone();
    narrow["name"] = json!("narrow");
    narrow["match"] = json!({"path_prefix": "/narrow"});
    narrow["clients"] = json!(["erp"]);
    routes.push(narrow);
    let bearward = start(&run, &config).await;
    let mut wire = Wire::to(bearward.proxy());
    let mut check = |path: &str, key: &str, expected: u16| {
        let answer = wire.get(path, &[("X-Api-Key", key)]);
        assert_eq!(status(&answer), expected, "{path} {key}: {answer}");
    };
    // One connection: who a request is from is never that of the one before.
    check("/narrow", "the-key-of-erp", 200);
    check("/narrow", KEY, 403);
    check("/", KEY, 200);
    check("/narrow", "the-key-of-erp", 200);
    check("/narrow", "wrong", 403);
    check("/", "wrong", 200);
    let answer = wire.get("/narrow", &[]);
    assert_eq!(status(&answer), 403, "{answer}");
}
