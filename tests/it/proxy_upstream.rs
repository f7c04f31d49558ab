//! Ways to the upstream: TLS with its identities, outbound proxies, Unix-socket listeners.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bearward::clock::Clock;
use bearward::listener::{BindAddress, DataPlane, Limits, ListenerConfig, ProxyProtocol};
use bearward::policy::trusted::TrustedProxies;
use bearward::secret::SecretSource;
use bearward::tls::{TlsIdentity, provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::proxy_rig::{OriginServer, Rig, TOKEN, field_of, fields_of, name, read_head, route, status};

/// A CA with its certificate in a file.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: CertificateDer<'static>,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate");
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, certificate.pem()).expect("written");
        Self { issuer: rcgen::Issuer::new(params, key), certificate: certificate.der().clone(), path, folder }
    }

    fn issue(&self, host: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).expect("params");
        (params.signed_by(&key, &self.issuer).expect("certificate"), key)
    }
}

/// What a TLS origin noted of each request: the raw head, whether the session was resumed, whether the client
/// showed a certificate.
type Notes = Arc<Mutex<Vec<(String, bool, bool)>>>;

/// An HTTPS origin for `host` that answers `ok` and closes each connection after `per_connection` requests.
fn tls_origin(authority: &Authority, host: &str, mutual: bool, per_connection: usize) -> (SocketAddr, Notes) {
    let (certificate, key) = authority.issue(host);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder =
        rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.expect("versions");
    let builder = if mutual {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate.clone()).expect("root");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        builder.with_client_cert_verifier(verifier.build().expect("verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let config = Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).expect("config"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let notes = Notes::default();
    let log = Arc::clone(&notes);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, log) = (Arc::clone(&config), Arc::clone(&log));
            std::thread::spawn(move || {
                let connection = rustls::ServerConnection::new(config).expect("connection");
                let mut tls = rustls::StreamOwned::new(connection, stream);
                for _ in 0..per_connection {
                    let Some(head) = read_tls_head(&mut tls) else { return };
                    let resumed = tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                    let identified = tls.conn.peer_certificates().is_some();
                    log.lock().expect("lock").push((head, resumed, identified));
                    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
                tls.conn.send_close_notify();
                let _ = tls.flush();
            });
        }
    });
    (address, notes)
}

fn read_tls_head(stream: &mut impl Read) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn a_tls_upstream_is_verified_kept_and_resumed() {
    let authority = Authority::new();
    let (address, notes) = tls_origin(&authority, "localhost", false, 3);
    let mut secure = route(&format!("https://localhost:{}", address.port()));
    secure.upstream.tls.ca = Some(authority.path.clone());
    let rig = Rig::start(vec![secure]);
    for _ in 0..6 {
        let answer = rig.get("/", "");
        assert_eq!(status(&answer), 200, "{answer}");
    }
    let notes = notes.lock().expect("lock").clone();
    // Two connections of three requests each; the second resumes the session of the first.
    assert_eq!(
        notes.iter().map(|(_, resumed, _)| *resumed).collect::<Vec<_>>(),
        [false, false, false, true, true, true]
    );
    for (head, ..) in &notes {
        assert_eq!(fields_of(head, "authorization"), [format!("Bearer {TOKEN}")]);
        assert_eq!(field_of(head, "host"), Some(format!("localhost:{}", address.port())));
    }
}

#[test]
fn a_tunnel_goes_over_tls_and_ends_with_both_sides() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("config");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let upstream = std::thread::spawn(move || {
        let connection = rustls::ServerConnection::new(Arc::new(config)).expect("connection");
        let mut tls = rustls::StreamOwned::new(connection, listener.accept().expect("accepted").0);
        let head = read_tls_head(&mut tls).expect("a head");
        // One record: the first bytes of the tunnel come with the 101.
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: upgrade\r\n\r\nhello ";
        tls.write_all(switch).expect("written");
        let mut said = Vec::new();
        // To the client's close_notify.
        tls.read_to_end(&mut said).expect("a clean end");
        tls.write_all(&said).expect("echoed");
        tls.conn.send_close_notify();
        tls.flush().expect("flushed");
        head
    });
    let mut secure = route(&format!("https://localhost:{port}"));
    secure.upstream.tls.ca = Some(authority.path.clone());
    let rig = Rig::start(vec![secure]);
    let mut wire = rig.connect();
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n");
    assert_eq!(status(&wire.answer()), 101);
    let large = "0123456789abcdef".repeat(16 * 1024);
    wire.write(&large);
    wire.0.shutdown(std::net::Shutdown::Write).expect("half-closed");
    assert_eq!(wire.rest(), format!("hello {large}"));
    let head = upstream.join().expect("joined");
    assert_eq!(fields_of(&head, "authorization"), [format!("Bearer {TOKEN}")]);
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole_only_where_tls_says_so() {
    let authority = Authority::new();
    for announced in [true, false] {
        let (certificate, key) = authority.issue("localhost");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("config");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let upstream = std::thread::spawn(move || {
            let connection = rustls::ServerConnection::new(Arc::new(config)).expect("connection");
            let mut tls = rustls::StreamOwned::new(connection, listener.accept().expect("accepted").0);
            read_tls_head(&mut tls).expect("a head");
            tls.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it").expect("written");
            if announced {
                tls.conn.send_close_notify();
            }
            tls.flush().expect("flushed");
        });
        let mut secure = route(&format!("https://localhost:{port}"));
        secure.upstream.tls.ca = Some(authority.path.clone());
        let rig = Rig::start(vec![secure]);
        let mut wire = rig.connect();
        wire.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let got = wire.rest();
        assert_eq!(got.ends_with("\r\n0\r\n\r\n"), announced, "{got}");
        assert!(!announced || got.contains("all of it"), "{got}");
        upstream.join().expect("joined");
    }
}

#[test]
fn an_upstream_that_cannot_prove_its_name_gets_nothing() {
    let (ours, other) = (Authority::new(), Authority::new());
    let check = |issuer: &Authority, host: &str, server_name: Option<&str>, expected: u16| {
        let (address, notes) = tls_origin(issuer, host, false, 1);
        let mut secure = route(&format!("https://localhost:{}", address.port()));
        secure.upstream.tls.ca = Some(ours.path.clone());
        secure.upstream.tls.server_name = server_name.map(str::to_owned);
        let answer = Rig::start(vec![secure]).get("/", "");
        assert_eq!(status(&answer), expected, "{host} {server_name:?}: {answer}");
        if expected == 502 {
            assert_eq!(
                field_of(&answer, "proxy-status").as_deref(),
                Some("bearward; error=tls_certificate_error")
            );
        }
        assert_eq!(notes.lock().expect("lock").len(), usize::from(expected == 200));
    };
    check(&ours, "localhost", None, 200);
    check(&other, "localhost", None, 502);
    check(&ours, "api.example", None, 502);
    check(&ours, "api.example", Some("api.example"), 200);
    check(&ours, "localhost", Some("api.example"), 502);
}

#[test]
fn a_client_certificate_is_shown_to_an_upstream_that_asks() {
    let authority = Authority::new();
    let (address, notes) = tls_origin(&authority, "localhost", true, 1);
    let (certificate, key) = authority.issue("client.example");
    let (cert_path, key_path) =
        (authority.folder.path().join("c.pem"), authority.folder.path().join("k.pem"));
    std::fs::write(&cert_path, certificate.pem()).expect("written");
    std::fs::write(&key_path, key.serialize_pem()).expect("written");
    std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let mut secure = route(&format!("https://localhost:{}", address.port()));
    secure.upstream.tls.ca = Some(authority.path.clone());
    let anonymous = Rig::start(vec![secure.clone()]);
    assert_eq!(status(&anonymous.get("/", "")), 502);
    secure.upstream.tls.identity = Some(TlsIdentity { cert: cert_path, key: SecretSource::File(key_path) });
    let rig = Rig::start(vec![secure]);
    assert_eq!(status(&rig.get("/", "")), 200);
    assert!(notes.lock().expect("lock").iter().all(|(_, _, identified)| *identified));
}

/// An outbound proxy that opens tunnels to wherever it is asked, or refuses with `refusal`. Records heads.
fn connect_proxy(refusal: Option<&'static str>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heads);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Some(head) = read_head(&mut client) else { continue };
            let head = String::from_utf8_lossy(&head).into_owned();
            let target = head.split(' ').nth(1).expect("a target").to_owned();
            log.lock().expect("lock").push(head);
            if let Some(refusal) = refusal {
                let _ = client.write_all(refusal.as_bytes());
                continue;
            }
            let mut upstream = TcpStream::connect(target).expect("connected");
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("written");
            let (mut from_client, mut to_upstream) =
                (client.try_clone().expect("clone"), upstream.try_clone().expect("clone"));
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_upstream));
            std::thread::spawn(move || std::io::copy(&mut upstream, &mut client));
        }
    });
    (address, heads)
}

#[test]
fn an_https_upstream_is_reached_through_a_tunnel_of_the_outbound_proxy() {
    let authority = Authority::new();
    let (address, notes) = tls_origin(&authority, "localhost", false, 9);
    let (proxy, heads) = connect_proxy(None);
    let mut secure = route(&format!("https://localhost:{}", address.port()));
    secure.upstream.tls.ca = Some(authority.path.clone());
    secure.upstream.outbound_proxy = Some(format!("http://us%20er:pa%3Ass@{proxy}").parse().expect("url"));
    let rig = Rig::start(vec![secure]);
    for _ in 0..2 {
        assert_eq!(status(&rig.get("/x", "")), 200);
    }
    let heads = heads.lock().expect("lock").clone();
    assert_eq!(heads.len(), 1);
    assert!(
        heads[0].starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", address.port())),
        "{}",
        heads[0]
    );
    assert_eq!(field_of(&heads[0], "proxy-authorization").as_deref(), Some("Basic dXMgZXI6cGE6c3M="));
    assert!(!heads[0].contains(TOKEN));
    let notes = notes.lock().expect("lock");
    assert!(
        notes.iter().all(
            |(head, ..)| head.starts_with("GET /x ") && fields_of(head, "proxy-authorization").is_empty()
        )
    );
}

#[test]
fn a_refusal_of_the_outbound_proxy_is_told() {
    let (proxy, heads) =
        connect_proxy(Some("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"));
    let mut secure = route("https://localhost:1");
    secure.upstream.outbound_proxy = Some(format!("http://{proxy}").parse().expect("url"));
    let answer = Rig::start(vec![secure]).get("/", "");
    assert_eq!(status(&answer), 502);
    assert_eq!(field_of(&answer, "proxy-status").as_deref(), Some("bearward; error=destination_unavailable"));
    assert_eq!(heads.lock().expect("lock").len(), 1);
}

#[test]
fn an_http_upstream_is_asked_for_in_absolute_form_through_the_outbound_proxy() {
    let proxy = OriginServer::ok();
    let mut plain = route("http://api.example");
    plain.upstream.outbound_proxy = Some(format!("http://u:p@{}", proxy.address).parse().expect("url"));
    assert_eq!(status(&Rig::start(vec![plain]).get("/x?y", "")), 200);
    let request = proxy.request();
    assert!(request.starts_with("GET http://api.example/x?y HTTP/1.1\r\n"), "{request}");
    assert_eq!(field_of(&request, "host").as_deref(), Some("api.example"));
    assert_eq!(field_of(&request, "proxy-authorization").as_deref(), Some("Basic dTpw"));
}

#[test]
fn a_unix_socket_listener_serves_and_leaves_no_file() {
    let origin = OriginServer::ok();
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("api.sock");
    let mut plain = route(&origin.url());
    plain.credential = None;
    let listener = ListenerConfig {
        name: name("local"),
        bind: BindAddress::Unix(path.clone()),
        tls: None,
        trusted_proxies: TrustedProxies::default(),
        proxy_protocol: ProxyProtocol::Off,
        underscores: bearward::proxy::Underscores::Reject,
        interim_responses: false,
        allow_unauthenticated: false,
        allowed_origins: Vec::new(),
        clients: Vec::new(),
        routes: vec![plain],
        egress: None,
    };
    let limits = Limits { workers: Some(1), ..Limits::default() };
    let plane = DataPlane::start(&[listener], limits, &|_| None, Clock::System).expect("started");
    assert_eq!(plane.addresses()[0].1, format!("unix:{}", path.display()));
    let mut stream = UnixStream::connect(&path).expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert_eq!(
        field_of(&origin.request(), "forwarded").as_deref(),
        Some("for=unknown;proto=http;host=\"localhost\"")
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(plane.drain(std::time::Duration::from_secs(1)));
    assert!(!path.exists());
}

#[test]
fn a_burst_keeps_its_connections_for_the_next_wave_and_not_much_longer() {
    let origin = OriginServer::scripted(|stream, _| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let rig = Rig::to(&origin);
    let mut wires: Vec<_> = (0..100).map(|_| rig.connect()).collect();
    for _ in 0..2 {
        for wire in &mut wires {
            wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        for wire in &mut wires {
            assert_eq!(status(&wire.answer()), 200);
        }
    }
    let opened = origin.connections();
    assert!((65..=110).contains(&opened), "{opened} connections for 100 requests at a time");
    let begun = tokio::time::Instant::now();
    while rig.plane.snapshot().upstream_connections.idle != 64 {
        assert!(begun.elapsed().as_secs() < 10, "{:?}", rig.plane.snapshot().upstream_connections);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
