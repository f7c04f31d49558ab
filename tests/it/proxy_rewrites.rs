//! What a route changes of queries, and how it tells an upstream's own addresses to clients.

use std::io::Write;

use bearward::listener::Limits;
use bearward::route::{QueryEdits, Rewrites};

use crate::h2_rig::Client;
use crate::proxy_rig::{OriginServer, Rig, fields_of, route, status};

#[test]
fn a_routes_parameters_reach_the_origin_in_place_of_the_clients() {
    let origin = OriginServer::ok();
    let mut api = route(&origin.url());
    api.path_prefix = "/pds/".into();
    api.rewrite_prefix = Some("/api/".into());
    api.rewrites.query = QueryEdits { set: vec![("v".into(), "1 2".into())], remove: vec!["debug".into()] };
    let rig = Rig::start(vec![api]);
    let check = |target: &str, expected: &str| {
        let answer = rig.get(target, "");
        assert_eq!(status(&answer), 200, "{answer}");
        let seen = origin.requests().pop().expect("a request");
        assert!(seen.starts_with(&format!("GET {expected} HTTP/1.1\r\n")), "{target}: {seen}");
    };
    check("/pds/x", "/api/x?v=1+2");
    check("/pds/x?", "/api/x?v=1+2");
    check("/pds/x?a=b&v=9&%76=9&V=9&debug", "/api/x?a=b&v=1+2");
    check("/pds/./x?a=/../b", "/api/x?a=/../b&v=1+2");
    check("http://localhost/pds/x?a", "/api/x?a&v=1+2");
    let seen = {
        assert_eq!(Client::to(rig.address).get("/pds/x?v=9&b", &[]).status, 200);
        origin.requests().pop().expect("a request")
    };
    assert!(seen.starts_with("GET /api/x?b&v=1+2 HTTP/1.1\r\n"), "{seen}");
}

#[test]
fn an_upstreams_own_addresses_are_told_in_the_clients_terms_where_the_route_says_so() {
    // Redirects to itself, by the name that it was called with.
    let origin = OriginServer::scripted(|stream, request| {
        let own = fields_of(request, "host").pop().expect("a host");
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{own}/api/next?a#b\r\nContent-Location: /api/here\r\n\
             Refresh: 5; url=http://{own}/api/later\r\nSet-Cookie: a=b; Path=/api/x; Domain=127.0.0.1; Secure\r\n\
             Set-Cookie: c=d; Path=/\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let told = |rewrites: Rewrites, extra: &str| {
        let mut api = route(&origin.url());
        api.path_prefix = "/pds/".into();
        api.rewrite_prefix = Some("/api/".into());
        api.rewrites = rewrites;
        let rig =
            Rig::start_listener(vec![api], Vec::new(), Limits { workers: Some(1), ..Limits::default() });
        let answer = rig.send(&format!("GET /pds/x HTTP/1.1\r\nHost: localhost:81\r\n{extra}\r\n"));
        assert_eq!(status(&answer), 302, "{answer}");
        ["location", "content-location", "refresh", "set-cookie"]
            .map(|name| fields_of(&answer, name).join(" AND "))
    };
    let own = origin.address;
    let plain = [
        format!("http://{own}/api/next?a#b"),
        "/api/here".to_owned(),
        format!("5; url=http://{own}/api/later"),
        "a=b; Path=/api/x; Domain=127.0.0.1; Secure AND c=d; Path=/".to_owned(),
    ];
    assert_eq!(told(Rewrites::default(), ""), plain);
    let [location, here, refresh, cookies] = told(Rewrites { location: true, ..Rewrites::default() }, "");
    assert_eq!(location, "http://localhost:81/pds/next?a#b");
    assert_eq!(here, "/pds/here");
    assert_eq!(refresh, "5; url=http://localhost:81/pds/later");
    assert_eq!(cookies, plain[3]);
    let both = Rewrites { location: true, cookies: true, ..Rewrites::default() };
    let [location, .., cookies] =
        told(both, "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\n");
    assert_eq!(location, "http://localhost:81/pds/next?a#b", "nobody trusts this client");
    assert_eq!(cookies, "a=b; Path=/pds/x AND c=d; Path=/pds/");
}
