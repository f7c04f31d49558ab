//! WebSockets over HTTP/2 (RFC 8441): from the client, to the upstream, and both; and who does not take them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bearward::upstream::websocket::accept_of;
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Response, Version};

use crate::h2_origin::{H2Origin, h2c, send_all};
use crate::h2_rig::Client;
use crate::proxy_rig::{OriginServer, Rig, TOKEN, Wire, field_of, fields_of, problem, read_head, status};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Agrees to each extended CONNECT and sends back what comes; says how it began.
fn echoing(takes: bool) -> H2Origin {
    let mut builder = h2::server::Builder::new();
    if takes {
        builder.enable_connect_protocol();
    }
    H2Origin::scripted(builder, |request, mut respond| async move {
        let protocol = request.extensions().get::<h2::ext::Protocol>().map(|name| name.as_str().to_owned());
        if request.method() != Method::CONNECT || protocol.as_deref() != Some("websocket") {
            let _ = respond.send_response(Response::new(()), true);
            return;
        }
        let field = |name: &str| request.headers().get(name).map(|value| value.to_str().expect("text"));
        assert_eq!(field("authorization"), Some(&*format!("Bearer {TOKEN}")));
        assert_eq!((field("sec-websocket-key"), field("upgrade"), field("connection")), (None, None, None));
        assert_eq!(field("sec-websocket-version"), Some("13"));
        assert_eq!(request.version(), Version::HTTP_2);
        if request.uri().path() == "/refused" {
            let refused = Response::builder().status(403).body(()).expect("a head");
            let _ = respond.send_response(refused, true);
            return;
        }
        let head = Response::builder().header("sec-websocket-protocol", "chat").body(()).expect("a head");
        let mut outgoing = respond.send_response(head, false).expect("sent");
        let mut incoming = request.into_body();
        while let Some(Ok(piece)) = incoming.data().await {
            let _ = incoming.flow_control().release_capacity(piece.len());
            send_all(&mut outgoing, piece, false).await;
        }
        // One word more, after the other side has ended.
        let _ = outgoing.send_data("bye".into(), true);
    })
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

#[test]
fn an_upgrade_becomes_an_extended_connect() {
    let origin = echoing(true);
    let rig = Rig::start(vec![h2c(origin.address)]);
    let mut wire = rig.connect();
    wire.write(&upgrade("/chat"));
    let head = String::from_utf8(read_head(&mut wire.0).expect("a head")).expect("text");
    assert_eq!(status(&head), 101, "{head}");
    assert_eq!(fields_of(&head, "upgrade"), ["websocket"]);
    assert_eq!(fields_of(&head, "connection"), ["upgrade"]);
    assert_eq!(field_of(&head, "sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(field_of(&head, "sec-websocket-protocol").as_deref(), Some("chat"));
    talk(&mut wire);
    // More than any window, while it comes back.
    let mut writer = wire.0.try_clone().expect("cloned");
    let writing = std::thread::spawn(move || {
        for _ in 0..64 {
            writer.write_all(&[b'x'; 65536]).expect("written");
        }
        writer.shutdown(std::net::Shutdown::Write).expect("ended");
    });
    let rest = wire.rest();
    writing.join().expect("written");
    assert_eq!((rest.len(), rest.ends_with("xbye")), (64 * 65536 + 3, true));
    // What is refused is an answer as any other.
    let refused = rig.send(&upgrade("/refused"));
    assert_eq!(status(&refused), 403, "{refused}");
    assert_eq!(origin.connections(), 1);
}

fn talk(wire: &mut Wire) {
    for word in ["one", "three"] {
        wire.write(word);
        let mut back = vec![0; word.len()];
        wire.0.read_exact(&mut back).expect("it comes back");
        assert_eq!(back, word.as_bytes());
    }
}

#[test]
fn an_upstream_that_takes_none_over_http2_is_named() {
    let origin = echoing(false);
    let rig = Rig::start(vec![h2c(origin.address)]);
    let check = |request: &str| {
        let answer = rig.send(request);
        assert_eq!(status(&answer), 502, "{answer}");
        assert_eq!(problem(&answer)["type"], "urn:bearward:problem:upstream-no-upgrade");
    };
    check(&upgrade("/chat"));
    let taking = echoing(true);
    let rig = Rig::start(vec![h2c(taking.address)]);
    let answer = rig.send(&upgrade("/chat").replace("Upgrade: websocket", "Upgrade: spdy/3.1"));
    assert_eq!(
        (status(&answer), problem(&answer)["type"].as_str()),
        (502, Some("urn:bearward:problem:upstream-no-upgrade"))
    );
}

/// Begins a WebSocket over HTTP/2.
fn begin(client: &Client, path: &str) -> (Response<RecvStream>, SendStream<Bytes>) {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(["http://localhost", path].concat())
        .header("sec-websocket-version", "13")
        .body(())
        .expect("a request");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let mut sender = client.sender.clone();
    client.runtime.block_on(async move {
        sender = sender.ready().await.expect("ready");
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (answer, stream) = sender.send_request(request, false).expect("sent");
        (answer.await.expect("an answer"), stream)
    })
}

/// Says words and hears them, ends, and takes the rest.
fn talk_over_http2(client: &Client, answer: Response<RecvStream>, mut stream: SendStream<Bytes>) {
    assert_eq!(
        (answer.status(), answer.headers().get("sec-websocket-accept")),
        (200.try_into().expect("200"), None)
    );
    let rest = client.runtime.block_on(async move {
        let mut incoming = answer.into_body();
        for word in ["one", "three"] {
            stream.send_data(word.into(), false).expect("sent");
            let mut back = Vec::new();
            while back.len() < word.len() {
                back.extend(incoming.data().await.expect("a piece").expect("a piece"));
            }
            assert_eq!(back, word.as_bytes());
        }
        stream.send_data(Bytes::new(), true).expect("ended");
        let mut rest = Vec::new();
        while let Some(piece) = incoming.data().await {
            rest.extend(piece.expect("a piece"));
        }
        rest
    });
    assert_eq!(rest, b"bye");
}

/// An upstream that speaks HTTP/1.1 and answers the key with what `accept` makes of it.
fn upgrading(accept: fn(&str) -> String) -> OriginServer {
    OriginServer::scripted(move |stream, request| {
        let key = field_of(request, "sec-websocket-key").expect("a key");
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept(&key)
        );
        let _ = stream.write_all(head.as_bytes());
        echo(stream);
        false
    })
}

fn echo(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                let _ = stream.write_all(&buffer[..length]);
            }
        }
    }
    let _ = stream.write_all(b"bye");
}

fn good(key: &str) -> String {
    accept_of(&HeaderValue::from_str(key).expect("a key")).to_str().expect("text").to_owned()
}

#[test]
fn an_extended_connect_becomes_an_upgrade() {
    let origin = upgrading(good);
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let (answer, stream) = begin(&client, "/chat?a=b");
    talk_over_http2(&client, answer, stream);
    let seen = origin.request();
    assert!(seen.starts_with("GET /chat?a=b HTTP/1.1\r\n"), "{seen}");
    assert_eq!(
        (fields_of(&seen, "upgrade"), fields_of(&seen, "connection")),
        (vec!["websocket".into()], vec!["upgrade".into()])
    );
    assert_eq!(fields_of(&seen, "authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!(fields_of(&seen, "sec-websocket-version"), ["13"]);
    // The connection has room for requests still.
    let (answer, stream) = begin(&client, "/");
    talk_over_http2(&client, answer, stream);
}

#[test]
fn an_upstream_that_did_not_read_the_key_gets_no_stream() {
    let origin = upgrading(|_| good(KEY));
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let (answer, _stream) = begin(&client, "/");
    assert_eq!(answer.status(), 502);
}

#[test]
fn an_extended_connect_passes_from_end_to_end() {
    let origin = echoing(true);
    let rig = Rig::start(vec![h2c(origin.address)]);
    let client = Client::to(rig.address);
    let (answer, stream) = begin(&client, "/chat");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    talk_over_http2(&client, answer, stream);
    let (answer, _stream) = begin(&client, "/refused");
    assert_eq!(answer.status(), 403);
}

#[test]
fn a_client_that_resets_its_stream_ends_the_tunnel() {
    let origin = upgrading(good);
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let (answer, mut stream) = begin(&client, "/");
    assert_eq!(answer.status(), 200);
    let active = || rig.plane.snapshot().upstream_connections.active;
    let until = |wanted: u64| {
        let begun = tokio::time::Instant::now();
        while active() != wanted {
            assert!(begun.elapsed() < Duration::from_secs(5), "{} connections, not {wanted}", active());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until(1);
    stream.send_reset(Reason::CANCEL);
    until(0);
}

#[test]
fn other_protocols_and_plain_connect_are_refused() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let client = Client::to(rig.address);
    let mut sender = client.sender.clone();
    let answers = client.runtime.block_on(async move {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut plain = Request::new(());
        *plain.method_mut() = Method::CONNECT;
        *plain.uri_mut() = "localhost:80".parse().expect("an authority");
        let mut other =
            Request::builder().method(Method::CONNECT).uri("http://localhost/").body(()).expect("a request");
        other.extensions_mut().insert(h2::ext::Protocol::from_static("connect-ip"));
        let mut answers = Vec::new();
        for request in [plain, other] {
            let (answer, _stream) = sender.send_request(request, false).expect("sent");
            answers.push(answer.await.expect("an answer").status().as_u16());
        }
        answers
    });
    let expected = status(&rig.send("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n"));
    assert_eq!(answers, [expected, expected]);
    assert!(origin.requests().is_empty());
}
