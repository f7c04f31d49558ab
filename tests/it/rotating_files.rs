//! Secrets, keys and assertions that are replaced in their files under a running proxy: the next request uses the new
//! one; a broken one is told of, and what was good stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::eventually;
use crate::harness::run::Run;
use crate::login::{command, printed};
use crate::proxy_rig::OriginServer;
use crate::replay_rig::{Asked, Provider};

const TOKENS: &str = r#"{"access_token":"AT","token_type":"bearer","expires_in":3600}"#;

/// A key with its certificate, both PEM.
fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
    let params = rcgen::CertificateParams::new(vec!["gateway.example".into()]).expect("params");
    (key.serialize_pem(), params.self_signed(&key).expect("certificate").pem())
}

/// At once, as secret managers do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, path).expect("renamed");
}

/// A proxy whose credential asks a recording provider, each time that it is told to.
struct Rig {
    run: Arc<Run>,
    provider: Provider,
    bearward: Bearward,
    config: Value,
}

impl Rig {
    async fn start(name: &str, client: Value) -> Self {
        let run = Arc::new(Run::new(name));
        let provider = Provider::start(TOKENS).await;
        let credential = json!({
            "token_endpoint": format!("{}/token", provider.origin()),
            "client": client,
            "grant": "client_credentials",
            "refresh": {"min_interval": "1s"},
        });
        let mut config = run.config("http://127.0.0.1:9", &credential);
        config["admin"]["token"] = run.secret_file("admin", "the-token-of-the-administrator");
        let bearward = Bearward::start(&run, &config).await;
        bearward.until_state("fresh", Duration::from_secs(20)).await;
        Self { run, provider, bearward, config }
    }

    /// Asks for a token now; the request that was sent for it, or what was said instead.
    async fn refresh(&self) -> Result<Asked, String> {
        let before = self.provider.asked().len();
        let admin = self.bearward.admin_address().to_string();
        let (run, config) = (Arc::clone(&self.run), self.config.clone());
        #[allow(clippy::disallowed_methods, reason = "joined at once")]
        let output = tokio::task::spawn_blocking(move || {
            let token = config["admin"]["token"]["file"].as_str().expect("a path");
            command(&run, &config, &["refresh", "it", "--admin", &admin, "--token-file", token], "")
        })
        .await
        .expect("it ends");
        let asked = self.provider.asked();
        match asked.len() - before {
            0 => Err(printed(&output)),
            _ => Ok(asked.last().expect("one").clone()),
        }
    }

    async fn file_errors(&self) -> u64 {
        let text = String::from_utf8(self.bearward.admin("/metrics").await.body).expect("UTF-8");
        let name = "bearward_credential_file_errors_total{credential=\"it\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    }
}

/// What a request is authenticated with, as far as it depends on a secret.
fn proof(asked: &Asked) -> Vec<u8> {
    if let Some(basic) = asked.header("authorization").and_then(|value| value.strip_prefix("Basic ")) {
        return STANDARD.decode(basic).expect("base64");
    }
    let text = asked.parameter("client_secret").or_else(|| asked.parameter("client_assertion"));
    text.expect("a secret or an assertion").as_bytes().to_vec()
}

fn part(assertion: &[u8], place: usize) -> Value {
    let text = std::str::from_utf8(assertion).expect("ASCII");
    let bytes = URL_SAFE_NO_PAD.decode(text.split('.').nth(place).expect("a part")).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Whether the key of this certificate signed an assertion that names the certificate.
fn is_signed_by(assertion: &[u8], key: &str, certificate: &str) -> bool {
    use rustls::pki_types::pem::PemObject;
    let pair = rcgen::KeyPair::from_pem(key).expect("key");
    let decoding = jsonwebtoken::DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes()).expect("key");
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.validate_aud = false;
    let text = std::str::from_utf8(assertion).expect("ASCII");
    let signed = jsonwebtoken::decode::<Value>(text, &decoding, &validation).is_ok();
    let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).expect("certificate");
    let digest = bearward::secret::Fingerprint::of(&der);
    let named = part(assertion, 0)["x5t#S256"] == URL_SAFE_NO_PAD.encode(digest.as_bytes());
    assert_eq!(signed, named, "an assertion names the certificate whose key signed it");
    signed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_client_secret_is_sent_with_the_next_request_and_a_broken_one_is_not() {
    let check = async |auth: &str| {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = folder.path().join("secret");
        std::fs::write(&file, "the-first-secret-of-the-client").expect("written");
        let client = json!({"id": "gateway", "auth": auth, "secret": {"file": file}});
        let rig = Rig::start(&format!("rotating-{auth}"), client).await;
        rig.run.client_secret("gateway", "the-first-secret-of-the-client");
        rig.run.client_secret("gateway", "the-second-secret-of-the-client");
        let uses = |asked: &Asked, secret: &str| {
            if auth == "client_secret_jwt" {
                let decoding = jsonwebtoken::DecodingKey::from_secret(secret.as_bytes());
                let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
                validation.validate_aud = false;
                let assertion = String::from_utf8(proof(asked)).expect("ASCII");
                return jsonwebtoken::decode::<Value>(&assertion, &decoding, &validation).is_ok();
            }
            proof(asked).ends_with(secret.as_bytes())
        };
        assert!(uses(&rig.refresh().await.expect("sent"), "the-first-secret-of-the-client"), "{auth}");
        replace(&file, "the-second-secret-of-the-client\n");
        assert!(uses(&rig.refresh().await.expect("sent"), "the-second-secret-of-the-client"), "{auth}");
        assert_eq!(rig.file_errors().await, 0, "{auth}");
        for (turn, broken) in [Some("  \n"), None].into_iter().enumerate() {
            match broken {
                Some(text) => replace(&file, text),
                None => std::fs::remove_file(&file).expect("removed"),
            }
            let asked = rig.refresh().await.expect("sent");
            assert!(uses(&asked, "the-second-secret-of-the-client"), "{auth}: the last good one");
            let errors = rig.file_errors().await;
            assert!(errors > turn as u64, "{auth}: {errors}");
        }
        replace(&file, "the-first-secret-of-the-client");
        assert!(
            uses(&rig.refresh().await.expect("sent"), "the-first-secret-of-the-client"),
            "{auth}: mended"
        );
        assert!(rig.bearward.stop().await.success());
        let printed = rig.run.everything();
        assert!(printed.contains("the changed client secret cannot be used"), "{printed}");
    };
    tokio::join!(check("client_secret_basic"), check("client_secret_post"), check("client_secret_jwt"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_private_key_signs_the_next_assertion_and_never_under_the_name_of_another() {
    let folder = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let ((first, first_certificate), (second, second_certificate)) = (pair(), pair());
    std::fs::write(at("client.key"), &first).expect("written");
    std::fs::write(at("client.crt"), &first_certificate).expect("written");
    let client = json!({"id": "gateway", "auth": "private_key_jwt", "alg": "ES256", "x5t": "sha256",
                        "key": {"file": at("client.key")}, "certificate": {"file": at("client.crt")}});
    let rig = Rig::start("rotating-key", client).await;
    for line in first.lines().chain(second.lines()).filter(|line| !line.starts_with("-----")) {
        rig.run.secret(line);
    }
    let assertion = async || proof(&rig.refresh().await.expect("sent"));
    assert!(is_signed_by(&assertion().await, &first, &first_certificate));
    // The key is there and its certificate not yet: what fits together is used on.
    replace(&at("client.key"), &second);
    assert!(is_signed_by(&assertion().await, &first, &first_certificate));
    assert!(rig.file_errors().await > 0);
    replace(&at("client.crt"), &second_certificate);
    assert!(is_signed_by(&assertion().await, &second, &second_certificate));
    for broken in ["", "-----BEGIN PRIVATE KEY-----\nbroken\n-----END PRIVATE KEY-----\n"] {
        replace(&at("client.key"), broken);
        assert!(is_signed_by(&assertion().await, &second, &second_certificate), "the last good one");
    }
    assert!(rig.bearward.stop().await.success());
    let printed = rig.run.everything();
    assert!(printed.contains("the changed signing key cannot be used"), "{printed}");
}

/// Somebody else signs it, for one use: one that was sent already is not sent because the next cannot be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_assertion_is_sent_with_the_next_request_and_none_twice_for_want_of_another() {
    let folder = tempfile::tempdir().expect("tempdir");
    let file = folder.path().join("assertion");
    std::fs::write(&file, "the-first.assertion.of-a-file").expect("written");
    let rig = Rig::start("rotating-assertion", json!({"id": "gateway", "assertion": {"file": file}})).await;
    rig.run.secret("the-first.assertion.of-a-file");
    rig.run.secret("the-second.assertion.of-a-file");
    assert_eq!(proof(&rig.refresh().await.expect("sent")), b"the-first.assertion.of-a-file");
    replace(&file, "the-second.assertion.of-a-file");
    assert_eq!(proof(&rig.refresh().await.expect("sent")), b"the-second.assertion.of-a-file");
    replace(&file, "");
    let told = rig.refresh().await.expect_err("nothing is sent");
    assert!(told.contains("is empty"), "{told}");
    let asked = rig.provider.asked().len();
    // The token of before is served meanwhile, and a mended file is tried at once.
    let state = rig.bearward.credential().await;
    assert_eq!(state["state"], "misconfigured", "{state}");
    assert_eq!(rig.bearward.get("/").await.status, 502, "a token, and nobody at the upstream's port");
    replace(&file, "the-first.assertion.of-a-file");
    eventually("the mended file is used", Duration::from_secs(10), async || {
        (rig.provider.asked().len() > asked).then_some(())
    })
    .await;
    assert!(rig.bearward.stop().await.success());
}

/// Nobody makes a new static token for the asking: a refused one is read again, and what that brings is all there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_token_that_is_refused_is_read_again_and_not_waited_for() {
    let run = Arc::new(Run::new("static-refused"));
    let origin = OriginServer::scripted(|stream, request| {
        let answer: &[u8] = if request.contains("the-new-static-token") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        } else {
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
        };
        std::io::Write::write_all(stream, answer).is_ok()
    });
    let token = run.secret_file("token", "the-old-static-token");
    let path = PathBuf::from(token["file"].as_str().expect("a path"));
    let config = run.config(&origin.url(), &json!({"grant": "static", "token": token}));
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(20)).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(bearward.get("/").await.status, 401);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // The file is looked at each second, so that this is one of two ways to the new token.
    replace(&path, "the-new-static-token");
    eventually("the new token is taken", Duration::from_secs(5), async || {
        (bearward.get("/").await.status == 200).then_some(())
    })
    .await;
    bearward.stop().await;
}
