//! Clients that authenticate by certificate, and tokens that are bound to it (RFC 8705), at a real server: npm
//! `oidc-provider`, whose resource compares the certificate of each connection with the token's thumbprint.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::server::Server;
use crate::harness::traffic::{Traffic, tally};
use crate::harness::{count, eventually};
use crate::tls_rig::{Authority, Files, Pair};

const ROTATIONS: u64 = 30;
const SAN: &str = "gateway.example";
const PAUSE: Duration = Duration::from_millis(30);

/// A provider with a CA of its own, and the files of a client.
struct Party {
    run: Arc<Run>,
    authority: Authority,
    files: Files,
    pair: Pair,
    server: Server,
}

impl Party {
    async fn new(name: &str) -> Self {
        let run = Arc::new(Run::new(name));
        let authority = Authority::new();
        let (own, pair) = (authority.issue(&["127.0.0.1"]), authority.issue(&[SAN]));
        note_key(&run, &pair);
        let files = Files::of(&pair);
        files.write("ca.crt", &authority.certificate.pem());
        let client = json!({"id": "legacy_client", "auth": "tls_client_auth", "san_dns": SAN});
        let mtls = json!({"cert": own.cert, "key": own.key, "ca": authority.certificate.pem()});
        let options = json!({"access_token_ttl": 4, "clients": [client], "mtls": mtls});
        let server = Server::oidc_provider(&run, &options).await;
        Self { run, authority, files, pair, server }
    }

    /// The credential authenticates with its certificate; the route says nothing of one.
    fn config(&self) -> Value {
        let file = |name: &str| json!({"file": self.files.at(name)});
        let credential = json!({
            "issuer": self.server.text("/issuer"),
            "client": {"id": "legacy_client", "auth": "tls_client_auth", "certificate": file("tls.crt"),
                       "key": file("tls.key")},
            "tls": {"ca": file("ca.crt")},
            "grant": "refresh_token",
            "refresh_token": self.run.secret_file("seed", self.server.text("/refresh_tokens/legacy_client")),
            "refresh": {"at": 0.25, "min_interval": "1s"},
        });
        let mut config = self.run.config(self.server.text("/aliases"), &credential);
        config["listeners"][0]["routes"][0]["upstream"] =
            json!({"urls": [self.server.text("/aliases")], "tls": {"ca": file("ca.crt")}});
        config
    }

    /// How often each certificate was shown, by thumbprint.
    async fn shown(&self, place: &str) -> Value {
        self.server.state().await["shown"][place].clone()
    }
}

fn note_key(run: &Run, pair: &Pair) {
    for line in pair.key.lines().filter(|line| !line.starts_with("-----")) {
        run.secret(line);
    }
}

/// `x5t#S256` of a certificate.
fn thumbprint(pair: &Pair) -> String {
    use base64::Engine;
    let der = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate");
    let digest = bearward::secret::Fingerprint::of(&der);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.as_bytes())
}

async fn rotate(party: &Party, bearward: &Bearward, rotations: u64) -> u64 {
    bearward.until_state("fresh", Duration::from_secs(20)).await;
    let traffic = Traffic::begin(&party.run, bearward.proxy(), "/resource/report", 2, PAUSE);
    let begun = bearward.credential().await["refreshes"]["ok"].as_u64().expect("a count");
    let rotated = bearward
        .until("rotations", Duration::from_secs(120), |it| {
            it["refreshes"]["ok"].as_u64() >= Some(begun + rotations)
        })
        .await;
    let outcomes = traffic.end().await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200), "{}", tally(&outcomes));
    assert_eq!(rotated["refreshes"]["failed"], 0, "{rotated}");
    rotated["refreshes"]["ok"].as_u64().expect("a count") - begun
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_certificate_shows_it_to_the_provider_and_to_the_upstream_of_its_bound_tokens() {
    let party = Party::new("mtls-oidc-provider").await;
    let config = party.config();
    let bearward = Bearward::start(&party.run, &config).await;
    let before = rotate(&party, &bearward, ROTATIONS).await;
    // The server's own endpoint makes the same comparison.
    assert_eq!(bearward.get("/me").await.status, 200);
    assert!(bearward.stop().await.success());
    let bearward = Bearward::start(&party.run, &config).await;
    let after = rotate(&party, &bearward, 3).await;
    assert!(bearward.stop().await.success());

    let state = party.server.state().await;
    let ours = thumbprint(&party.pair);
    for place in ["token", "resource"] {
        let shown = state["shown"][place].as_object().expect("a map");
        assert_eq!(shown.keys().collect::<Vec<_>>(), [&ours], "{place}: one certificate and no other");
    }
    let most =
        state["posts_by_refresh_token"].as_object().expect("a map").values().filter_map(Value::as_u64).max();
    assert_eq!(most, Some(1), "a refresh token was sent twice");
    assert_eq!((&state["resource"]["refused"], &state["errors"]), (&json!(0), &json!([])), "{state}");
    count(&format!(
        "mTLS at oidc-provider: {before} rotations, a restart, {after} rotations, {} requests with bound tokens",
        state["resource"]["ok"]
    ));
    party.server.note_secrets(&party.run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_token_is_refused_on_a_connection_that_does_not_show_its_certificate() {
    let party = Party::new("mtls-unbound").await;
    let mut config = party.config();
    config["credentials"]["it"]["certificate_bound"] = json!(false);
    let bearward = Bearward::start(&party.run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(20)).await;
    // The control of the test above: the upstream does compare.
    assert_eq!(bearward.get("/resource/report").await.status, 401);
    assert_eq!(bearward.get("/me").await.status, 401);
    let shown = party.shown("resource").await;
    assert_eq!(shown.as_object().expect("a map").keys().collect::<Vec<_>>(), ["none"], "{shown}");
    assert!(bearward.stop().await.success());
    party.server.note_secrets(&party.run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_client_certificate_is_shown_to_provider_and_upstream_without_a_restart() {
    let party = Party::new("mtls-replaced").await;
    let bearward = Bearward::start(&party.run, &party.config()).await;
    bearward.until_state("fresh", Duration::from_secs(20)).await;
    let traffic = Traffic::begin(&party.run, bearward.proxy(), "/resource/report", 2, PAUSE);
    let next = party.authority.issue(&[SAN]);
    note_key(&party.run, &next);
    let ours = thumbprint(&next);
    replace(&party.files.at("tls.crt"), &next.cert);
    replace(&party.files.at("tls.key"), &next.key);
    for place in ["token", "resource"] {
        eventually("the new certificate is shown", Duration::from_secs(20), async || {
            (party.shown(place).await[&ours].as_u64() > Some(3)).then_some(())
        })
        .await;
    }
    let before = party.shown("resource").await[thumbprint(&party.pair)].clone();

    // A broken one: what was good stays, and that is told.
    replace(&party.files.at("tls.crt"), "no certificate");
    let metric = async |name: &str| {
        let text = String::from_utf8(bearward.admin("/metrics").await.body).expect("UTF-8");
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    for name in [
        "bearward_credential_file_errors_total{credential=\"it\"}",
        "bearward_upstream_tls_file_errors_total{listener=\"legacy\",route=\"api\"}",
    ] {
        eventually(name, Duration::from_secs(20), async || (metric(name).await > 0).then_some(())).await;
    }
    let posts = party.shown("token").await[&ours].as_u64();
    eventually("it goes on with the last good one", Duration::from_secs(20), async || {
        (party.shown("token").await[&ours].as_u64() > posts.map(|posts| posts + 1)).then_some(())
    })
    .await;
    let outcomes = traffic.end().await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200), "{}", tally(&outcomes));
    assert_eq!(
        party.shown("resource").await[thumbprint(&party.pair)],
        before,
        "the old one is shown no more"
    );
    let state = bearward.credential().await;
    assert_eq!(state["refreshes"]["failed"], 0, "{state}");
    assert!(bearward.stop().await.success());
    let printed = party.run.everything();
    assert!(printed.contains("the changed TLS files of an upstream cannot be used"), "{printed}");
    assert!(printed.contains("the changed TLS file cannot be used; the last good one stays"), "{printed}");
    count(&format!(
        "mTLS: a certificate replaced and one broken under {} requests, none failed",
        outcomes.len()
    ));
    party.server.note_secrets(&party.run).await;
}

/// At once, as whoever renews certificates does.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, path).expect("renamed");
}
