//! Messages behind each other on one connection, by either version (RFC 9112, 9), and what an answer says of itself to each
//! kind of request (RFC 9110, 6.4 and 8.6).

use crate::raw_rig::{Row, answered, get, post, row, run};

const HOST: &str = "Host: localhost\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
/// Never a request of its own.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The same as a body that goes on.
const INSIDE: &str = "GET /inside HTTP/1.1\r\nHost: localhost\r\n\r\n";
const BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn pipelines() -> Vec<Row> {
    let good = |path: &str| format!("GET {path} HTTP/1.1\r\n{HOST}\r\n");
    let posted = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let chunked = |path: &str, body: &str| {
        format!("PUT {path} HTTP/1.1\r\n{HOST}{CHUNKED}\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
    };
    let between = |what: &str, middle: &str, status: u16| {
        row(what, format!("{}{middle}{}", good("/1"), good("/3")))
            .answers(&[200, status, 200])
            .sees("GET /3 ")
    };
    let ends = |what: &str, middle: &str, status: u16| {
        row(what, format!("{}{middle}{HIDDEN}", good("/1"))).closes(&[200, status]).sees("GET /1 ")
    };
    let first = |what: &str, head: &str, status: u16| row(what, format!("{head}{HIDDEN}")).closes(&[status]);
    let mut rows = vec![
        row("fifty at once", (0..50).map(|number| good(&format!("/{number}"))).collect::<String>())
            .answers(&[200; 50])
            .sees("GET /49 "),
        row(
            "fifty bodies at once",
            (0..50).map(|number| posted(&format!("/{number}"), &"b".repeat(1000))).collect::<String>(),
        )
        .answers(&[200; 50])
        .sees("POST /49 "),
        row(
            "fifty chunked bodies at once",
            (0..50).map(|number| chunked(&format!("/{number}"), &"b".repeat(1000))).collect::<String>(),
        )
        .answers(&[200; 50])
        .sees("PUT /49 "),
        row(
            "each kind at once",
            format!(
                "{}{}{}{}{}",
                good("/1"),
                posted("/2", "x"),
                chunked("/3", "y"),
                posted("/4", ""),
                good("/5")
            ),
        )
        .answers(&[200; 5])
        .sees("GET /5 "),
        row("HEAD between two", format!("{}HEAD /2 HTTP/1.1\r\n{HOST}\r\n{}", good("/1"), good("/3")))
            .head_at(1)
            .answers(&[200; 3])
            .sees("HEAD /2 ")
            .sees("GET /3 "),
        between("another host between two", &good("/2").replace("localhost", "evil.example"), 421),
        between("a bad path between two", &good("/%00"), 400),
        between("TRACE between two", "TRACE /2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        between(
            "a page of another origin between two",
            &good("/2").replace("\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n"),
            403,
        ),
        between("a long target between two", &good(&format!("/{}", "a".repeat(9000))), 414),
        between("OPTIONS * between two", &format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n"), 204),
        between("a refused body between two", &posted("/%00", HIDDEN), 400),
        between("a refused chunked body between two", &chunked("/%00", HIDDEN), 400),
        between(
            "a body of many chunks between two",
            &format!("PUT /2 HTTP/1.1\r\n{HOST}{CHUNKED}\r\n1\r\na\r\n2\r\nbc\r\n00\r\nX: y\r\n\r\n"),
            200,
        ),
        ends("a bad name behind a good one", &format!("GET /2 HTTP/1.1\r\n{HOST}B@d: x\r\n\r\n"), 400),
        ends(
            "a space before the colon behind a good one",
            &format!("GET /2 HTTP/1.1\r\n{HOST}X : x\r\n\r\n"),
            400,
        ),
        ends("a fold behind a good one", &format!("GET /2 HTTP/1.1\r\n{HOST}X: x\r\n y\r\n\r\n"), 400),
        ends("another version behind a good one", &format!("GET /2 HTTP/2.0\r\n{HOST}\r\n"), 400),
        ends("HTTP/0.9 behind a good one", "GET /2\r\n", 400),
        ends("a bare line feed behind a good one", &format!("GET /2 HTTP/1.1\n{HOST}\r\n"), 400),
        ends(
            "a coding that is none behind a good one",
            &format!("POST /2 HTTP/1.1\r\n{HOST}Transfer-Encoding: x\r\n\r\n"),
            400,
        ),
        ends(
            "both framings behind a good one",
            &format!("POST /2 HTTP/1.1\r\n{HOST}Content-Length: 5\r\n{CHUNKED}\r\n0\r\n\r\n"),
            400,
        ),
        ends(
            "two lengths behind a good one",
            &format!("POST /2 HTTP/1.1\r\n{HOST}Content-Length: 5\r\nContent-Length: 0\r\n\r\n"),
            400,
        ),
        ends(
            "a coding by HTTP/1.0 behind a good one",
            &format!("POST /2 HTTP/1.0\r\n{HOST}{CHUNKED}\r\n0\r\n\r\n"),
            400,
        ),
        ends(
            "too many fields behind a good one",
            &format!("GET /2 HTTP/1.1\r\n{HOST}{}\r\n", "X: y\r\n".repeat(200)),
            431,
        ),
        ends(
            "too long a field behind a good one",
            &format!("GET /2 HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "y".repeat(40_000)),
            431,
        ),
        ends("HTTP/1.0 behind a good one", &format!("GET /2 HTTP/1.0\r\n{HOST}\r\n"), 200),
        ends(
            "a close behind a good one",
            &format!("GET /2 HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"),
            200,
        ),
        first("a bad one first", &format!("GET /1 HTTP/1.1\r\n{HOST}B@d: x\r\n\r\n"), 400),
        first(
            "both framings first",
            &format!("POST /1 HTTP/1.1\r\n{HOST}Content-Length: 5\r\n{CHUNKED}\r\n0\r\n\r\n"),
            400,
        ),
        first(
            "a close that is refused",
            &format!("GET /%00 HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"),
            400,
        ),
        first(
            "a close for another host",
            "GET /1 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
            421,
        ),
        first(
            "a refused body with bad chunks",
            &format!("POST /%00 HTTP/1.1\r\n{HOST}{CHUNKED}\r\nzz\r\n"),
            400,
        )
        .unsaid(),
        first(
            "a refused body whose chunk has no end",
            &format!("POST /%00 HTTP/1.1\r\n{HOST}{CHUNKED}\r\n1\r\nab\r\n"),
            400,
        )
        .unsaid(),
        row("no Host behind a good one", format!("{}GET /2 HTTP/1.1\r\n\r\n", good("/1")))
            .answers(&[200, 400])
            .sees_not("/2"),
        row("an answer that closes, between two", format!("{}{}", good("/1"), good("/2")))
            .with_answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .answers(&[200, 200])
            .sees("GET /2 "),
        row("a 204 between two", format!("{}{}", good("/1"), good("/2")))
            .with_answer("HTTP/1.1 204 x\r\n\r\n")
            .answers(&[204, 200])
            .sees("GET /2 "),
        row("a 304 between two", format!("{}{}", good("/1"), good("/2")))
            .with_answer("HTTP/1.1 304 x\r\nContent-Length: 70\r\n\r\n")
            .answers(&[304, 200])
            .sees("GET /2 "),
        row("a chunked answer between two", format!("{}{}", good("/1"), good("/2")))
            .with_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .answers(&[200, 200])
            .gets("3\r\nabc\r\n0\r\n\r\n"),
    ];
    for method in ["DELETE", "OPTIONS", "PATCH", "PROPFIND", "HEAD", "GET", "SEARCH", "QUERY"] {
        let with = |what: &str, lines: &str, body: &str| {
            let row = row(what, format!("{method} /1 HTTP/1.1\r\n{HOST}{lines}\r\n{body}{}", good("/2")));
            let row = if method == "HEAD" { row.head_at(0) } else { row };
            row.answers(&[200, 200]).sees(&format!("{method} /1 ")).sees("GET /2 ")
        };
        rows.push(
            with(
                &format!("{method} with a length"),
                &format!("Content-Length: {}\r\n", INSIDE.len()),
                INSIDE,
            )
            .sees(INSIDE),
        );
        rows.push(
            with(
                &format!("{method} with chunks"),
                CHUNKED,
                &format!("{:x}\r\n{INSIDE}\r\n0\r\n\r\n", INSIDE.len()),
            )
            .sees(INSIDE),
        );
        rows.push(with(&format!("{method} without a body"), "", ""));
    }
    rows
}

fn tunnels() -> Vec<Row> {
    // What a client sends behind a CONNECT may be for the tunnel that it did not get (RFC 9931).
    let refused = |target: &str, lines: &str| {
        row(
            &format!("CONNECT {target} {lines:?}"),
            format!("CONNECT {target} HTTP/1.1\r\n{HOST}{lines}\r\n{HIDDEN}"),
        )
    };
    vec![
        refused("localhost:443", "").closes(&[405]),
        refused("localhost:443", "Content-Length: 0\r\n").closes(&[405]),
        refused("evil.example:443", "Connection: keep-alive\r\n").closes(&[405]),
        row("an upgrade by HTTP/1.0", format!("GET /1 HTTP/1.0\r\n{HOST}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n{HIDDEN}"))
            .closes(&[200])
            .sees_not("upgrade"),
        get("an upgrade that the upstream leaves aside", "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")
            .passes(),
        get("an upgrade to HTTP/2", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")
            .passes()
            .gets_not("101 "),
        row("half a preface", "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n").closes(&[400]),
        row("a preface of another version", "PRI * HTTP/1.1\r\nHost: localhost\r\n\r\n").refused(),
        row("a preface with a field", "PRI * HTTP/2.0\r\nHost: localhost\r\n\r\n").closes(&[400]),
        row("a star for GET", "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n").refused(),
        row("a star with a query", "OPTIONS *?x HTTP/1.1\r\nHost: localhost\r\n\r\n").refused(),
        row("a star without a host", "OPTIONS * HTTP/1.1\r\n\r\n").refused(),
        row("an authority for GET", "GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n").refused(),
    ]
}

fn versions() -> Vec<Row> {
    let old = |what: &str, lines: &str| row(what, format!("GET /1 HTTP/1.0\r\n{HOST}{lines}\r\n"));
    vec![
        old("HTTP/1.0", "").closes(&[200]).sees("GET /1 HTTP/1.1\r\n").sees("\r\nvia: 1.0 "),
        old("HTTP/1.0 with a close", "Connection: close\r\n").closes(&[200]),
        old("HTTP/1.0 with both", "Connection: keep-alive, close\r\n").closes(&[200]),
        old("HTTP/1.0 with both on two lines", "Connection: keep-alive\r\nConnection: close\r\n")
            .closes(&[200]),
        old("HTTP/1.0 with another option", "Connection: x-hop\r\nX-Hop: 1\r\n")
            .closes(&[200])
            .sees_not("x-hop"),
        old("HTTP/1.0 with a proxy's option", "Proxy-Connection: keep-alive\r\n").closes(&[200]),
        old("HTTP/1.0 kept, in capitals", "CONNECTION: KEEP-ALIVE\r\n")
            .passes()
            .gets("connection: keep-alive"),
        old("HTTP/1.0 kept among others", "Connection: x-hop, keep-alive\r\nX-Hop: 1\r\n")
            .passes()
            .sees_not("x-hop")
            .gets("connection: keep-alive"),
        old("HTTP/1.0 kept for a 204", "Connection: keep-alive\r\n")
            .with_answer("HTTP/1.1 204 x\r\n\r\n")
            .answers(&[204])
            .gets("connection: keep-alive"),
        old("HTTP/1.0 kept for a 304", "Connection: keep-alive\r\n")
            .with_answer("HTTP/1.1 304 x\r\n\r\n")
            .answers(&[304])
            .gets("connection: keep-alive"),
        old("HTTP/1.0 kept and refused", "Connection: keep-alive\r\nOrigin: https://evil.example\r\n")
            .answers(&[403])
            .gets("connection: keep-alive"),
        row(
            "HTTP/1.0 with a body",
            format!(
                "POST /1 HTTP/1.0\r\n{HOST}Connection: keep-alive\r\nContent-Length: {}\r\n\r\n{INSIDE}",
                INSIDE.len()
            ),
        )
        .answers(&[200])
        .sees(INSIDE),
        row(
            "HTTP/1.0 with two lengths",
            format!("POST /1 HTTP/1.0\r\n{HOST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        )
        .closes(&[400]),
        row(
            "HTTP/1.0 with both framings",
            format!("POST /1 HTTP/1.0\r\n{HOST}Content-Length: 5\r\n{CHUNKED}\r\n0\r\n\r\n{HIDDEN}"),
        )
        .closes(&[400]),
        row("HEAD by HTTP/1.0", format!("HEAD /1 HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n"))
            .with_answer("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n")
            .answers(&[200])
            .gets("content-length: 70\r\n"),
        row(
            "HTTP/1.1 behind HTTP/1.0",
            format!("GET /1 HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\nGET /2 HTTP/1.1\r\n{HOST}\r\n"),
        )
        .answers(&[200, 200])
        .sees("via: 1.0 ")
        .sees("via: 1.1 "),
        old("103 is not for HTTP/1.0", "Connection: keep-alive\r\n")
            .with_answer(format!("HTTP/1.1 103 x\r\nX-Interim: 1\r\n\r\n{BODY}"))
            .answers(&[200])
            .gets_not("x-interim"),
        old("an absolute target by HTTP/1.0", "Connection: keep-alive\r\n")
            .at_target("http://localhost/abs")
            .passes()
            .sees("GET /abs HTTP/1.1\r\n"),
        old("another host by HTTP/1.0", "Connection: keep-alive\r\n")
            .at_target("http://evil.example/")
            .answers(&[421]),
        get("kept", "Connection: keep-alive\r\n").passes().gets_not("connection: close\r\n\r\nok"),
        get("an answer's own close", "")
            .with_answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .passes(),
        get("closed by a word in a list", "Connection: x, y , cLoSe\r\n").closes(&[200]),
        get("not closed by a part of a word", "Connection: closed, xclose, close-not\r\n").passes(),
        get("not closed by a quoted word", "Connection: \"close\"\r\n").passes(),
        get("a proxy's option does not close", "Proxy-Connection: close\r\n").passes(),
    ]
}

fn answers() -> Vec<Row> {
    let of = |what: &str, answer: &str| answered(what, answer, false).answers(&[200]);
    let head = |what: &str, answer: &str| of(what, answer).by("HEAD");
    vec![
        of("a date of the upstream", "HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 0\r\n\r\n")
            .gets("date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"),
        of("no date of the upstream", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").gets(" GMT\r\n"),
        of("a server of the upstream", "HTTP/1.1 200 OK\r\nServer: x/1\r\nContent-Length: 0\r\n\r\n").gets("server: x/1\r\n"),
        head("HEAD without a length", "HTTP/1.1 200 OK\r\n\r\n").gets_not("content-length: 0"),
        head("HEAD with length 0", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").gets("content-length: 0\r\n"),
        head("HEAD with a great length", "HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n").gets("content-length: 9999999999\r\n"),
        head("HEAD with two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n").answers(&[502]),
        answered("HEAD of what is not there", "HTTP/1.1 404 x\r\nContent-Length: 9\r\n\r\n", false).by("HEAD").answers(&[404]).gets("content-length: 9\r\n"),
        answered("HEAD of what has moved", "HTTP/1.1 302 x\r\nLocation: /y\r\nContent-Length: 9\r\n\r\n", false).by("HEAD").answers(&[302]),
        get("HEAD of a bad path", "").by("HEAD").at("/%00").answers(&[400]).gets("content-length: "),
        get("HEAD of another host", "").by("HEAD").at("http://evil.example/").answers(&[421]).gets("content-length: "),
        get("HEAD of a long target", "").by("HEAD").at(&format!("/{}", "a".repeat(9000))).answers(&[414]),
        get("HEAD from another origin", "Origin: https://evil.example\r\n").by("HEAD").answers(&[403]),
        answered("HEAD and nothing from the upstream", "nonsense\r\n\r\n", true).by("HEAD").answers(&[502]).gets("content-length: "),
        answered("a 200 to DELETE", BODY, false).by("DELETE").answers(&[200]).gets("hello"),
        answered("a 204 to DELETE", "HTTP/1.1 204 x\r\n\r\n", false).by("DELETE").answers(&[204]),
        answered("a 304 with its length", "HTTP/1.1 304 x\r\nETag: \"a\"\r\nContent-Length: 70\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\n\r\n", false)
            .answers(&[304])
            .gets("etag: \"a\"\r\n"),
        answered("a 304 with chunks", "HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n", false).answers(&[304]).gets_not("0\r\n\r\nhttp"),
        answered("a 205 without a length", "HTTP/1.1 205 x\r\n\r\n", true).answers(&[205]),
        answered("an empty answer to its end", "HTTP/1.1 200 OK\r\n\r\n", true).answers(&[200]),
        answered("an empty chunked answer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false).answers(&[200]),
        answered("a reason that says another thing", "HTTP/1.1 200 HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", false).answers(&[200]),
        answered("a body like an answer", "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n.", false)
            .answers(&[200])
            .gets("HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n."),
        answered("a close-delimited answer to POST", "HTTP/1.1 200 OK\r\n\r\nhello", true).by("POST").answers(&[200]).gets("5\r\nhello\r\n0\r\n\r\n"),
        answered("a length to a client of HTTP/1.0", BODY, false).by_http_1_0().answers(&[200]).gets("content-length: 5\r\n").gets("connection: keep-alive"),
        answered("a truncated answer to a client of HTTP/1.0", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", true).by_http_1_0().breaks_off(),
        post("an answer with trailers to a client of HTTP/1.0", "TE: trailers\r\n", "")
            .by_http_1_0()
            .with_answer("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
            .closes(&[200])
            .gets("\r\n\r\nhello")
            .gets_not("x-sum: 1"),
    ]
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [pipelines(), tunnels(), versions(), answers()].concat()
}

#[test]
fn pipelined_requests_are_judged_each_by_itself() {
    run(pipelines());
}

#[test]
fn nothing_switches_that_may_not() {
    run(tunnels());
}

#[test]
fn each_version_keeps_or_closes_as_it_says() {
    run(versions());
}

#[test]
fn an_answer_says_of_itself_what_its_request_allows() {
    run(answers());
}
