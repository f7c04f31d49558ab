//! Clients and upstreams that take their time, in numbers: memory stays small and everybody else is served.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::harness::bearward::Bearward;
use crate::harness::http::{self, Connection};
use crate::harness::run::Run;
use crate::harness::traffic::{Outcome, Traffic, tally};
use crate::harness::{count, eventually};

const MIB: u64 = 1024 * 1024;

/// A proxy with a token that never ends, before `upstream`.
async fn proxy(name: &str, upstream: SocketAddr, change: impl FnOnce(&mut Value)) -> (Arc<Run>, Bearward) {
    let run = Arc::new(Run::new(name));
    let token = "a-static-access-token-under-pressure";
    run.secret(token);
    let credential = json!({"grant": "static", "token": run.secret_file("token", token)});
    let mut config = run.config(&format!("http://{upstream}"), &credential);
    config["log"]["level"] = "info".into();
    change(&mut config);
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(10)).await;
    (run, bearward)
}

/// An API that answers every short request, and reads the body of `POST /slow` at 1 KiB/s.
#[allow(clippy::disallowed_methods, reason = "a test server, ended with its runtime")]
async fn api() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut read = Vec::new();
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        read.extend_from_slice(&buffer[..length]);
        let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        let sent = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut left = sent.map_or(0, |length| length.parse::<u64>().expect("a length"));
        left -= u64::try_from(read.len() - end - 4).expect("small").min(left);
        let slow = head.starts_with("post /slow");
        while left > 0 {
            let most = if slow { 1024 } else { buffer.len() };
            let length = stream.read(&mut buffer[..most]).await?;
            if length == 0 {
                return Ok(());
            }
            left -= length as u64;
            if slow {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        read.clear();
        if head.starts_with("get /large") {
            let body = vec![b'x'; 1024 * 1024];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
            continue;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
    }
}

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// The most memory that a process had while `work` went on, beyond what it began with.
async fn growth<T>(pid: u32, work: impl Future<Output = T>) -> (T, u64) {
    let begun = resident(pid);
    let mut most = begun;
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            result = &mut work => return (result, most.max(resident(pid)) - begun),
            _ = tick.tick() => most = most.max(resident(pid)),
        }
    }
}

fn slowest(outcomes: &[Outcome]) -> Duration {
    outcomes.iter().map(|outcome| outcome.took).max().expect("somebody asked")
}

fn median(outcomes: &[Outcome]) -> Duration {
    let mut times: Vec<Duration> = outcomes.iter().map(|outcome| outcome.took).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// One run of `slowhttptest` in one of its modes.
async fn slowhttptest(
    proxy: SocketAddr,
    path: &str,
    mode: &[&str],
    connections: usize,
    seconds: u64,
) -> String {
    let mut command = tokio::process::Command::new("slowhttptest");
    command.args(mode).args(["-c", &connections.to_string(), "-r", "500", "-l", &seconds.to_string()]);
    command.args(["-i", "2", "-p", "5", "-u", &format!("http://{proxy}{path}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = command.output().await.expect("slowhttptest is installed (Debian package slowhttptest)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_slow_heads_slow_bodies_and_slow_readers_hold_little_and_others_are_served() {
    const EACH: usize = 600;
    let modes: [(&str, &str, &[&str]); 3] = [
        ("slow heads (-H)", "/", &["-H"]),
        ("slow bodies (-B)", "/", &["-B", "-s", "8192"]),
        (
            "slow readers of 1 MiB (-X)",
            "/large",
            &["-X", "-w", "1", "-y", "1", "-n", "5", "-z", "1", "-k", "3"],
        ),
    ];
    let (run, bearward) = proxy("slow-clients", api().await, |_| ()).await;
    for (what, path, mode) in modes {
        let traffic = Traffic::begin(&run, bearward.proxy(), "/", 2, Duration::from_millis(10));
        let (printed, grown) =
            growth(bearward.pid(), slowhttptest(bearward.proxy(), path, mode, EACH, 10)).await;
        let others = traffic.end().await;
        count(&format!(
            "{what}, {EACH} connections for 10 s: {} KiB more, others {} with a median of {:?}, the slowest {:?}",
            grown / 1024,
            tally(&others),
            median(&others),
            slowest(&others),
        ));
        assert!(printed.to_lowercase().contains("service available"), "{what}: {printed}");
        assert!(others.iter().all(|outcome| outcome.status == 200), "{what}: {}", tally(&others));
        // Each holds what hyper and the pool read ahead at the most: four pieces of 64 KiB.
        assert!(grown < EACH as u64 * 256 * 1024, "{what}: {grown} bytes");
        assert!(median(&others) < Duration::from_millis(200), "{what}: {:?}", median(&others));
    }
    // Whatever they left open is closed by the time limits, and is counted as closed.
    eventually("no connection is left", Duration::from_secs(75), async || {
        let status = bearward.admin("/api/v1/status").await;
        let status: Value = serde_json::from_slice(&status.body).expect("JSON");
        (status["listeners"][0]["connections"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_ten_thousand_idle_connections_cost_little_and_one_more_is_served() {
    const IDLE: usize = 10_000;
    let (_run, bearward) = proxy("idle-connections", api().await, |config| {
        config["limits"] = json!({"connections": IDLE + 100});
    })
    .await;
    let address = bearward.proxy();
    let open = async {
        let mut open = Vec::with_capacity(IDLE);
        for chunk in 0..IDLE / 200 {
            let group = (0..200).map(|number| async move {
                // Each is another client that was served once. 127.0.0.0/8 is this machine.
                let (low, high) = (u8::try_from(number).expect("small"), u8::try_from(chunk).expect("small"));
                let socket = tokio::net::TcpSocket::new_v4()?;
                socket.bind(SocketAddr::from(([127, 1, high, low], 0)))?;
                let mut stream = socket.connect(address).await?;
                stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
                let mut answer = [0; 1024];
                let length = stream.read(&mut answer).await?;
                assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{:?}", &answer[..length]);
                Ok::<_, std::io::Error>(stream)
            });
            let group = futures_util::future::join_all(group).await;
            open.extend(
                group
                    .into_iter()
                    .map(|stream| stream.expect("it is served; `ulimit -n` allows 25,000 files?")),
            );
        }
        open
    };
    let begun = Instant::now();
    let (open, grown) = growth(bearward.pid(), open).await;
    let took = begun.elapsed();
    let answer = http::get(address, "/").await.expect("it answers");
    count(&format!(
        "{} idle connections, each served once: {} MiB more, {} bytes each, opened in {took:.1?}",
        open.len(),
        grown / MIB,
        grown / IDLE as u64,
    ));
    assert_eq!(answer.status, 200);
    assert!(grown < 300 * MIB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_an_upload_to_a_slow_upstream_waits_for_it_and_holds_nothing() {
    const LENGTH: u64 = 1024 * MIB;
    let (run, bearward) = proxy("slow-upstream", api().await, |_| ()).await;
    let address = bearward.proxy();
    let traffic = Traffic::begin(&run, address, "/", 2, Duration::from_millis(10));
    let upload = async {
        let mut stream = TcpStream::connect(address).await.expect("it accepts");
        let head = format!("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        let (piece, mut taken) = (vec![b'x'; 64 * 1024], 0);
        let deadline = Instant::now() + Duration::from_secs(8);
        while let Ok(length) = tokio::time::timeout_at(deadline, stream.write(&piece)).await {
            taken += length.expect("it goes on") as u64;
        }
        taken
    };
    let (taken, grown) = growth(bearward.pid(), upload).await;
    let others = traffic.end().await;
    count(&format!(
        "1 GiB to an upstream that reads 1 KiB/s, after 8 s: {} KiB taken from the client by all sockets together, {} KiB of memory \
         more, others {}",
        taken / 1024,
        grown / 1024,
        tally(&others),
    ));
    assert!(taken < 64 * MIB, "{taken} bytes were taken");
    assert!(grown < 20 * MIB, "{grown} bytes more");
    assert!(others.iter().all(|outcome| outcome.status == 200), "{}", tally(&others));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_a_large_upload_passes_whole_in_little_memory() {
    let campaign = std::env::var("BEARWARD_CAMPAIGN").is_ok_and(|kills| kills == "1000");
    let length = if campaign { 1024 * MIB } else { 192 * MIB };
    let (_run, bearward) = proxy("large-upload", api().await, |_| ()).await;
    let address = bearward.proxy();
    let upload = async {
        let mut stream = TcpStream::connect(address).await.expect("it accepts");
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..length / piece.len() as u64 {
            stream.write_all(&piece).await.expect("it takes all");
        }
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).await.expect("it answers");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let (answer, grown) = growth(bearward.pid(), upload).await;
    count(&format!("an upload of {} MiB: {} KiB of memory more", length / MIB, grown / 1024));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(grown < 20 * MIB, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_over_the_limit_waits_and_the_limit_is_given_back() {
    let (_run, bearward) = proxy("connection-limit", api().await, |config| {
        config["limits"] = json!({"connections": 20});
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(bearward.proxy()).await.expect("it accepts");
        assert_eq!(connection.get("/").await.expect("it answers").status, 200);
        open.push(connection);
    }
    let mut late = Connection::open(bearward.proxy()).await.expect("the kernel accepts");
    late.send("/").await.expect("the kernel takes it");
    let early = tokio::time::timeout(Duration::from_millis(500), late.receive()).await;
    // Either it waits for a place, or it is told that there is none.
    if let Ok(answer) = early {
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 503));
        drop(open);
        eventually("a place is free again", Duration::from_secs(5), async || {
            http::get(bearward.proxy(), "/").await.ok().filter(|answer| answer.status == 200)
        })
        .await;
    } else {
        drop(open);
        let answer = tokio::time::timeout(Duration::from_secs(5), late.receive()).await;
        assert_eq!(answer.expect("in time").expect("it answers").status, 200);
    }
}
