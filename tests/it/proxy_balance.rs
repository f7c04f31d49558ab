//! Upstreams with several addresses: which of them a request goes to, and what happens when one is not well.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use bearward::listener::Limits;
use bearward::origin::Origin;
use bearward::route::RouteConfig;
use bearward::upstream::{Ejection, HealthCheck, RoomConfig};
use tokio::time::Instant;

use crate::proxy_rig::{OriginServer, Rig, TOKEN, field_of, route, status};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A route to all of these.
fn route_to(urls: &[String]) -> RouteConfig {
    let mut route = route(&urls[0]);
    let others = urls[1..].iter().map(|url| Origin::try_new(url).expect("origin"));
    route.upstream.options.others = others.collect();
    route
}

/// An origin whose answers fail with this status while the switch is on.
fn failing(status: u16, switch: &Arc<AtomicBool>) -> OriginServer {
    let switch = Arc::clone(switch);
    OriginServer::scripted(move |stream, _| {
        let bad = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
        let answer = if switch.load(Ordering::Relaxed) { bad.as_str() } else { OK };
        stream.write_all(answer.as_bytes()).is_ok()
    })
}

/// A port that nothing listens on.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    format!("http://{}", listener.local_addr().expect("address"))
}

#[test]
fn several_origins_share_the_requests_and_each_is_called_by_its_own_name() {
    let origins = [OriginServer::ok(), OriginServer::ok(), OriginServer::ok()];
    let urls: Vec<_> = origins.iter().map(OriginServer::url).collect();
    let rig = Rig::start(vec![route_to(&urls)]);
    let mut wire = rig.connect();
    for _ in 0..60 {
        wire.write("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status(&wire.answer()), 200);
    }
    for origin in &origins {
        let requests = origin.requests();
        assert!((5..=40).contains(&requests.len()), "{} of 60", requests.len());
        for request in requests {
            assert_eq!(field_of(&request, "host"), Some(origin.address.to_string()));
            assert_eq!(field_of(&request, "authorization"), Some(format!("Bearer {TOKEN}")));
        }
    }
}

#[test]
fn the_clients_host_reaches_every_origin_where_it_is_preserved() {
    let origins = [OriginServer::ok(), OriginServer::ok()];
    let mut route = route_to(&[origins[0].url(), origins[1].url()]);
    route.preserve_host = true;
    let rig = Rig::start(vec![route]);
    for _ in 0..12 {
        assert_eq!(status(&rig.get("/", "")), 200);
    }
    let all: Vec<_> = origins.iter().flat_map(OriginServer::requests).collect();
    assert!(all.iter().all(|request| field_of(request, "host").as_deref() == Some("localhost")), "{all:?}");
}

#[test]
fn an_address_that_refuses_costs_no_request_whatever_its_method() {
    let good = OriginServer::ok();
    let rig = Rig::start(vec![route_to(&[closed_port(), good.url()])]);
    for number in 0..30 {
        let body = format!("body {number:02}");
        let answer = rig.send(&format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(status(&answer), 200, "{answer}");
    }
    let requests = good.requests();
    assert_eq!(requests.len(), 30);
    assert!(requests.iter().enumerate().all(|(number, request)| request.ends_with(&format!("{number:02}"))));
    let states = rig.plane.snapshot().routes[0].addresses.clone();
    assert!(states.iter().any(|address| address.state.as_str() == "ejected"), "{states:?}");
    assert_eq!(rig.plane.snapshot().routes[0].ejections, 1);
}

#[test]
fn where_every_address_refuses_the_client_is_told_so_and_none_is_left_out_for_good() {
    let rig = Rig::start(vec![route_to(&[closed_port(), closed_port()])]);
    for _ in 0..20 {
        let answer = rig.get("/", "Connection: close\r\n");
        assert_eq!(status(&answer), 502, "{answer}");
        assert_eq!(field_of(&answer, "proxy-status").as_deref(), Some("bearward; error=connection_refused"));
    }
}

#[test]
fn an_origin_behind_a_dead_gateway_is_left_out_and_comes_back() {
    let bad = Arc::new(AtomicBool::new(true));
    let origins = [failing(503, &bad), OriginServer::ok()];
    let mut route = route_to(&[origins[0].url(), origins[1].url()]);
    route.upstream.options.ejection =
        Ejection { failures: 3, time: Duration::from_millis(400), max_time: Duration::from_secs(1) };
    let rig = Rig::start(vec![route]);
    let failures = (0..60).filter(|_| status(&rig.get("/", "Connection: close\r\n")) == 503).count();
    assert!((3..=12).contains(&failures), "{failures} of 60 requests met the bad origin");
    bad.store(false, Ordering::Relaxed);
    let seen = origins[0].requests().len();
    let deadline = Instant::now() + Duration::from_secs(5);
    while origins[0].requests().len() < seen + 5 {
        assert!(Instant::now() < deadline, "the good origin was not tried again");
        assert_eq!(status(&rig.get("/", "Connection: close\r\n")), 200);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn only_bad_origins_are_still_asked() {
    let bad = Arc::new(AtomicBool::new(true));
    let origins = [failing(502, &bad), failing(504, &bad)];
    let mut route = route_to(&[origins[0].url(), origins[1].url()]);
    route.upstream.options.ejection.failures = 2;
    let rig = Rig::start(vec![route]);
    for _ in 0..30 {
        assert!(status(&rig.get("/", "")) >= 502);
    }
    assert_eq!(origins.iter().map(|origin| origin.requests().len()).sum::<usize>(), 30);
    bad.store(false, Ordering::Relaxed);
    assert_eq!(status(&rig.get("/", "")), 200);
}

#[test]
fn fewer_requests_go_to_the_origin_that_is_slow() {
    let slow = OriginServer::scripted(|stream, _| {
        std::thread::sleep(Duration::from_millis(150));
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let fast = OriginServer::scripted(|stream, _| {
        std::thread::sleep(Duration::from_millis(5));
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let rig = Rig::start(vec![route_to(&[slow.url(), fast.url()])]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut wire = rig.connect();
                for _ in 0..25 {
                    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    assert_eq!(status(&wire.answer()), 200);
                }
            });
        }
    });
    let (few, many) = (slow.requests().len(), fast.requests().len());
    assert!(few + many == 200 && few < many / 2, "slow {few}, fast {many}");
}

#[test]
fn no_more_requests_are_under_way_than_allowed_and_the_others_wait_or_are_told_to_come_back() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let origin = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        OriginServer::scripted(move |stream, _| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            now.fetch_sub(1, Ordering::SeqCst);
            stream.write_all(OK.as_bytes()).is_ok()
        })
    };
    let mut route = route(&origin.url());
    route.upstream.options.room =
        RoomConfig { requests: 3, queue: 4, queue_timeout: Duration::from_secs(10) };
    let rig = Rig::start_listener(vec![route], Vec::new(), Limits { workers: Some(2), ..Limits::default() });
    let begin = Barrier::new(12);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    rig.get("/", "Connection: close\r\n")
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("joined")).collect()
    });
    let refused: Vec<_> = answers.iter().filter(|answer| status(answer) == 503).collect();
    assert_eq!((answers.len() - refused.len(), refused.len()), (7, 5), "{answers:?}");
    for answer in refused {
        assert_eq!(field_of(answer, "retry-after").as_deref(), Some("1"));
        let told = field_of(answer, "proxy-status");
        assert_eq!(told.as_deref(), Some("bearward; error=connection_limit_reached"));
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(status(&rig.get("/", "")), 200);
}

#[test]
fn an_upstream_on_a_unix_socket_gets_the_token() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let heads = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepted");
        let mut heads = Vec::new();
        for _ in 0..2 {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                std::io::Read::read_exact(&mut stream, &mut byte).expect("read");
                head.push(byte[0]);
            }
            stream.write_all(OK.as_bytes()).expect("written");
            heads.push(String::from_utf8(head).expect("text"));
        }
        heads
    });
    let url = format!("unix:{}", path.display());
    let mut route = route(&url);
    route.allow_plaintext = false;
    let rig = Rig::start(vec![route]);
    for _ in 0..2 {
        assert_eq!(status(&rig.get("/x", "")), 200);
    }
    for head in heads.join().expect("joined") {
        assert_eq!(field_of(&head, "host").as_deref(), Some("localhost"));
        assert_eq!(field_of(&head, "authorization"), Some(format!("Bearer {TOKEN}")));
    }
    assert_eq!(rig.plane.snapshot().routes[0].upstream, url);
    drop(folder);
    let answer = rig.get("/x", "");
    assert_eq!(status(&answer), 502, "{answer}");
}

#[test]
fn an_address_that_does_not_answer_at_all_delays_a_request_by_little() {
    // A listener whose queue is full answers no SYN.
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    deaf.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("address").into()).expect("bind");
    deaf.listen(0).expect("listen");
    let address = deaf.local_addr().expect("address").as_socket().expect("inet");
    let _held: Vec<_> = (0..4)
        .map_while(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
        .collect();
    let good = OriginServer::ok();
    let rig = Rig::start(vec![route_to(&[format!("http://{address}"), good.url()])]);
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(status(&rig.get("/", "Connection: close\r\n")), 200);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    assert_eq!(good.requests().len(), 20);
}

#[test]
fn a_warm_connection_is_there_before_the_first_request_and_stays() {
    let origin = OriginServer::ok();
    let mut route = route(&origin.url());
    route.upstream.options.pool.keep_warm = 1;
    route.upstream.options.pool.idle_timeout = Duration::from_millis(100);
    let rig = Rig::start(vec![route]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while origin.connections() == 0 {
        assert!(Instant::now() < deadline, "no connection was opened");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(status(&rig.get("/", "")), 200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn health_checks_carry_no_token_and_decide_where_requests_go() {
    let ill = Arc::new(AtomicBool::new(false));
    let origin = |ill: Option<Arc<AtomicBool>>| {
        OriginServer::scripted(move |stream, head| {
            let fails = head.starts_with("GET /healthz?deep ")
                && ill.as_ref().is_some_and(|ill| ill.load(Ordering::Relaxed));
            let answer = if fails { "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" } else { OK };
            stream.write_all(answer.as_bytes()).is_ok()
        })
    };
    let origins = [origin(Some(Arc::clone(&ill))), origin(None)];
    let mut route = route_to(&[origins[0].url(), origins[1].url()]);
    route.upstream.options.health = Some(HealthCheck {
        path: "/healthz?deep".parse().expect("a path"),
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(2),
        healthy: 2,
        unhealthy: 2,
        expect_status: Vec::new(),
    });
    let rig = Rig::start_listener(vec![route], Vec::new(), Limits { workers: Some(2), ..Limits::default() });
    let until = |states: [&str; 2]| {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let addresses = rig.plane.snapshot().routes[0].addresses.clone();
            let now: Vec<_> = addresses.iter().map(|address| address.state.as_str()).collect();
            if now == states {
                return;
            }
            assert!(Instant::now() < deadline, "{addresses:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let served =
        |origin: &OriginServer| origin.requests().iter().filter(|head| head.starts_with("GET /x ")).count();
    until(["healthy", "healthy"]);
    ill.store(true, Ordering::Relaxed);
    until(["unhealthy", "healthy"]);
    let before = served(&origins[0]);
    for _ in 0..30 {
        assert_eq!(status(&rig.get("/x", "")), 200);
    }
    assert_eq!((served(&origins[0]), served(&origins[1])), (before, 30));
    ill.store(false, Ordering::Relaxed);
    until(["healthy", "healthy"]);
    for _ in 0..30 {
        assert_eq!(status(&rig.get("/x", "")), 200);
    }
    assert!(served(&origins[0]) > before);
    for head in origins.iter().flat_map(OriginServer::requests) {
        let carries = field_of(&head, "authorization").is_some();
        assert_eq!(carries, head.starts_with("GET /x "), "{head}");
    }
}
