//! How tunnels end: each side by itself, with every byte counted; after their idle limit; and what they cost until then.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::egress::config;
use crate::h2_rig::Client;
use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::{count, eventually};
use crate::proxy_rig::{Wire, status};

/// What the client says, and what the server says: neither fits into any buffer on the way.
const FROM_CLIENT: usize = 5_000_011;
const FROM_SERVER: usize = 7_000_003;

/// Which side ends first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum First {
    Client,
    Server,
}

/// How a way is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Connect,
    Socks,
    Http2,
}

const WAYS: [By; 3] = [By::Connect, By::Socks, By::Http2];

fn bytes(length: usize, seed: u32) -> Vec<u8> {
    let length = u32::try_from(length).expect("it is short");
    (0..length).map(|number| (number ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect()
}

/// A server that ends at once with what it says, or only after the client has ended; tells what it got.
fn server(first: First) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let (told, got) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut all = Vec::new();
            let say = || {
                (&stream).write_all(&bytes(FROM_SERVER, 2)).expect("written");
                stream.shutdown(Shutdown::Write).expect("ended");
            };
            match first {
                First::Server => {
                    say();
                    stream.read_to_end(&mut all).expect("the client is heard when we have ended");
                }
                First::Client => {
                    (&stream).read_to_end(&mut all).expect("read");
                    say();
                }
            }
            if told.send(all).is_err() {
                return;
            }
        }
    });
    (address, got)
}

/// A tunnel, opened.
fn open(proxy: SocketAddr, by: By, target: SocketAddr) -> TcpStream {
    let mut wire = Wire::to(proxy);
    match by {
        By::Connect => {
            wire.write(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
            let answer = wire.answer();
            assert_eq!(status(&answer), 200, "{answer}");
        }
        By::Socks => {
            wire.0.write_all(&[5, 1, 0]).expect("written");
            let mut method = [0; 2];
            wire.0.read_exact(&mut method).expect("a method");
            let [high, low] = target.port().to_be_bytes();
            wire.0.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).expect("written");
            let mut reply = [0; 10];
            wire.0.read_exact(&mut reply).expect("a reply");
            assert_eq!((method, &reply[..2]), ([5, 0], [5, 0].as_slice()));
        }
        By::Http2 => unreachable!("it has no socket of its own"),
    }
    wire.0
}

/// Says all, hears all; the side that is not `first` goes on when the other has ended.
fn talk(mut stream: TcpStream, first: First) -> Vec<u8> {
    let mut heard = Vec::new();
    let say = |mut stream: &TcpStream| {
        stream.write_all(&bytes(FROM_CLIENT, 1)).expect("written");
        stream.shutdown(Shutdown::Write).expect("ended");
    };
    match first {
        First::Client => {
            say(&stream);
            stream.read_to_end(&mut heard).expect("the server is heard when we have ended");
        }
        First::Server => {
            stream.read_to_end(&mut heard).expect("read");
            say(&stream);
        }
    }
    heard
}

/// The same on a stream of HTTP/2. What was said last leaves as long as the client is kept.
fn talk_over_http2(proxy: SocketAddr, target: SocketAddr, first: First) -> (Vec<u8>, Option<Client>) {
    let client = Client::to(proxy);
    let heard = client.runtime.block_on(async {
        let request =
            Request::builder().method(Method::CONNECT).uri(target.to_string()).body(()).expect("a request");
        let mut sender = client.sender.clone().ready().await.expect("ready");
        let (answer, mut outgoing) = sender.send_request(request, false).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let mut incoming = answer.into_body();
        let hear = async {
            let mut heard = Vec::new();
            while let Some(piece) = incoming.data().await {
                let piece = piece.expect("a piece");
                incoming.flow_control().release_capacity(piece.len()).expect("released");
                heard.extend(piece);
            }
            heard
        };
        if first == First::Client {
            outgoing.send_data(Bytes::from(bytes(FROM_CLIENT, 1)), true).expect("sent");
            return hear.await;
        }
        let heard = hear.await;
        outgoing.send_data(Bytes::from(bytes(FROM_CLIENT, 1)), true).expect("sent");
        heard
    });
    (heard, Some(client))
}

fn rules(ways: &[SocketAddr], more: &Value) -> Value {
    let ports: Vec<_> = ways.iter().map(SocketAddr::port).collect();
    let mut rule =
        json!({"name": "way", "match": {"hosts": ["127.0.0.1"], "ports": ports}, "action": "tunnel"});
    rule.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    json!([rule])
}

async fn start(run: &Arc<Run>, rules: &Value) -> Bearward {
    let mut config = config(run, rules, &[]);
    config["listeners"][0]["socks5"] = json!(true);
    Bearward::start(run, &config).await
}

async fn figure(proxy: &Bearward, name: &str) -> String {
    let metrics = String::from_utf8(proxy.admin("/metrics").await.body).expect("text");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}: {metrics}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_may_end_first_and_hears_every_byte_of_the_other() {
    let run = Arc::new(Run::new("egress-half-close"));
    for first in [First::Client, First::Server] {
        let (address, mut got) = server(first);
        let proxy = start(&run, &rules(&[address], &json!({}))).await;
        for (number, by) in (1..).zip(WAYS) {
            let at = proxy.proxy();
            let talking = move || {
                let (heard, _client) = match by {
                    By::Http2 => talk_over_http2(at, address, first),
                    _ => (talk(open(at, by, address), first), None),
                };
                let arrived = got.recv_timeout(Duration::from_secs(20)).expect("the server has ended");
                (heard, arrived, got)
            };
            let heard;
            let arrived;
            (heard, arrived, got) = std::thread::spawn(talking).join().expect("it ends well");
            assert!(heard == bytes(FROM_SERVER, 2), "{by:?} {first:?}: {} bytes heard", heard.len());
            assert!(arrived == bytes(FROM_CLIENT, 1), "{by:?} {first:?}: {} bytes arrived", arrived.len());
            eventually("the tunnel is gone", Duration::from_secs(10), async || {
                let open = figure(&proxy, "bearward_tunnels{listener=\"legacy\",route=\"way\"}").await;
                (open == "0.0").then_some(())
            })
            .await;
            for (from, bytes) in [("client", FROM_CLIENT), ("upstream", FROM_SERVER)] {
                let name = format!(
                    "bearward_tunnel_bytes_total{{listener=\"legacy\",route=\"way\",from=\"{from}\"}}"
                );
                assert_eq!(figure(&proxy, &name).await, (number * bytes).to_string(), "{by:?} {first:?}");
            }
        }
    }
    count(&format!(
        "half-closed tunnels (CONNECT over HTTP/1.1 and HTTP/2, SOCKS5), client first and server first: each {FROM_CLIENT} \
         bytes up and {FROM_SERVER} down, all arrived, as counted"
    ));
}

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    if stream.write_all(&byte).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_idle_limit_ends_every_kind_of_tunnel_and_each_byte_puts_it_off() {
    let run = Arc::new(Run::new("egress-idle-kinds"));
    let address = echo();
    let proxy = start(&run, &rules(&[address], &json!({"tunnel_idle": "1s"}))).await;
    let at = proxy.proxy();
    let lives = |by: By| {
        std::thread::spawn(move || {
            let mut stream = open(at, by, address);
            let begun = tokio::time::Instant::now();
            let mut byte = [0];
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(600));
                stream.write_all(b"x").expect("written");
                stream.read_exact(&mut byte).expect("the tunnel is open");
            }
            assert_eq!(stream.read(&mut byte).unwrap_or(0), 0, "it is closed");
            begun.elapsed()
        })
    };
    let over_http2 = std::thread::spawn(move || {
        let client = Client::to(at);
        client.runtime.block_on(async {
            let request = Request::builder().method(Method::CONNECT).uri(address.to_string());
            let mut sender = client.sender.clone().ready().await.expect("ready");
            let sent = sender.send_request(request.body(()).expect("a request"), false);
            let (answer, mut outgoing) = sent.expect("sent");
            let mut incoming = answer.await.expect("an answer").into_body();
            let begun = tokio::time::Instant::now();
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(600)).await;
                outgoing.send_data("x".into(), false).expect("sent");
                assert_eq!(incoming.data().await.expect("it is open").expect("a byte"), "x");
            }
            // RFC 9113, 8.5: it broke off, and is told so.
            let end = incoming.data().await.expect("no clean end").expect_err("a reset");
            assert_eq!(end.reason(), Some(h2::Reason::CONNECT_ERROR));
            begun.elapsed()
        })
    });
    for living in [lives(By::Connect), lives(By::Socks), over_http2] {
        let lived = living.join().expect("it ends well");
        assert!(lived >= Duration::from_millis(2700), "{lived:?}");
    }
}

/// Resident memory in bytes, and CPU time in hundredths of a second.
fn spent(pid: u32) -> (u64, u64) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it runs");
    let resident = read("status")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    let stat = read("stat");
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<u64>().expect("a number");
    (resident.expect("a figure") * 1024, ticks(11) + ticks(12))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_tunnels_cost_memory_and_nothing_else() {
    const TUNNELS: u64 = 400;
    let run = Arc::new(Run::new("egress-idle-cost"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
    let proxy = start(&run, &rules(&[address], &json!({}))).await;
    let open_one = || open(proxy.proxy(), By::Connect, address);
    // What the first ones need for all.
    let mut tunnels: Vec<_> = (0..20).map(|_| open_one()).collect();
    let (before, _) = spent(proxy.pid());
    tunnels.extend((0..TUNNELS).map(|_| open_one()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (held, used) = spent(proxy.pid());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (_, later) = spent(proxy.pid());
    let (each, ticks) = (held.saturating_sub(before) / TUNNELS, later - used);
    count(&format!(
        "{TUNNELS} idle tunnels: {:.1} KiB each, {} ms of CPU time in 3 s for all",
        each as f64 / 1024.0,
        ticks * 10
    ));
    assert!(each < 48 * 1024, "{each} bytes a tunnel");
    // Timers of the process itself, and what a loaded machine adds.
    assert!(ticks <= 10, "{ticks} hundredths of a second");
}
