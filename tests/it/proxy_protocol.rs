//! The PROXY protocol before HTTP: who may send a header, and what a broken one comes to.

use std::io::Write;
use std::time::Duration;

use bearward::listener::{Limits, ProxyProtocol};
use bearward::policy::trusted::{TrustedPeer, TrustedProxies};

use crate::proxy_rig::{OriginServer, Rig, Wire, field_of, route, status};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n";

fn rig(origin: &OriginServer, mode: ProxyProtocol, trusted: &str) -> Rig {
    let trusted = TrustedPeer::Network(trusted.parse().expect("a network"));
    let limits = Limits { workers: Some(1), ..Limits::default() };
    Rig::start_changed(vec![route(&origin.url())], limits, |listener| {
        listener.proxy_protocol = mode;
        listener.trusted_proxies = TrustedProxies::new(vec![trusted]);
    })
}

fn v2(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[version_and_command, family], &length, body].concat()
}

fn v4_body() -> Vec<u8> {
    vec![203, 0, 113, 7, 127, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb]
}

fn v6_body() -> Vec<u8> {
    let mut body = vec![0; 36];
    body[..16].copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().expect("ip").octets());
    body[31] = 1;
    body
}

/// What the origin is told of the client after `header`; `None` where the connection is closed without an answer.
fn client_after(rig: &Rig, origin: &OriginServer, header: &[u8]) -> Option<String> {
    let before = origin.requests().len();
    let mut wire = rig.connect();
    // A peer that is refused may be gone before it has said all.
    let _ = wire.0.write_all(&[header, GET.as_bytes()].concat());
    let answer = wire.rest_of_one();
    if answer.is_empty() {
        assert_eq!(origin.requests().len(), before, "{header:?}");
        return None;
    }
    assert_eq!(status(&answer), 200, "{header:?}: {answer}");
    field_of(&origin.requests().pop().expect("a request"), "x-forwarded-for")
}

impl Wire {
    /// An answer, or nothing where the connection ends.
    fn rest_of_one(&mut self) -> String {
        crate::proxy_rig::read_message(&mut self.0).unwrap_or_default()
    }
}

/// Headers, and the client that they name; `None`: not to be accepted.
fn table() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let line = |text: &str| text.as_bytes().to_vec();
    let with_tlvs = [v4_body().as_slice(), &[0x03, 0, 4, 1, 2, 3, 4, 0x20, 0, 2, 9, 9]].concat();
    vec![
        (line("PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\n"), Some("203.0.113.7")),
        (line("PROXY TCP6 2001:db8::7 ::1 4711 443\r\n"), Some("2001:db8::7")),
        (line("PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n"), Some("203.0.113.7")),
        (line("PROXY UNKNOWN\r\n"), Some("127.0.0.1")),
        (line("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Some("127.0.0.1")),
        (v2(0x21, 0x11, &v4_body()), Some("203.0.113.7")),
        (v2(0x21, 0x11, &with_tlvs), Some("203.0.113.7")),
        (v2(0x21, 0x21, &v6_body()), Some("2001:db8::7")),
        (v2(0x21, 0x00, &[]), Some("127.0.0.1")),
        // The proxy itself is trusted, and so is what it says.
        (v2(0x20, 0x00, &[]), Some("10.9.9.9, 127.0.0.1")),
        (v2(0x20, 0x11, &v4_body()), Some("10.9.9.9, 127.0.0.1")),
        (line("PROXY TCP4 203.0.113.7 127.0.0.1 4711\r\n"), None),
        (line("PROXY TCP4 2001:db8::7 ::1 4711 443\r\n"), None),
        (line("PROXY TCP6 203.0.113.7 127.0.0.1 4711 443\r\n"), None),
        (line("PROXY TCP4 203.0.113.7 127.0.0.1 4711 70000\r\n"), None),
        (line("PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\n"), None),
        (line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(200))), None),
        (v2(0x21, 0x11, &v4_body()[..8]), None),
        (v2(0x21, 0x21, &v4_body()), None),
        (v2(0x21, 0x12, &v4_body()), None),
        (v2(0x21, 0x51, &v4_body()), None),
        (v2(0x23, 0x11, &v4_body()), None),
        (v2(0x11, 0x11, &v4_body()), None),
        (v2(0x21, 0x11, &[0; 5000]), None),
    ]
}

#[test]
fn a_trusted_proxy_names_its_client_or_is_refused() {
    for mode in [ProxyProtocol::Optional, ProxyProtocol::Required] {
        let origin = OriginServer::ok();
        let rig = rig(&origin, mode, "127.0.0.0/8");
        let mut refused = 0;
        for (header, expected) in table() {
            assert_eq!(
                client_after(&rig, &origin, &header).as_deref(),
                expected,
                "{mode:?}: {}",
                header.escape_ascii()
            );
            refused += u64::from(expected.is_none());
        }
        rig.settle(|listener| listener.refused_proxy_headers == refused);
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let origin = OriginServer::ok();
    let rig = rig(&origin, ProxyProtocol::Required, "127.0.0.0/8");
    for header in [b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\n".to_vec(), v2(0x21, 0x11, &v4_body())] {
        let mut wire = rig.connect();
        for byte in header.iter().chain(GET.as_bytes()) {
            wire.0.write_all(&[*byte]).expect("written");
            std::thread::sleep(Duration::from_micros(300));
        }
        assert_eq!(status(&wire.answer()), 200);
        let request = origin.requests().pop().expect("a request");
        assert_eq!(field_of(&request, "x-forwarded-for").as_deref(), Some("203.0.113.7"));
        assert_eq!(
            field_of(&request, "forwarded").as_deref(),
            Some("for=203.0.113.7;proto=http;host=\"localhost\"")
        );
        // The same connection stays the same client's.
        wire.write(GET);
        assert_eq!(status(&wire.answer()), 200);
        let request = origin.requests().pop().expect("a request");
        assert_eq!(field_of(&request, "x-real-ip").as_deref(), Some("203.0.113.7"));
    }
}

#[test]
fn a_header_that_ends_early_ends_the_connection() {
    let origin = OriginServer::ok();
    let rig = rig(&origin, ProxyProtocol::Required, "127.0.0.0/8");
    for cut in ["", "PR", "PROXY", "PROXY TCP4 203.0.113.7"] {
        let mut wire = rig.connect();
        wire.write(cut);
        wire.0.shutdown(std::net::Shutdown::Write).expect("shut down");
        assert_eq!(wire.rest(), "", "{cut:?}");
    }
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn without_a_header_a_trusted_proxy_is_the_client_where_headers_are_optional() {
    let origin = OriginServer::ok();
    let optional = rig(&origin, ProxyProtocol::Optional, "127.0.0.0/8");
    assert_eq!(client_after(&optional, &origin, b"").as_deref(), Some("10.9.9.9, 127.0.0.1"));
    // Begins like a header.
    let mut wire = optional.connect();
    wire.write("PRO");
    std::thread::sleep(Duration::from_millis(50));
    wire.write("PFIND / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&wire.answer()), 200);
    assert!(origin.requests().pop().expect("a request").starts_with("PROPFIND / "));
    let required = rig(&origin, ProxyProtocol::Required, "127.0.0.0/8");
    assert_eq!(client_after(&required, &origin, b""), None);
    required.settle(|listener| listener.refused_proxy_headers == 1);
}

#[test]
fn nobody_else_can_name_a_client() {
    let origin = OriginServer::ok();
    let required = rig(&origin, ProxyProtocol::Required, "10.0.0.0/8");
    let header = b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\n";
    assert_eq!(client_after(&required, &origin, header), None);
    assert_eq!(client_after(&required, &origin, b""), None);
    let optional = rig(&origin, ProxyProtocol::Optional, "10.0.0.0/8");
    assert_eq!(client_after(&optional, &origin, b"").as_deref(), Some("127.0.0.1"));
    // Ordinary bytes, and no HTTP.
    for header in [header.to_vec(), v2(0x21, 0x11, &v4_body())] {
        let mut wire = optional.connect();
        let _ = wire.0.write_all(&[header.as_slice(), GET.as_bytes()].concat());
        let answer = wire.rest();
        assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    }
    let off = rig(&origin, ProxyProtocol::Off, "127.0.0.0/8");
    let mut wire = off.connect();
    let _ = wire.0.write_all(&[header.as_slice(), GET.as_bytes()].concat());
    let answer = wire.rest();
    assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    assert_eq!(origin.requests().len(), 1);
}
