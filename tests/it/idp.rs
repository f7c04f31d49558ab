//! The embedded authorization server keeps its own rules: what the refresh tests stand on.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bearward::clock::{Clock, ManualClock, UnixTime};
use bearward::idp::{
    AuthMethod, BasicDecoding, Behaviour, Client, DEFAULT_CLIENT, DEFAULT_SECRET, DEFAULT_USER, FamilyState,
    Fault, FixedAnswer, Idp, Issuer, ORACLE_ISSUER, Outcome, RefusedToken, Rotation, Settings, User,
    VerifyingKey,
};
use bearward::secret::Secret;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An answer as it came; `status` 0: no whole head came.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    raw: Vec<u8>,
}

impl Answer {
    fn parse(raw: Vec<u8>) -> Self {
        let Some(end) = raw.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Self { status: 0, headers: BTreeMap::new(), body: Vec::new(), raw };
        };
        let head = String::from_utf8_lossy(&raw[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { status: status.unwrap_or(0), headers, body: raw[end + 4..].to_vec(), raw }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    fn text(&self, field: &str) -> String {
        let json = self.json();
        json[field].as_str().unwrap_or_else(|| panic!("no {field} in {json}")).to_owned()
    }
}

/// One request on a connection of its own.
pub(crate) async fn send(url: &str, method: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (address, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut raw = Vec::new();
    let _ = stream.read_to_end(&mut raw).await;
    Answer::parse(raw)
}

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn basic(id: &str, secret: &str) -> String {
    let escape = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", escape(id), escape(secret))))
}

/// A token request with Basic authentication.
async fn ask(idp: &Idp, pairs: &[(&str, &str)]) -> Answer {
    ask_as(idp, Some(&basic(DEFAULT_CLIENT, DEFAULT_SECRET)), pairs).await
}

async fn ask_as(idp: &Idp, authorization: Option<&str>, pairs: &[(&str, &str)]) -> Answer {
    let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
    headers.extend(authorization.map(|value| ("Authorization", value)));
    send(&idp.token_endpoint(), "POST", &headers, &form(pairs)).await
}

async fn refresh(idp: &Idp, token: &str) -> Answer {
    ask(idp, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
}

async fn refresh_seed(idp: &Idp) -> Answer {
    refresh(idp, idp.new_seed().expose()).await
}

async fn call_api(idp: &Idp, path: &str, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    send(&format!("{}{path}", idp.api_url()), "GET", &[("Authorization", &authorization)], "").await
}

async fn start(behaviour: Behaviour) -> Idp {
    Idp::start(Settings { behaviour, ..Settings::default() }).await.expect("loopback has free ports")
}

fn last_outcome(idp: &Idp) -> Outcome {
    idp.log().pop().expect("a request came").outcome
}

#[tokio::test]
async fn refresh_tokens_are_single_use_and_reuse_revokes_the_family() {
    let idp = start(Behaviour::default()).await;
    let seed = idp.new_seed();
    let first = refresh(&idp, seed.expose()).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.json()["expires_in"], 60);
    assert_eq!(first.text("token_type"), "Bearer");
    assert_eq!(first.headers["cache-control"], "no-store");
    assert_eq!(call_api(&idp, "/", &first.text("access_token")).await.status, 200);

    let again = refresh(&idp, seed.expose()).await;
    assert_eq!((again.status, again.text("error").as_str()), (400, "invalid_grant"));
    assert!(!again.text("ecid").is_empty());
    assert_eq!(last_outcome(&idp), Outcome::RefusedToken(RefusedToken::Reused));
    assert_eq!(refresh(&idp, &first.text("refresh_token")).await.status, 400);
    assert_eq!(last_outcome(&idp), Outcome::RefusedToken(RefusedToken::FamilyRevoked));
    assert_eq!(call_api(&idp, "/", &first.text("access_token")).await.status, 401);

    let family = idp.families().remove(0);
    assert_eq!((family.state, family.most_posts()), (FamilyState::RevokedByReuse, 2));
}

#[tokio::test]
async fn a_server_without_rotation_names_no_new_refresh_token() {
    let idp = start(Behaviour { rotation: Rotation::Reusable, ..Behaviour::default() }).await;
    let seed = idp.new_seed();
    for _ in 0..3 {
        let answer = refresh(&idp, seed.expose()).await;
        assert_eq!(answer.status, 200);
        assert!(answer.json().get("refresh_token").is_none());
    }
    assert!(idp.families()[0].is_alive());
}

#[tokio::test]
async fn each_way_of_client_authentication_is_checked() {
    let mut broken = Client::with_secret("raw", "a+b%2Fc");
    broken.basic = BasicDecoding::Raw;
    let clients =
        vec![Client::with_secret("c", "s:1 +é/&%"), broken, Client::public("public"), es256_client().0];
    let idp = Idp::start(Settings { clients, ..Settings::default() }).await.expect("start");
    let check = async |authorization: Option<&str>, more: &[(&str, &str)], expected: (u16, AuthMethod)| {
        let seed =
            idp.new_seed_for(if more.contains(&("client_id", "public")) { "public" } else { "c" }, "s");
        let mut pairs = vec![("grant_type", "refresh_token"), ("refresh_token", seed.expose())];
        pairs.extend(more);
        let answer = ask_as(&idp, authorization, &pairs).await;
        let method = idp.log().pop().expect("logged").client_auth;
        assert_eq!((answer.status, method), expected, "{more:?} {authorization:?}: {answer:?}");
        answer
    };
    check(Some(&basic("c", "s:1 +é/&%")), &[], (200, AuthMethod::ClientSecretBasic)).await;
    let wrong = check(Some(&basic("c", "wrong")), &[], (401, AuthMethod::ClientSecretBasic)).await;
    assert_eq!(wrong.text("error"), "invalid_client");
    assert!(wrong.headers["www-authenticate"].starts_with("Basic"));
    let post = [("client_id", "c"), ("client_secret", "s:1 +é/&%")];
    check(None, &post, (200, AuthMethod::ClientSecretPost)).await;
    check(None, &[("client_id", "c"), ("client_secret", "no")], (401, AuthMethod::ClientSecretPost)).await;
    check(Some(&basic("c", "s:1 +é/&%")), &post, (400, AuthMethod::Several)).await;
    check(None, &[("client_id", "public")], (200, AuthMethod::None)).await;
    check(None, &[("client_id", "c")], (401, AuthMethod::None)).await;
    check(None, &[], (401, AuthMethod::None)).await;

    let raw = format!("Basic {}", STANDARD.encode("raw:a+b%2Fc"));
    let credentials = ask_as(&idp, Some(&raw), &[("grant_type", "client_credentials")]).await;
    assert_eq!(credentials.status, 200);
    assert!(credentials.json().get("refresh_token").is_none());
}

/// A client named `es` with a fresh key, asked for by the name `alias`.
fn es256_client() -> (Client, EncodingKey) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("generate");
    let key =
        VerifyingKey::from_pem(Algorithm::ES256, pair.public_key_pem().as_bytes()).expect("a public key");
    let private = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a private key");
    (Client::with_key("es", key.named("alias")), private)
}

fn assertion(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, key).expect("sign")
}

fn now() -> i64 {
    Clock::System.wall().seconds()
}

#[tokio::test]
async fn client_assertions_are_verified_for_real() {
    let (client, key) = es256_client();
    let clients = vec![client, Client::with_secret("hs", "a secret of at least thirty-two bytes")];
    let idp = Idp::start(Settings { clients, ..Settings::default() }).await.expect("start");
    let endpoint = idp.token_endpoint();
    let good = |jti: &str| json!({"iss": "es", "sub": "es", "aud": endpoint, "iat": now(), "exp": now() + 60, "jti": jti});
    let with = |jti: &str, name: &str, value: Value| {
        let mut claims = good(jti);
        claims[name] = value;
        claims
    };
    let check = async |jwt: String, client_id: Option<&str>, expected: Result<(), &str>| {
        let seed = idp.new_seed_for("es", "s");
        let mut pairs = vec![("grant_type", "refresh_token"), ("refresh_token", seed.expose())];
        pairs.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &jwt)]);
        pairs.extend(client_id.map(|id| ("client_id", id)));
        let answer = ask_as(&idp, None, &pairs).await;
        match expected {
            Ok(()) => assert_eq!(answer.status, 200, "{answer:?}"),
            Err(part) => {
                assert_eq!(answer.status, 401);
                let description = answer.text("error_description");
                assert!(description.contains(part), "{description}, not {part}");
            }
        }
    };
    let sign = |claims: &Value| assertion(Algorithm::ES256, Some("alias"), &key, claims);
    check(sign(&good("1")), Some("es"), Ok(())).await;
    check(sign(&good("1")), Some("es"), Err("used before")).await;
    check(sign(&good("2")), None, Ok(())).await;
    let pair = STANDARD.encode("es:whatever");
    check(sign(&good("3")), Some(&pair), Ok(())).await;
    check(sign(&with("4", "aud", json!(["x", ORACLE_ISSUER]))), None, Ok(())).await;
    check(sign(&with("5", "aud", json!("https://elsewhere.example.com"))), None, Err("aud")).await;
    check(sign(&with("6", "exp", json!(now() - 1))), None, Err("expired")).await;
    check(sign(&with("7", "exp", json!(now() + 9000))), None, Err("more than an hour")).await;
    check(sign(&with("8", "iat", json!(now() + 600))), None, Err("future")).await;
    check(sign(&with("9", "sub", json!("other"))), None, Err("sub")).await;
    check(sign(&with("", "jti", Value::Null)), None, Err("no jti")).await;
    check(assertion(Algorithm::ES256, Some("other"), &key, &good("10")), None, Err("No key")).await;
    let (_, stranger) = es256_client();
    check(assertion(Algorithm::ES256, Some("alias"), &stranger, &good("11")), None, Err("No key")).await;
    check("no.j.wt".into(), Some("es"), Err("no JWT")).await;

    let secret = EncodingKey::from_secret(b"a secret of at least thirty-two bytes");
    let claims = json!({"iss": "hs", "sub": "hs", "aud": endpoint, "exp": now() + 60, "jti": "h"});
    let jwt = assertion(Algorithm::HS256, None, &secret, &claims);
    let pairs = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", &jwt),
    ];
    assert_eq!(ask_as(&idp, None, &pairs).await.status, 200);
    assert_eq!(idp.log().pop().expect("logged").client_auth, AuthMethod::ClientSecretJwt);
}

#[tokio::test]
async fn a_user_assertion_buys_a_refresh_token_only_with_offline_access() {
    let (client, key) = es256_client();
    let client = Client { id: DEFAULT_CLIENT.into(), secrets: vec![Secret::from(DEFAULT_SECRET)], ..client };
    let idp = Idp::start(Settings { clients: vec![client], ..Settings::default() }).await.expect("start");
    let ask_for = async |jti: &str, subject: &str, scope: &str| {
        let claims = json!({"iss": DEFAULT_CLIENT, "sub": subject, "aud": ORACLE_ISSUER, "exp": now() + 60, "jti": jti});
        let jwt = assertion(Algorithm::ES256, Some("alias"), &key, &claims);
        ask(&idp, &[("grant_type", JWT_BEARER), ("assertion", &jwt), ("scope", scope)]).await
    };
    let with = ask_for("1", DEFAULT_USER, "urn:opc:idm:__myscopes__ offline_access").await;
    assert_eq!(refresh(&idp, &with.text("refresh_token")).await.status, 200);
    let without = ask_for("2", DEFAULT_USER, "urn:opc:idm:__myscopes__").await;
    assert_eq!(without.status, 200);
    assert!(without.json().get("refresh_token").is_none());
    let year = ask_for("3", DEFAULT_USER, "urn:opc:resource:expiry offline_access").await;
    assert_eq!(year.json()["expires_in"], 31_556_952);
    let stranger = ask_for("4", "nobody@example.com", "s").await;
    assert_eq!((stranger.status, stranger.text("error").as_str()), (400, "invalid_grant"));
}

#[tokio::test]
async fn the_password_grant_and_bad_requests_are_answered_as_the_rfc_says() {
    let users = vec![User { name: "u".into(), password: Some(Secret::from("p")) }];
    let idp = Idp::start(Settings { users, ..Settings::default() }).await.expect("start");
    let check = async |pairs: &[(&str, &str)], expected: (u16, &str)| {
        let answer = ask(&idp, pairs).await;
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!((answer.status, error.as_str()), expected, "{pairs:?}");
    };
    let login = [("grant_type", "password"), ("username", "u"), ("scope", "offline_access")];
    check(&[&login[..], &[("password", "p")]].concat(), (200, "")).await;
    check(&[&login[..], &[("password", "q")]].concat(), (400, "invalid_grant")).await;
    check(&[("grant_type", "magic")], (400, "unsupported_grant_type")).await;
    check(&[], (400, "invalid_request")).await;
    check(&[("grant_type", "a"), ("grant_type", "b")], (400, "invalid_request")).await;
    check(&[("grant_type", "refresh_token")], (400, "invalid_request")).await;
    check(&[("grant_type", "refresh_token"), ("refresh_token", "x")], (400, "invalid_grant")).await;
    let seed = idp.new_seed();
    let wider = [("grant_type", "refresh_token"), ("refresh_token", seed.expose()), ("scope", "admin")];
    check(&wider, (400, "invalid_scope")).await;
    assert!(idp.families().iter().all(|family| family.is_alive()));
}

#[tokio::test]
async fn tokens_die_by_the_clock_that_the_server_was_given() {
    let manual = ManualClock::starting_at(UnixTime::from_millis(1_800_000_000_000));
    let settings = Settings { clock: Clock::Manual(manual.clone()), ..Settings::default() };
    let idp = Idp::start(settings).await.expect("start");
    let answer = refresh_seed(&idp).await;
    assert_eq!(answer.headers["date"], "Fri, 15 Jan 2027 08:00:00 GMT");
    let token = answer.text("access_token");
    assert_eq!(call_api(&idp, "/", &token).await.status, 200);
    manual.suspend(Duration::from_secs(60));
    let refused = call_api(&idp, "/", &token).await;
    assert_eq!(refused.status, 401);
    assert!(refused.headers["www-authenticate"].contains("error=\"invalid_token\""));
    manual.suspend(Duration::from_secs(604_800));
    refresh(&idp, &answer.text("refresh_token")).await;
    assert_eq!(last_outcome(&idp), Outcome::RefusedToken(RefusedToken::Expired));
}

#[tokio::test]
async fn a_wrong_secret_burns_the_refresh_token_where_the_server_is_so() {
    let idp = start(Behaviour { wrong_secret_burns: true, ..Behaviour::default() }).await;
    let seed = idp.new_seed();
    let pairs = [("grant_type", "refresh_token"), ("refresh_token", seed.expose())];
    assert_eq!(ask_as(&idp, Some(&basic(DEFAULT_CLIENT, "wrong")), &pairs).await.status, 401);
    assert_eq!(refresh(&idp, seed.expose()).await.status, 400);
    assert_eq!(last_outcome(&idp), Outcome::RefusedToken(RefusedToken::Burnt));
}

#[tokio::test]
async fn faults_before_processing_leave_the_refresh_token_good() {
    let idp = start(Behaviour::default()).await;
    let seed = idp.new_seed();
    idp.faults().push(Fault::DropBefore);
    assert!(refresh(&idp, seed.expose()).await.raw.is_empty());
    idp.faults().push(Fault::status(503, &[("Retry-After", "7")], "<html>busy</html>"));
    let busy = refresh(&idp, seed.expose()).await;
    assert_eq!((busy.status, busy.headers["retry-after"].as_str()), (503, "7"));
    assert_eq!(busy.body, b"<html>busy</html>");
    idp.faults().push(Fault::error(500, "invalid_grant"));
    assert_eq!(refresh(&idp, seed.expose()).await.text("error"), "invalid_grant");
    idp.faults().push(Fault::status(307, &[("Location", "http://127.0.0.1:1/")], ""));
    assert_eq!(refresh(&idp, seed.expose()).await.status, 307);
    assert!(idp.log().iter().all(|entry| entry.outcome == Outcome::NotProcessed));
    assert_eq!(refresh(&idp, seed.expose()).await.status, 200);
    assert_eq!(idp.families()[0].most_posts(), 5);
}

#[tokio::test]
async fn faults_after_processing_have_spent_the_refresh_token() {
    let answers = FixedAnswer { status: 500, processed: true, ..FixedAnswer::default() };
    for fault in [Fault::DropAfter, Fault::CutAfter(0), Fault::CutAfter(40), Fault::Answer(answers)] {
        let idp = start(Behaviour::default()).await;
        let seed = idp.new_seed();
        idp.faults().push(fault.clone());
        let lost = refresh(&idp, seed.expose()).await;
        match fault {
            Fault::CutAfter(bytes) => assert_eq!(lost.raw.len(), bytes),
            Fault::DropAfter => assert!(lost.raw.is_empty()),
            _ => assert_eq!(lost.status, 500),
        }
        assert!(matches!(last_outcome(&idp), Outcome::Issued { generation: 2, .. }), "{fault:?}");
        assert_eq!(refresh(&idp, seed.expose()).await.status, 400);
        assert_eq!(last_outcome(&idp), Outcome::RefusedToken(RefusedToken::Reused));
    }
}

#[tokio::test]
async fn a_request_is_carried_out_although_its_client_went_away() {
    let idp = start(Behaviour::default()).await;
    let seed = idp.new_seed();
    idp.faults().push(Fault::DelayBefore(Duration::from_millis(100)));
    let gone = tokio::time::timeout(Duration::from_millis(30), refresh(&idp, seed.expose())).await;
    assert!(gone.is_err());
    assert_eq!((idp.posts(), last_outcome(&idp)), (1, Outcome::Pending));
    let carried_out = async {
        while last_outcome(&idp) == Outcome::Pending {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), carried_out).await.expect("it was carried out");
    assert!(matches!(last_outcome(&idp), Outcome::Issued { .. }));
}

#[tokio::test]
async fn delays_and_hangs_hold_the_answer_back() {
    let idp = start(Behaviour::default()).await;
    let patience = Duration::from_millis(150);
    for (fault, spent) in [(Fault::HangBefore, false), (Fault::HangAfter, true)] {
        let seed = idp.new_seed();
        idp.faults().push(fault);
        assert!(tokio::time::timeout(patience, refresh(&idp, seed.expose())).await.is_err());
        assert_eq!(refresh(&idp, seed.expose()).await.status, if spent { 400 } else { 200 });
    }
    for fault in [Fault::DelayBefore(patience), Fault::DelayAfter(patience)] {
        let begun = tokio::time::Instant::now();
        idp.faults().push(fault);
        assert_eq!(refresh_seed(&idp).await.status, 200);
        assert!(begun.elapsed() >= patience);
    }
}

#[tokio::test]
async fn answers_can_be_altered_in_every_way_that_was_seen() {
    let idp = start(Behaviour::default()).await;
    let altered = async |faults: Vec<Fault>| {
        idp.faults().push_together(faults);
        refresh_seed(&idp).await
    };
    let values = [
        json!("3600"),
        json!(0),
        json!(-1),
        json!(1e12),
        json!(3.5),
        Value::Null,
        json!(1_000_000_000_000_i64),
    ];
    for value in values {
        let answer = altered(vec![Fault::set("expires_in", value.clone())]).await;
        assert_eq!(answer.json()["expires_in"], value);
    }
    assert!(altered(vec![Fault::remove("expires_in")]).await.json().get("expires_in").is_none());
    let empty = altered(vec![Fault::set("refresh_token", ""), Fault::set("extra", json!({"a": 1}))]).await;
    assert_eq!((empty.text("refresh_token").as_str(), &empty.json()["extra"]["a"]), ("", &json!(1)));
    let split = altered(vec![Fault::set("access_token", "a\r\nX: y")]).await;
    assert_eq!(split.text("access_token"), "a\r\nX: y");

    let as_form = altered(vec![Fault::FormEncoded]).await;
    assert_eq!(as_form.headers["content-type"], "application/x-www-form-urlencoded");
    assert!(String::from_utf8_lossy(&as_form.body).starts_with("access_token=at_"));
    let marked = altered(vec![Fault::ByteOrderMark, Fault::ContentType("text/plain".into())]).await;
    assert!(marked.body.starts_with(b"\xef\xbb\xbf{"));
    assert_eq!(marked.headers["content-type"], "text/plain");
    let zipped = altered(vec![Fault::Gzip]).await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert!(zipped.body.starts_with(&[0x1f, 0x8b]));

    let begun = tokio::time::Instant::now();
    let dripped = altered(vec![Fault::Drip { bytes: 50, every: Duration::from_millis(20) }]).await;
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert!(String::from_utf8_lossy(&dripped.body).contains("refresh_token"));
}

#[tokio::test]
async fn a_closed_token_endpoint_refuses_connections_until_it_is_reopened() {
    let idp = start(Behaviour::default()).await;
    let first = refresh_seed(&idp).await;
    idp.close().await;
    let address = idp.url().strip_prefix("http://").expect("a plain URL").to_owned();
    assert!(TcpStream::connect(&address).await.is_err());
    assert_eq!(call_api(&idp, "/", &first.text("access_token")).await.status, 200);
    idp.reopen().await.expect("the port is still free");
    assert_eq!(refresh(&idp, &first.text("refresh_token")).await.status, 200);
}

#[tokio::test]
async fn the_metadata_names_the_issuer_that_was_chosen() {
    for (issuer, expected) in [(Issuer::Own, None), (Issuer::Oracle, Some(ORACLE_ISSUER))] {
        let idp = Idp::start(Settings { issuer, ..Settings::default() }).await.expect("start");
        for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
            let metadata = send(&format!("{}{path}", idp.url()), "GET", &[], "").await.json();
            assert_eq!(metadata["issuer"], expected.unwrap_or(idp.url()));
            assert_eq!(metadata["token_endpoint"], idp.token_endpoint());
        }
    }
}

#[tokio::test]
async fn revocation_and_introspection_know_live_tokens() {
    let idp = start(Behaviour::default()).await;
    let pair = refresh_seed(&idp).await;
    let basic = basic(DEFAULT_CLIENT, DEFAULT_SECRET);
    let post = async |path: &str, token: &str| {
        let headers =
            [("Content-Type", "application/x-www-form-urlencoded"), ("Authorization", basic.as_str())];
        send(&format!("{}/oauth2/v1/{path}", idp.url()), "POST", &headers, &form(&[("token", token)])).await
    };
    let access = pair.text("access_token");
    let live = post("introspect", &access).await.json();
    assert_eq!((&live["active"], &live["sub"]), (&json!(true), &json!(DEFAULT_USER)));
    assert_eq!(post("revoke", &pair.text("refresh_token")).await.status, 200);
    assert_eq!(post("introspect", &access).await.json(), json!({"active": false}));
    assert_eq!(idp.families()[0].state, FamilyState::Revoked);
    assert_eq!(post("revoke", "unknown").await.status, 200);
}

#[tokio::test]
async fn the_echo_api_shows_the_request_and_never_the_token() {
    let idp = start(Behaviour::default()).await;
    let token = Secret::from(refresh_seed(&idp).await.text("access_token").as_str());
    let authorization = format!("Bearer {}", token.expose());
    let headers = [("Authorization", authorization.as_str()), ("X-Twice", "1"), ("X-Twice", "2")];
    let url = format!("{}/a/b?c=d", idp.api_url());
    let answer = send(&url, "PUT", &headers, "hello").await;
    let echo = answer.json();
    assert_eq!(
        (&echo["method"], &echo["path"], &echo["query"]),
        (&json!("PUT"), &json!("/a/b"), &json!("c=d"))
    );
    assert_eq!((&echo["body"], &echo["body_bytes"]), (&json!("hello"), &json!(5)));
    assert_eq!(echo["headers"]["x-twice"], json!(["1", "2"]));
    assert_eq!(echo["headers"]["authorization"], format!("Bearer <token {}>", token.fingerprint()));
    assert!(!String::from_utf8_lossy(&answer.raw).contains(token.expose()));
    assert!(!format!("{:?} {:?} {:?}", idp, idp.log(), idp.api()).contains(token.expose()));

    assert_eq!(send(&url, "GET", &[], "").await.headers["www-authenticate"], "Bearer realm=\"bearward try\"");
    let stats = idp.api();
    assert_eq!((stats.requests, stats.unauthorized, stats.applied("PUT", "/a/b?c=d")), (2, 1, 1));
    assert_eq!(stats.seen[0].token, Some(token.fingerprint().to_string()));
}

#[tokio::test]
async fn the_echo_api_answers_other_things_on_request() {
    let idp = start(Behaviour::default()).await;
    let token = refresh_seed(&idp).await.text("access_token");
    let teapot = call_api(&idp, "/x/status/418?header=X-A:%20b&header=X-C:d", &token).await;
    assert_eq!(
        (teapot.status, teapot.headers["x-a"].as_str(), teapot.headers["x-c"].as_str()),
        (418, "b", "d")
    );
    assert_eq!(call_api(&idp, "/bytes/1000", &token).await.body.len(), 1000);
    let begun = tokio::time::Instant::now();
    assert_eq!(call_api(&idp, "/delay/50", &token).await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let events = call_api(&idp, "/stream/3?every=1", &token).await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert_eq!(String::from_utf8_lossy(&events.body).matches("data: 000").count(), 3);
}

#[tokio::test]
async fn the_control_api_does_what_the_handle_does() {
    let idp = start(Behaviour::default()).await;
    let control = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        let url = format!("{}{path}", idp.control_url());
        send(&url, method, headers, &if body.is_null() { String::new() } else { body.to_string() }).await
    };
    let seed = control("POST", "seeds", &[], json!({"client": DEFAULT_CLIENT})).await.text("refresh_token");
    let faults = json!({"faults": [{"delay_after": 0.01}, {"set": {"field": "x", "value": 1}}], "times": 2});
    assert_eq!(control("POST", "faults", &[], faults).await.status, 200);
    let behaviour = json!({"access_token_lifetime": 1.5, "rotation": "reusable"});
    assert_eq!(control("PUT", "behaviour", &[], behaviour).await.status, 200);
    let answer = refresh(&idp, &seed).await.json();
    assert_eq!((&answer["x"], &answer["expires_in"]), (&json!(1), &json!(1.5)));
    assert!(answer.get("refresh_token").is_none());
    control("DELETE", "faults", &[], Value::Null).await;
    assert!(refresh(&idp, &seed).await.json().get("x").is_none());

    let log = control("GET", "log", &[], Value::Null).await;
    assert_eq!(log.json()[0]["outcome"]["issued"]["generation"], 2);
    assert_eq!(log.json()[0]["client_auth"], "client_secret_basic");
    let families = control("GET", "families", &[], Value::Null).await;
    assert_eq!(families.json()[0]["refresh_tokens"][0]["posts"], 2);
    for answer in [&log, &families] {
        assert!(!String::from_utf8_lossy(&answer.raw).contains(&seed));
    }
    let directory = control("GET", "", &[], Value::Null).await.json();
    let example = directory["POST faults"].clone();
    assert_eq!(control("POST", "faults", &[], example).await.json()["next"], json!([["drop_after"]]));
    control("POST", "revoke", &[], json!({"family": 1})).await;
    assert_eq!(idp.families()[0].state, FamilyState::Revoked);

    let check = async |path: &str, headers: &[(&str, &str)], body: Value, expected: u16| {
        assert_eq!(control("POST", path, headers, body).await.status, expected, "{path}");
    };
    check("seeds", &[("Origin", "http://evil.example")], json!({"client": DEFAULT_CLIENT}), 403).await;
    check("seeds", &[], json!({"client": "stranger"}), 400).await;
    check("behaviour", &[], json!({"no_such_field": 1}), 400).await;
    check("faults", &[], json!({"faults": [{"explode": 1}]}), 400).await;
    check("nothing", &[], Value::Null, 404).await;
}
