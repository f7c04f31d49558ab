//! The life of upstream connections over HTTP/2: replaced when old, closed when idle, asked when silent.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearward::origin::Origin;
use bearward::tls::TlsClientConfig;
use bearward::upstream::{AnswerBody, Beside, Connector, HttpVersion, Lease, Pool, UpstreamConfig};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::time::Instant;

use crate::h2_origin::{H2Origin, RawOrigin};
use crate::h2_rig::frame;

const PING: u8 = 6;

type Body = Empty<Bytes>;

fn pool(address: SocketAddr) -> Rc<Pool<Body>> {
    let config = UpstreamConfig {
        origin: Origin::try_new(&format!("http://{address}")).expect("origin"),
        http: HttpVersion::Http2Cleartext,
        tls: TlsClientConfig::default(),
        outbound_proxy: None,
        options: bearward::upstream::UpstreamOptions::default(),
    };
    Pool::new(Connector::try_new(&config, None, Duration::from_secs(5)).expect("connector"))
}

async fn send(lease: &mut Lease<Body>, path: &'static str) -> Option<Response<AnswerBody>> {
    let request = Request::get(path).header("host", "localhost").body(Empty::new()).expect("a request");
    let (head, body) = request.into_parts();
    lease.send(&head, Beside::default(), body, || false, |_| {}).await.expect("not interrupted").ok()
}

async fn body(lease: &mut Lease<Body>, mut answer: Response<AnswerBody>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = std::future::poll_fn(|cx| lease.poll_body(cx, answer.body_mut())).await {
        bytes.extend(piece.expect("a piece").into_data().expect("data"));
    }
    bytes
}

/// Lets that much time pass at once, and the network do what it has to do.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn an_old_connection_is_replaced_and_none_of_its_streams_cut() {
    let origin = H2Origin::scripted(h2::server::Builder::new(), |request, mut respond| async move {
        let slow = request.uri().path() == "/slow";
        let Ok(mut stream) = respond.send_response(Response::new(()), !slow) else { return };
        if slow {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let _ = stream.send_data("late".into(), true);
        }
    });
    run(async {
        let pool = pool(origin.address);
        let mut slow = pool.connect().await.expect("connected");
        let answer = send(&mut slow, "/slow").await.expect("an answer");
        pass(599).await;
        assert!(send(&mut pool.reuse(Instant::now()).expect("room"), "/").await.is_some());
        assert_eq!(origin.connections(), 1);
        pass(2).await;
        // The request that finds it old does not wait for the next one.
        let mut lease = pool.reuse(Instant::now()).expect("room");
        assert!(lease.reused() && send(&mut lease, "/").await.is_some());
        drop(lease);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(origin.connections(), 2);
        let mut lease = pool.reuse(Instant::now()).expect("room");
        assert!(!lease.reused() && send(&mut lease, "/").await.is_some());
        assert_eq!(body(&mut slow, answer).await, b"late");
        assert_eq!(origin.connections(), 2);
    });
}

#[test]
fn a_connection_without_streams_is_closed() {
    let origin = H2Origin::scripted(h2::server::Builder::new(), |_, mut respond| async move {
        let _ = respond.send_response(Response::new(()), true);
    });
    run(async {
        let pool = pool(origin.address);
        assert!(send(&mut pool.connect().await.expect("connected"), "/").await.is_some());
        pass(25).await;
        pool.sweep(Instant::now());
        assert_eq!(pool.idle(), 1);
        pass(6).await;
        pool.sweep(Instant::now());
        assert_eq!((pool.idle(), pool.active()), (0, 0));
        assert!(pool.reuse(Instant::now()).is_none());
    });
}

/// An origin that answers no request; and its pings.
fn silent(answers_pings: bool) -> (RawOrigin, Arc<AtomicUsize>) {
    let pings = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pings);
    let origin = RawOrigin::scripted(move |mut peer, _| {
        while let Some(ping) = peer.next(PING) {
            count.fetch_add(1, Ordering::Relaxed);
            if answers_pings {
                peer.write(&frame(PING, 1, 0, &ping.payload));
            }
        }
    });
    (origin, pings)
}

#[test]
fn an_upstream_that_is_silent_and_gone_is_found_out() {
    let (origin, pings) = silent(false);
    run(async {
        let pool = pool(origin.address);
        let mut lease = pool.connect().await.expect("connected");
        let waiting = tokio::task::spawn_local(async move { send(&mut lease, "/").await.is_none() });
        for (seconds, expected) in [(0, 0), (15, 0), (6, 1), (5, 1)] {
            pass(seconds).await;
            pool.sweep(Instant::now());
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(pings.load(Ordering::Relaxed), expected, "{seconds}");
        }
        assert!(!waiting.is_finished());
        pass(6).await;
        pool.sweep(Instant::now());
        assert!(waiting.await.expect("joined"), "the request failed");
        assert!(pool.reuse(Instant::now()).is_none());
    });
}

#[test]
fn an_upstream_that_takes_its_time_is_asked_rarely() {
    let (origin, pings) = silent(true);
    run(async {
        let pool = pool(origin.address);
        let mut lease = pool.connect().await.expect("connected");
        let waiting = tokio::task::spawn_local(async move { send(&mut lease, "/").await.is_none() });
        tokio::time::sleep(Duration::from_millis(100)).await;
        // 40 looks in 400 seconds.
        for _ in 0..40 {
            pass(10).await;
            pool.sweep(Instant::now());
        }
        assert_eq!(pings.load(Ordering::Relaxed), 2);
        assert!(!waiting.is_finished());
        waiting.abort();
        let _ = waiting.await;
        // Nobody waits: nobody asks.
        pass(301).await;
        pool.sweep(Instant::now());
        assert_eq!(pings.load(Ordering::Relaxed), 2);
    });
}
