//! Every grant that two further real authorization servers have, at once: twenty new tokens each under traffic, with a
//! restart in the middle.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::server::Server;
use crate::harness::traffic::{Outcome, Traffic, tally};
use crate::harness::{count, eventually};

/// New tokens of each credential before and after the restart.
const HALF: u64 = 10;
/// Seconds; one server tells a second less.
const TOKEN_LIFE: u64 = 3;
const CLIENT: &str = "legacy client";
const SECRET: &str = "canary-client-secret: 100%+&=/~";
const USER: &str = "legacy@example.com";
const PASSWORD: &str = "canary-password: 100%+&=/~";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authlib_gives_tokens_by_refresh_client_credentials_password_and_jwt_bearer() {
    let run = Arc::new(Run::new("authlib"));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key can be made");
    for line in key.serialize_pem().lines().filter(|line| !line.starts_with("-----")) {
        run.secret(line);
    }
    let mut options = options(&run);
    options["public_key"] = json!(key.public_key_pem());
    let server = Server::authlib(&run, &options).await;
    // Basic is decoded, but a plus sign is no space: what is sent suits both readings.
    let client =
        json!({"id": CLIENT, "auth": "client_secret_basic", "secret": run.secret_file("secret", SECRET)});
    let mut credentials = common(&run, &server, &client);
    credentials["assertion"] = json!({
        "token_endpoint": server.text("/token_endpoint"),
        "client": client,
        "grant": "jwt_bearer",
        "user_assertion": {"sub": USER, "alg": "ES256", "key": run.secret_file("key.pem", &key.serialize_pem())},
    });
    tokens_of_each(&run, &server, "authlib", credentials).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_oauth2_server_gives_tokens_by_refresh_client_credentials_and_password() {
    let run = Arc::new(Run::new("node-oauth2-server"));
    let server = Server::node_oauth2_server(&run, &options(&run)).await;
    // It decodes nothing.
    let client = json!({"id": CLIENT, "auth": "client_secret_basic", "basic_encoding": "raw",
                        "secret": run.secret_file("secret", SECRET)});
    let credentials = common(&run, &server, &client);
    tokens_of_each(&run, &server, "oauth2-server", credentials).await;
}

fn options(run: &Run) -> Value {
    run.client_secret(CLIENT, SECRET);
    run.secret(PASSWORD);
    json!({"access_token_ttl": TOKEN_LIFE, "client_id": CLIENT, "client_secret": SECRET,
           "username": USER, "password": PASSWORD})
}

/// The credentials that both servers know.
fn common(run: &Run, server: &Server, client: &Value) -> Value {
    let endpoint = server.text("/token_endpoint");
    json!({
        "it": {"token_endpoint": endpoint, "client": client, "grant": "refresh_token",
               "refresh_token": run.secret_file("seed", server.text("/refresh_token"))},
        "machine": {"token_endpoint": endpoint, "client": client, "grant": "client_credentials"},
        "person": {"token_endpoint": endpoint, "client": client, "grant": "password", "username": USER,
                   "password": run.secret_file("password", PASSWORD)},
    })
}

/// One listener with a route for each credential.
fn configuration(run: &Run, server: &Server, credentials: &Value) -> Value {
    let mut config = run.config(server.text("/origin"), &credentials["it"]);
    let names = credentials.as_object().expect("a map").keys();
    config["listeners"][0]["routes"] = names
        .map(|name| {
            json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "credential": name,
                   "upstream": server.text("/origin")})
        })
        .collect();
    config["credentials"] = credentials.clone();
    config
}

async fn tokens_of_each(run: &Arc<Run>, server: &Server, name: &str, credentials: Value) {
    let config = configuration(run, server, &credentials);
    let names: Vec<&'static str> = ["it", "machine", "person", "assertion"]
        .into_iter()
        .filter(|name| !credentials[*name].is_null())
        .collect();
    let mut outcomes = half(run, &config, &names).await;
    outcomes.extend(half(run, &config, &names).await);
    server.note_secrets(run).await;

    let state = server.state().await;
    let posts = state["posts_by_refresh_token"].as_object().expect("a map").values();
    assert_eq!(posts.filter_map(Value::as_u64).max(), Some(1), "a refresh token was sent twice");
    assert_eq!(state["errors"], json!([]), "no token request was refused");
    assert_eq!(state["resource"]["refused"], 0, "no request came with a token that was not good");
    let grants = state["tokens_by_grant"].as_object().expect("a map");
    // A password brings a refresh token, which is used from then on.
    assert!(grants["refresh_token"].as_u64() >= Some(2 * 2 * HALF - 2), "{grants:?}");
    assert_eq!(grants["password"], 1, "{grants:?}");
    assert!(grants["client_credentials"].as_u64() >= Some(2 * HALF), "{grants:?}");
    assert!(outcomes.iter().all(|outcome| outcome.status == 200), "{}", tally(&outcomes));
    assert!(outcomes.len() > 500, "that was hardly traffic: {}", outcomes.len());
    count(&format!(
        "{name}: {} tokens of {} grants over a restart under {} requests ({})",
        grants.values().filter_map(Value::as_u64).sum::<u64>(),
        grants.len(),
        outcomes.len(),
        tally(&outcomes)
    ));
    reuse_is_told(run, server, &config).await;
}

/// One process: ten new tokens of each credential while requests go on.
async fn half(run: &Arc<Run>, config: &Value, names: &[&'static str]) -> Vec<Outcome> {
    let bearward = Bearward::start(run, config).await;
    let refreshes = async |name: &str| {
        let answer = bearward.admin("/api/v1/status").await;
        let status: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let all = status["credentials"].as_array().expect("a list");
        let one = all.iter().find(|one| one["name"] == name).expect("it is there").clone();
        assert_eq!(one["refreshes"]["failed"], 0, "{one}");
        (one["state"].as_str().expect("text").to_owned(), one["refreshes"]["ok"].as_u64().expect("a count"))
    };
    for name in names {
        let what = format!("{name} has a token");
        eventually(&what, Duration::from_secs(20), async || {
            (refreshes(name).await.0 == "fresh").then_some(())
        })
        .await;
    }
    let paths: Vec<&'static str> = names
        .iter()
        .map(|name| match *name {
            "it" => "/it",
            "machine" => "/machine",
            "person" => "/person",
            _ => "/assertion",
        })
        .collect();
    let pause = Duration::from_millis(40);
    let traffic: Vec<_> =
        paths.iter().map(|path| Traffic::begin(run, bearward.proxy(), path, 1, pause)).collect();
    for name in names {
        let what = format!("{HALF} tokens of {name}");
        eventually(&what, Duration::from_secs(60), async || (refreshes(name).await.1 >= HALF).then_some(()))
            .await;
    }
    let mut outcomes = Vec::new();
    for clients in traffic {
        outcomes.extend(clients.end().await);
    }
    assert!(bearward.stop().await.success());
    outcomes
}

/// The seed, long spent: the server revokes the family, and the proxy says what a person must do.
async fn reuse_is_told(run: &Arc<Run>, server: &Server, config: &Value) {
    let other = Arc::new(Run::new("reuse"));
    run.secrets().iter().for_each(|secret| other.secret(secret));
    let mut again = config.clone();
    again["store"]["path"] = json!(other.state());
    let credential = again["credentials"]["it"].clone();
    again["credentials"] = json!({"it": credential});
    let route = again["listeners"][0]["routes"][0].clone();
    assert_eq!(again["listeners"][0]["routes"].as_array().map(Vec::len).map(|count| count >= 3), Some(true));
    again["listeners"][0]["routes"] = json!([{"name": "it", "match": {"path_prefix": "/"}, "credential": "it",
                                              "upstream": route["upstream"]}]);
    let thief = Bearward::start(&other, &again).await;
    let dead = thief.until_state("dead", Duration::from_secs(20)).await;
    assert_eq!(dead["last_error"]["error"], "invalid_grant", "{dead}");
    let refused = thief.get("/it").await;
    assert_eq!(refused.status, 503);
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(text.contains(r#""state":"dead""#), "{text}");
    assert!(dead["remedy"].as_str().is_some_and(|remedy| remedy.contains("bearward login it")), "{dead}");
    assert!(thief.stop().await.success());
    server.note_secrets(run).await;
}
