//! Attempts to get at the injected token, or to keep a credential of one's own on the way, through a reverse listener.

use std::io::Write;

use crate::proxy_rig::{OriginServer, Rig, TOKEN, field_of, fields_of, name, problem, route, status};

/// The origin saw exactly our bearer, whatever came in.
fn only_ours(request: &str) {
    assert_eq!(fields_of(request, "authorization"), [format!("Bearer {TOKEN}")], "{request}");
}

#[test]
fn case_61_no_client_field_survives_beside_the_injected_one() {
    let check = |lines: &str, absent: &[&str]| {
        let origin = OriginServer::ok();
        let rig = Rig::to(&origin);
        let answer = rig.get("/", lines);
        assert_eq!(status(&answer), 200, "{lines:?}: {answer}");
        let request = origin.request();
        only_ours(&request);
        for field in absent {
            assert_eq!(fields_of(&request, field), Vec::<String>::new(), "{field} in {request}");
        }
        assert!(!answer.contains(TOKEN));
    };
    check("Authorization: Bearer stolen\r\n", &[]);
    check("authorization: Bearer a\r\nAUTHORIZATION: Bearer b\r\n", &[]);
    check("Proxy-Authorization: Basic eA==\r\n", &["proxy-authorization"]);
    check("DPoP: proof\r\n", &["dpop"]);
    check("Connection: authorization\r\n", &["connection"]);
    check("Connection: Authorization, keep-alive\r\nConnection: AUTHORIZATION\r\n", &["connection"]);
    check("Connection: x-secret\r\nX-Secret: 1\r\n", &["connection", "x-secret"]);
    check("Connection: close, host, content-length, via\r\n", &["connection"]);
    check("X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n", &["x-original-url", "x-rewrite-url"]);
    check("TE: gzip\r\nTrailer: authorization\r\n", &["te", "trailer"]);
    check(
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        &["upgrade", "http2-settings", "connection"],
    );
    check("Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n", &["keep-alive", "proxy-connection"]);
}

#[test]
fn what_a_client_says_of_itself_is_replaced() {
    let check = |lines: &str, field: &str, expected: &[&str]| {
        let origin = OriginServer::ok();
        let rig = Rig::to(&origin);
        assert_eq!(status(&rig.get("/", lines)), 200);
        assert_eq!(fields_of(&origin.request(), field), expected, "{lines:?}");
    };
    check("X-Forwarded-For: 6.6.6.6\r\n", "x-forwarded-for", &["127.0.0.1"]);
    check("X-Forwarded-Host: evil\r\n", "x-forwarded-host", &["localhost"]);
    check("X-Forwarded-Proto: https\r\n", "x-forwarded-proto", &["http"]);
    check("X-Forwarded-Prefix: /evil\r\n", "x-forwarded-prefix", &[]);
    check("X-Forwarded-Ssl: on\r\n", "x-forwarded-ssl", &[]);
    check("X-Real-IP: 6.6.6.6\r\n", "x-real-ip", &["127.0.0.1"]);
    check("Forwarded: for=6.6.6.6\r\n", "forwarded", &["for=127.0.0.1;proto=http;host=\"localhost\""]);
    check("X-Request-Id: abc-123\r\n", "x-request-id", &["abc-123"]);
    check("Cookie: a=b\r\nCookie: c=d\r\n", "cookie", &["a=b", "c=d"]);
}

#[test]
fn aliases_are_refused_before_anything_is_sent() {
    for field in [
        "X_Forwarded_For",
        "x-forwarded_host",
        "Content_Length",
        "Transfer_Encoding",
        "X_Real_IP",
        "Proxy_Authorization",
    ] {
        let origin = OriginServer::ok();
        let rig = Rig::to(&origin);
        let answer = rig.get("/", &format!("{field}: 1\r\n"));
        assert_eq!(status(&answer), 400, "{field}");
        assert_eq!(problem(&answer)["type"], "urn:bearward:problem:underscore-alias");
        assert_eq!(origin.connections(), 0, "{field}");
    }
}

#[test]
fn case_62_the_token_goes_to_no_other_host() {
    let check = |request: &str, expected: u16| {
        let origin = OriginServer::ok();
        let rig = Rig::to(&origin);
        let answer = rig.send(request);
        assert_eq!(status(&answer), expected, "{request:?}: {answer}");
        assert!(!answer.contains(TOKEN), "{answer}");
        for request in origin.requests() {
            assert_eq!(field_of(&request, "host"), Some(origin.address.to_string()));
            only_ours(&request);
        }
    };
    check("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421);
    check("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 421);
    check("GET https://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400);
    check("GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200);
    check("GET //evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 200);
    check("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 405);
    check("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405);
    check("TRACK / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405);
}

#[test]
fn redirects_are_passed_on_and_never_followed() {
    let elsewhere = OriginServer::ok();
    let location = format!("{}/x", elsewhere.url());
    let origin = OriginServer::answering(&format!(
        "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    ));
    let rig = Rig::to(&origin);
    let answer = rig.get("/", "");
    assert_eq!((status(&answer), field_of(&answer, "location")), (302, Some(location)));
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn a_browser_page_of_another_origin_is_refused() {
    let check = |lines: &str, expected: u16| {
        let origin = OriginServer::ok();
        let limits = bearward::listener::Limits { workers: Some(1), ..Default::default() };
        let rig = Rig::start_listener(vec![route(&origin.url())], vec!["https://app.example".into()], limits);
        assert_eq!(status(&rig.get("/", lines)), expected, "{lines:?}");
        assert_eq!(origin.requests().len(), usize::from(expected == 200), "{lines:?}");
    };
    check("", 200);
    check("Origin: https://evil.example\r\n", 403);
    check("Origin: null\r\n", 403);
    check("Origin: http://localhost\r\n", 403);
    check("Sec-Fetch-Site: cross-site\r\n", 403);
    check("Sec-Fetch-Site: same-origin\r\n", 200);
    check("Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n", 200);
}

#[test]
fn a_route_without_a_credential_passes_the_clients_own() {
    let origin = OriginServer::ok();
    let mut plain = route(&origin.url());
    plain.credential = None;
    let rig = Rig::start(vec![plain]);
    rig.get("/", "Authorization: Basic b3du\r\nDPoP: proof\r\nProxy-Authorization: Basic eA==\r\n");
    let request = origin.request();
    assert_eq!(fields_of(&request, "authorization"), ["Basic b3du"]);
    assert_eq!(fields_of(&request, "dpop"), ["proof"]);
    assert_eq!(fields_of(&request, "proxy-authorization"), Vec::<String>::new());
    assert!(!request.contains(TOKEN));
}

#[test]
fn configured_edits_cannot_remove_the_token() {
    let origin =
        OriginServer::answering("HTTP/1.1 200 OK\r\nServer: x\r\nX-Drop: 1\r\nContent-Length: 0\r\n\r\n");
    let mut edited = route(&origin.url());
    edited.request_headers.remove = vec![http::header::AUTHORIZATION, http::header::COOKIE];
    edited.request_headers.set = vec![("x-tenant".parse().expect("name"), "acme".parse().expect("value"))];
    edited.response_headers.remove = vec!["x-drop".parse().expect("name")];
    edited.response_headers.set = vec![(http::header::SERVER, "ours".parse().expect("value"))];
    let rig = Rig::start(vec![edited]);
    let answer = rig.get("/", "Cookie: a=b\r\nX-Tenant: evil\r\nX-Tenant: evil2\r\n");
    let request = origin.request();
    only_ours(&request);
    assert_eq!(fields_of(&request, "cookie"), Vec::<String>::new());
    assert_eq!(fields_of(&request, "x-tenant"), ["acme"]);
    assert_eq!(
        (fields_of(&answer, "server"), fields_of(&answer, "x-drop")),
        (vec!["ours".to_owned()], vec![])
    );
}

#[test]
fn a_path_that_leaves_its_route_is_refused_and_any_other_is_sent_as_it_was_matched() {
    let origin = OriginServer::ok();
    let mut api = route(&origin.url());
    api.path_prefix = "/pds/".into();
    api.rewrite_prefix = Some("/api/".into());
    let mut other = route(&origin.url());
    other.name = name("other");
    other.path_prefix = "/raw".into();
    let rig = Rig::start(vec![api, other]);
    let check = |path: &str, expected: Result<&str, u16>| {
        let before = origin.requests().len();
        let answer = rig.get(path, "");
        match expected {
            Ok(sent) => {
                assert_eq!(status(&answer), 200, "{path}: {answer}");
                let request = origin.requests().pop().expect("a request");
                assert_eq!(request.split(' ').nth(1), Some(sent), "{path}");
            }
            Err(expected) => {
                assert_eq!(status(&answer), expected, "{path}: {answer}");
                assert_eq!(origin.requests().len(), before, "{path}");
            }
        }
    };
    check("/pds/a?x=/../y%2e", Ok("/api/a?x=/../y%2e"));
    check("/pds/", Ok("/api/"));
    check("/pds//a", Ok("/api/a"));
    check("/pds/./a", Ok("/api/a"));
    check("/pds/x/../a", Ok("/api/a"));
    check("/x/../pds/a", Ok("/api/a"));
    check("/%70ds/a", Ok("/api/a"));
    check("/pds/group%2Fproject", Ok("/api/group%2Fproject"));
    check("/pds/a%2525", Ok("/api/a%2525"));
    check("/raw", Ok("/raw"));
    check("/raw/a%20b", Ok("/raw/a%20b"));
    check("/raw?q", Ok("/raw?q"));
    check("/rawx", Err(404));
    check("/pds", Err(404));
    check("/pds/../admin", Err(404));
    check("/pds/%2e%2e/admin", Err(400));
    check("/pds/.%2E/admin", Err(400));
    check("/pds/a/%2e%2e/%2e%2e/admin", Err(400));
    check("/pds/..%2fadmin", Err(400));
    check("/pds/a%2f..%2f..%2fadmin", Err(400));
    check("/pds/%2e%2e%5cadmin", Err(400));
    check("/pds/%252e%252e/admin", Err(400));
    check("/pds/..;/admin", Err(400));
    check("/raw/..%5c..%5cadmin", Err(400));
    check("/pds/a%00b", Err(400));
    check("/pds/a%0", Err(400));
    check("/pds/a%zz", Err(400));
    check("/pds/a\\b", Err(400));
    check(&format!("/raw/{}", "a".repeat(9000)), Err(414));
}

#[test]
fn a_method_asked_for_by_a_field_is_judged_as_the_method() {
    let origin = OriginServer::ok();
    let mut get = route(&origin.url());
    get.methods = vec![http::Method::GET, http::Method::POST];
    let rig = Rig::start(vec![get]);
    assert_eq!(status(&rig.get("/", "X-HTTP-Method-Override: DELETE\r\n")), 405);
    assert_eq!(status(&rig.get("/", "X-Method-Override: patch\r\n")), 405);
    assert_eq!(status(&rig.get("/", "X-HTTP-Method: post\r\n")), 200);
    let open = OriginServer::ok();
    let rig = Rig::to(&open);
    assert_eq!(status(&rig.get("/", "X-HTTP-Method-Override: PATCH\r\n")), 200);
    assert_eq!(fields_of(&open.request(), "x-http-method-override"), ["PATCH"]);
}

#[test]
fn a_request_that_was_here_before_is_refused() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    rig.get("/", "Via: 1.0 other, 1.1 somewhere\r\n");
    let vias = fields_of(&origin.request(), "via");
    assert_eq!(vias.len(), 2, "{vias:?}");
    let answer = rig.get("/", &format!("Via: 1.0 other\r\nVia: {}\r\n", vias[1]));
    assert_eq!(status(&answer), 508);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn nothing_of_a_request_is_echoed_in_an_error() {
    let origin = OriginServer::ok();
    let rig = Rig::to(&origin);
    let answer =
        rig.get("/<script>alert(1)</script>%zz?token=hunter2", "X-Request-Id: <b>\"\r\nCookie: hunter3\r\n");
    assert_eq!(status(&answer), 400);
    for part in ["script", "hunter", "<b>"] {
        assert!(!answer.contains(part), "{answer}");
    }
    let answer = rig.get("/%zz", "X-Request-Id: trace-7\r\n");
    assert_eq!(problem(&answer)["request_id"], "trace-7");
}

#[test]
fn an_answer_loses_what_is_meant_for_one_hop() {
    let origin = OriginServer::answering(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2\r\nProxy-Authenticate: Basic\r\nX-End: 2\r\nContent-Length: 2\r\n\r\nok",
    );
    let answer = Rig::to(&origin).get("/", "");
    for field in ["connection", "x-hop", "keep-alive", "upgrade", "proxy-authenticate"] {
        assert_eq!(fields_of(&answer, field), Vec::<String>::new(), "{answer}");
    }
    assert_eq!(fields_of(&answer, "x-end"), ["2"]);
}

#[test]
fn an_unasked_switch_of_protocols_is_not_passed_on() {
    let origin = OriginServer::scripted(|stream, _| {
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw");
        false
    });
    let answer = Rig::to(&origin).get("/", "Upgrade: x\r\n");
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(!answer.contains("raw"));
}
