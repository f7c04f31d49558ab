//! Assertions as the provider receives them: verified with another library and the public key.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, Validation};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Map, Value, json as object};

use super::*;

/// A certificate and its key as OpenSSL writes them.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn new(newkey: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        openssl(
            folder.path(),
            &[
                &["req", "-x509", "-nodes", "-subj", "/CN=client", "-keyout", "key.pem", "-out", "crt.pem"],
                newkey,
            ]
            .concat(),
        );
        openssl(folder.path(), &["x509", "-in", "crt.pem", "-pubkey", "-noout", "-out", "pub.pem"]);
        Self { folder }
    }

    fn rsa() -> Self {
        Self::new(&["-newkey", "rsa:2048"])
    }

    fn ec(curve: &str) -> Self {
        Self::new(&["-newkey", "ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")])
    }

    fn ed25519() -> Self {
        Self::new(&["-newkey", "ed25519"])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("read")
    }

    fn key(&self, algorithm: Algorithm) -> SigningKey {
        SigningKey { source: SecretSource::File(self.path("key.pem")), algorithm, key_id: KeyId::default() }
    }
}

fn openssl(folder: &std::path::Path, arguments: &[&str]) {
    let output = std::process::Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn private_key_jwt(key: SigningKey) -> ClientAuth {
    ClientAuth::PrivateKeyJwt {
        assertion: Assertion { key, claims: claims() },
        client_id_param: ClientIdParam::Plain,
        secret: None,
    }
}

/// Sends one request of the credential's own grant and returns what the provider saw.
async fn sent(change: impl FnOnce(&mut OAuthConfig)) -> Seen {
    let provider = Provider::start(vec![json(TOKEN)]).await;
    let mut config = OAuthConfig { grant: Grant::ClientCredentials, ..config(provider.url("/token")) };
    change(&mut config);
    let client = OAuthClient::try_new(config).expect("client");
    client.request(TokenRequest::Own, NOW).await.expect("token");
    provider.seen().remove(0)
}

fn part(token: &str, index: usize) -> Map<String, Value> {
    let text = token.split('.').nth(index).expect("part");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64url")).expect("JSON")
}

fn verified(token: &str, algorithm: jsonwebtoken::Algorithm, key: &DecodingKey) -> Map<String, Value> {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation)
        .expect("the signature verifies")
        .claims
}

#[tokio::test]
async fn each_algorithm_signs_what_its_public_key_verifies() {
    use jsonwebtoken::Algorithm as Theirs;
    let (rsa, p256, p384, ed) = (Made::rsa(), Made::ec("P-256"), Made::ec("P-384"), Made::ed25519());
    let rsa_key = DecodingKey::from_rsa_pem(&rsa.read("pub.pem")).expect("rsa");
    let check = async |made: &Made, ours: Algorithm, theirs: Theirs, public: &DecodingKey| {
        let seen = sent(|config| config.client_auth = private_key_jwt(made.key(ours))).await;
        let token = seen.param("client_assertion").expect("assertion");
        assert_eq!(
            seen.param("client_assertion_type").as_deref(),
            Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        );
        assert_eq!(seen.header("authorization"), None);
        let claims = verified(&token, theirs, public);
        assert_eq!((&claims["iss"], &claims["sub"]), (&object!("client-1"), &object!("client-1")));
        assert_eq!((&claims["iat"], &claims["exp"]), (&object!(1_700_000_000), &object!(1_700_000_060)));
        assert!(claims["jti"].as_str().is_some_and(|id| id.len() == 22), "{claims:?}");
        assert!(claims["aud"].as_str().is_some_and(|aud| aud.ends_with("/token")), "{claims:?}");
        let header = part(&token, 0);
        assert_eq!((&header["typ"], &header["alg"]), (&object!("JWT"), &object!(ours.as_str())));
        assert_eq!(header.len(), 2, "{header:?}");
    };
    check(&rsa, Algorithm::Rs256, Theirs::RS256, &rsa_key).await;
    check(&rsa, Algorithm::Ps256, Theirs::PS256, &rsa_key).await;
    let p256_key = DecodingKey::from_ec_pem(&p256.read("pub.pem")).expect("p256");
    check(&p256, Algorithm::Es256, Theirs::ES256, &p256_key).await;
    let p384_key = DecodingKey::from_ec_pem(&p384.read("pub.pem")).expect("p384");
    check(&p384, Algorithm::Es384, Theirs::ES384, &p384_key).await;
    let ed_key = DecodingKey::from_ed_pem(&ed.read("pub.pem")).expect("ed25519");
    check(&ed, Algorithm::EdDsa, Theirs::EdDSA, &ed_key).await;
}

#[tokio::test]
async fn pkcs1_and_sec1_keys_are_read_too() {
    let (rsa, p256) = (Made::rsa(), Made::ec("P-256"));
    openssl(rsa.folder.path(), &["rsa", "-in", "key.pem", "-traditional", "-out", "key.pem"]);
    assert!(rsa.read("key.pem").starts_with(b"-----BEGIN RSA PRIVATE KEY-----"));
    openssl(p256.folder.path(), &["ec", "-in", "key.pem", "-out", "key.pem"]);
    assert!(p256.read("key.pem").starts_with(b"-----BEGIN EC PRIVATE KEY-----"));
    let seen = sent(|config| config.client_auth = private_key_jwt(rsa.key(Algorithm::Rs256))).await;
    let public = DecodingKey::from_rsa_pem(&rsa.read("pub.pem")).expect("rsa");
    verified(&seen.param("client_assertion").expect("token"), jsonwebtoken::Algorithm::RS256, &public);
    let seen = sent(|config| config.client_auth = private_key_jwt(p256.key(Algorithm::Es256))).await;
    let public = DecodingKey::from_ec_pem(&p256.read("pub.pem")).expect("ec");
    verified(&seen.param("client_assertion").expect("token"), jsonwebtoken::Algorithm::ES256, &public);
}

#[test]
fn a_key_that_does_not_fit_is_refused_with_what_would() {
    let (rsa, p256, p384, ed) = (Made::rsa(), Made::ec("P-256"), Made::ec("P-384"), Made::ed25519());
    let short = Made::new(&["-newkey", "rsa:1024"]);
    let check = |made: &Made, algorithm: Algorithm, words: &str| {
        let config = OAuthConfig {
            client_auth: private_key_jwt(made.key(algorithm)),
            ..config("https://idp.example/token".parse().expect("url"))
        };
        match (OAuthClient::try_new(config), words) {
            (Ok(_), "") => {}
            (Err(error), words) if !words.is_empty() => {
                let message = error.to_string();
                assert!(
                    message.contains(words) && message.contains("key.pem"),
                    "{message:?} lacks {words:?}"
                );
            }
            (got, _) => panic!("{got:?} for {algorithm:?}"),
        }
    };
    check(&rsa, Algorithm::Rs256, "");
    check(&p384, Algorithm::Es384, "");
    check(
        &p256,
        Algorithm::Rs256,
        "does not fit alg RS256: an RSA key of 2048 to 8192 bits is wanted, this is a P-256 key",
    );
    check(&rsa, Algorithm::Es256, "a P-256 key is wanted, this is an RSA key");
    check(&p384, Algorithm::Es256, "a P-256 key is wanted, this is a P-384 key");
    check(&ed, Algorithm::Es384, "a P-384 key is wanted, this is an Ed25519 key");
    check(&p256, Algorithm::EdDsa, "an Ed25519 key is wanted, this is a P-256 key");
    check(&short, Algorithm::Rs256, "2048 to 8192 bits is wanted");
    std::fs::write(rsa.path("key.pem"), "nothing").expect("write");
    check(&rsa, Algorithm::Rs256, "no private key here");
    std::fs::copy(ed.path("crt.pem"), rsa.path("key.pem")).expect("copy");
    check(&rsa, Algorithm::Rs256, "there is a certificate here but no private key");
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let (mine, other) = (Made::rsa(), Made::rsa());
    let mut key = mine.key(Algorithm::Rs256);
    key.key_id = KeyId { certificate: Some(other.path("crt.pem")), x5t_sha1: true, ..KeyId::default() };
    let config = OAuthConfig {
        client_auth: private_key_jwt(key),
        ..config("https://idp.example/token".parse().expect("url"))
    };
    let message = OAuthClient::try_new(config).expect_err("another key's").to_string();
    assert!(message.contains("does not belong to the first certificate"), "{message}");
}

#[tokio::test]
async fn the_header_names_the_key_as_configured() {
    let made = Made::rsa();
    let certificate = CertificateDer::from_pem_file(made.path("crt.pem")).expect("certificate");
    let digest = |algorithm| URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(algorithm, &certificate));
    let mut key = made.key(Algorithm::Rs256);
    key.key_id = KeyId {
        kid: Some("my-alias".into()),
        certificate: Some(made.path("crt.pem")),
        x5t_sha1: true,
        x5t_sha256: true,
    };
    let seen = sent(|config| config.client_auth = private_key_jwt(key)).await;
    let header = part(&seen.param("client_assertion").expect("token"), 0);
    assert_eq!(header["kid"], object!("my-alias"));
    assert_eq!(header["x5t"], object!(digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY)));
    assert_eq!(header["x5t#S256"], object!(digest(&aws_lc_rs::digest::SHA256)));
}

#[tokio::test]
async fn client_secret_jwt_signs_with_the_secret_and_does_not_send_it() {
    let seen = sent(|config| {
        config.client_auth = ClientAuth::SecretJwt {
            secret: value("a client secret of some length"),
            claims: claims(),
            client_id_param: ClientIdParam::Plain,
        };
    })
    .await;
    let key = DecodingKey::from_secret(b"a client secret of some length");
    let claims =
        verified(&seen.param("client_assertion").expect("token"), jsonwebtoken::Algorithm::HS256, &key);
    assert_eq!(claims["sub"], object!("client-1"));
    assert!(!seen.body.contains("some"), "{}", seen.body);
}

#[tokio::test]
async fn case_24_each_attempt_has_a_jti_of_its_own() {
    let made = Made::ed25519();
    let provider = Provider::start(vec![error("500 Oops", ""), json(TOKEN)]).await;
    let client_auth = private_key_jwt(made.key(Algorithm::EdDsa));
    let client =
        OAuthClient::try_new(OAuthConfig { client_auth, ..config(provider.url("/token")) }).expect("client");
    refresh_with(&client).await.expect_err("500");
    refresh_with(&client).await.expect("token");
    let ids: Vec<Value> = provider
        .seen()
        .iter()
        .map(|seen| part(&seen.param("client_assertion").expect("token"), 1)["jti"].clone())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn case_25_aud_is_a_string_or_a_list_as_configured() {
    let made = Made::ed25519();
    let check = async |audience: &[&str], as_list: bool, preset: &'static Preset, expected: Option<Value>| {
        let mut token_endpoint = String::new();
        let seen = sent(|config| {
            config.preset = preset;
            token_endpoint = config.endpoint.url().expect("url").to_string();
            let mut auth = private_key_jwt(made.key(Algorithm::EdDsa));
            if let ClientAuth::PrivateKeyJwt { assertion, .. } = &mut auth {
                assertion.claims.audience = audience.iter().map(|text| (*text).to_owned()).collect();
                assertion.claims.audience_as_list = as_list;
                assertion.claims.extra = BTreeMap::from([("tenant".into(), "acme".into())]);
            }
            config.client_auth = auth;
        })
        .await;
        let claims = part(&seen.param("client_assertion").expect("token"), 1);
        assert_eq!(claims["aud"], expected.unwrap_or_else(|| object!(token_endpoint)));
        assert_eq!(claims["tenant"], object!("acme"));
    };
    check(&[], false, &preset::GENERIC, None).await;
    check(&[], false, &preset::OCI, Some(object!("https://identity.oraclecloud.com/"))).await;
    check(&["https://a.example"], false, &preset::OCI, Some(object!("https://a.example"))).await;
    check(&["https://a.example"], true, &preset::GENERIC, Some(object!(["https://a.example"]))).await;
    check(&["a", "b"], false, &preset::GENERIC, Some(object!(["a", "b"]))).await;
}

#[test]
fn extra_claims_cannot_replace_those_of_the_proxy() {
    let made = Made::ed25519();
    let mut auth = private_key_jwt(made.key(Algorithm::EdDsa));
    if let ClientAuth::PrivateKeyJwt { assertion, .. } = &mut auth {
        assertion.claims.extra = BTreeMap::from([("exp".into(), "9999999999".into())]);
    }
    let url = "https://idp.example/token".parse().expect("url");
    let error = OAuthClient::try_new(OAuthConfig { client_auth: auth, ..config(url) }).expect_err("exp");
    assert!(error.to_string().contains("the claim `exp`"), "{error}");
}

#[tokio::test]
async fn case_26_the_assertion_form_names_the_client_in_three_ways() {
    let made = Made::rsa();
    let token = Secret::from("rt-0");
    let check = async |param: ClientIdParam, secret: Option<&str>, expected: Option<&str>| {
        let provider = Provider::start(vec![json(TOKEN)]).await;
        let client_auth = ClientAuth::PrivateKeyJwt {
            assertion: Assertion { key: made.key(Algorithm::Rs256), claims: claims() },
            client_id_param: param,
            secret: secret.map(value),
        };
        let config =
            OAuthConfig { preset: &preset::OCI, client_auth, ..config(provider.url("/oauth2/v1/token")) };
        let client = OAuthClient::try_new(config).expect("client");
        client.request(TokenRequest::Refresh { token: &token, single_use: true }, NOW).await.expect("token");
        let seen = provider.seen().remove(0);
        assert_eq!(seen.param("client_id").as_deref(), expected);
        assert_eq!(seen.header("authorization"), None);
        let names: Vec<String> = seen.form().into_iter().map(|(name, _)| name).collect();
        let mut wanted =
            vec!["grant_type", "refresh_token", "client_id", "client_assertion_type", "client_assertion"];
        wanted.retain(|name| expected.is_some() || *name != "client_id");
        assert_eq!(names, wanted);
        assert!(!seen.body.contains("s3cret"), "{}", seen.body);
    };
    check(ClientIdParam::Plain, None, Some("client-1")).await;
    check(ClientIdParam::Omit, None, None).await;
    check(ClientIdParam::Base64Pair, Some("s3cret"), Some(&STANDARD.encode("client-1:s3cret"))).await;

    let client_auth = ClientAuth::PrivateKeyJwt {
        assertion: Assertion { key: made.key(Algorithm::Rs256), claims: claims() },
        client_id_param: ClientIdParam::Base64Pair,
        secret: None,
    };
    let url = "https://idp.example/token".parse().expect("url");
    let error = OAuthClient::try_new(OAuthConfig { client_auth, ..config(url) }).expect_err("no secret");
    assert!(error.to_string().contains("base64_pair needs `client.secret`"), "{error}");
}

#[tokio::test]
async fn case_27_a_replaced_assertion_file_and_a_replaced_key_are_used() {
    let (old, new) = (Made::ec("P-256"), Made::ec("P-256"));
    let file = old.path("assertion.jwt");
    let provider = Provider::start(vec![json(TOKEN)]).await;
    let client_auth =
        ClientAuth::AssertionFile { path: file.clone(), client_id_param: ClientIdParam::Omit, secret: None };
    let client =
        OAuthClient::try_new(OAuthConfig { client_auth, ..config(provider.url("/token")) }).expect("client");
    assert_eq!(client.watched_files(), std::slice::from_ref(&file));
    assert_eq!(refresh_with(&client).await.expect_err("not there yet").error, "secret");
    for text in ["h.c.first", "h.c.second"] {
        std::fs::write(&file, format!("{text}\n")).expect("write");
        refresh_with(&client).await.expect("token");
        assert_eq!(provider.seen().pop().expect("request").param("client_assertion").as_deref(), Some(text));
    }
    let client_auth = private_key_jwt(old.key(Algorithm::Es256));
    let client =
        OAuthClient::try_new(OAuthConfig { client_auth, ..config(provider.url("/token")) }).expect("client");
    for made in [&old, &new] {
        if std::ptr::eq(made, &raw const new) {
            std::fs::copy(new.path("key.pem"), old.path("key.pem")).expect("copy");
        }
        refresh_with(&client).await.expect("token");
        let assertion = provider.seen().pop().expect("request").param("client_assertion").expect("token");
        let public = DecodingKey::from_ec_pem(&made.read("pub.pem")).expect("ec");
        verified(&assertion, jsonwebtoken::Algorithm::ES256, &public);
    }
}

#[tokio::test]
async fn a_user_assertion_brings_the_first_token() {
    let made = Made::rsa();
    let user = |made: &Made| {
        let mut key = made.key(Algorithm::Rs256);
        key.key_id = KeyId { certificate: Some(made.path("crt.pem")), x5t_sha1: true, ..KeyId::default() };
        UserAssertion::Minted {
            subject: "user@example.com".into(),
            assertion: Assertion { key, claims: claims() },
        }
    };
    let seen = sent(|config| {
        config.preset = &preset::OCI;
        config.grant = Grant::JwtBearer(user(&made));
        config.scope = Some("urn:opc:idm:__myscopes__ offline_access".into());
    })
    .await;
    assert_eq!(seen.param("grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
    assert_eq!(seen.param("scope").as_deref(), Some("urn:opc:idm:__myscopes__ offline_access"));
    assert!(seen.header("authorization").is_some_and(|text| text.starts_with("Basic ")));
    let public = DecodingKey::from_rsa_pem(&made.read("pub.pem")).expect("rsa");
    let token = seen.param("assertion").expect("assertion");
    let claims = verified(&token, jsonwebtoken::Algorithm::RS256, &public);
    assert_eq!(claims["sub"], object!("user@example.com"));
    assert_eq!(claims["iss"], object!("client-1"));
    assert_eq!(claims["aud"], object!("https://identity.oraclecloud.com/"));
    assert!(part(&token, 0).contains_key("x5t"));

    let file = made.path("user.jwt");
    std::fs::write(&file, "ready.made.assertion\n").expect("write");
    let seen = sent(|config| config.grant = Grant::JwtBearer(UserAssertion::File(file))).await;
    assert_eq!(seen.param("assertion").as_deref(), Some("ready.made.assertion"));
}

#[test]
fn a_key_in_the_configuration_itself_is_read() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
    assert!(PrivatePkcs8KeyDer::from_pem_slice(key.serialize_pem().as_bytes()).is_ok());
    let source = value(&key.serialize_pem());
    let signing = SigningKey { source, algorithm: Algorithm::EdDsa, key_id: KeyId::default() };
    let url = "https://idp.example/token".parse().expect("url");
    let config = OAuthConfig { client_auth: private_key_jwt(signing), ..config(url) };
    let client = OAuthClient::try_new(config).expect("client");
    assert!(client.watched_files().is_empty());
    assert!(!format!("{client:?}").contains("PRIVATE"));
}
