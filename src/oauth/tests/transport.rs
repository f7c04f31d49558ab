//! Whether a byte of the request was written, for each way in which there is no answer.

use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::tls::TlsIdentity;

/// Sends one refresh and checks class and word of the failure.
async fn check(config: OAuthConfig, class: FailureClass, error: &str, words: &str) {
    let place = format!("{:?}", config.endpoint);
    let failure = refresh(config).await.expect_err(&place);
    assert_eq!((failure.class, failure.error.as_str()), (class, error), "{place}: {failure}");
    assert!(failure.message.contains(words), "{failure}");
    assert!(!failure.message.contains('\n'), "{failure}");
}

fn short(config: OAuthConfig) -> OAuthConfig {
    OAuthConfig {
        connect_timeout: Duration::from_millis(500),
        request_timeout: Duration::from_millis(1500),
        ..config
    }
}

fn https(port: u16) -> url::Url {
    url::Url::parse(&format!("https://localhost:{port}/token")).expect("url")
}

/// A CA and a certificate for `localhost` that it issued, in files.
struct Pki {
    folder: tempfile::TempDir,
    cert: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let ca_key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("ca");
        let issuer = rcgen::Issuer::new(params, ca_key);
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
        let cert = params.signed_by(&key, &issuer).expect("certificate");
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).expect("write");
        std::fs::write(folder.path().join("client.crt"), cert.pem()).expect("write");
        Self { folder, cert, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, want_client: bool) -> Arc<rustls::ServerConfig> {
        let builder = rustls::ServerConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if want_client {
            let roots = crate::tls::pem::read_trust_anchors(&self.path("ca.pem")).expect("roots");
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                crate::tls::provider(),
            );
            builder.with_client_cert_verifier(verifier.build().expect("verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("key");
        Arc::new(builder.with_single_cert(vec![self.cert.der().clone()], key).expect("server"))
    }

    fn trusted(&self) -> TlsClientConfig {
        TlsClientConfig { ca: Some(self.path("ca.pem")), ..TlsClientConfig::default() }
    }

    fn identity(&self) -> TlsIdentity {
        TlsIdentity { cert: self.path("client.crt"), key: value(&self.key.serialize_pem()) }
    }
}

#[tokio::test]
async fn case_36_what_fails_before_the_first_byte_is_clean() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address").port();
    let url = format!("http://127.0.0.1:{nobody}/token").parse().expect("url");
    check(config(url), FailureClass::Clean, "connect", "no connection: Connection refused").await;
    // Longer than a label may be: the resolver refuses it without asking anybody.
    let url = format!("http://{}.localhost/token", "a".repeat(64)).parse().expect("url");
    check(config(url), FailureClass::Clean, "dns", "its name does not resolve").await;
    // A server that speaks no TLS, and one that closes in the handshake.
    let plain = Provider::start(vec![Reply::Write(b"HTTP/1.1 400 Bad\r\n\r\n".to_vec())]).await;
    let failure = refresh(short(config(https(plain.port)))).await.expect_err("no TLS");
    assert_eq!(failure.class, FailureClass::Clean, "{failure}");
    let closing = Provider::start(vec![Reply::CloseAtOnce]).await;
    let failure = refresh(short(config(https(closing.port)))).await.expect_err("closed");
    assert_eq!(failure.class, FailureClass::Clean, "{failure}");
    // A server that accepts and never answers the handshake.
    let silent = Provider::start(vec![Reply::Stall(Vec::new())]).await;
    check(short(config(https(silent.port))), FailureClass::Clean, "timeout", "no connection within 500ms")
        .await;
}

#[tokio::test]
async fn case_36_a_certificate_that_does_not_verify_is_clean_and_nothing_is_sent() {
    let (pki, other) = (Pki::new(), Pki::new());
    let provider = Provider::start_with(Some(pki.server(false)), |_, _| json(TOKEN)).await;
    let with = |tls| OAuthConfig { tls, ..config(https(provider.port)) };
    check(with(other.trusted()), FailureClass::Clean, "tls", "the TLS handshake failed").await;
    let renamed = TlsClientConfig { server_name: Some("other.example".into()), ..pki.trusted() };
    check(with(renamed), FailureClass::Clean, "tls", "not valid for name \"other.example\"").await;
    assert_eq!(provider.seen().len(), 0);
    refresh(with(pki.trusted())).await.expect("the right CA");
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn a_server_name_replaces_the_hosts_name_and_the_address_stays() {
    let pki = Pki::new();
    let provider = Provider::start_with(Some(pki.server(false)), |_, _| json(TOKEN)).await;
    let url: url::Url = format!("https://127.0.0.1:{}/token", provider.port).parse().expect("url");
    let plain = OAuthConfig { tls: pki.trusted(), ..config(url.clone()) };
    check(plain, FailureClass::Clean, "tls", "not valid for name").await;
    let tls = TlsClientConfig { server_name: Some("localhost".into()), ..pki.trusted() };
    refresh(OAuthConfig { tls, ..config(url) }).await.expect("token");
    assert_eq!(provider.seen()[0].header("host"), Some(&*format!("127.0.0.1:{}", provider.port)));
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_gets_it_and_its_refusal_is_clean() {
    let pki = Pki::new();
    let provider = Provider::start_with(Some(pki.server(true)), |_, _| json(TOKEN)).await;
    let with = |tls| OAuthConfig { tls, ..config(https(provider.port)) };
    for _ in 0..5 {
        check(with(pki.trusted()), FailureClass::Clean, "tls", "refuses our client certificate").await;
    }
    let known = TlsClientConfig { identity: Some(pki.identity()), ..pki.trusted() };
    refresh(with(known)).await.expect("with the certificate");
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_which_is_read_anew_for_each_request() {
    let (pki, other) = (Pki::new(), Pki::new());
    let provider = Provider::start_with(Some(pki.server(true)), |_, _| json(TOKEN)).await;
    let identity =
        TlsIdentity { cert: pki.path("client.crt"), key: SecretSource::File(pki.path("client.key")) };
    std::fs::write(pki.path("client.key"), pki.key.serialize_pem()).expect("write");
    let client_auth = ClientAuth::MutualTls { self_signed: false };
    let good = OAuthConfig {
        client_auth,
        tls: TlsClientConfig { identity: Some(identity), ..pki.trusted() },
        ..config(https(provider.port))
    };
    let client = OAuthClient::try_new(good.clone()).expect("a client");
    assert_eq!(client.watched_files().len(), 3, "{:?}", client.watched_files());
    refresh_with(&client).await.expect("a token");
    assert_eq!(provider.seen()[0].param("client_id").as_deref(), Some("client-1"));
    assert_eq!(provider.seen()[0].header("authorization"), None);
    // Replaced by one that the provider does not know, and back.
    let mine = std::fs::read(pki.path("client.crt")).expect("read");
    std::fs::copy(other.path("client.crt"), pki.path("client.crt")).expect("copy");
    std::fs::write(pki.path("client.key"), other.key.serialize_pem()).expect("write");
    let failure = refresh_with(&client).await.expect_err("refused");
    assert_eq!((failure.class, failure.error.as_str()), (FailureClass::Clean, "tls"), "{failure}");
    std::fs::write(pki.path("client.crt"), mine).expect("write");
    std::fs::write(pki.path("client.key"), pki.key.serialize_pem()).expect("write");
    refresh_with(&client).await.expect("a token");

    let bare = OAuthConfig { tls: pki.trusted(), ..good };
    let error = OAuthClient::try_new(bare).expect_err("no certificate").to_string();
    assert!(error.contains("needs a client certificate"), "{error}");
}

#[tokio::test]
async fn a_refusing_proxy_is_clean_and_a_willing_one_carries_the_request() {
    let through = |proxy: &Provider, url| OAuthConfig {
        outbound_proxy: Some(format!("http://user:pass-word@127.0.0.1:{}", proxy.port).parse().expect("url")),
        ..config(url)
    };
    for status in ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"] {
        let proxy = Provider::start(vec![Reply::Write(answer(status, "", ""))]).await;
        let url = "https://idp.example/token".parse().expect("url");
        let failure = refresh(through(&proxy, url)).await.expect_err(status);
        assert_eq!((failure.class, failure.error.as_str()), (FailureClass::Clean, "proxy"), "{failure}");
        assert!(failure.message.contains("through the outbound proxy http://127.0.0.1"), "{failure}");
        assert!(!failure.message.contains("pass-word"), "{failure}");
        assert!(proxy.seen()[0].head.starts_with("CONNECT idp.example:443 "), "{:?}", proxy.seen());
        assert!(!proxy.seen()[0].head.contains("czNjcmV0"), "no secret is for the proxy");
    }
    let proxy = Provider::start(vec![json(TOKEN)]).await;
    refresh(through(&proxy, "http://127.0.0.1:9/token".parse().expect("url"))).await.expect("token");
    assert!(proxy.seen()[0].head.starts_with("POST http://127.0.0.1:9/token "));
}

#[tokio::test]
async fn a_connection_cut_after_the_request_is_ambiguous_for_a_one_time_token() {
    let whole = answer("200 OK", "content-type: application/json\r\n", TOKEN);
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{\"access_token\":".to_vec();
    let mut cuts: Vec<Vec<u8>> = [0, 1, 20, 60, whole.len() - TOKEN.len(), whole.len() - 1]
        .iter()
        .map(|at| whole[..*at].to_vec())
        .collect();
    cuts.push(chunked);
    for cut in cuts {
        let place = String::from_utf8_lossy(&cut).into_owned();
        let provider = Provider::start(vec![Reply::Write(cut)]).await;
        let client = OAuthClient::try_new(config(provider.url("/token"))).expect("client");
        let failure = refresh_with(&client).await.expect_err(&place);
        assert_eq!((failure.class, failure.error.as_str()), (FailureClass::Ambiguous, "cut"), "{place}");
        assert_eq!(provider.seen().len(), 1, "never sent again by itself");
        let token = Secret::from("rt");
        let reusable = TokenRequest::Refresh { token: &token, single_use: false };
        let failure = client.request(reusable, NOW).await.expect_err(&place);
        assert_eq!(failure.class, FailureClass::Transient, "{place}");
    }
}

#[tokio::test]
async fn a_connection_closed_before_the_request_is_read_is_ambiguous() {
    let provider = Provider::start(vec![Reply::CloseAtOnce]).await;
    let failure = refresh(config(provider.url("/token"))).await.expect_err("closed");
    assert_eq!(failure.class, FailureClass::Ambiguous, "it may have been written: {failure}");
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn case_15_silence_and_dripping_end_at_the_deadline() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n".to_vec();
    for reply in [
        Reply::Stall(Vec::new()),
        Reply::Stall(head.clone()),
        Reply::Drip(head),
        Reply::Drip(b"HTTP/1.1 200 OK\r\nx-pad: ".to_vec()),
    ] {
        let provider = Provider::start(vec![reply]).await;
        let begun = tokio::time::Instant::now();
        let config = short(config(provider.url("/token")));
        check(config, FailureClass::Ambiguous, "timeout", "no complete answer in time (within 1.5s)").await;
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn case_15_a_body_over_one_mebibyte_is_cut_also_when_it_unpacks_to_one() {
    let large = format!(r#"{{"access_token":"a","pad":"{}"}}"#, "x".repeat(1024 * 1024));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, large.as_bytes()).expect("gzip");
    let packed = encoder.finish().expect("gzip");
    assert!(packed.len() < 10_000);
    for (fields, body) in [("", large.as_bytes()), ("content-encoding: gzip\r\n", &packed)] {
        let provider = Provider::start(vec![Reply::Write(answer("200 OK", fields, body))]).await;
        let config = config(provider.url("/token"));
        check(config, FailureClass::Ambiguous, "too_large", "larger than 1 MiB").await;
    }
}

#[tokio::test]
async fn each_request_has_a_connection_of_its_own() {
    let open = Reply::Stall(answer("200 OK", "content-type: application/json\r\n", TOKEN));
    let provider = Provider::start(vec![open]).await;
    let client = OAuthClient::try_new(config(provider.url("/token"))).expect("client");
    for _ in 0..3 {
        refresh_with(&client).await.expect("token");
    }
    assert_eq!(provider.seen().len(), 3, "a connection that is kept open is not used twice");
}

#[tokio::test]
async fn the_files_of_tls_are_read_again_for_each_request() {
    let (pki, other) = (Pki::new(), Pki::new());
    let provider = Provider::start_with(Some(pki.server(false)), |_, _| json(TOKEN)).await;
    let bundle = pki.path("bundle.pem");
    std::fs::copy(other.path("ca.pem"), &bundle).expect("copy");
    let tls = TlsClientConfig { ca: Some(bundle.clone()), ..TlsClientConfig::default() };
    let client = OAuthClient::try_new(OAuthConfig { tls, ..config(https(provider.port)) }).expect("client");
    assert_eq!(client.watched_files(), std::slice::from_ref(&bundle));
    assert_eq!(refresh_with(&client).await.expect_err("wrong CA").error, "tls");
    std::fs::copy(pki.path("ca.pem"), &bundle).expect("copy");
    refresh_with(&client).await.expect("the replaced CA");
}

#[tokio::test]
async fn whole_json_is_taken_even_if_its_frame_is_torn() {
    let torn = [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{TOKEN}\n", TOKEN.len() + 2),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{TOKEN}", TOKEN.len()),
    ];
    for frame in torn {
        for reply in [Reply::Write(frame.clone().into_bytes()), Reply::Stall(frame.clone().into_bytes())] {
            let provider = Provider::start(vec![reply]).await;
            let token = refresh(short(config(provider.url("/token")))).await.expect(&frame);
            assert_eq!(token.access_token.expose(), "at-1");
        }
    }
}
