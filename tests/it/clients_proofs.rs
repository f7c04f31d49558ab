//! Clients with passwords, tokens, certificates and Unix sockets, and what is tried against them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearward::clock::Clock;
use bearward::policy::clients::basic::hash_password;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::version::TLS13;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clients_rig::{Wire, ask, basic, config, start, token_of, write};
use crate::harness::run::Run;
use crate::harness::{count, eventually};
use crate::proxy_rig::{OriginServer, field_of, fields_of, status};
use crate::tls_rig::{Authority, Files, TlsWire};

const PASSWORD: &str = "correct horse battery";

pub(crate) fn hash(password: &str) -> String {
    hash_password(password.as_bytes()).expect("a hash")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_lets_its_client_in_and_ends_here() {
    let (run, origin) = (Arc::new(Run::new("clients-basic")), OriginServer::ok());
    run.secret(PASSWORD);
    run.secret(&basic("batch", PASSWORD));
    let path = run.private().join("batch.argon2");
    write(&path, &format!("{}\n", hash(PASSWORD)));
    let clients = json!({
        "batch": {"basic": {"username": "batch", "password_hash": {"file": path}}},
        "erp": {"basic": {"username": "erp", "password_hash": {"value": hash("another password")}}},
    });
    let mut config = config(&origin, &clients);
    // No credential: a client's own field would pass, were it not a proof for us.
    config["listeners"][0]["routes"][0].as_object_mut().expect("a route").remove("credential");
    config["credentials"] = json!({});
    let bearward = start(&run, &config).await;
    let good = basic("batch", PASSWORD);
    let (refused, answer) = ask(bearward.proxy(), &[]);
    assert_eq!(refused, 401);
    let challenge = field_of(&answer, "www-authenticate");
    assert_eq!(challenge.as_deref(), Some("Basic realm=\"bearward\", charset=\"UTF-8\""));
    for fields in [
        vec![("Authorization", basic("erp", PASSWORD))],
        vec![("Authorization", basic("nobody", PASSWORD))],
        vec![("Authorization", basic("BATCH", PASSWORD))],
        vec![("Authorization", basic("batch", &hash(PASSWORD)))],
        vec![("Authorization", "Basic %%%".to_owned())],
        vec![("Authorization", good.clone()), ("Authorization", good.clone())],
        vec![("Proxy-Authorization", good.clone())],
        vec![("X-Authorization", good.clone())],
    ] {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(ask(bearward.proxy(), &fields).0, 401, "{fields:?}");
    }
    assert!(origin.requests().is_empty());
    let mut wire = Wire::to(bearward.proxy());
    assert_eq!(status(&wire.get("/", &[("Authorization", &good)])), 200);
    // The connection is nobody's: the next request of it needs a proof of its own.
    assert_eq!(status(&wire.get("/", &[])), 401);
    assert_eq!(status(&wire.get("/", &[("Authorization", &good)])), 200);
    for request in origin.requests() {
        assert_eq!(fields_of(&request, "authorization"), Vec::<String>::new());
    }
    write(&path, &hash("a new password"));
    eventually("the old password is refused", Duration::from_secs(20), async || {
        (ask(bearward.proxy(), &[("Authorization", &good)]).0 != 200).then_some(())
    })
    .await;
    assert_eq!(ask(bearward.proxy(), &[("Authorization", &basic("batch", "a new password"))]).0, 200);
    let metrics = bearward.admin("/metrics").await.to_string();
    assert!(
        !metrics.contains("bearward_client_requests_total{client=\"batch\",code_class=\"2xx\"} 0"),
        "{metrics}"
    );
    assert!(
        metrics.contains("bearward_client_requests_total{client=\"erp\",code_class=\"2xx\"} 0"),
        "{metrics}"
    );
    assert!(
        metrics.contains("bearward_client_denied_total{listener=\"legacy\",reason=\"missing\"}"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_is_slowed_down_and_a_right_guess_is_not_told_apart() {
    let (run, origin) = (Arc::new(Run::new("clients-throttle")), OriginServer::ok());
    let clients = json!({
        "batch": {"basic": {"username": "batch", "password_hash": {"value": hash(PASSWORD)}}},
        "erp": {"basic": {"username": "erp", "password_hash": {"value": hash(PASSWORD)}}},
    });
    let bearward = start(&run, &config(&origin, &clients)).await;
    let good = basic("batch", PASSWORD);
    let mut kept = Wire::to(bearward.proxy());
    assert_eq!(status(&kept.get("/", &[("Authorization", &good)])), 200);
    let mut told = Vec::new();
    for guess in 0..12 {
        told.push(ask(bearward.proxy(), &[("Authorization", &basic("batch", &format!("guess {guess}")))]));
    }
    let statuses: Vec<u16> = told.iter().map(|(status, _)| *status).collect();
    assert_eq!(&statuses[..5], [401; 5], "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 429).count() >= 5, "{statuses:?}");
    let (_, throttled) = told.iter().find(|(status, _)| *status == 429).expect("one is slowed down");
    let wait: u64 = field_of(throttled, "retry-after").and_then(|text| text.parse().ok()).expect("a time");
    assert!((1..=60).contains(&wait), "{throttled}");
    // The right password from a guesser's new connection waits like any guess, though it is remembered.
    assert_eq!(ask(bearward.proxy(), &[("Authorization", &good)]).0, 429);
    // Whoever was let in before, and another name, do not wait.
    assert_eq!(status(&kept.get("/", &[("Authorization", &good)])), 200);
    assert_eq!(ask(bearward.proxy(), &[("Authorization", &basic("erp", PASSWORD))]).0, 200);
    let printed = run.everything();
    assert_eq!(printed.matches("several failed attempts").count(), 1, "{printed}");
    let metrics = bearward.admin("/metrics").await.to_string();
    assert!(!metrics.contains("reason=\"throttled\"} 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_name_takes_as_long_as_a_wrong_password_and_a_known_one_is_not_hashed_again() {
    let (run, origin) = (Arc::new(Run::new("clients-timing")), OriginServer::ok());
    let clients =
        json!({"batch": {"basic": {"username": "batch", "password_hash": {"value": hash(PASSWORD)}}}});
    let mut config = config(&origin, &clients);
    config["limits"]["workers"] = json!(1);
    let bearward = start(&run, &config).await;
    let time = |user: &str, password: &str| {
        let begun = Instant::now();
        let (status, _) = ask(bearward.proxy(), &[("Authorization", &basic(user, password))]);
        (status, begun.elapsed())
    };
    let median = |mut all: Vec<Duration>| {
        all.sort();
        all[all.len() / 2]
    };
    let wrong = median((0..4).map(|n| time("batch", &format!("wrong {n}")).1).collect());
    let unknown = median((0..9).map(|n| time(&format!("nobody {n}"), PASSWORD).1).collect());
    assert_eq!(time("batch", PASSWORD).0, 200);
    let known = median((0..20).map(|_| time("batch", PASSWORD).1).collect());
    count(&format!(
        "client password: wrong {} ms, unknown name {} ms, known again {} us a request with its connection",
        wrong.as_millis(),
        unknown.as_millis(),
        known.as_micros()
    ));
    assert!(unknown * 5 > wrong && wrong * 5 > unknown, "{wrong:?} {unknown:?}");
    assert!(known * 2 < wrong, "{known:?} {wrong:?}");
}

/// An issuer's key.
pub(crate) struct Issuer {
    key: rcgen::KeyPair,
    kid: &'static str,
}

impl Issuer {
    pub(crate) fn new(kid: &'static str) -> Self {
        Self { key: rcgen::KeyPair::generate().expect("a key"), kid }
    }

    pub(crate) fn jwk(&self) -> Value {
        // An uncompressed point.
        let point = self.key.public_key_raw();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
               "x": part(&point[1..33]), "y": part(&point[33..])})
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(claims, Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::ES256) })
    }

    fn sign_as(&self, claims: &Value, header: Header) -> String {
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).expect("a key");
        jsonwebtoken::encode(&header, claims, &key).expect("a token")
    }
}

fn now() -> i64 {
    Clock::System.wall().seconds()
}

pub(crate) fn claims(changes: Value) -> Value {
    let mut claims =
        json!({"iss": "https://id.example.com", "aud": "bearward", "sub": "batch", "exp": now() + 300});
    for (name, value) in changes.as_object().expect("a mapping") {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_must_be_signed_by_the_issuer_for_us_and_now() {
    let (run, origin, issuer) = (Arc::new(Run::new("clients-jwt")), OriginServer::ok(), Issuer::new("one"));
    let path = run.private().join("jwks.json");
    let mut shared = issuer.jwk();
    shared = json!({"keys": [shared, {"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0"}]});
    write(&path, &shared.to_string());
    let jwt = |sub: &str| {
        json!({"jwt": {"issuer": "https://id.example.com", "audience": "bearward", "jwks": {"file": path},
                       "claims": {"sub": sub}}})
    };
    let bearward = start(&run, &config(&origin, &json!({"batch": jwt("batch"), "erp": jwt("erp")}))).await;
    let check = |what: &str, token: &str, expected: u16| {
        let (status, answer) = ask(bearward.proxy(), &[("Authorization", &format!("Bearer {token}"))]);
        // Whoever is wrong too often is slowed down as well.
        let refused = expected == 401 && status == 429;
        assert!(status == expected || refused, "{what}: {answer}");
    };
    let good = issuer.sign(&claims(json!({})));
    run.secret(&good);
    check("good", &good, 200);
    check("good again", &good, 200);
    check("of the other", &issuer.sign(&claims(json!({"sub": "erp"}))), 200);
    check(
        "without a key's name",
        &issuer.sign_as(&claims(json!({"a": 1})), Header::new(Algorithm::ES256)),
        200,
    );
    check("one of several audiences", &issuer.sign(&claims(json!({"aud": ["x", "bearward"]}))), 200);
    check("within the leeway", &issuer.sign(&claims(json!({"exp": now() - 10}))), 200);
    let bad = [
        ("expired", json!({"exp": now() - 40})),
        ("not yet", json!({"nbf": now() + 60})),
        ("another issuer", json!({"iss": "https://id.example.com/"})),
        ("another audience", json!({"aud": "another"})),
        ("nobody", json!({"sub": "nobody"})),
        ("no end", json!({"exp": null})),
        ("no audience", json!({"aud": null})),
    ];
    for (what, changes) in bad {
        check(what, &issuer.sign(&claims(changes)), 401);
    }
    check("another key of that name", &Issuer::new("one").sign(&claims(json!({}))), 401);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = part(&claims(json!({})));
    check("no algorithm", &format!("{}.{body}.", part(&json!({"alg": "none"}))), 401);
    check("no signature", &format!("{}.{body}.", part(&json!({"alg": "ES256", "kid": "one"}))), 401);
    let hmac = |secret: &[u8], kid: &str| {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims(json!({})), &EncodingKey::from_secret(secret)).expect("a token")
    };
    check("the public key as a secret", &hmac(issuer.key.public_key_raw(), "one"), 401);
    check("the public key's PEM as a secret", &hmac(issuer.key.public_key_pem().as_bytes(), "one"), 401);
    check("a secret of the key set", &hmac(b"secret", "secret"), 401);
    let critical = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::ES256) };
    check("an extension nobody knows", &issuer.sign_as(&claims(json!({})), critical), 401);
    let changed = good.replace('.', " .");
    check("spaces", &changed, 401);
    let (head, tail) = good.split_at(good.len() - 4);
    check("another signature", &format!("{head}{}", tail.chars().rev().collect::<String>()), 401);
    assert_eq!(ask(bearward.proxy(), &[("Proxy-Authorization", &format!("Bearer {good}"))]).0, 401);
    for request in origin.requests() {
        assert_eq!(fields_of(&request, "authorization"), [format!("Bearer {}", token_of("it"))]);
    }
    // Another key set: what the old one had verified is not remembered.
    write(&path, &json!({"keys": [Issuer::new("two").jwk()]}).to_string());
    eventually("the old key is refused", Duration::from_secs(20), async || {
        (ask(bearward.proxy(), &[("Authorization", &format!("Bearer {good}"))]).0 != 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_fetched_once_however_many_tokens_name_unknown_ones() {
    let (run, origin, issuer) = (Arc::new(Run::new("clients-jwks")), OriginServer::ok(), Issuer::new("one"));
    let keys = json!({"keys": [issuer.jwk()]}).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len());
    let provider = OriginServer::answering(&answer);
    let jwt = json!({"issuer": "https://id.example.com", "audience": ["bearward"],
                     "jwks_uri": format!("{}/jwks", provider.url())});
    let bearward = start(&run, &config(&origin, &json!({"batch": {"jwt": jwt}}))).await;
    let bearer = |token: String| format!("Bearer {token}");
    assert_eq!(ask(bearward.proxy(), &[("Authorization", &bearer(issuer.sign(&claims(json!({})))))]).0, 200);
    let other = Issuer::new("two");
    for number in 0..40 {
        let token = bearer(other.sign(&claims(json!({"n": number}))));
        let (status, _) = ask(bearward.proxy(), &[("Authorization", &token)]);
        assert!(matches!(status, 401 | 429), "{status}");
    }
    assert_eq!(
        ask(bearward.proxy(), &[("Authorization", &bearer(issuer.sign(&claims(json!({"n": 1})))))]).0,
        200
    );
    assert_eq!(provider.requests().len(), 1, "{:?}", provider.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_cannot_be_reached_lets_nobody_in() {
    let (run, origin, issuer) =
        (Arc::new(Run::new("clients-jwks-gone")), OriginServer::ok(), Issuer::new("one"));
    let provider = OriginServer::answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let jwt = json!({"issuer": "https://id.example.com", "audience": "bearward", "jwks_uri": provider.url()});
    let bearward = start(&run, &config(&origin, &json!({"batch": {"jwt": jwt}}))).await;
    let token = format!("Bearer {}", issuer.sign(&claims(json!({}))));
    assert_eq!(ask(bearward.proxy(), &[("Authorization", &token)]).0, 503);
    assert_eq!(ask(bearward.proxy(), &[]).0, 401);
    assert!(origin.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_its_clients_by_name_and_issuer() {
    let (run, origin) = (Arc::new(Run::new("clients-mtls")), OriginServer::ok());
    let (server, own, foreign) = (Authority::new(), Authority::new(), Authority::new());
    let files = Files::of(&server.issue(&["localhost"]));
    files.write("clients.crt", &[own.certificate.pem(), foreign.certificate.pem()].concat());
    files.write("own.crt", &own.certificate.pem());
    let clients = json!({
        "batch": {"mtls": {"san": ["*.batch.internal"], "ca": {"file": files.at("own.crt")}}},
        "erp": {"mtls": {"spiffe": ["spiffe://corp/erp/*"]}},
    });
    let mut config = config(&origin, &clients);
    config["listeners"][0]["tls"] = json!({
        "cert": {"file": files.at("tls.crt")}, "key": {"file": files.at("tls.key")},
        "client_ca": {"file": files.at("clients.crt")},
    });
    let bearward = start(&run, &config).await;
    let ask = |authority: &Authority, names: &[&str]| {
        let identity = authority.issue(names);
        let wire = TlsWire::to(bearward.proxy(), &server.client(&[&TLS13], Some(&identity)));
        let answer = wire.and_then(|mut wire| wire.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        answer.map(|answer| status(&answer)).unwrap_or_default()
    };
    assert_eq!(ask(&own, &["a.batch.internal"]), 200);
    assert_eq!(ask(&own, &["x.example", "a.batch.internal"]), 200);
    assert_eq!(ask(&own, &["batch.internal"]), 403);
    assert_eq!(ask(&own, &["a.b.batch.internal"]), 403);
    assert_eq!(ask(&own, &["*.batch.internal"]), 403);
    assert_eq!(ask(&foreign, &["a.batch.internal"]), 403, "of another authority");
    assert_eq!(ask(&Authority::new(), &["a.batch.internal"]), 0, "no handshake");
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_tells_its_users() {
    let (run, origin) = (Arc::new(Run::new("clients-unix")), OriginServer::ok());
    let uid = rustix::process::getuid().as_raw();
    let clients = json!({"me": {"unix_peer": {"uid": [uid]}}, "other": {"unix_peer": {"uid": [uid + 1]}}});
    let mut config = config(&origin, &json!({}));
    config["clients"] = clients;
    let listener = |name: &str, client: &str| {
        json!({"name": name, "kind": "reverse", "bind": format!("unix:{}", run.private().join(name).display()),
               "clients": [client], "routes": [crate::clients_rig::route(&origin)]})
    };
    let plain = json!({"name": "legacy", "kind": "reverse", "bind": "127.0.0.1:0",
                       "clients": ["me"], "routes": [crate::clients_rig::route(&origin)]});
    config["listeners"] = json!([plain, listener("mine", "me"), listener("others", "other")]);
    let bearward = start(&run, &config).await;
    let over = |name: &str| {
        let mut wire = Wire(UnixStream::connect(run.private().join(name)).expect("connected"));
        wire.send("/", &[("Connection", "close")]);
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut wire.0, &mut answer).expect("an answer");
        status(&answer)
    };
    assert_eq!(over("mine"), 200);
    assert_eq!(over("others"), 403);
    assert_eq!(ask(bearward.proxy(), &[]).0, 403, "over TCP nobody is a Unix peer");
}
