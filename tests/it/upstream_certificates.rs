//! Client certificates that upstreams ask for, replaced under a running proxy: which certificate each request came with,
//! over HTTP/1.1 and HTTP/2, by a route and by an egress rule.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::egress;
use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::{eventually, http};
use crate::proxy_rig::status;
use crate::tls_rig::{Authority, Files, Pair};

/// An upstream that lets in only who has a certificate of the authority, and notes which one each request came with.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Upstream {
    #[allow(clippy::disallowed_methods, reason = "a test server, ended with its runtime")]
    async fn start(authority: &Authority, alpn: &'static str) -> Self {
        let own = authority.issue(&["localhost"]);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).expect("a root");
        let provider = bearward::tls::provider();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).expect("certificate")],
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("key"),
            )
            .expect("a server");
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let shown =
                        stream.get_ref().1.peer_certificates().expect("one was asked for")[0].to_vec();
                    match alpn {
                        "h2" => serve_http2(stream, &shown, &log).await,
                        _ => serve_http1(stream, &shown, &log).await,
                    }
                });
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().expect("lock").clone()
    }
}

type TlsStream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

/// A request for `/slow` is answered a second later.
async fn serve_http1(mut stream: TlsStream, shown: &[u8], log: &Mutex<Vec<Vec<u8>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        log.lock().expect("lock").push(shown.to_vec());
        if head.starts_with(b"GET /slow") {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
            return;
        }
        let _ = stream.flush().await;
    }
}

#[allow(clippy::disallowed_methods, reason = "a test server, ended with its runtime")]
async fn serve_http2(stream: TlsStream, shown: &[u8], log: &Mutex<Vec<Vec<u8>>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        log.lock().expect("lock").push(shown.to_vec());
        tokio::spawn(async move {
            if request.uri().path() == "/slow" {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let _ = respond.send_response(::http::Response::new(()), true);
        });
    }
}

fn der(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate").to_vec()
}

/// A CA, a client's first certificate in files, and its next.
fn party() -> (Authority, Files, Pair, Pair) {
    let authority = Authority::new();
    let (first, next) = (authority.issue(&["first.example"]), authority.issue(&["next.example"]));
    let files = Files::of(&first);
    files.write("ca.crt", &authority.certificate.pem());
    (authority, files, first, next)
}

fn tls(files: &Files) -> Value {
    let file = |name: &str| json!({"file": files.at(name)});
    json!({"ca": file("ca.crt"), "cert": file("tls.crt"), "key": file("tls.key")})
}

/// Requests until the next certificate is shown; from then on it is the only one.
async fn replaced(upstream: &Upstream, files: &Files, next: &Pair, ask: impl AsyncFn() -> u16) {
    files.write("tls.crt", &next.cert);
    files.write("tls.key", &next.key);
    eventually("the next certificate is shown", Duration::from_secs(10), async || {
        assert_eq!(ask().await, 200);
        (upstream.seen().last() == Some(&der(next))).then_some(())
    })
    .await;
    let before = upstream.seen().len();
    for _ in 0..20 {
        assert_eq!(ask().await, 200);
    }
    let after: HashSet<Vec<u8>> = upstream.seen().split_off(before).into_iter().collect();
    assert_eq!(after, HashSet::from([der(next)]), "no request goes with the old one any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_shows_the_next_certificate_and_finishes_what_is_under_way_with_the_old_one() {
    for (alpn, version) in [("http/1.1", "h1"), ("h2", "h2")] {
        let run = Arc::new(Run::new(&format!("upstream-certificate-{version}")));
        let (authority, files, first, next) = party();
        let upstream = Upstream::start(&authority, alpn).await;
        let url = format!("https://localhost:{}", upstream.address.port());
        let mut config = run.config(&url, &json!({}));
        config.as_object_mut().expect("a map").remove("credentials");
        config["listeners"][0]["routes"][0] =
            json!({"name": "api", "upstream": {"urls": [url], "http": version, "tls": tls(&files)}});
        // One: what it knows of the files, all requests go by.
        config["limits"] = json!({"workers": 1});
        let bearward = Bearward::start(&run, &config).await;
        assert_eq!(bearward.get("/").await.status, 200);
        assert_eq!(upstream.seen(), [der(&first)]);
        let proxy = bearward.proxy();
        #[allow(clippy::disallowed_methods, reason = "joined below")]
        let slow = tokio::spawn(async move { http::get(proxy, "/slow").await.expect("an answer").status });
        eventually("it is under way", Duration::from_secs(5), async || {
            (upstream.seen().len() == 2).then_some(())
        })
        .await;
        replaced(&upstream, &files, &next, async || bearward.get("/").await.status).await;
        assert_eq!(slow.await.expect("it ends"), 200, "{version}: what was under way is answered");
        assert!(bearward.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_egress_rule_shows_the_next_certificate() {
    let run = Arc::new(Run::new("upstream-certificate-egress"));
    let (authority, files, first, next) = party();
    let upstream = Upstream::start(&authority, "http/1.1").await;
    let port = upstream.address.port();
    let rules = json!([{"match": {"hosts": ["localhost"], "ports": [port]}, "action": "upgrade", "tls": tls(&files)}]);
    let mut config = egress::config(&run, &rules, &[]);
    config["listeners"][0]["egress_network"]["allow_private"] = json!(["127.0.0.0/8", "::1/128"]);
    config["limits"] = json!({"workers": 1});
    let bearward = Bearward::start(&run, &config).await;
    let ask = async || status(&egress::absolute(&bearward, &format!("http://localhost:{port}/"), ""));
    assert_eq!(ask().await, 200);
    assert_eq!(upstream.seen(), [der(&first)]);
    replaced(&upstream, &files, &next, ask).await;
    assert!(bearward.stop().await.success());
}
