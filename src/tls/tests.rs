use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::secret::Secret;

struct Pair {
    cert: rcgen::Certificate,
    key: rcgen::KeyPair,
}

fn pair(name: &str) -> Pair {
    let key = rcgen::KeyPair::generate().expect("key");
    let cert = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("params");
    Pair { cert: cert.self_signed(&key).expect("certificate"), key }
}

/// A CA, and a certificate for `localhost` that it issued.
fn issued() -> (rcgen::Certificate, Pair) {
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("ca");
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().expect("key");
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
    (ca, Pair { cert: cert.signed_by(&key, &issuer).expect("certificate"), key })
}

/// Serves one connection with that certificate and tells what the client's handshake came to.
async fn handshake(
    server: &Pair,
    client: &TlsClientConfig,
    host: &str,
) -> Result<rustls::NamedGroup, String> {
    let key = rustls::pki_types::PrivateKeyDer::try_from(server.key.serialize_der()).expect("key");
    handshake_with(vec![server.cert.der().clone()], key, client, host).await
}

async fn handshake_with(
    certs: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
    client: &TlsClientConfig,
    host: &str,
) -> Result<rustls::NamedGroup, String> {
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .expect("server config");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let serve = async {
        let (tcp, _) = listener.accept().await.expect("accept");
        if let Ok(mut tls) = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(tcp).await {
            let _ = tls.write_all(b"x").await;
            let _ = tls.shutdown().await;
        }
    };
    let connect = async {
        let config = client_config(client).map_err(|error| error.to_string())?;
        let name = client.verified_name(host).map_err(|error| error.to_string())?;
        let tcp = tokio::net::TcpStream::connect(address).await.expect("connect");
        let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .map_err(|error| error.to_string())?;
        let mut byte = [0];
        tls.read_exact(&mut byte).await.map_err(|error| error.to_string())?;
        Ok(tls.get_ref().1.negotiated_key_exchange_group().expect("group").name())
    };
    tokio::join!(serve, connect).1
}

fn trusting(ca: &Path) -> TlsClientConfig {
    TlsClientConfig { ca: Some(ca.to_owned()), ..TlsClientConfig::default() }
}

#[tokio::test]
async fn a_custom_ca_is_trusted_and_the_exchange_is_post_quantum() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (ca, server) = issued();
    let bundle = folder.path().join("ca.pem");
    std::fs::write(&bundle, ca.pem()).expect("write");
    assert_eq!(
        handshake(&server, &trusting(&bundle), "localhost").await,
        Ok(rustls::NamedGroup::X25519MLKEM768)
    );
}

#[tokio::test]
async fn an_unknown_ca_and_a_wrong_name_are_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (_, server) = issued();
    let (other_ca, _) = issued();
    let bundle = folder.path().join("ca.pem");
    std::fs::write(&bundle, other_ca.pem()).expect("write");
    let refused = handshake(&server, &trusting(&bundle), "localhost").await.expect_err("unknown CA");
    assert!(refused.contains("UnknownIssuer") || refused.contains("BadSignature"), "{refused}");

    let (ca, server) = issued();
    std::fs::write(&bundle, ca.pem()).expect("write");
    let refused = handshake(&server, &trusting(&bundle), "other.example").await.expect_err("wrong name");
    assert!(refused.contains("not valid for name \"other.example\""), "{refused}");
    let renamed = TlsClientConfig { server_name: Some("localhost".into()), ..trusting(&bundle) };
    assert!(handshake(&server, &renamed, "other.example").await.is_ok(), "server_name overrides the host");
}

#[tokio::test]
async fn the_systems_roots_refuse_a_private_ca() {
    let (_, server) = issued();
    let refused = handshake(&server, &TlsClientConfig::default(), "localhost").await.expect_err("private CA");
    assert!(refused.contains("UnknownIssuer") || refused.contains("no usable CA"), "{refused}");
}

#[test]
fn mistakes_in_files_are_named() {
    let folder = tempfile::tempdir().expect("tempdir");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path
    };
    let (mine, other) = (pair("mine.example"), pair("other.example"));
    let cert = write("client.crt", &mine.cert.pem());
    let key = mine.key.serialize_pem();
    let empty = write("empty.pem", "nothing\n");
    let key_only = write("key.pem", &key);
    let torn = write("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let check = |config: TlsClientConfig, expected: Result<(), &str>| match (client_config(&config), expected)
    {
        (Ok(_), Ok(())) => {}
        (Err(error), Err(words)) => {
            let message = error.to_string();
            assert!(message.contains(words), "{message:?} lacks {words:?}");
            assert!(!message.contains(key.lines().nth(1).expect("key body")), "{message}");
        }
        (got, wanted) => panic!("{got:?} for {wanted:?}"),
    };
    let identity = |cert: &Path, key: &str| TlsClientConfig {
        identity: Some(TlsIdentity { cert: cert.into(), key: SecretSource::Value(Secret::from(key)) }),
        ..TlsClientConfig::default()
    };
    check(trusting(&folder.path().join("none.pem")), Err("none.pem: no such file"));
    check(trusting(folder.path()), Err("it is a directory"));
    check(trusting(&empty), Err("no certificate in this file"));
    check(trusting(&key_only), Err("there is a private key here but no certificate"));
    check(trusting(&torn), Err("broken PEM: a block has no END line"));
    check(identity(&cert, &key), Ok(()));
    check(identity(&cert, &other.key.serialize_pem()), Err("does not belong to the first certificate"));
    check(identity(&cert, "nonsense"), Err("no private key here"));
    check(identity(&cert, &mine.cert.pem()), Err("there is a certificate here but no private key"));
    check(
        identity(&cert, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"),
        Err("is encrypted"),
    );
    let renamed = TlsClientConfig { server_name: Some("not a name".into()), ..TlsClientConfig::default() };
    check(renamed, Err("`not a name` is neither"));
}

/// The environment is the process's own, so the test runs itself as a child with another one.
#[tokio::test]
async fn ssl_cert_file_replaces_the_systems_roots() {
    const CHILD: &str = "BEARWARD_TEST_TLS_FOLDER";
    if let Some(folder) = std::env::var_os(CHILD) {
        let read = |name: &str| std::fs::read(Path::new(&folder).join(name)).expect("read");
        let server = rustls::pki_types::PrivateKeyDer::try_from(read("key.der")).expect("key");
        let chain = vec![rustls::pki_types::CertificateDer::from(read("crt.der"))];
        let result = handshake_with(chain, server, &TlsClientConfig::default(), "localhost").await;
        assert!(result.is_ok(), "{result:?}");
        return;
    }
    let folder = tempfile::tempdir().expect("tempdir");
    let (ca, server) = issued();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("write");
    write("ca.pem", ca.pem().as_bytes());
    write("crt.der", server.cert.der());
    write("key.der", &server.key.serialize_der());
    let run = |bundle: &str| {
        std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "tls::tests::ssl_cert_file_replaces_the_systems_roots"])
            .env(CHILD, folder.path())
            .env("SSL_CERT_FILE", bundle)
            .env_remove("SSL_CERT_DIR")
            .output()
            .expect("the child runs")
    };
    let trusting = run(folder.path().join("ca.pem").to_str().expect("path"));
    assert!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stdout));
    let without = run("/no/such/bundle.pem");
    let said =
        String::from_utf8_lossy(&without.stdout).into_owned() + &String::from_utf8_lossy(&without.stderr);
    assert!(!without.status.success() && said.contains("install `ca-certificates`"), "{said}");
}
