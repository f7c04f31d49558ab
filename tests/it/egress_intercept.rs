//! Interception by the real binary: what clients that trust its CA get, what the upstream sees, and what is refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use bearward::tls::provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::egress;
use crate::harness::bearward::Bearward;
use crate::harness::count;
use crate::harness::run::Run;
use crate::harness::server::{Server, node, python, servers};
use crate::proxy_rig::{OriginServer, TOKEN, Wire, field_of, problem, status};
use crate::tls_rig::{Authority, Pair};

/// An interception of `https://localhost:PORT`.
pub(crate) struct Scene {
    pub(crate) run: Arc<Run>,
    pub(crate) proxy: Bearward,
    pub(crate) port: u16,
    /// What clients must trust.
    pub(crate) ca: PathBuf,
}

/// Ends TLS before a plain upstream. HTTP/1.1 only.
#[allow(clippy::disallowed_methods, reason = "a test server, ended with its runtime")]
pub(crate) async fn tls_front(pair: &Pair, plain: SocketAddr) -> u16 {
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("certificate")];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key");
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut near = acceptor.accept(stream).await?;
                let mut far = TcpStream::connect(plain).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    port
}

/// `bearward ca init` with these hosts permitted.
pub(crate) fn make_ca(run: &Run, hosts: &[&str]) -> Value {
    let (cert, key) = (run.private().join("ca.crt"), run.private().join("ca.key"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bearward"));
    command.args(["ca", "init", "--cert"]).arg(&cert).arg("--key").arg(&key);
    for host in hosts {
        command.args(["--permit", host]);
    }
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("SHA-256") && printed.contains("intercept: {ca_cert:"), "{printed}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).expect("a key").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(&key).expect("a key");
    secret.lines().filter(|line| !line.starts_with("---")).for_each(|line| run.secret(line));
    json!({"ca_cert": {"file": cert}, "ca_key": {"file": key}})
}

impl Scene {
    /// A plain upstream stands behind TLS at that port.
    pub(crate) async fn before(name: &str, plain: SocketAddr) -> Self {
        Self::with(name, plain, &["localhost"], |_, _| ()).await
    }

    pub(crate) async fn with(
        name: &str,
        plain: SocketAddr,
        names: &[&str],
        change: impl FnOnce(&mut Value, u16),
    ) -> Self {
        let authority = Authority::new();
        let port = tls_front(&authority.issue(names), plain).await;
        Self::to(name, port, &authority, |config| change(config, port)).await
    }

    /// An upstream that speaks TLS stands there already, with a certificate of that authority.
    pub(crate) async fn to(
        name: &str,
        port: u16,
        authority: &Authority,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let run = Arc::new(Run::new(name));
        let roots = run.private().join("upstream-ca.crt");
        std::fs::write(&roots, authority.certificate.pem()).expect("written");
        let rules = json!([{
            "name": "api", "match": {"hosts": ["localhost"], "ports": [port]}, "action": "intercept", "credential": "it",
            "tls": {"ca": {"file": roots}},
        }]);
        let mut config = egress::config(&run, &rules, &[format!("https://localhost:{port}")]);
        config["listeners"][0]["intercept"] = make_ca(&run, &["localhost"]);
        change(&mut config);
        let proxy = Bearward::start(&run, &config).await;
        let ca = run.private().join("ca.crt");
        Self { run, proxy, port, ca }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// A client that trusts the CA of the interception, as it is told in the environment.
    pub(crate) async fn client(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Output {
        self.client_with(program, arguments, &[]).await
    }

    /// The same with these variables.
    pub(crate) async fn client_with(
        &self,
        program: impl AsRef<Path>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Output {
        let proxy = format!("http://{}", self.proxy.proxy());
        let mut command = tokio::process::Command::new(program.as_ref());
        command.args(arguments).current_dir(servers()).kill_on_drop(true).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.run.private());
        for name in ["https_proxy", "HTTPS_PROXY"] {
            command.env(name, &proxy);
        }
        for name in
            ["CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"]
        {
            command.env(name, &self.ca);
        }
        command.envs(variables.iter().copied());
        let output = tokio::time::timeout(Duration::from_secs(90), command.output()).await;
        let output = output.expect("the client ends").expect("the client is installed");
        self.run.keep("clients.log", &String::from_utf8_lossy(&output.stderr));
        output
    }

    pub(crate) async fn succeeds(&self, program: impl AsRef<Path>, arguments: &[&str]) -> String {
        let output = self.client(program, arguments).await;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{printed}\n{errors}", output.status);
        printed
    }

    /// CONNECT, then a handshake for `name`, then these bytes; all that comes back.
    pub(crate) async fn inside(&self, name: &str, request: &str) -> Result<String, String> {
        let mut stream = TcpStream::connect(self.proxy.proxy()).await.map_err(|error| error.to_string())?;
        let target = format!("localhost:{}", self.port);
        stream
            .write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())
            .await
            .expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(|error| error.to_string())?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if status(&head) != 200 {
            return Err(head);
        }
        assert!(
            !head.to_lowercase().contains("content-length")
                && !head.to_lowercase().contains("transfer-encoding")
        );
        // Whatever the handshake asks for, the certificate is the target's.
        let roots = bearward::tls::pem::read_trust_anchors(&self.ca).expect("roots");
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .expect("a verifier");
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ForLocalhost(verifier)))
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        drop(read);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Verifies against `localhost`, whatever name was sent.
#[derive(Debug)]
struct ForLocalhost(Arc<rustls::client::WebPkiServerVerifier>);

impl rustls::client::danger::ServerCertVerifier for ForLocalhost {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        let name = ServerName::try_from("localhost").expect("a name");
        self.0.verify_server_cert(leaf, issuers, &name, ocsp, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_inside_go_on_with_the_token_and_without_the_clients_own() {
    let origin = OriginServer::ok();
    let scene = Scene::before("intercept", origin.address).await;
    let request = |host: &str| {
        format!(
            "GET /a?b HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer of-the-client\r\nProxy-Authorization: Basic eDp5\r\n\
             Connection: close, authorization\r\n\r\n"
        )
    };
    let own = format!("localhost:{}", scene.port);
    let answer = scene.inside("localhost", &request(&own)).await.expect("an answer");
    assert_eq!(status(&answer), 200, "{answer}");
    let seen = origin.request();
    assert!(seen.starts_with("GET /a?b HTTP/1.1\r\n"), "{seen}");
    assert_eq!(field_of(&seen, "authorization"), Some(format!("Bearer {TOKEN}")), "{seen}");
    assert_eq!(field_of(&seen, "host"), Some(own), "{seen}");
    for absent in ["of-the-client", "eDp5", "forwarded", "127.0.0.1;"] {
        assert!(!seen.to_lowercase().contains(absent), "{seen}");
    }
    // The connection that proved the upstream carried the request.
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshake_and_requests_name_the_host_of_the_tunnel_or_get_421() {
    let origin = OriginServer::ok();
    let scene = Scene::before("intercept-421", origin.address).await;
    let port = scene.port;
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let check = async |name: &str, request: &str, expected: u16| {
        let answer = scene.inside(name, request).await.expect("an answer");
        assert_eq!(status(&answer), expected, "{name} {request:?} {answer}");
        if expected == 421 {
            assert_eq!(problem(&answer)["type"], "urn:bearward:problem:misdirected");
        }
    };
    check("localhost", &get(&format!("localhost:{port}")), 200).await;
    check("localhost", &get(&format!("LOCALHOST.:{port}")), 200).await;
    check(
        "localhost",
        &format!("GET https://localhost:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        200,
    )
    .await;
    check("localhost", &get("localhost"), 421).await;
    check("localhost", &get(&format!("localhost:{}", port ^ 1)), 421).await;
    check("localhost", &get("api.example.com"), 421).await;
    check("localhost", &get(&format!("127.0.0.1:{port}")), 421).await;
    check(
        "localhost",
        &format!("GET https://evil.example/ HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"),
        421,
    )
    .await;
    check(
        "localhost",
        &format!(
            "GET http://localhost:{port}/ HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
        ),
        400,
    )
    .await;
    check(
        "localhost",
        &format!("TRACE / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"),
        405,
    )
    .await;
    check("localhost", &format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"), 400)
        .await;
    check("other.example", &get(&format!("localhost:{port}")), 421).await;
    check("other.example", &get("other.example"), 421).await;
    let before = origin.requests().len();
    assert_eq!(before, 3, "what was refused reached nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_shown_nothing_before_the_upstream_has_proven_itself() {
    let origin = OriginServer::ok();
    // The upstream's certificate is for another name.
    let scene = Scene::with("intercept-unproven", origin.address, &["other.example"], |_, _| ()).await;
    let refused = scene.inside("localhost", "").await.expect_err("no tunnel");
    assert_eq!(status(&refused), 502, "{refused}");
    assert_eq!(field_of(&refused, "proxy-status").as_deref(), Some("bearward; error=tls_certificate_error"));
    assert_eq!(origin.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_judge_the_requests_inside_one_by_one() {
    let origin = OriginServer::ok();
    let scene = Scene::with("intercept-rules", origin.address, &["localhost"], |config, port| {
        let rules = config["listeners"][0]["rules"].as_array_mut().expect("rules");
        let to = |more: Value| {
            let mut condition = json!({"hosts": ["localhost"], "ports": [port]});
            condition.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
            condition
        };
        rules.insert(0, json!({"name": "stub", "match": to(json!({"path_prefix": "/oauth/token"})), "action": "stub_token_endpoint"}));
        rules.insert(1, json!({"name": "no-admin", "match": to(json!({"path_prefix": "/admin"})), "action": "deny"}));
        rules.insert(2, json!({"name": "no-delete", "match": to(json!({"methods": ["DELETE"]})), "action": "deny"}));
    })
    .await;
    let ask = async |line: &str| {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            scene.port
        );
        scene.inside("localhost", &request).await.expect("an answer")
    };
    assert_eq!(status(&ask("GET /x").await), 200);
    for (line, rule) in
        [("GET /admin/x", "no-admin"), ("GET /x/../admin", "no-admin"), ("DELETE /x", "no-delete")]
    {
        let answer = ask(line).await;
        assert_eq!(
            (status(&answer), problem(&answer)["rule"].as_str()),
            (403, Some(rule)),
            "{line}: {answer}"
        );
    }
    assert_eq!(status(&ask("GET /x/%2e%2e/admin").await), 400, "the upstream could read it as denied");
    let stub = ask("POST /oauth/token").await;
    assert_eq!(status(&stub), 200, "{stub}");
    assert!(stub.contains("bearward-placeholder") && !stub.contains(TOKEN), "{stub}");
    assert_eq!(origin.requests().len(), 1);
    // No tunnel, and so no certificate, for what no rule intercepts.
    let mut wire = Wire::to(scene.proxy.proxy());
    wire.write("CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n");
    assert_eq!(status(&wire.answer()), 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_ca_is_taken_while_the_proxy_runs() {
    let origin = OriginServer::ok();
    let scene = Scene::before("intercept-new-ca", origin.address).await;
    let request = format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", scene.port);
    assert_eq!(status(&scene.inside("localhost", &request).await.expect("an answer")), 200);
    for name in ["ca.crt", "ca.key"] {
        std::fs::rename(scene.run.private().join(name), scene.run.private().join(format!("old-{name}")))
            .expect("moved");
    }
    make_ca(&scene.run, &["localhost"]);
    crate::harness::eventually("the new CA is in use", Duration::from_secs(10), async || {
        scene.inside("localhost", &request).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_is_served_inside_over_both_versions_of_http() {
    let run = Run::new("intercept-upstream");
    let upstream = Server::upstream(&run).await;
    let plain = upstream.text("/origin").trim_start_matches("http://").parse().expect("an address");
    let scene = Scene::before("intercept-curl", plain).await;
    for (version, expected) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let url = scene.url("/echo?q=%2F");
        let printed = scene
            .succeeds(
                "curl",
                &[
                    "-sS",
                    version,
                    "-H",
                    "Authorization: Bearer of-the-client",
                    "-d",
                    "hello",
                    "-w",
                    "\n%{http_version} %{http_connect}",
                    &url,
                ],
            )
            .await;
        let (body, versions) = printed.rsplit_once('\n').expect("two lines");
        let echoed: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(versions, format!("{expected} 200"));
        assert_eq!(
            (&echoed["method"], &echoed["target"], &echoed["bytes"]),
            (&json!("POST"), &json!("/echo?q=%2F"), &json!(5))
        );
    }
    // Who does not trust the CA is not served, and nothing went on.
    let output = scene
        .client("curl", &["-sS", "--cacert", "/etc/ssl/certs/ca-certificates.crt", &scene.url("/")])
        .await;
    assert_eq!(output.status.code(), Some(60), "{output:?}");
    let own = format!("\"authority\":\"localhost:{}\"", scene.port);
    crate::harness::eventually("the log says why", Duration::from_secs(10), async || {
        let log = scene.run.everything();
        let mut told = log.lines().filter(|line| line.contains("does it trust the CA of `intercept`?"));
        told.any(|line| line.contains("\"level\":\"INFO\"") && line.contains(&own)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_other_languages_are_served_inside() {
    let run = Run::new("intercept-upstream-2");
    let upstream = Server::upstream(&run).await;
    let plain = upstream.text("/origin").trim_start_matches("http://").parse().expect("an address");
    let scene = Scene::before("intercept-clients", plain).await;
    let printed = scene.succeeds(python(), &["intercepted.py", &scene.url("")]).await;
    printed.lines().for_each(count);
    let printed = scene.succeeds(node(), &["intercepted.mjs", &scene.url("")]).await;
    printed.lines().for_each(count);
    // Java trusts what is in a store of its own format.
    let store = scene.run.private().join("trust.p12");
    let (store, ca) = (store.to_str().expect("text"), scene.ca.to_str().expect("text"));
    scene
        .succeeds(
            "keytool",
            &[
                "-importcert",
                "-noprompt",
                "-storetype",
                "PKCS12",
                "-storepass",
                "changeit",
                "-alias",
                "bearward",
                "-file",
                ca,
                "-keystore",
                store,
            ],
        )
        .await;
    let proxy = scene.proxy.proxy();
    let printed = scene
        .succeeds(
            "java",
            &[
                &format!("-Djavax.net.ssl.trustStore={store}"),
                "-Djavax.net.ssl.trustStorePassword=changeit",
                // Else `localhost` is asked directly.
                "-Dhttp.nonProxyHosts=",
                &format!("-Dhttps.proxyHost={}", proxy.ip()),
                &format!("-Dhttps.proxyPort={}", proxy.port()),
                "Intercepted.java",
                &scene.url("/java"),
            ],
        )
        .await;
    printed.lines().for_each(count);
}
