//! The OAuth client, configured by YAML, against the embedded authorization server, which verifies every signature
//! with another library; and the YAML of the providers' pages.

use std::process::Command;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearward::clock::Clock;
use bearward::idp::{
    BasicDecoding, Client, DEFAULT_CLIENT, DEFAULT_SCOPE, DEFAULT_SECRET, DEFAULT_USER, Fault, Idp, Issuer,
    Outcome, Settings, VerifyingKey,
};
use bearward::oauth::{Failure, FailureClass, OAuthClient, TokenRequest, TokenResponse};
use bearward::secret::Secret;
use jsonwebtoken::Algorithm;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A key pair with a certificate, made by OpenSSL.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn new(kind: &[&str]) -> Self {
        let made = Self { folder: tempfile::tempdir().expect("tempdir") };
        let subject =
            ["req", "-x509", "-nodes", "-subj", "/CN=client", "-keyout", "key.pem", "-out", "crt.pem"];
        made.openssl(&[&subject, kind].concat());
        made.openssl(&["x509", "-in", "crt.pem", "-pubkey", "-noout", "-out", "pub.pem"]);
        made
    }

    fn rsa() -> Self {
        Self::new(&["-newkey", "rsa:2048"])
    }

    fn openssl(&self, arguments: &[&str]) {
        let output =
            Command::new("openssl").args(arguments).current_dir(&self.folder).output().expect("openssl");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn verifying(&self, algorithm: Algorithm) -> VerifyingKey {
        let pem = std::fs::read(self.path("pub.pem")).expect("public key");
        VerifyingKey::from_pem(algorithm, &pem).expect("a public key")
    }

    fn thumbprint(&self, algorithm: &'static digest::Algorithm) -> String {
        let certificate = CertificateDer::from_pem_file(self.path("crt.pem")).expect("certificate");
        URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &certificate))
    }
}

async fn idp_with(client: Client) -> Idp {
    let settings = Settings { clients: vec![client], issuer: Issuer::Oracle, ..Settings::default() };
    Idp::start(settings).await.expect("the server starts")
}

/// The client of one credential whose lines are given.
fn client(idp: &Idp, lines: &str) -> OAuthClient {
    let credential = lines.replace("ENDPOINT", &idp.token_endpoint());
    let indented: String = credential.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!("version: 1\n{LISTENER}credentials:\n  tested:\n{indented}{STORE}");
    let config =
        bearward::config::parse(&text, "tested.yaml").unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    OAuthClient::try_new(config.credentials[0].oauth.clone()).expect("the client")
}

const LISTENER: &str = "listeners:\n  - {name: l, kind: reverse, bind: '127.0.0.1:0', routes: [{name: r, match: \
                        {path_prefix: /}, upstream: 'http://127.0.0.1:9', credential: tested}]}\n";
const STORE: &str = "store: {kind: file, path: /nonexistent/never-opened}\n";

async fn refresh(client: &OAuthClient, token: &Secret) -> Result<TokenResponse, Failure> {
    client.request(TokenRequest::Refresh { token, single_use: true }, Clock::System.wall()).await
}

/// Rotates twenty times; each answer brings a new pair that the API accepts.
async fn rotate(idp: &Idp, client: &OAuthClient, id: &str) {
    let mut token = idp.new_seed_for(id, DEFAULT_SCOPE);
    let before = idp.posts();
    for _ in 0..20 {
        let answer = refresh(client, &token).await.expect("a token");
        assert!(idp.accepts(&answer.access_token));
        assert!(answer.date.is_some());
        let successor = answer.refresh_token.expect("a successor");
        assert_ne!(successor, token);
        token = successor;
    }
    assert_eq!(idp.posts() - before, 20, "one request each");
}

const SECRETS: &str =
    "preset: oci\ntoken_endpoint: ENDPOINT\ngrant: refresh_token\nrefresh_token: {value: seed}\n";

#[tokio::test]
async fn secrets_authenticate_in_each_form() {
    for (decoding, encoding) in [(BasicDecoding::Form, "form"), (BasicDecoding::Raw, "raw")] {
        let idp =
            idp_with(Client { basic: decoding, ..Client::with_secret(DEFAULT_CLIENT, DEFAULT_SECRET) }).await;
        let auth = format!("auth: client_secret_basic, basic_encoding: {encoding}");
        let lines = format!(
            "{SECRETS}client: {{id: {DEFAULT_CLIENT}, {auth}, secret: {{value: '{DEFAULT_SECRET}'}}}}"
        );
        rotate(&idp, &client(&idp, &lines), DEFAULT_CLIENT).await;
    }
    let idp = idp_with(Client::with_secret(DEFAULT_CLIENT, DEFAULT_SECRET)).await;
    for auth in ["client_secret_post", "client_secret_jwt"] {
        let lines = format!(
            "{SECRETS}client: {{id: {DEFAULT_CLIENT}, auth: {auth}, secret: {{value: '{DEFAULT_SECRET}'}}}}"
        );
        rotate(&idp, &client(&idp, &lines), DEFAULT_CLIENT).await;
    }
    let idp = idp_with(Client::public("app")).await;
    rotate(&idp, &client(&idp, &format!("{SECRETS}client: {{id: app, auth: none}}")), "app").await;
}

#[tokio::test]
async fn keys_authenticate_in_each_algorithm_and_by_each_name() {
    let (rsa, ed) = (Made::rsa(), Made::new(&["-newkey", "ed25519"]));
    let ec = |curve: &str| Made::new(&["-newkey", "ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")]);
    let (p256, p384) = (ec("P-256"), ec("P-384"));
    let check = async |made: &Made, key: VerifyingKey, lines: &str| {
        let idp = idp_with(Client::with_key("app", key)).await;
        let key = made.path("key.pem");
        let lines = format!(
            "{SECRETS}client:\n  id: app\n  auth: private_key_jwt\n  key: {{file: {key}}}\n  {lines}"
        );
        rotate(&idp, &client(&idp, &lines), "app").await;
    };
    check(&rsa, rsa.verifying(Algorithm::RS256), "").await;
    check(&rsa, rsa.verifying(Algorithm::PS256), "alg: PS256").await;
    check(&p256, p256.verifying(Algorithm::ES256), "alg: ES256").await;
    check(&p384, p384.verifying(Algorithm::ES384), "alg: ES384").await;
    check(&ed, ed.verifying(Algorithm::EdDSA), "alg: EdDSA").await;

    check(&rsa, rsa.verifying(Algorithm::RS256).named("my-alias"), "kid: my-alias").await;
    let certificate = format!("certificate: {{file: {}}}", rsa.path("crt.pem"));
    let sha1 = rsa.thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    let by_sha1 = VerifyingKey { x5t: Some(sha1), ..rsa.verifying(Algorithm::RS256) };
    check(&rsa, by_sha1, &format!("{certificate}\n  x5t: sha1")).await;
    let by_sha256 =
        VerifyingKey { x5t_s256: Some(rsa.thumbprint(&digest::SHA256)), ..rsa.verifying(Algorithm::RS256) };
    check(&rsa, by_sha256, &format!("{certificate}\n  x5t: sha256")).await;
}

#[tokio::test]
async fn case_26_the_assertion_form_of_oci_works_in_its_three_readings() {
    let made = Made::rsa();
    let mut registered = Client::with_key("app", made.verifying(Algorithm::RS256).named("my-alias"));
    registered.secrets = vec![Secret::from("app-s3cret")];
    let idp = idp_with(registered).await;
    for param in ["plain", "omit", "base64_pair"] {
        let secret = if param == "base64_pair" { "\n  secret: {value: app-s3cret}" } else { "" };
        let key = made.path("key.pem");
        let lines = format!(
            "{SECRETS}client:\n  id: app\n  auth: private_key_jwt\n  key: {{file: {key}}}\n  kid: my-alias\n  \
             client_id_param: {param}{secret}"
        );
        rotate(&idp, &client(&idp, &lines), "app").await;
    }
}

#[tokio::test]
async fn a_user_assertion_brings_the_first_token_and_refreshing_goes_on_from_there() {
    let made = Made::rsa();
    let mut registered = Client::with_secret("app", "app-s3cret");
    registered.keys = vec![made.verifying(Algorithm::RS256).named("my-alias")];
    let idp = idp_with(registered).await;
    let key = made.path("key.pem");
    let lines = |scope: &str| {
        format!(
            "preset: oci\ntoken_endpoint: ENDPOINT\ngrant: jwt_bearer\nscope: '{scope}'\nclient: {{id: app, auth: \
             client_secret_basic, secret: {{value: app-s3cret}}}}\nuser_assertion: {{sub: {DEFAULT_USER}, key: \
             {{file: {key}}}, kid: my-alias}}"
        )
    };
    let whole = client(&idp, &lines("urn:opc:idm:__myscopes__ offline_access"));
    let first = whole.request(TokenRequest::Own, Clock::System.wall()).await.expect("the first token");
    assert!(idp.accepts(&first.access_token));
    let next =
        refresh(&whole, &first.refresh_token.expect("offline_access brings one")).await.expect("a refresh");
    assert!(next.refresh_token.is_some());
    let bare = client(&idp, &lines("urn:opc:idm:__myscopes__"));
    let first = bare.request(TokenRequest::Own, Clock::System.wall()).await.expect("the first token");
    assert_eq!(first.refresh_token, None, "no offline_access, no refresh token");
}

#[tokio::test]
async fn the_domain_is_discovered_although_it_names_oracles_issuer() {
    let idp = idp_with(Client::with_secret("app", "app-s3cret")).await;
    let lines = |preset: &str| {
        format!(
            "preset: {preset}\nissuer: {}\ngrant: refresh_token\nrefresh_token: {{value: seed}}\nclient: {{id: app, \
             secret: {{value: app-s3cret}}}}",
            idp.url()
        )
    };
    rotate(&idp, &client(&idp, &lines("oci")), "app").await;
    let generic = client(&idp, &lines("generic"));
    let failure =
        refresh(&generic, &idp.new_seed_for("app", DEFAULT_SCOPE)).await.expect_err("another issuer");
    assert_eq!(failure.error, "discovery", "{failure}");
}

#[tokio::test]
async fn case_76_an_answer_cut_at_any_byte_is_whole_or_ambiguous() {
    let idp = idp_with(Client::with_secret("app", "app-s3cret")).await;
    let lines = format!("{SECRETS}client: {{id: app, secret: {{value: app-s3cret}}}}");
    let client = client(&idp, &lines);
    let mut whole = 0;
    for at in 0..700 {
        idp.faults().push(Fault::CutAfter(at));
        let before = idp.posts();
        match refresh(&client, &idp.new_seed_for("app", DEFAULT_SCOPE)).await {
            Ok(answer) => {
                assert!(answer.refresh_token.is_some(), "cut after {at}");
                whole += 1;
            }
            Err(failure) => {
                assert_eq!(failure.class, FailureClass::Ambiguous, "cut after {at}: {failure}");
                assert_eq!(whole, 0, "cut after {at}, though less was enough");
            }
        }
        assert_eq!(idp.posts() - before, 1, "cut after {at}");
    }
    assert!(whole > 0, "some cut must come after the end");
}

#[tokio::test]
async fn what_the_server_did_and_what_the_client_thinks_agree() {
    let idp = idp_with(Client::with_secret("app", "app-s3cret")).await;
    let lines = format!("{SECRETS}client: {{id: app, secret: {{value: app-s3cret}}}}");
    let client = client(&idp, &lines);
    let check = async |fault: Fault, class: FailureClass| {
        let seed = idp.new_seed_for("app", DEFAULT_SCOPE);
        let place = format!("{fault:?}");
        idp.faults().push(fault);
        let failure = refresh(&client, &seed).await.expect_err(&place);
        assert_eq!(failure.class, class, "{place}: {failure}");
        let spent = matches!(idp.log().last().map(|entry| &entry.outcome), Some(Outcome::Issued { .. }));
        assert!(!spent || class == FailureClass::Ambiguous, "{place} spent the token");
    };
    check(Fault::DropBefore, FailureClass::Ambiguous).await;
    check(Fault::DropAfter, FailureClass::Ambiguous).await;
    check(Fault::status_after(500, "oops"), FailureClass::Ambiguous).await;
    check(Fault::status_after(502, "<html>"), FailureClass::Ambiguous).await;
    check(Fault::status(503, &[("retry-after", "7")], ""), FailureClass::Transient).await;
    check(Fault::error(400, "invalid_grant"), FailureClass::GrantDead).await;
    check(Fault::error(401, "invalid_client"), FailureClass::Configuration).await;
    idp.close().await;
    let failure = refresh(&client, &Secret::from("rt")).await.expect_err("closed");
    assert_eq!(failure.class, FailureClass::Clean, "{failure}");
}
