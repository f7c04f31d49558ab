//! Rows of raw bytes for routes that say more than where they lead (RFC 9110, 7.6 and 9): prefixes, methods, fields.

use bearward::route::RouteConfig;
use http::{HeaderName, HeaderValue, Method};

use crate::proxy_rig::{name, route};
use crate::raw_rig::{Row, get, row, run_with};

/// `/ro/` for GET and POST alone, `/pds/` and `/v1` in the places of others, `/set/` with fields of its own, and the rest.
fn routes(upstream: &str) -> Vec<RouteConfig> {
    let at = |text: &str, prefix: &str| {
        let mut route = route(upstream);
        route.name = name(text);
        prefix.clone_into(&mut route.path_prefix);
        route
    };
    let mut few = at("few", "/ro/");
    few.methods = vec![Method::GET, Method::POST];
    let mut slashed = at("slashed", "/pds/");
    slashed.rewrite_prefix = Some("/api/".into());
    let mut bare = at("bare", "/v1");
    bare.rewrite_prefix = Some("/v2".into());
    let mut own = at("own", "/set/");
    let tenant = HeaderName::from_static("x-prime-tenant");
    own.request_headers.set = vec![(tenant, HeaderValue::from_static("acme"))];
    own.request_headers.add = vec![(HeaderName::from_static("x-added"), HeaderValue::from_static("ours"))];
    own.request_headers.remove = vec![HeaderName::from_static("x-debug-me")];
    vec![few, slashed, bare, own, at("rest", "/")]
}

fn at(path: &str) -> Row {
    row(&format!("path {path:?}"), format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn prefixes() -> Vec<Row> {
    let mut rows = Vec::new();
    for (sent, seen) in [
        ("/pds/a", "/api/a"),
        ("/pds/", "/api/"),
        ("/pds/?q", "/api/?q"),
        ("/pds//a", "/api/a"),
        ("/pds///", "/api//"),
        ("/pds/./a", "/api/a"),
        ("/pds/a/../b", "/api/b"),
        ("/%70ds/a", "/api/a"),
        ("/x/../pds/a", "/api/a"),
        ("/pds/a?b=/../c", "/api/a?b=/../c"),
        ("/pds/a%2Fb", "/api/a%2Fb"),
        ("/pds/a%2f..%2fb", "/api/a%2f..%2fb"),
        ("/pds/..a", "/api/..a"),
        ("/pds/a;v=1/b", "/api/a;v=1/b"),
        // Out of the prefix before it is matched: another route's.
        ("/pds", "/pds"),
        ("/pdsx/a", "/pdsx/a"),
        ("/PDS/a", "/PDS/a"),
        ("//pd/a", "//pd/a"),
        ("/pd;x/pds/a", "/pd;x/pds/a"),
        ("/x%2f..%2fpd", "/x%2f..%2fpd"),
        ("/x/%2e%2e/pd", "/x/%2e%2e/pd"),
        ("/pds/..", "/"),
        ("/pds/../x", "/x"),
        ("/pds/a/../../x", "/x"),
        ("/v1", "/v2"),
        ("/v1/", "/v2/"),
        ("/v1/a", "/v2/a"),
        ("/v1//a", "/v2//a"),
        ("/v1?q", "/v2?q"),
        ("/v1x", "/v1x"),
        ("/ro/../v1", "/v2"),
    ] {
        rows.push(at(sent).passes().sees(&format!("GET {seen} HTTP/1.1\r\n")));
    }
    for bad in [
        "/pds/..%2fx",
        "/pds/%2e%2e/x",
        "/pds/.%2e/x",
        "/pds/%2E%2E%5cx",
        "/pds/..%5Cx",
        "/pds/a/%2e%2e/%2e%2e/x",
        "/pds/..;/x",
        "/pds/%252e%252e/x",
        "/pds/%2f..%2f..%2fx",
        "/v1/%2e%2e/x",
        "/v1/..%2f..%2fx",
        "/ro/%2e%2e/pds/a",
        // In another route for a server that decodes, merges or drops what this proxy leaves as it is.
        "//pds/a",
        "/x/..//pds/a",
        "/pds;x/a",
        "/;x/pds/a",
        "/pds%2fa",
        "/pds%252fa",
        "/v1%2fa",
        "/v1;x",
        "/x/%2e%2e/pds/a",
        "/%2e/pds/a",
        "/x%2f..%2fpds/a",
        "/x%2f%2e%2e%2fpds%2fa",
        "/x%5c..%5cpds%5ca",
        "/x/..%5cpds/a",
        "/x/..;/pds/a",
        "/pds%2f..;/x",
        "/x;%2f..%2f..%2fpds/a",
    ] {
        rows.push(at(bad).refused());
    }
    rows.push(at("/pds/a").passes().sees("x-forwarded-prefix: /pds\r\n"));
    rows.push(at("/v1/a").passes().sees("x-forwarded-prefix: /v1\r\n"));
    rows
}

fn methods() -> Vec<Row> {
    let few = |method: &str, lines: &str| {
        let what = format!("{method} {lines:?}");
        row(&what, format!("{method} /ro/x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"))
    };
    let mut rows = vec![
        few("GET", "").passes(),
        few("POST", "").passes(),
        few("OPTIONS", "Max-Forwards: 0\r\n").answers(&[405]),
    ];
    for method in ["HEAD", "PUT", "DELETE", "OPTIONS", "get", "Post", "GETX", "PATCH"] {
        rows.push(few(method, "").answers(&[405]).gets("allow: GET, POST\r\n"));
    }
    for path in ["//ro/x", "/x/%2e%2e/ro/x", "/ro%2fx", "/ro;a/x"] {
        rows.push(
            row(&format!("DELETE {path}"), format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                .refused(),
        );
    }
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "x_http_method_override",
        "X_HTTP-METHOD",
    ] {
        rows.push(few("POST", &format!("{name}: DELETE\r\n")).answers(&[405]));
        rows.push(few("POST", &format!("{name}: get\r\n")).passes());
        rows.push(few("POST", &format!("{name}: GET\r\n{name}: DELETE\r\n")).answers(&[405]));
        rows.push(
            row(
                &format!("{name} elsewhere"),
                format!("POST /x HTTP/1.1\r\nHost: localhost\r\n{name}: PATCH\r\n\r\n"),
            )
            .passes()
            .sees(": PATCH\r\n"),
        );
    }
    rows
}

fn fields() -> Vec<Row> {
    let own = |lines: &str| get(&format!("{lines:?}"), lines).at("/set/x");
    let mut rows = vec![
        own("X-Prime-Tenant: evil\r\n").passes().sees("x-prime-tenant: acme\r\n").sees_not("evil"),
        own("X-Prime-Tenant: evil\r\nX-PRIME-TENANT: evil\r\n").passes().sees_not("evil"),
        own("Connection: x-prime-tenant\r\nX-Prime-Tenant: evil\r\n")
            .passes()
            .sees("x-prime-tenant: acme\r\n")
            .sees_not("evil"),
        own("X-Added: theirs\r\n").passes().sees("x-added: theirs\r\nx-added: ours\r\n"),
        own("X-Debug-Me: evil\r\n").passes().sees_not("evil"),
        own("X_Other: 1\r\n").passes().sees("x_other: 1\r\n"),
    ];
    for alias in ["X_Prime_Tenant", "X-Prime_Tenant", "x_prime-tenant", "X_Debug_Me", "X_Added"] {
        rows.push(own(&format!("{alias}: evil\r\n")).refused());
        rows.push(get(&format!("{alias} elsewhere"), &format!("{alias}: 1\r\n")).passes());
    }
    rows
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [prefixes(), methods(), fields()].concat()
}

#[test]
fn a_prefix_is_cut_off_where_it_was_matched() {
    run_with(prefixes(), routes);
}

#[test]
fn a_method_is_judged_however_it_is_said() {
    run_with(methods(), routes);
}

#[test]
fn a_routes_own_fields_are_nobody_elses() {
    run_with(fields(), routes);
}
