//! Names of upstreams that have several addresses, and names that move: the real binary with a hosts file of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::bearward::Bearward;
use crate::harness::http::Connection;
use crate::harness::run::Run;

/// A server on one loopback address that answers with that address.
struct Place {
    connections: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    closed: Arc<AtomicBool>,
    accepts: Mutex<Option<std::thread::JoinHandle<()>>>,
    address: SocketAddr,
}

impl Place {
    fn at(last: u8, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).expect("bind");
        let address = listener.local_addr().expect("address");
        let (connections, open, closed) = (
            Arc::<AtomicUsize>::default(),
            Arc::<Mutex<Vec<TcpStream>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (count, kept, ends) = (Arc::clone(&connections), Arc::clone(&open), Arc::clone(&closed));
        let accepts = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                kept.lock().expect("lock").push(stream.try_clone().expect("clone"));
                std::thread::spawn(move || answer(stream, address));
            }
        });
        Self { connections, open, closed, accepts: Mutex::new(Some(accepts)), address }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Closes all connections, and accepts no more.
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let accepts = self.accepts.lock().expect("lock").take();
        accepts.expect("it is closed once").join().expect("joined");
        for stream in self.open.lock().expect("lock").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn answer(mut stream: TcpStream, address: SocketAddr) {
    let mut head = Vec::new();
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if head.starts_with(b"GET /slow") {
            std::thread::sleep(Duration::from_millis(200));
        }
        head.clear();
        let body = address.ip().to_string();
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// The binary with `app.test` at these addresses of 127.0.0.x.
struct Named {
    bearward: Bearward,
    hosts: std::path::PathBuf,
    _run: Arc<Run>,
}

impl Named {
    async fn start(test: &str, port: u16, addresses: &[u8]) -> Self {
        let run = Arc::new(Run::new(test));
        let hosts = run.private().join("hosts");
        std::fs::write(&hosts, lines(addresses)).expect("written");
        let config = json!({
            "version": 1,
            "listeners": [{"name": "legacy", "kind": "reverse", "bind": "127.0.0.1:0",
                           "routes": [{"name": "r", "upstream": format!("http://app.test:{port}")}]}],
            "store": {"kind": "memory"},
            "admin": {"bind": "127.0.0.1:0"},
            "limits": {"workers": 1},
            "log": {"level": "debug", "format": "json"},
        });
        let own = hosts.clone();
        let bearward = Bearward::start_with(&run, &config, move |command| with_hosts(command, &own)).await;
        Self { bearward, hosts, _run: run }
    }

    /// Rewrites the file in its place: it is mounted.
    fn moves_to(&self, addresses: &[u8]) {
        std::fs::write(&self.hosts, lines(addresses)).expect("written");
    }

    async fn wire(&self) -> Connection {
        Connection::open(self.bearward.proxy()).await.expect("connected")
    }

    /// The addresses in the status; those that are gone stay until the next sweep.
    async fn only(&self, address: &str) {
        let known = || async {
            let known = self.known().await;
            (known.len() == 1 && known[0]["address"] == address && known[0]["state"] == "available")
                .then_some(())
        };
        crate::harness::eventually("one address", Duration::from_secs(10), known).await;
    }

    async fn known(&self) -> Vec<Value> {
        let status: Value =
            serde_json::from_slice(&self.bearward.admin("/api/v1/status").await.body).expect("JSON");
        status["routes"][0]["addresses"].as_array().expect("a list").clone()
    }
}

fn lines(addresses: &[u8]) -> String {
    addresses.iter().map(|last| format!("127.0.0.{last} app.test\n")).collect()
}

/// The same command in a mount namespace where this is the hosts file.
fn with_hosts(command: &mut Command, hosts: &std::path::Path) {
    let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let mut inside = Command::new("unshare");
    inside.args([flags, "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
    inside.arg(command.get_program()).args(command.get_args());
    inside.env("NO_PROXY", "*").env_remove("RUST_BACKTRACE");
    inside.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = inside;
}

async fn get(wire: &mut Connection, path: &str) -> String {
    let answer = wire.get(path).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer}");
    String::from_utf8(answer.body).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_one_name_share_what_comes_at_once_and_a_lone_client_keeps_to_one_connection() {
    let first = Place::at(2, 0);
    let second = Place::at(3, first.address.port());
    let named = Named::start("names_shared", first.address.port(), &[2, 3]).await;
    let mut wire = named.wire().await;
    for _ in 0..20 {
        get(&mut wire, "/").await;
    }
    assert_eq!(first.connections() + second.connections(), 1);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut wire = named.wire().await;
        tasks.spawn(async move { get(&mut wire, "/slow").await });
    }
    let answers = tasks.join_all().await;
    for place in ["127.0.0.2", "127.0.0.3"] {
        assert!(answers.iter().any(|answer| answer == place), "{answers:?}");
    }
    assert_eq!(named.known().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_of_a_name_costs_no_request_and_a_name_that_moved_is_followed_at_once() {
    let alive = Place::at(3, 0);
    let port = alive.address.port();
    let named = Named::start("names_moved", port, &[2, 3]).await;
    for _ in 0..10 {
        assert_eq!(get(&mut named.wire().await, "/").await, "127.0.0.3");
    }
    let later = Place::at(4, port);
    named.moves_to(&[4]);
    // What was resolved a moment ago is not asked for again.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    alive.close();
    for _ in 0..10 {
        assert_eq!(get(&mut named.wire().await, "/").await, "127.0.0.4");
    }
    assert_eq!(later.connections(), 1);
    named.only(&format!("127.0.0.4:{port}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_moves_under_traffic_is_followed_and_no_request_fails() {
    let old = Place::at(2, 0);
    let port = old.address.port();
    let new = Place::at(3, port);
    let named = Named::start("names_traffic", port, &[2]).await;
    let mut wire = named.wire().await;
    assert_eq!(get(&mut wire, "/").await, "127.0.0.2");
    named.moves_to(&[3]);
    let begun = Instant::now();
    while get(&mut wire, "/").await != "127.0.0.3" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it was not followed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    crate::harness::count(&format!(
        "a name that moved under traffic was followed after {:.1?}",
        begun.elapsed()
    ));
    assert_eq!((old.connections(), new.connections()), (1, 1));
    named.only(&format!("127.0.0.3:{port}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_told_so() {
    let named = Named::start("names_unknown", 1, &[]).await;
    let answer = named.wire().await.get("/").await.expect("an answer");
    // Without a resolver in reach it takes its time.
    let told = answer.header("proxy-status").unwrap_or_default();
    let expected = [(502, "bearward; error=dns_error"), (504, "bearward; error=dns_timeout")];
    assert!(expected.contains(&(answer.status, told)), "{answer}");
}
