//! What a peer says of its client: kept of a trusted proxy, deleted of anyone else.

use bearward::listener::Limits;
use bearward::policy::trusted::{TrustedPeer, TrustedProxies};

use crate::proxy_rig::{OriginServer, Rig, TOKEN, field_of, fields_of, route, status};

fn rig(origin: &OriginServer, trusted: &[&str]) -> Rig {
    let peers = trusted.iter().map(|network| TrustedPeer::Network(network.parse().expect("a network")));
    let trusted = TrustedProxies::new(peers.collect());
    let mut cut = route(&origin.url());
    cut.path_prefix = "/pds/".into();
    cut.rewrite_prefix = Some("/api/".into());
    let limits = Limits { workers: Some(1), ..Limits::default() };
    Rig::start_changed(vec![cut], limits, |listener| listener.trusted_proxies = trusted)
}

/// Every field that tells of a client.
const TOLD: [&str; 7] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-forwarded-prefix",
    "x-forwarded-port",
];

/// Sends these lines; the values of [`TOLD`] that the origin then sees.
fn told(rig: &Rig, origin: &OriginServer, lines: &[&str]) -> Vec<String> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let answer = rig.get("/pds/x", &lines);
    assert_eq!(status(&answer), 200, "{lines}: {answer}");
    let request = origin.requests().pop().expect("a request");
    assert_eq!(field_of(&request, "authorization"), Some(format!("Bearer {TOKEN}")));
    TOLD.iter().map(|name| fields_of(&request, name).join(" AND ")).collect()
}

#[test]
fn a_trusted_proxy_is_added_to_what_it_says() {
    let origin = OriginServer::ok();
    let rig = rig(&origin, &["127.0.0.0/8"]);
    let own = "for=127.0.0.1;proto=http;host=\"localhost\"";
    let check = |lines: &[&str], expected: [&str; 7]| {
        let expected = expected.map(|value| value.replace("OWN", own));
        assert_eq!(told(&rig, &origin, lines), expected, "{lines:?}");
    };
    check(&[], ["OWN", "127.0.0.1", "localhost", "http", "127.0.0.1", "/pds", ""]);
    check(
        &[
            "X-Forwarded-For: 203.0.113.7",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: shop.example",
            "X-Forwarded-Port: 443",
            "X-Forwarded-Prefix: /outer",
            "X-Real-IP: 203.0.113.7",
        ],
        [
            "for=203.0.113.7;proto=https;host=\"shop.example\", OWN",
            "203.0.113.7, 127.0.0.1",
            "shop.example",
            "https",
            "203.0.113.7",
            "/outer/pds",
            "443",
        ],
    );
    check(
        &["Forwarded: for=203.0.113.7;proto=https", "Forwarded: for=\"[2001:db8::1]\""],
        [
            "for=203.0.113.7;proto=https, for=\"[2001:db8::1]\", OWN",
            "203.0.113.7, 2001:db8::1, 127.0.0.1",
            "localhost",
            "https",
            "2001:db8::1",
            "/pds",
            "",
        ],
    );
    // The Connection field cannot take them away (RFC 9110, 7.6.1).
    check(
        &["Connection: x-forwarded-for, x-real-ip, forwarded", "X-Forwarded-For: 203.0.113.7"],
        ["for=203.0.113.7, OWN", "203.0.113.7, 127.0.0.1", "localhost", "http", "203.0.113.7", "/pds", ""],
    );
    // What cannot be read would swallow what is added to it.
    check(
        &["Forwarded: for=\"203.0.113.7", "X-Forwarded-For: \"203", "X-Forwarded-Prefix: //evil.example"],
        ["OWN", "127.0.0.1", "localhost", "http", "127.0.0.1", "/pds", ""],
    );
}

#[test]
fn the_word_of_anyone_else_never_reaches_the_origin() {
    let origin = OriginServer::ok();
    let rig = rig(&origin, &["10.0.0.0/8", "2001:db8::/32"]);
    let expected = [
        "for=127.0.0.1;proto=http;host=\"localhost\"",
        "127.0.0.1",
        "localhost",
        "http",
        "127.0.0.1",
        "/pds",
        "",
    ];
    for lines in [
        &["X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 10.0.0.2"][..],
        &["Forwarded: for=10.0.0.1;proto=https;host=evil.example"],
        &["x-forwarded-proto: https", "X-FORWARDED-HOST: evil.example", "X-Forwarded-Port: 443"],
        &["X-Real-IP: 10.0.0.1", "X-Forwarded-Prefix: /evil"],
        &["Connection: x-forwarded-for", "X-Forwarded-For: 10.0.0.1"],
    ] {
        assert_eq!(told(&rig, &origin, lines), expected, "{lines:?}");
    }
    for line in ["X_Forwarded_For: 10.0.0.1", "X-Forwarded_For: 10.0.0.1", "X_Real_IP: 10.0.0.1"] {
        assert_eq!(status(&rig.get("/pds/x", &format!("{line}\r\n"))), 400, "{line}");
    }
}

#[test]
fn a_name_with_underscores_is_no_field_of_a_trusted_proxy_either() {
    let origin = OriginServer::ok();
    let rig = rig(&origin, &["127.0.0.1/32"]);
    for line in ["X_Forwarded_For: 10.0.0.1", "X-Forwarded_For: 10.0.0.1", "X_Real_IP: 10.0.0.1"] {
        assert_eq!(status(&rig.get("/pds/x", &format!("{line}\r\n"))), 400, "{line}");
    }
}

#[test]
fn only_a_trusted_proxy_may_name_an_https_target_in_cleartext() {
    let origin = OriginServer::ok();
    let request = "GET https://localhost/pds/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status(&rig(&origin, &["127.0.0.1/32"]).send(request)), 200);
    assert_eq!(status(&rig(&origin, &[]).send(request)), 400);
}
