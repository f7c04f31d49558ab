//! SOCKS5 on an egress listener of the real binary: raw bytes, and curl.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::egress::config;
use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::proxy_rig::OriginServer;

/// Sends these bytes and reads all that comes until the other side closes or says nothing more.
fn talk(proxy: &Bearward, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy.proxy()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_millis(1500))).expect("timeout");
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    for piece in pieces {
        stream.write_all(piece).expect("written");
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => got.extend_from_slice(&buffer[..length]),
            _ => break,
        }
    }
    got
}

fn to_v4(command: u8, address: [u8; 4], port: u16) -> Vec<u8> {
    [&[5, command, 0, 1], &address[..], &port.to_be_bytes()].concat()
}

fn to_name(name: &[u8], port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("short");
    [&[5, 1, 0, 3, length], name, &port.to_be_bytes()].concat()
}

fn to_v6(address: &str, port: u16) -> Vec<u8> {
    let address: std::net::Ipv6Addr = address.parse().expect("an address");
    [&[5, 1, 0, 4], &address.octets()[..], &port.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socks_leads_where_connect_would() {
    let run = Arc::new(Run::new("egress-socks"));
    let origin = OriginServer::ok();
    let port = origin.address.port();
    let rules = json!([
        {"match": {"hosts": ["secret.example"]}, "action": "deny"},
        {"match": {"hosts": ["**"], "ports": [port, 9, 80]}, "action": "tunnel"},
    ]);
    let mut config = config(&run, &rules, &[]);
    config["listeners"][0]["socks5"] = json!(true);
    let proxy = Bearward::start(&run, &config).await;
    let greeting: &[u8] = &[5, 1, 0];
    let check = |request: &[u8], reply: u8| {
        let got = talk(&proxy, &[greeting, request]);
        assert_eq!(got.get(..2), Some([5, 0].as_slice()), "{got:?}");
        assert_eq!(got.get(2..4), Some([5, reply].as_slice()), "{request:?} {got:?}");
        assert_eq!(got.len(), 12, "{got:?}");
    };
    check(&to_v4(1, [127, 0, 0, 1], port), 0);
    check(&to_name(b"127.0.0.1", port), 0);
    check(&to_name(b"localhost", port), 0);
    check(&to_name(b"2130706433", port), 0);
    check(&to_v6("::ffff:127.0.0.1", port), 0);
    // Nobody listens there.
    check(&to_v4(1, [127, 0, 0, 1], 9), 5);
    // The rules, and the network guard.
    check(&to_v4(1, [127, 0, 0, 1], 10), 2);
    check(&to_name(b"secret.example", 80), 2);
    check(&to_v4(1, [10, 0, 0, 1], 80), 2);
    check(&to_v6("::1", 80), 2);
    check(&to_v6("64:ff9b::10.0.0.1", 80), 2);
    check(&to_name(b"0", 80), 2);
    // BIND, UDP ASSOCIATE, an unknown kind of address, what is no name, port 0.
    check(&to_v4(2, [127, 0, 0, 1], port), 7);
    check(&to_v4(3, [127, 0, 0, 1], port), 7);
    check(&[5, 1, 0, 9], 8);
    for name in [b"".as_slice(), b"a b", b"u@127.0.0.1", b"127.0.0.1:80", b"a\0b", b"\xff", b"[::1]x"] {
        check(&to_name(name, port), 1);
    }
    check(&to_v4(1, [127, 0, 0, 1], 0), 1);
    // Methods: none that we know, and user and password where nobody asks.
    assert_eq!(talk(&proxy, &[&[5, 1, 1]]), [5, 0xff]);
    assert_eq!(talk(&proxy, &[&[5, 1, 2], &[1, 1, b'u', 1, b'p']]), [5, 2, 1, 0]);
    // HTTP is spoken on the same listener.
    let head = talk(&proxy, &[b"GET /proxy.pac HTTP/1.0\r\nHost: a\r\n\r\n"]);
    assert!(head.starts_with(b"HTTP/1.0 200"), "{head:?}");
    for scheme in ["socks5", "socks5h"] {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "20",
                "--noproxy",
                "",
                "-x",
                &format!("{scheme}://{}", proxy.proxy()),
            ])
            .arg(format!("http://localhost:{port}/through"))
            .output()
            .expect("curl runs");
        assert_eq!(output.stdout, b"ok", "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socks_is_spoken_only_where_it_is_asked_for_and_to_known_clients() {
    let run = Arc::new(Run::new("egress-socks-off"));
    let origin = OriginServer::ok();
    let rules = json!([{"match": {"hosts": ["127.0.0.1"]}, "action": "tunnel"}]);
    let mut config = config(&run, &rules, &[]);
    let start = async |config: &Value| Bearward::start(&run, config).await;
    let proxy = start(&config).await;
    let got = talk(&proxy, &[&[5, 1, 0]]);
    assert!(!got.starts_with(&[5]), "{got:?}");
    config["listeners"][0]["socks5"] = json!(true);
    config["clients"] = json!({"far": {"cidr": ["192.0.2.0/24"]}});
    config["listeners"][0]["clients"] = json!(["far"]);
    let proxy = start(&config).await;
    assert_eq!(talk(&proxy, &[&[5, 1, 0]]), [5, 0xff]);
    assert_eq!(talk(&proxy, &[&[5, 2, 0, 2], &[1, 1, b'u', 1, b'p']]), [5, 2, 1, 1]);
    assert_eq!(origin.connections(), 0);
}
