//! Upstreams that authenticate a connection (NTLM, Negotiate): nobody else's request travels on it.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::proxy_rig::{OriginServer, Rig, Wire, field_of, route, status};

/// An origin with the handshake of NTLM: three requests on one connection, and after that every request on it is its
/// user's. Answers with the user's name.
fn ntlm_origin() -> OriginServer {
    let users: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    OriginServer::scripted(move |stream, head| {
        let peer = stream.peer_addr().expect("peer");
        let mut users = users.lock().expect("lock");
        let (status, challenge, body) = match field_of(head, "authorization").as_deref() {
            Some("NTLM one") => ("401 Unauthorized", "NTLM two", ""),
            Some("NTLM three") => {
                users.insert(peer);
                ("200 OK", "", "alice")
            }
            _ if users.contains(&peer) => ("200 OK", "", "alice"),
            _ => ("401 Unauthorized", "NTLM", ""),
        };
        let challenge =
            if challenge.is_empty() { String::new() } else { format!("WWW-Authenticate: {challenge}\r\n") };
        let answer = format!("HTTP/1.1 {status}\r\n{challenge}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).is_ok()
    })
}

/// Sends a request on this client connection, with a word about who sends it.
fn ask(wire: &mut Wire, who: &str, authorization: &str) -> String {
    let authorization = match authorization {
        "" => String::new(),
        value => format!("Authorization: {value}\r\n"),
    };
    wire.write(&format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Who: {who}\r\n{authorization}\r\n"));
    wire.answer()
}

#[test]
fn an_authenticated_connection_serves_the_client_that_authenticated_it_and_nobody_else() {
    let origin = ntlm_origin();
    let mut route = route(&origin.url());
    route.credential = None;
    let rig = Rig::start(vec![route]);
    let (mut alice, mut others) = (rig.connect(), [rig.connect(), rig.connect()]);
    let stranger = |others: &mut [Wire; 2]| {
        for other in others {
            let answer = ask(other, "stranger", "");
            assert_eq!(status(&answer), 401, "{answer}");
        }
        let fresh = ask(&mut rig.connect(), "stranger", "");
        assert_eq!(status(&fresh), 401, "{fresh}");
    };
    stranger(&mut others);
    assert_eq!(field_of(&ask(&mut alice, "alice", ""), "www-authenticate").as_deref(), Some("NTLM"));
    stranger(&mut others);
    let challenge = ask(&mut alice, "alice", "NTLM one");
    assert_eq!(field_of(&challenge, "www-authenticate").as_deref(), Some("NTLM two"));
    stranger(&mut others);
    assert_eq!(status(&ask(&mut alice, "alice", "NTLM three")), 200);
    for _ in 0..10 {
        stranger(&mut others);
        let answer = ask(&mut alice, "alice", "");
        assert!(answer.ends_with("alice"), "{answer}");
    }
    drop(alice);
    for _ in 0..10 {
        stranger(&mut others);
    }
}

#[test]
fn a_connection_with_a_negotiate_token_is_not_kept_for_others() {
    // It answers as servers do that ask for no mutual authentication: nothing in the answer tells.
    let origin = OriginServer::ok();
    let mut plain = route(&origin.url());
    plain.credential = None;
    let rig = Rig::start(vec![plain]);
    for round in 1..=5 {
        let mut wire = rig.connect();
        for _ in 0..3 {
            assert_eq!(status(&ask(&mut wire, "alice", "Negotiate YIIabc")), 200);
        }
        assert_eq!(origin.connections(), round);
    }
    for _ in 0..3 {
        assert_eq!(status(&ask(&mut rig.connect(), "bob", "Basic Ym9i")), 200);
    }
    assert_eq!(origin.connections(), 6);
}

#[test]
fn a_challenge_for_a_connection_keeps_it_out_of_the_pool_on_a_route_with_a_credential_too() {
    let challenge = |scheme: &str| {
        let answer =
            format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {scheme}\r\nContent-Length: 0\r\n\r\n");
        OriginServer::answering(&answer)
    };
    for (scheme, connections) in [("Negotiate", 4), ("NTLM", 4), ("Basic realm=\"x\"", 1)] {
        let origin = challenge(scheme);
        let mut route = route(&origin.url());
        route.on_unauthorized.refresh = false;
        let rig = Rig::start(vec![route]);
        for _ in 0..4 {
            assert_eq!(status(&rig.get("/", "Connection: close\r\n")), 401);
        }
        assert_eq!(origin.connections(), connections, "{scheme}");
    }
}
