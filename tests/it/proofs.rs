//! Proofs of possession (DPoP, RFC 9449) on every way to an upstream: each origin checks signature, method, target, hash of
//! the token, its own nonce, and that no proof came before.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::egress;
use crate::egress_intercept::Scene;
use crate::h2_origin::{Answer, H2Origin};
use crate::h2_upstream::server_config;
use crate::harness::bearward::Bearward;
use crate::harness::http;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, fields_of, status};
use crate::replay_rig::Provider;
use crate::tls_rig::{Authority, Files};

const TOKENS: &str = r#"{"access_token":"AT","token_type":"DPoP","expires_in":3600}"#;

/// An origin's view of proofs.
#[derive(Default)]
struct Judge {
    /// As the origin is written in URLs.
    origin: OnceLock<String>,
    nonce: String,
    seen: Mutex<HashSet<String>>,
    /// What was wrong; a proof without a nonce is only asked for one.
    wrong: Mutex<Vec<String>>,
    asked_for_nonce: Mutex<usize>,
}

enum Verdict {
    Good,
    WantsNonce,
    Wrong,
}

impl Judge {
    fn new(nonce: &str) -> Arc<Self> {
        Arc::new(Self { nonce: nonce.to_owned(), ..Self::default() })
    }

    fn judge(&self, method: &str, target: &str, proofs: &[String], authorizations: &[String]) -> Verdict {
        match self.check(method, target, proofs, authorizations) {
            Ok(true) => Verdict::Good,
            Ok(false) => {
                *self.asked_for_nonce.lock().expect("lock") += 1;
                Verdict::WantsNonce
            }
            Err(wrong) => {
                self.wrong.lock().expect("lock").push(format!("{method} {target}: {wrong}"));
                Verdict::Wrong
            }
        }
    }

    /// Whether the nonce is there.
    fn check(
        &self,
        method: &str,
        target: &str,
        proofs: &[String],
        authorizations: &[String],
    ) -> Result<bool, String> {
        let ([proof], [authorization]) = (proofs, authorizations) else {
            return Err(format!("{} proofs, {} tokens", proofs.len(), authorizations.len()));
        };
        let token = authorization.strip_prefix("DPoP ").ok_or("no token after `DPoP`")?;
        let header = jsonwebtoken::decode_header(proof).map_err(|error| error.to_string())?;
        if header.typ.as_deref() != Some("dpop+jwt") || header.alg != jsonwebtoken::Algorithm::ES256 {
            return Err(format!("{header:?}"));
        }
        let key = jsonwebtoken::DecodingKey::from_jwk(&header.jwk.ok_or("no key")?)
            .map_err(|error| error.to_string())?;
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Value>(proof, &key, &validation)
            .map_err(|error| error.to_string())?
            .claims;
        let path = target.split('?').next().unwrap_or_default();
        let origin = self.origin.get().expect("it is told");
        let expected = [
            ("htm", method.to_owned()),
            ("htu", format!("{origin}{path}")),
            ("ath", URL_SAFE_NO_PAD.encode(bearward::secret::Fingerprint::of(token.as_bytes()).as_bytes())),
        ];
        for (name, expected) in expected {
            if claims[name] != expected.as_str() {
                return Err(format!("{name} is {} and not {expected}", claims[name]));
            }
        }
        let issued = claims["iat"].as_i64().ok_or("no iat")?;
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        if issued.abs_diff(i64::try_from(now).expect("it is small")) > 60 {
            return Err(format!("iat is {issued} at {now}"));
        }
        let id = claims["jti"].as_str().ok_or("no jti")?;
        if !self.seen.lock().expect("lock").insert(id.to_owned()) {
            return Err("a proof was there before".into());
        }
        match claims.get("nonce") {
            Some(nonce) if *nonce == self.nonce.as_str() => Ok(true),
            // RFC 9449 9: nobody but this origin gives its nonces.
            Some(nonce) => Err(format!("the nonce {nonce} is another origin's")),
            None => Ok(false),
        }
    }

    /// Nothing was wrong, and a nonce was asked for at most so often.
    fn content(&self, at_most: usize) {
        let wrong = self.wrong.lock().expect("lock");
        assert!(wrong.is_empty(), "{wrong:?}");
        let asked = *self.asked_for_nonce.lock().expect("lock");
        assert!(
            (1..=at_most).contains(&asked),
            "asked for a nonce {asked} times, at most {at_most} are right"
        );
    }
}

/// An origin over HTTP/1.1 that judges proofs.
fn origin(judge: &Arc<Judge>) -> OriginServer {
    let own = Arc::clone(judge);
    OriginServer::scripted(move |stream, request| {
        let mut line = request.split(' ');
        let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let verdict =
            own.judge(method, target, &fields_of(request, "dpop"), &fields_of(request, "authorization"));
        let answer = match verdict {
            Verdict::Good => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            Verdict::WantsNonce => format!(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: DPoP error=\"use_dpop_nonce\"\r\nDPoP-Nonce: {}\r\n\
                 Content-Length: 0\r\n\r\n",
                own.nonce
            ),
            Verdict::Wrong => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).is_ok()
    })
}

fn credential(run: &Run, provider: &Provider) -> Value {
    json!({
        "token_endpoint": format!("{}/token", provider.origin()),
        "client": {"id": "gateway", "secret": run.secret_file("client-secret", "the-secret-of-the-client")},
        "grant": "client_credentials",
        "dpop": {"alg": "ES256"},
    })
}

async fn ask(bearward: &Bearward, requests: usize) {
    for number in 0..requests {
        let path = if number % 2 == 0 { "/orders?page=2&htu=x" } else { "/a%20b/~c;d" };
        let answer = bearward.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_names_the_origin_that_it_goes_to_and_each_origin_has_a_nonce_of_its_own() {
    let run = Arc::new(Run::new("dpop-origins"));
    let provider = Provider::start(TOKENS).await;
    let judges: Vec<_> = (0..3).map(|number| Judge::new(&format!("nonce-of-{number}"))).collect();
    let origins: Vec<_> = judges.iter().map(origin).collect();
    // One of them by a name with several addresses: the target is the name.
    let urls = origins.iter().enumerate().map(|(number, origin)| match number {
        0 => format!("http://localhost:{}", origin.address.port()),
        _ => origin.url(),
    });
    let urls: Vec<_> = urls.collect();
    for (judge, url) in judges.iter().zip(&urls) {
        judge.origin.set(url.clone()).expect("once");
    }
    let mut config = run.config(&urls[1], &credential(&run, &provider));
    config["listeners"][0]["routes"][0]["upstream"] = json!({"urls": urls});
    config["limits"] = json!({"workers": 2});
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(20)).await;
    ask(&bearward, 60).await;
    for (judge, origin) in judges.iter().zip(&origins) {
        judge.content(2);
        assert!(origin.requests().len() > 3, "each origin had its share: {}", origin.requests().len());
    }
    assert!(bearward.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_http2_are_proved_each_on_its_own() {
    let run = Arc::new(Run::new("dpop-h2"));
    let provider = Provider::start(TOKENS).await;
    let authority = Authority::new();
    let files = Files::of(&authority.issue(&["localhost"]));
    files.write("ca.crt", &authority.certificate.pem());
    for secured in [false, true] {
        let judge = Judge::new("nonce-of-http2");
        let own = Arc::clone(&judge);
        let answer = move |seen: &crate::h2_origin::Seen| {
            let all = |name: &str| {
                let values = seen.head.headers.get_all(name).iter();
                values.map(|value| value.to_str().expect("text").to_owned()).collect::<Vec<_>>()
            };
            let target = seen.head.uri.path_and_query().map_or("", |target| target.as_str());
            match own.judge(seen.head.method.as_str(), target, &all("dpop"), &all("authorization")) {
                Verdict::Good => Answer::ok("ok"),
                Verdict::Wrong => Answer::status(400),
                Verdict::WantsNonce => Answer::status(401)
                    .with("www-authenticate", "DPoP error=\"use_dpop_nonce\"")
                    .with("dpop-nonce", &own.nonce),
            }
        };
        let origin = match secured {
            true => H2Origin::secured(server_config(&authority, &["h2"]), answer),
            false => H2Origin::answering(answer),
        };
        let port = origin.address.port();
        let url =
            if secured { format!("https://localhost:{port}") } else { format!("http://localhost:{port}") };
        judge.origin.set(url.clone()).expect("once");
        let mut config = run.config(&url, &credential(&run, &provider));
        config["listeners"][0]["routes"][0]["upstream"] = match secured {
            true => json!({"urls": [url], "http": "h2", "tls": {"ca": {"file": files.at("ca.crt")}}}),
            false => json!({"urls": [url], "http": "h2c"}),
        };
        config["store"]["path"] = json!(run.private().join(format!("state-{secured}")));
        let bearward = Bearward::start(&run, &config).await;
        bearward.until_state("fresh", Duration::from_secs(20)).await;
        ask(&bearward, 1).await;
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let proxy = bearward.proxy();
            all.spawn(async move { http::get(proxy, "/orders?page=3").await.expect("an answer").status });
        }
        assert_eq!(all.join_all().await, [200; 40]);
        judge.content(1);
        assert!(bearward.stop().await.success());
        // It has a runtime of its own.
        tokio::task::block_in_place(|| drop(origin));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_a_forward_proxy_prove_the_origin_of_each_request() {
    let run = Arc::new(Run::new("dpop-egress"));
    let provider = Provider::start(TOKENS).await;
    let judges: Vec<_> = (0..2).map(|number| Judge::new(&format!("nonce-of-{number}"))).collect();
    let origins: Vec<_> = judges.iter().map(origin).collect();
    let urls: Vec<_> = origins.iter().map(OriginServer::url).collect();
    for (judge, url) in judges.iter().zip(&urls) {
        judge.origin.set(url.clone()).expect("once");
    }
    let ports: Vec<_> = origins.iter().map(|origin| origin.address.port()).collect();
    let rules = json!([{"name": "api", "match": {"hosts": ["127.0.0.1"], "ports": ports}, "action": "forward", "credential": "it"}]);
    let mut config = egress::config(&run, &rules, &urls);
    let allowed = config["credentials"]["it"]["allowed_upstreams"].clone();
    config["credentials"]["it"] = credential(&run, &provider);
    config["credentials"]["it"]["allowed_upstreams"] = allowed;
    config["limits"] = json!({"workers": 2});
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(20)).await;
    for _ in 0..10 {
        for url in &urls {
            let answer = egress::absolute(&bearward, &format!("{url}/orders?page=2"), "DPoP: theirs\r\n");
            assert_eq!(status(&answer), 200, "{answer}");
        }
    }
    for judge in &judges {
        judge.content(2);
    }
    assert!(bearward.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_inside_an_interception_are_proved_for_the_host_that_is_stood_in_for() {
    let provider = Provider::start(TOKENS).await;
    let judge = Judge::new("nonce-of-the-inside");
    let plain = origin(&judge);
    let token_endpoint = format!("{}/token", provider.origin());
    let scene = Scene::with("dpop-intercept", plain.address, &["localhost"], |config, port| {
        judge.origin.set(format!("https://localhost:{port}")).expect("once");
        let credential = config["credentials"]["it"].as_object_mut().expect("a credential");
        credential.remove("token");
        credential.extend(
            json!({
                "grant": "client_credentials", "token_endpoint": token_endpoint, "dpop": {},
                "client": {"id": "gateway", "secret": {"value": "the-secret-of-the-client"}},
            })
            .as_object()
            .expect("a map")
            .clone(),
        );
        config["limits"] = json!({"workers": 1});
    })
    .await;
    scene.proxy.until_state("fresh", Duration::from_secs(20)).await;
    for _ in 0..3 {
        let request =
            "GET /orders?page=2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nDPoP: theirs\r\n\r\n";
        let request = request.replace("Host: localhost", &format!("Host: localhost:{}", scene.port));
        let answer = scene.inside("localhost", &request).await.expect("it goes through");
        assert_eq!(status(&answer), 200, "{answer}");
    }
    judge.content(3);
}
