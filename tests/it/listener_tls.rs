//! Listeners that speak TLS: handshakes, resumption, client certificates, and what is no TLS.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use bearward::listener::{BindAddress, Limits, ProxyProtocol};
use bearward::policy::trusted::{TrustedPeer, TrustedProxies};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::proxy_rig::{OriginServer, Rig, field_of, route, status};
use crate::tls_rig::{Authority, Files, TlsWire};

fn rig(origin: &OriginServer, files: &Files) -> Rig {
    let limits = Limits { workers: Some(2), ..Limits::default() };
    Rig::start_changed(vec![route(&origin.url())], limits, |listener| listener.tls = Some(files.config()))
}

#[test]
fn requests_are_served_over_tls_1_2_and_1_3() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let files = Files::of(&authority.issue(&["localhost"]));
    let rig = rig(&origin, &files);
    for version in [&TLS12, &TLS13] {
        let mut wire = TlsWire::to(rig.address, &authority.client(&[version], None)).expect("a handshake");
        assert_eq!(wire.0.conn.protocol_version(), Some(version.version));
        assert_eq!(wire.0.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
        for _ in 0..3 {
            assert!(wire.get().expect("an answer").ends_with("\r\n\r\nok"));
        }
    }
    let request = origin.requests().pop().expect("a request");
    assert_eq!(field_of(&request, "x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(
        field_of(&request, "forwarded").as_deref(),
        Some("for=127.0.0.1;proto=https;host=\"localhost\"")
    );
    assert_eq!(rig.plane.snapshot().listeners[0].refused_handshakes, 0);
}

#[test]
fn the_host_field_finds_the_route_whatever_name_the_handshake_had() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let files = Files::of(&authority.issue(&["localhost"]));
    let rig = rig(&origin, &files);
    let mut wire = TlsWire::to(rig.address, &authority.client(&[&TLS13], None)).expect("a handshake");
    let mut check = |request: &str, expected: u16| {
        let answer = wire.exchange(&format!("{request}\r\n\r\n")).expect("an answer");
        assert_eq!(status(&answer), expected, "{request}");
    };
    check("GET / HTTP/1.1\r\nHost: 127.0.0.1", 200);
    check("GET https://localhost/ HTTP/1.1\r\nHost: localhost", 200);
    check("GET / HTTP/1.1\r\nHost: evil.example", 421);
    check("GET / HTTP/1.1\r\nHost: localhost", 200);
}

#[test]
fn curl_is_served_by_name_and_refused_with_an_old_version() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let files = Files::of(&authority.issue(&["localhost"]));
    files.write("ca.crt", &authority.certificate.pem());
    let rig = rig(&origin, &files);
    let curl = |extra: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"])
            .args(["--write-out", " %{http_version} %{ssl_verify_result}", "--cacert"])
            .arg(files.at("ca.crt"))
            .args(extra)
            .arg(format!("https://localhost:{}/", rig.address.port()))
            .output()
            .expect("curl is installed");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(curl(&["--http1.1"]), (true, "ok 1.1 0".to_owned()));
    assert_eq!(curl(&["--http1.1", "--tls-max", "1.2"]), (true, "ok 1.1 0".to_owned()));
    assert_eq!(curl(&["--http2"]), (true, "ok 2 0".to_owned()));
    let (served, printed) = curl(&["--tls-max", "1.1"]);
    assert!(!served, "{printed}");
}

#[test]
fn a_client_that_comes_again_resumes_its_session_at_any_worker() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let files = Files::of(&authority.issue(&["localhost"]));
    let rig = rig(&origin, &files);
    for version in [&TLS12, &TLS13] {
        let client = authority.client(&[version], None);
        let mut open = Vec::new();
        for turn in 0..6 {
            let mut wire = TlsWire::to(rig.address, &client).expect("a handshake");
            // The tickets of 1.3 come with the answer.
            assert_eq!(status(&wire.get().expect("an answer")), 200);
            let resumed = wire.0.conn.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, turn > 0, "{version:?}, turn {turn}");
            // Kept open, so that the next one goes to the other worker.
            open.push(wire);
        }
    }
}

#[test]
fn a_session_of_one_listener_is_none_of_another() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let files = Files::of(&authority.issue(&["localhost"]));
    let (one, other) = (rig(&origin, &files), rig(&origin, &files));
    let client = authority.client(&[&TLS13], None);
    for rig in [&one, &other] {
        let mut wire = TlsWire::to(rig.address, &client).expect("a handshake");
        assert_eq!(status(&wire.get().expect("an answer")), 200);
        assert_ne!(wire.0.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn only_clients_with_a_certificate_of_the_authority_come_in() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let origin = OriginServer::ok();
    let files = Files::of(&authority.issue(&["localhost"]));
    files.write("clients.crt", &clients.certificate.pem());
    let rig = rig(&origin, &files);
    let right = clients.issue(&["batch.internal"]);
    let expired = clients.issue_until(&["batch.internal"], 2001);
    let wrong = strangers.issue(&["batch.internal"]);
    for version in [&TLS12, &TLS13] {
        for (identity, expected) in
            [(None, false), (Some(&wrong), false), (Some(&expired), false), (Some(&right), true)]
        {
            let client = authority.client(&[version], identity);
            let before = rig.plane.snapshot().listeners[0].refused_handshakes;
            // In TLS 1.3 a client hears of it with its first answer.
            for _ in 0..2 {
                let answer = TlsWire::to(rig.address, &client).and_then(|mut wire| wire.get());
                assert_eq!(answer.is_ok(), expected, "{version:?}: {answer:?}");
            }
            let wanted = before + if expected { 0 } else { 2 };
            rig.settle(|listener| listener.refused_handshakes == wanted);
        }
    }
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn bodies_of_many_records_go_both_ways() {
    let origin = OriginServer::scripted(|stream, request| {
        let body = request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    let authority = Authority::new();
    let files = Files::of(&authority.issue(&["localhost"]));
    let rig = rig(&origin, &files);
    let mut wire = TlsWire::to(rig.address, &authority.client(&[&TLS13], None)).expect("a handshake");
    for size in [1, 16 * 1024, 16 * 1024 + 1, 700_000] {
        let body = "x".repeat(size);
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n{body}");
        let answer = wire.exchange(&request).expect("an answer");
        assert_eq!(answer.split_once("\r\n\r\n").map(|(_, body)| body.len()), Some(size));
    }
}

#[test]
fn a_tunnel_runs_inside_tls() {
    let origin = OriginServer::scripted(|stream, _| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";
        let mut buffer = [0; 4096];
        let mut said = stream.write_all(switch.as_bytes()).is_ok();
        while let (true, Ok(length @ 1..)) = (said, stream.read(&mut buffer)) {
            said = stream.write_all(&buffer[..length]).is_ok();
        }
        let _ = stream.write_all(b"bye");
        false
    });
    let authority = Authority::new();
    let files = Files::of(&authority.issue(&["localhost"]));
    let rig = rig(&origin, &files);
    let mut wire = TlsWire::to(rig.address, &authority.client(&[&TLS13], None)).expect("a handshake");
    let opening = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    assert_eq!(status(&wire.exchange(opening).expect("an answer")), 101);
    for size in [1, 5000, 200_000] {
        wire.0.write_all(&vec![7; size]).expect("written");
        wire.0.flush().expect("flushed");
        let mut echoed = vec![0; size];
        wire.0.read_exact(&mut echoed).expect("echoed");
        assert!(echoed.iter().all(|byte| *byte == 7));
    }
    // One side has said all, and still hears the other.
    wire.0.conn.send_close_notify();
    wire.0.flush().expect("flushed");
    let mut rest = Vec::new();
    wire.0.read_to_end(&mut rest).expect("ended in good order");
    assert_eq!(rest, b"bye");
}

#[test]
fn http_in_clear_is_closed_in_good_order_and_counted() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let files = Files::of(&authority.issue(&["localhost"]));
    let rig = rig(&origin, &files);
    for bytes in
        ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\0\0\0"]
    {
        let mut wire = rig.connect();
        wire.write(bytes);
        let mut rest = Vec::new();
        wire.0.read_to_end(&mut rest).expect("the end of the stream, no reset");
        assert!(rest.is_empty(), "{rest:?}");
    }
    // Who says nothing and leaves only looked whether the port is open.
    drop(rig.connect());
    let mut wire = TlsWire::to(rig.address, &authority.client(&[&TLS13], None)).expect("a handshake");
    assert_eq!(status(&wire.get().expect("an answer")), 200);
    rig.settle(|listener| (listener.refused_handshakes, listener.connections) == (3, 1));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_unix_socket_takes_a_proxy_header_and_then_tls() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let files = Files::of(&authority.issue(&["localhost"]));
    let path = files.at("api.sock");
    let limits = Limits { workers: Some(1), ..Limits::default() };
    let rig = Rig::start_changed(vec![route(&origin.url())], limits, |listener| {
        listener.bind = BindAddress::Unix(path.clone());
        listener.tls = Some(files.config());
        listener.proxy_protocol = ProxyProtocol::Required;
        listener.trusted_proxies = TrustedProxies::new(vec![TrustedPeer::Unix]);
    });
    let mut stream = UnixStream::connect(&path).expect("connected");
    stream.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n").expect("written");
    let mut wire = TlsWire::over(stream, &authority.client(&[&TLS13], None)).expect("a handshake");
    assert_eq!(status(&wire.get().expect("an answer")), 200);
    let request = origin.requests().pop().expect("a request");
    assert_eq!(
        field_of(&request, "forwarded").as_deref(),
        Some("for=203.0.113.7;proto=https;host=\"localhost\"")
    );
    let without = UnixStream::connect(&path).expect("connected");
    assert!(TlsWire::over(without, &authority.client(&[&TLS13], None)).is_err());
    rig.settle(|listener| listener.refused_proxy_headers == 1);
}
