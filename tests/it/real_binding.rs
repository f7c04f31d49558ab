//! Tokens that are bound to a key (DPoP, RFC 9449), and those of a credential that was taken out, at a real server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::http;
use crate::harness::run::Run;
use crate::harness::server::Server;
use crate::harness::{count, eventually};

const SECRET: &str = "canary-client-secret-of-bindings";

async fn provider(run: &Arc<Run>, dpop: bool) -> (Server, Value) {
    run.client_secret("legacy_client", SECRET);
    let client = json!({"id": "legacy_client", "auth": "client_secret_basic", "secret": SECRET});
    let options = json!({"access_token_ttl": 4, "dpop": dpop, "clients": [client]});
    let server = Server::oidc_provider(run, &options).await;
    let credential = json!({
        "issuer": server.text("/issuer"),
        "client": {"id": "legacy_client", "auth": "client_secret_basic",
                   "secret": run.secret_file("client-secret", SECRET)},
        "grant": "refresh_token",
        "refresh_token": run.secret_file("seed", server.text("/refresh_tokens/legacy_client")),
    });
    (server, credential)
}

/// The provider checks each proof: method, target, hash of the token, nonce, and that it was not there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_66_tokens_are_bound_to_a_key_and_each_request_proves_it() {
    let run = Arc::new(Run::new("oidc-provider-dpop"));
    let (server, mut credential) = provider(&run, true).await;
    credential["dpop"] = json!({"alg": "ES256"});
    let config = run.config(server.text("/origin"), &credential);
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(20)).await;
    // The first of all has no nonce: a body is sent again with it. What a client sends as a proof is not passed on.
    let answer = post(&bearward, "/me").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let wanted = bearward.credential().await["refreshes"]["ok"].as_u64().expect("a count") + 3;
    let mut asked = 0_u64;
    let turned = eventually("three rotations", Duration::from_secs(60), async || {
        for path in ["/me", "/me?a=b"] {
            let answer = bearward.get(path).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            asked += 1;
        }
        let state = bearward.credential().await;
        (state["refreshes"]["ok"].as_u64() >= Some(wanted)).then_some(state)
    })
    .await;
    assert_eq!(turned["refreshes"]["failed"], 0, "{turned}");
    let state = server.state().await;
    let refused = state["userinfo"]["401"].as_u64().expect("the first has no nonce");
    assert_eq!(state["userinfo"]["200"], asked + 1, "{state}");
    assert!(refused <= 3, "a nonce is remembered: {state}");
    let errors = state["errors"].as_array().expect("a list");
    assert!(errors.len() <= 3 && errors.iter().all(|one| one["error"] == "use_dpop_nonce"), "{state}");
    assert!(bearward.stop().await.success());

    // The key is kept with the tokens: after a restart those that it had go on being proved.
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(20)).await;
    assert_eq!(bearward.get("/me").await.status, 200);
    assert!(bearward.stop().await.success());
    count(&format!("DPoP at oidc-provider: {asked} requests proved, {refused} sent again with a nonce"));
    server.note_secrets(&run).await;
}

async fn post(bearward: &Bearward, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(bearward.proxy()).await.expect("it listens");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nDPoP: theirs\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 3\r\nConnection: close\r\n\r\na=b",
        bearward.proxy()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_66_a_provider_that_binds_nothing_is_told_of_and_its_token_is_not_used() {
    let run = Arc::new(Run::new("oidc-provider-no-dpop"));
    let (server, mut credential) = provider(&run, false).await;
    credential["dpop"] = json!({});
    let bearward = Bearward::start(&run, &run.config(server.text("/origin"), &credential)).await;
    let state = bearward.until_state("misconfigured", Duration::from_secs(20)).await;
    let shown = state.to_string();
    assert!(shown.contains("Bearer") && shown.contains("not bound to our key"), "{shown}");
    assert_eq!(bearward.get("/resource/report").await.status, 503);
    assert_eq!(server.state().await["resource"]["ok"], 0, "the token went nowhere");
    assert!(bearward.stop().await.success());
    server.note_secrets(&run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_65_the_tokens_of_a_removed_credential_are_revoked_where_asked_and_never_at_a_shutdown() {
    for asked in [true, false] {
        let run = Arc::new(Run::new(&format!("revoke-on-removal-{asked}")));
        let (server, mut credential) = provider(&run, false).await;
        credential["revoke_on_removal"] = json!(asked);
        let config = run.config(server.text("/origin"), &credential);
        for _ in 0..2 {
            let bearward = Bearward::start(&run, &config).await;
            bearward.until_state("fresh", Duration::from_secs(20)).await;
            assert_eq!(bearward.get("/resource/report").await.status, 200);
            assert!(bearward.stop().await.success());
        }
        assert_eq!(server.state().await["revocations"], 0, "a shutdown revokes nothing");

        let mut without = config.clone();
        without["credentials"] = json!({});
        without["listeners"][0]["routes"][0].as_object_mut().expect("a route").remove("credential");
        let bearward = Bearward::start(&run, &without).await;
        if asked {
            eventually("both tokens are revoked", Duration::from_secs(20), async || {
                (server.state().await["revocations"] == 2).then_some(())
            })
            .await;
            eventually("the record is set aside", Duration::from_secs(5), async || {
                (!run.state().join("it.record").exists()).then_some(())
            })
            .await;
        } else {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        assert!(http::get(bearward.proxy(), "/resource/report").await.expect("it answers").status == 401);
        assert!(bearward.stop().await.success());
        let bearward = Bearward::start(&run, &without).await;
        assert!(bearward.stop().await.success());
        assert_eq!(server.state().await["revocations"], if asked { 2 } else { 0 }, "once");
        server.note_secrets(&run).await;
    }
}
