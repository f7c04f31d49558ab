//! The reverse listener on the wire: what of a request reaches the origin, and what of an answer the client.

use std::io::Write;

use crate::proxy_rig::{OriginServer, Rig, TOKEN, field_of, fields_of, problem, route, status};

#[test]
fn a_request_reaches_the_origin_with_the_token_and_nothing_of_one_hop() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let answer =
        rig.get("/a/b?c=d%20e", "Accept: */*\r\nAuthorization: Basic c3Rlcw==\r\nConnection: keep-alive\r\n");
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"));
    let request = origin.request();
    assert!(request.starts_with("GET /a/b?c=d%20e HTTP/1.1\r\n"), "{request}");
    let check = |field: &str, expected: Option<&str>| {
        assert_eq!(field_of(&request, field).as_deref(), expected, "{field} in {request}");
    };
    check("authorization", Some(&format!("Bearer {TOKEN}")));
    check("host", Some(&origin.address.to_string()));
    check("accept", Some("*/*"));
    check("connection", None);
    check("x-forwarded-for", Some("127.0.0.1"));
    check("x-forwarded-host", Some("localhost"));
    check("x-forwarded-proto", Some("http"));
    check("forwarded", Some("for=127.0.0.1;proto=http;host=\"localhost\""));
    assert_eq!(field_of(&request, "x-request-id").map(|id| id.len()), Some(24));
    assert!(field_of(&request, "via").is_some_and(|via| via.starts_with("1.1 bearward-")));
}

#[test]
fn an_upstream_connection_is_used_again() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    for _ in 0..5 {
        wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status(&wire.answer()), 200);
    }
    assert_eq!(status(&rig.get("/", "")), 200);
    assert_eq!((origin.requests().len(), origin.connections()), (6, 1));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = OriginServer::scripted(|stream, request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).is_ok()
    });
    let rig = Rig::to(&origin);
    let mut wire = rig.connect();
    wire.write("GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /22 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(wire.answer().ends_with("/1"));
    assert!(wire.answer().ends_with("/22"));
}

#[test]
fn hosts_and_paths_find_their_route_or_an_answer() {
    let origin = OriginServer::ok();
    let mut api = route(&origin.url());
    api.path_prefix = "/api/".into();
    let mut get = route(&origin.url());
    get.path_prefix = "/get".into();
    get.methods = vec![http::Method::GET];
    let rig = Rig::start(vec![api, get]);
    let check = |request: &str, expected: u16| {
        let answer = rig.send(request);
        assert_eq!(status(&answer), expected, "{request:?}: {answer}");
        if expected != 200 && status(&answer) != 204 {
            assert_eq!(problem(&answer)["status"], expected);
        }
    };
    check("GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 200);
    check("GET /api/x HTTP/1.1\r\nHost: LOCALHOST:99\r\n\r\n", 200);
    check("GET /api/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200);
    check("GET /api/x HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421);
    check("GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n", 404);
    check("GET /apix HTTP/1.1\r\nHost: localhost\r\n\r\n", 404);
    check("GET /get HTTP/1.1\r\nHost: localhost\r\n\r\n", 200);
    check("PUT /get HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405);
    check("GET /api/x HTTP/1.1\r\n\r\n", 400);
    check("GET /api/x HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400);
    check("GET /api/x HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n", 400);
    check("GET /api/x HTTP/1.1\r\nHost: user@localhost\r\n\r\n", 400);
    check("GET /api/x HTTP/1.0\r\n\r\n", 200);
    check("GET http://localhost/api/x HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200);
    check("GET http://evil.example/api/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 421);
    check("GET http://user@localhost/api/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400);
    check("GET ftp://localhost/api/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400);
    check("TRACE /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 405);
    check("TRACK /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 405);
    check("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405);
    check("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 204);
    check("OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421);
    check("OPTIONS /api/x HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 0\r\n\r\n", 204);
    check("OPTIONS /api/x HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 3\r\n\r\n", 200);
    let last = origin.requests().pop().expect("a request");
    assert_eq!(field_of(&last, "max-forwards").as_deref(), Some("2"));
    let put = rig.send("PUT /get HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(field_of(&put, "allow").as_deref(), Some("GET"));
    assert_eq!(fields_of(&put, "proxy-status"), ["bearward; error=http_request_denied"]);
}

#[test]
fn bodies_go_both_ways() {
    let origin = OriginServer::scripted(|stream, request| {
        let body = request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    let rig = Rig::to(&origin);
    let body = "x".repeat(300_000);
    let answer = rig
        .send(&format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert!(answer.ends_with(&body), "{}", answer.len());
    let answer = rig.send(
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    assert!(answer.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{answer}");
    assert_eq!(rig.plane.snapshot().routes[0].traffic.requests, 2);
}
