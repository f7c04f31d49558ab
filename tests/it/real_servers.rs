//! Rotation under traffic against real authorization servers, each with its own rule.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::server::Server;
use crate::harness::traffic::{Traffic, tally};
use crate::harness::{count, eventually};

const ROTATIONS: u64 = 20;
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(15);
/// Seconds. The servers count in whole seconds, so a token lives one less at worst.
const TOKEN_LIFE: u64 = 4;

const SECRET: &str = "canary-client-secret: 100%+&=/~";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oidc_provider_rotates_with_client_secret_basic() {
    let client = json!({"id": "legacy_client", "auth": "client_secret_basic", "secret": SECRET});
    let run = Arc::new(Run::new("oidc-provider-basic"));
    let auth = json!({"id": "legacy_client", "auth": "client_secret_basic",
                      "secret": run.secret_file("client-secret", SECRET)});
    oidc_provider(&run, &client, &auth).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oidc_provider_rotates_with_client_secret_post() {
    let client = json!({"id": "legacy_client", "auth": "client_secret_post", "secret": SECRET});
    let run = Arc::new(Run::new("oidc-provider-post"));
    let auth = json!({"id": "legacy_client", "auth": "client_secret_post",
                      "secret": run.secret_file("client-secret", SECRET)});
    oidc_provider(&run, &client, &auth).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oidc_provider_rotates_with_private_key_jwt() {
    let run = Arc::new(Run::new("oidc-provider-private-key-jwt"));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key can be made");
    for line in key.serialize_pem().lines().filter(|line| !line.starts_with("-----")) {
        run.secret(line);
    }
    let client = json!({"id": "legacy_client", "auth": "private_key_jwt", "jwks": {"keys": [jwk(&key)]}});
    let auth = json!({"id": "legacy_client", "auth": "private_key_jwt", "alg": "ES256", "kid": "test-key",
                      "key": run.secret_file("client-key.pem", &key.serialize_pem())});
    oidc_provider(&run, &client, &auth).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_60_django_oauth_toolkit_rotates_although_each_refresh_kills_the_token_before() {
    let run = Arc::new(Run::new("django-oauth-toolkit"));
    run.client_secret("legacy client", SECRET);
    let options =
        json!({"client_id": "legacy client", "client_secret": SECRET, "access_token_ttl": TOKEN_LIFE});
    let server = Server::django_oauth_toolkit(&run, &options).await;
    let credential = json!({
        "token_endpoint": server.text("/token_endpoint"),
        "client": {"id": "legacy client", "auth": "client_secret_basic",
                   "secret": run.secret_file("client-secret", SECRET)},
        "grant": "refresh_token",
        "refresh_token": run.secret_file("seed", server.text("/refresh_token")),
    });
    let config = run.config(server.text("/origin"), &credential);
    // A request that the refresh overtook is sent again with the next token. Only one that is overtaken twice
    // is refused: that is the server's rule and cannot be helped.
    let bound = 4;
    rotate_under_traffic(
        &run,
        &server,
        &config,
        "django-oauth-toolkit",
        server.text("/refresh_token"),
        bound,
    )
    .await;
}

async fn oidc_provider(run: &Arc<Run>, client: &Value, auth: &Value) {
    if let Some(secret) = client["secret"].as_str() {
        run.client_secret("legacy_client", secret);
    }
    let options = json!({"access_token_ttl": TOKEN_LIFE, "clients": [client]});
    let server = Server::oidc_provider(run, &options).await;
    let seed = server.text("/refresh_tokens/legacy_client");
    let credential = json!({
        "issuer": server.text("/issuer"),
        "client": auth,
        "grant": "refresh_token",
        "refresh_token": run.secret_file("seed", seed),
    });
    let config = run.config(server.text("/origin"), &credential);
    let name = format!("oidc-provider, {}", client["auth"].as_str().expect("it is text"));
    rotate_under_traffic(run, &server, &config, &name, seed, 0).await;
}

/// The common part: rotations under traffic, then the proof that the server would have punished a mistake.
async fn rotate_under_traffic(
    run: &Arc<Run>,
    server: &Server,
    config: &Value,
    name: &str,
    seed: &str,
    refused_at_most: u64,
) {
    let bearward = Bearward::start(run, config).await;
    bearward.until_state("fresh", Duration::from_secs(20)).await;

    let traffic = Traffic::begin(run, bearward.proxy(), "/resource/report", CLIENTS, PAUSE);
    let wanted = bearward.credential().await["refreshes"]["ok"].as_u64().expect("a count") + ROTATIONS;
    let rotated = bearward
        .until("20 rotations", Duration::from_secs(150), |it| it["refreshes"]["ok"].as_u64() >= Some(wanted))
        .await;
    let outcomes = traffic.end().await;
    server.note_secrets(run).await;

    let posts = server.state().await["posts_by_refresh_token"].clone();
    let most = posts.as_object().expect("a map").values().filter_map(Value::as_u64).max();
    assert_eq!(most, Some(1), "a refresh token was sent twice");
    assert_eq!(rotated["refreshes"]["failed"], 0, "{rotated}");
    let refused = outcomes.iter().filter(|outcome| outcome.status == 401).count();
    count(&format!(
        "{name}: {} rotations under {} requests ({}), of which the server's own rule refused {refused}",
        wanted,
        outcomes.len(),
        tally(&outcomes)
    ));
    assert!(outcomes.iter().all(|outcome| matches!(outcome.status, 200 | 401)), "{}", tally(&outcomes));
    assert!(u64::try_from(refused).expect("it is small") <= refused_at_most, "{}", tally(&outcomes));
    assert!(outcomes.len() > 1000, "that was hardly traffic: {}", outcomes.len());

    reuse_kills_the_family(run, server, config, &bearward, seed).await;
    assert!(bearward.stop().await.success());
    server.note_secrets(run).await;
}

/// Sends the seed, long spent, the way the proxy would: the server revokes the family and the proxy says so.
async fn reuse_kills_the_family(
    run: &Arc<Run>,
    server: &Server,
    config: &Value,
    bearward: &Bearward,
    seed: &str,
) {
    let other = Arc::new(Run::new("reuse"));
    run.secrets().iter().for_each(|secret| other.secret(secret));
    let mut again = config.clone();
    again["store"]["path"] = json!(other.state());
    again["credentials"]["it"]["refresh_token"] = other.secret_file("seed", seed);
    let thief = Bearward::start(&other, &again).await;
    thief.until_state("dead", Duration::from_secs(20)).await;
    assert!(thief.stop().await.success());

    let dead = bearward.until_state("dead", Duration::from_secs(20)).await;
    assert_eq!(dead["last_error"]["error"], "invalid_grant", "{dead}");
    eventually("requests are refused with 503", Duration::from_secs(20), async || {
        (bearward.get("/resource/report").await.status == 503).then_some(())
    })
    .await;
    let posts = server.state().await["token_posts"].as_u64();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.state().await["token_posts"].as_u64(), posts, "a dead credential asks no more");
}

/// The public half of a P-256 key.
fn jwk(key: &rcgen::KeyPair) -> Value {
    use base64::Engine;
    let point = key.public_key_raw();
    assert_eq!((point.len(), point[0]), (65, 4), "an uncompressed point");
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "test-key",
           "x": base64(&point[1..33]), "y": base64(&point[33..])})
}
