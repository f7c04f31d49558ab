//! Tokens that are refused under load, with the real binary: one refresh for all, one more try each, and no storm.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bearward::idp::{DEFAULT_CLIENT, DEFAULT_SECRET, Idp, Settings};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::bearward::Bearward;
use crate::harness::count;
use crate::harness::run::Run;

/// Each client sends ten requests a second.
const CLIENTS: usize = 50;
const PERIOD: Duration = Duration::from_millis(100);

/// What a client met.
struct Met {
    status: u16,
    sent: Instant,
    took: Duration,
}

/// Requests at a steady rate, whatever the answers do.
struct Load {
    clients: JoinSet<Vec<Met>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn begin(to: std::net::SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let number = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (stop, number) = (stop.clone(), number.clone());
            clients.spawn(async move {
                let mut requests = JoinSet::new();
                let mut tick = tokio::time::interval(PERIOD);
                tokio::time::sleep(PERIOD * u32::try_from(client).expect("small") / 50).await;
                let mut met = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    tick.tick().await;
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    requests.spawn(async move { request(to, number).await });
                    while let Some(one) = requests.try_join_next() {
                        met.push(one.expect("joined"));
                    }
                }
                met.extend(requests.join_all().await);
                met
            });
        }
        Self { clients, stop }
    }

    async fn end(self) -> Vec<Met> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

/// Every other one is a POST with a body: what a refused token did not let through has had no effect.
async fn request(to: std::net::SocketAddr, number: usize) -> Met {
    let sent = Instant::now();
    let text = if number.is_multiple_of(2) {
        format!("GET /{number} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")
    } else {
        format!(
            "POST /{number} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
        )
    };
    let mut answer = Vec::new();
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(30), exchange).await;
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Met { status, sent, took: sent.elapsed() }
}

fn tally(met: &[Met]) -> HashMap<u16, usize> {
    let mut tally = HashMap::new();
    for one in met {
        *tally.entry(one.status).or_default() += 1;
    }
    tally
}

async fn provider(run: &Run) -> (Idp, Value) {
    run.client_secret(DEFAULT_CLIENT, DEFAULT_SECRET);
    let idp = Idp::start(Settings::default()).await.expect("the server starts");
    let seed = idp.new_seed();
    run.secret(seed.expose());
    let credential = json!({
        "token_endpoint": idp.token_endpoint(),
        "client": {"id": DEFAULT_CLIENT, "auth": "client_secret_basic",
                   "secret": run.secret_file("client-secret", DEFAULT_SECRET)},
        "grant": "refresh_token",
        "refresh_token": run.secret_file("seed", seed.expose()),
    });
    (idp, credential)
}

/// Revokes everything after `quiet` of load. Each request that the API saw more than once was sent again.
async fn revoked_under_load(name: &str, quiet: Duration) {
    let run = Arc::new(Run::new(name));
    let (idp, credential) = provider(&run).await;
    let mut config = run.config(&idp.api_url(), &credential);
    config["log"]["level"] = "info".into();
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(10)).await;
    let load = Load::begin(bearward.proxy());
    tokio::time::sleep(quiet).await;
    let (posts, revoked_at) = (idp.posts(), Instant::now());
    idp.kill_access_tokens();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let met = load.end().await;
    let asked = idp.posts() - posts;
    let api = idp.api();
    let mut sent: HashMap<&str, usize> = HashMap::new();
    for seen in &api.seen {
        *sent.entry(&seen.target).or_default() += 1;
    }
    let again = sent.values().filter(|times| **times == 2).count();
    let slowest = met.iter().filter(|one| one.sent >= revoked_at).map(|one| one.took).max().expect("some");
    let rate = f64::from(u32::try_from(met.len()).expect("small")) / (quiet.as_secs_f64() + 7.0);
    count(&format!(
        "every token revoked after {quiet:?} under {rate:.0} requests/s: {asked} token request, {again} of {} requests sent \
         again, answers {:?}, the slowest {slowest:?}",
        met.len(),
        tally(&met)
    ));
    assert!(rate > 300.0, "{rate}: the load is no load");
    assert_eq!(asked, 1, "one refresh for all");
    assert_eq!(tally(&met), HashMap::from([(200, met.len())]), "nobody sees that it happened");
    assert!(sent.values().all(|times| *times <= 2), "one more try each");
    assert!(again > 0, "nothing was refused: no test");
    assert_eq!(api.unauthorized, u64::try_from(again).expect("small"), "each refusal was made good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_54_and_77_everything_is_revoked_under_load_and_no_client_notices() {
    revoked_under_load("storm", Duration::from_secs(6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_revoked_right_after_a_refresh_and_no_client_notices() {
    revoked_under_load("storm-early", Duration::from_millis(1500)).await;
}

/// An API that refuses every token: how often it was asked.
#[allow(clippy::disallowed_methods, reason = "a test server, ended with its runtime")]
async fn refusing() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                // Requests are short and come one at a time: one read each, or a second one for the body.
                let mut read = String::new();
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    read.push_str(&String::from_utf8_lossy(&buffer[..length]));
                    let whole = read
                        .split_once("\r\n\r\n")
                        .is_some_and(|(head, body)| !head.starts_with("POST") || body.len() == 5);
                    if whole {
                        read.clear();
                        counted.fetch_add(1, Ordering::Relaxed);
                        let answer = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 2\r\n\r\nno";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (format!("http://{address}"), count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_55_an_api_that_refuses_every_token_causes_no_storm() {
    let run = Arc::new(Run::new("storm-refusing"));
    let (idp, credential) = provider(&run).await;
    let (upstream, asked) = refusing().await;
    let mut config = run.config(&upstream, &credential);
    config["log"]["level"] = "info".into();
    let bearward = Bearward::start(&run, &config).await;
    bearward.until_state("fresh", Duration::from_secs(10)).await;
    let load = Load::begin(bearward.proxy());
    tokio::time::sleep(Duration::from_secs(9)).await;
    let met = load.end().await;
    let (posts, asked) = (idp.posts(), asked.load(Ordering::Relaxed));
    count(&format!(
        "an API that refuses every token, for 9 s: {} requests of clients, {asked} sent on, answers {:?}, {posts} token requests \
         with the first",
        met.len(),
        tally(&met)
    ));
    assert!(posts <= 2, "{posts} token requests");
    assert!(asked <= 2 * met.len(), "{asked} for {}", met.len());
    assert_eq!(tally(&met), HashMap::from([(401, met.len())]), "the API's own word passes");
}
