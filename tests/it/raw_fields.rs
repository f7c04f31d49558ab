//! Fields of requests (RFC 9110, 5, 7.6 and 10.1): what is for one hop, what a client may not say of itself, what only
//! the proxy may say.

use crate::proxy_rig::TOKEN;
use crate::raw_rig::{Row, get, post, row, run};

fn syntax() -> Vec<Row> {
    let mut rows = Vec::new();
    for bad in [
        "NoColon",
        ": empty",
        "Bad Name: x",
        "Bad(Name: x",
        "Bad@Name: x",
        "Bad\"Name: x",
        "B\u{e9}: x",
        "X : x",
        "X\t: x",
        " X: x",
        "\tX: x",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X: a\0b",
        "X: a\u{1}b",
        "X: a\u{7f}b",
        "X: a\u{b}b",
        "X: a\rb",
        "X: a\r\rb",
        "X\r: a",
        "X\0: a",
        "X,Y: a",
        "X;Y: a",
        "{X}: a",
        "X: y\r\n: z",
        "=: x\r\n\r",
        "X[]: a",
    ] {
        rows.push(get(&format!("field {bad:?}"), &format!("{bad}\r\n")).closes(&[400]));
    }
    for (good, seen) in [
        ("X-A: b", "x-a: b\r\n"),
        ("X-A:b", "x-a: b\r\n"),
        ("X-A: \t b \t", "x-a: b\r\n"),
        ("X-A:", "x-a: \r\n"),
        ("X-A: a\tb", "x-a: a\tb\r\n"),
        ("X-A: \u{e9}", "x-a: \u{c3}\u{a9}\r\n"),
        ("X-A: a: b, c; d=\"e\"", "x-a: a: b, c; d=\"e\"\r\n"),
        ("X-A: 1\r\nX-A: 2", "x-a: 1\r\nx-a: 2\r\n"),
        ("!#$%&'*+-.^`|~: x", "!#$%&'*+-.^`|~: x\r\n"),
        ("X_Custom: 1", "x_custom: 1\r\n"),
        ("Cookie: a=b\r\nCookie: c=d", "a=b"),
        ("Accept-Encoding: gzip", "accept-encoding: gzip\r\n"),
        ("Range: bytes=0-1", "range: bytes=0-1\r\n"),
        ("If-None-Match: \"x\"", "if-none-match: \"x\"\r\n"),
        ("X-HTTP-Method-Override: PATCH", "x-http-method-override: PATCH\r\n"),
        ("User-Agent: a (b; c)", "user-agent: a (b; c)\r\n"),
    ] {
        rows.push(get(&format!("field {good:?}"), &format!("{good}\r\n")).passes().sees(seen));
    }
    rows.extend([
        get("bare line feeds", "X-A: 1\nX-B: 2\r\n").closes(&[400]),
        row("bare line feeds alone", "GET /x HTTP/1.1\nHost: localhost\n\n").closes(&[400]),
        row("a bare line feed at the end", "GET /x HTTP/1.1\r\nHost: localhost\r\n\n").closes(&[400]),
        get("as many as may be", &"X-A: 1\r\n".repeat(99)).passes(),
        get("one too many", &"X-A: 1\r\n".repeat(100)).closes(&[431]),
        get("a long one", &format!("X-A: {}\r\n", "a".repeat(30_000))).passes(),
        get("too long a one", &format!("X-A: {}\r\n", "a".repeat(33_000))).closes(&[431]),
        get("too long a name", &format!("X-{}: 1\r\n", "a".repeat(33_000))).closes(&[431]),
    ]);
    rows
}

fn hops() -> Vec<Row> {
    let gone = |lines: &str, absent: &[&str]| {
        let row = get(&format!("{lines:?}"), lines).passes();
        absent.iter().fold(row, |row, name| row.sees_not(&format!("\r\n{name}:")))
    };
    let mut rows = vec![
        gone("Connection: x-hop\r\nX-Hop: 1\r\n", &["connection", "x-hop"]),
        gone("Connection: X-HOP\r\nx-hop: 1\r\n", &["connection", "x-hop"]),
        gone("Connection:x-hop,x-b\r\nX-Hop: 1\r\nX-B: 1\r\n", &["x-hop", "x-b"]),
        gone("Connection: ,, x-hop\t,\r\nX-Hop: 1\r\n", &["x-hop"]),
        gone("Connection: x-a\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-A: 1\r\n", &["x-hop", "x-a"]),
        gone("Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-Hop: 2\r\n", &["x-hop"]),
        gone("Connection: x-api-key\r\nX-Api-Key: 1\r\n", &["x-api-key"]),
        gone("Connection: \u{e9}, x-hop\r\nX-Hop: 1\r\n", &["x-hop"]),
        gone(
            "Connection: connection, keep-alive\r\nKeep-Alive: timeout=9\r\n",
            &["connection", "keep-alive"],
        ),
        gone("Proxy-Connection: keep-alive\r\n", &["proxy-connection"]),
        gone("Proxy-Connection: x-hop\r\n", &["proxy-connection"]),
        gone("Keep-Alive: 300\r\n", &["keep-alive"]),
        gone("TE: trailers, deflate;q=0.5\r\n", &["keep-alive"]).sees_not("deflate"),
        gone("TE: gzip\r\nConnection: TE\r\n", &["te", "connection"]),
        gone("Trailer: x-sum\r\nConnection: trailer\r\n", &["connection"]),
        gone("Upgrade: websocket\r\n", &["upgrade", "connection"]),
        gone(
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            &["upgrade", "connection", "http2-settings"],
        ),
        gone("Upgrade: HTTP/2.0\r\nConnection: Upgrade\r\n", &["upgrade", "connection"]),
        gone("Upgrade: TLS/1.2\r\nConnection: Upgrade\r\n", &["upgrade", "connection"]),
        gone(
            "Upgrade: websocket, h2c\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
            &["upgrade", "connection"],
        ),
        gone("HTTP2-Settings: AAMAAABkAAQAAP__\r\n", &["http2-settings"]),
        gone("Proxy-Authorization: Basic eDp5\r\n", &["proxy-authorization"]),
        gone("Close: x\r\nConnection: keep-alive, x-a\r\n", &["close", "connection"]),
        get("few options", &format!("Connection: {}\r\n", vec!["x-a"; 32].join(","))).passes(),
        get("too many options", &format!("Connection: {}\r\n", vec!["x-a"; 33].join(","))).refused(),
    ];
    for ours in [
        "authorization",
        "host",
        "via",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "content-length",
        "AUTHORIZATION",
        "close, authorization",
    ] {
        let lines = format!("Connection: keep-alive, {ours}\r\n");
        let row = get(&format!("nominated {ours}"), &lines);
        let row = if ours.contains("close") { row.closes(&[200]) } else { row.passes() };
        rows.push(
            row.sees(&format!("authorization: Bearer {TOKEN}\r\n"))
                .sees("\r\nx-forwarded-for: 127.0.0.1\r\n")
                .sees("\r\nx-real-ip: 127.0.0.1\r\n")
                .sees("\r\nx-request-id: ")
                .sees("\r\nforwarded: for=127.0.0.1"),
        );
    }
    for kept in
        ["Cookie: a=b", "Cache-Control: no-cache", "Content-Type: text/plain", "Content-Encoding: gzip"]
    {
        let name = kept.split(':').next().unwrap_or_default();
        rows.push(
            get(&format!("nominated {name}"), &format!("Connection: {name}\r\n{kept}\r\n"))
                .passes()
                .sees(&kept.replace(name, &name.to_ascii_lowercase())),
        );
    }
    rows.push(
        post("a nominated length", "Connection: content-length\r\nContent-Length: 5\r\n", "hello")
            .passes()
            .sees("\r\n\r\nhello"),
    );
    rows
}

fn claims() -> Vec<Row> {
    let mut rows = Vec::new();
    for name in [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Ssl",
        "X-Forwarded-User",
        "X-Forwarded-Scheme",
        "X-Forwarded-Client-Cert",
        "X-FORWARDED-FOR",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "Forwarded",
    ] {
        rows.push(
            get(name, &format!("{name}: 6.6.6.6\r\n{name}: evil\r\n"))
                .passes()
                .sees_not("6.6.6.6")
                .sees_not("evil"),
        );
    }
    for alias in [
        "X_Forwarded_For",
        "X-Forwarded_For",
        "x_forwarded_host",
        "X_Forwarded-Proto",
        "X_Real_IP",
        "X_Real-IP",
        "Content_Length",
        "Transfer_Encoding",
        "Authorization_",
        "_Authorization",
        "Proxy_Authorization",
        "X_Request_Id",
        "X_Original_URL",
        "X-Rewrite_URL",
        "X_Forwarded_Anything",
        "Keep_Alive",
        "Proxy_Connection",
        "Http2_Settings",
        "X_HTTP_Method_Override",
    ] {
        let row = get(alias, &format!("{alias}: 6.6.6.6\r\n"));
        rows.push(match alias {
            // They stand for nothing that the proxy sets or trusts.
            "Authorization_"
            | "_Authorization"
            | "Keep_Alive"
            | "Proxy_Connection"
            | "Http2_Settings"
            | "X_HTTP_Method_Override" => row.passes(),
            _ => row.refused(),
        });
    }
    for lines in [
        "Authorization: Bearer stolen\r\n",
        "authorization: Bearer stolen\r\nAUTHORIZATION: Basic c3RvbGVu\r\n",
        "Authorization:\r\n",
        "Authorization: Bearer stolen, Bearer stolen\r\n",
        "Authorization:Bearer\tstolen\r\n",
        "Authorization: \u{e9}stolen\r\n",
        "Authorization: Negotiate stolen\r\nConnection: authorization\r\n",
        "DPoP: stolen\r\nAuthorization: DPoP stolen\r\n",
        "Proxy-Authorization: Basic stolen\r\n",
    ] {
        rows.push(get(&format!("{lines:?}"), lines).passes().sees_not("stolen").sees_not("dpop"));
    }
    rows.extend([
        get("a credential with a space in its name", "Authorization : Bearer stolen\r\n").closes(&[400]),
        get("a folded credential", "Authorization: Bearer\r\n stolen\r\n").closes(&[400]),
        get("a via before", "Via: 1.0 fred, 1.1 p.example\r\n")
            .passes()
            .sees("via: 1.0 fred, 1.1 p.example\r\nvia: 1.1 "),
        get("an id of the client", "X-Request-Id: abc-123\r\n").passes().sees("x-request-id: abc-123\r\n"),
        get("a bad id of the client", "X-Request-Id: a b<c>\r\n").passes().sees_not("<c>"),
        get("two ids of the client", "X-Request-Id: one\r\nX-Request-Id: two\r\n")
            .passes()
            .sees_not("one\r\nx-request-id: two"),
        get("a page of another origin", "Origin: https://evil.example\r\n").refused_with(403),
        get("a page of no origin", "Origin: null\r\n").refused_with(403),
        get("two origins", "Origin: http://localhost\r\nOrigin: https://evil.example\r\n").refused_with(403),
        get("a page across sites", "Sec-Fetch-Site: cross-site\r\n").refused_with(403),
        get("a page across sites, in capitals", "SEC-FETCH-SITE: CROSS-SITE\r\n").refused_with(403),
        get("a page of this site", "Sec-Fetch-Site: same-origin\r\n").passes(),
    ]);
    rows
}

fn expectations() -> Vec<Row> {
    let body = "Content-Length: 5\r\n";
    vec![
        post("the body comes along", &format!("Expect: 100-continue\r\n{body}"), "hello")
            .answers(&[100, 200])
            .sees("\r\n\r\nhello"),
        post("in capitals", &format!("EXPECT: 100-CONTINUE\r\n{body}"), "hello")
            .answers(&[100, 200])
            .sees("\r\n\r\nhello"),
        get("nothing to continue", "Expect: 100-continue\r\n").passes(),
        post("of HTTP/1.0", &format!("Expect: 100-continue\r\n{body}"), "hello")
            .by_http_1_0()
            .passes()
            .gets_not("100 continue")
            .sees_not("expect"),
        post("twice", &format!("Expect: 100-continue\r\nExpect: 100-continue\r\n{body}"), "hello")
            .answers(&[100, 200]),
        post(
            "with chunks",
            "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        )
        .answers(&[100, 200])
        .sees("5\r\nhello\r\n0\r\n\r\n"),
        post("an empty expectation", &format!("Expect:\r\n{body}"), "hello").refused_with(417),
        post("an expectation with a parameter", &format!("Expect: 100-continue;q=1\r\n{body}"), "hello")
            .refused_with(417),
        post("for a path that is refused", &format!("Expect: 100-continue\r\n{body}"), "")
            .at("/%00")
            .closes(&[400]),
        post("another expectation", &format!("Expect: 200-ok\r\n{body}"), "hello").refused_with(417),
        post("two expectations", &format!("Expect: 100-continue, x\r\n{body}"), "hello").refused_with(417),
    ]
}

/// Those that wait for nothing.
pub(crate) fn fields_at_once() -> Vec<Row> {
    [syntax(), hops(), claims()].concat()
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [syntax(), hops(), claims(), expectations()].concat()
}

#[test]
fn fields_are_strict() {
    run(syntax());
}

#[test]
fn what_is_for_one_hop_ends_here() {
    run(hops());
}

#[test]
fn a_client_says_nothing_of_itself() {
    run(claims());
}

#[test]
fn expectations_are_met_or_refused() {
    run(expectations());
}
