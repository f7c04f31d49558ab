//! Answers of upstreams (RFC 9112, 4 and 6; RFC 9110, 8.6 and 15): one reading of each, truncation shown, nothing left over.

use crate::raw_rig::{Row, answered, run};

/// An answer that a later request must never get.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn ok(what: &str, lines: &str, body: &str) -> Row {
    answered(what, format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}"), false).answers(&[200])
}

fn bad(what: &str, lines: &str, body: &str) -> Row {
    answered(what, format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}"), true)
        .answers(&[502])
        .gets_not("poison")
        .keeps_upstream(false)
}

fn framing() -> Vec<Row> {
    let mut rows = Vec::new();
    for length in [
        "+5",
        "-1",
        "5, 6",
        "5 5",
        "0x5",
        "5.0",
        "five",
        "5;",
        "18446744073709551616",
        "18446744073709551621",
        "\"5\"",
        "5,",
        "",
    ] {
        rows.push(bad(&format!("length {length:?}"), &format!("Content-Length: {length}\r\n"), "hello"));
    }
    for coding in [
        "xchunked",
        "gzip",
        "identity",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked, identity",
        "identity, chunked",
        "\"chunked\"",
        "chunked;x",
        "chunked,",
        ",chunked",
        "",
    ] {
        rows.push(bad(
            &format!("coding {coding:?}"),
            &format!("Transfer-Encoding: {coding}\r\n"),
            "5\r\nhello\r\n0\r\n\r\n",
        ));
    }
    rows.extend([
        bad("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"),
        bad("two lengths apart", "Content-Length: 0\r\nX: y\r\nContent-Length: 5\r\n", "hello"),
        bad(
            "two codings",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        bad(
            "chunked twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        answered(
            "a coding by HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            true,
        )
        .answers(&[502]),
        ok("equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n", "hello")
            .gets("hello")
            .gets_not("5, 5"),
        ok("a list of equal lengths", "Content-Length: 5, 5\r\n", "hello").gets("hello").gets_not("5, 5"),
        ok("leading zeros", "Content-Length: 0005\r\n", "hello").gets("content-length: 5\r\n").gets("hello"),
        ok(
            "both framings",
            "Content-Length: 99\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        )
        .gets("hello")
        .gets_not("content-length: 99")
        .keeps_upstream(false),
        ok(
            "both framings, the other way",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        )
        .gets("hello")
        .gets_not("content-length: 1")
        .keeps_upstream(false),
        ok("chunked in capitals", "TRANSFER-ENCODING: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n")
            .gets("5\r\nhello\r\n"),
        ok("an extension", "Transfer-Encoding: chunked\r\n", "5;secret=1\r\nhello\r\n0;x\r\n\r\n")
            .gets_not("secret"),
        ok(
            "a trailer that nobody takes",
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        )
        .gets_not("x-sum"),
        ok("chunked, but HEAD", "Transfer-Encoding: chunked\r\n", "")
            .by("HEAD")
            .gets_not("content-length: 0"),
        ok("length, but HEAD", "Content-Length: 500\r\n", "").by("HEAD").gets("content-length: 500\r\n"),
        ok("a body, but HEAD", "Content-Length: 67\r\n", POISON)
            .by("HEAD")
            .gets_not("poison")
            .keeps_upstream(false),
        ok("what lies behind the end", "Content-Length: 2\r\n", &format!("ok{POISON}"))
            .gets_not("poison")
            .keeps_upstream(false),
        ok(
            "what lies behind the last chunk",
            "Transfer-Encoding: chunked\r\n",
            &format!("2\r\nok\r\n0\r\n\r\n{POISON}"),
        )
        .gets_not("poison")
        .keeps_upstream(false),
        ok("length 0", "Content-Length: 0\r\n", "").gets("content-length: 0\r\n").keeps_upstream(true),
        answered("to its end", "HTTP/1.1 200 OK\r\n\r\nhello", true)
            .answers(&[200])
            .gets("5\r\nhello\r\n0\r\n\r\n"),
        answered("to its end by HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhello", true)
            .answers(&[200])
            .gets("5\r\nhello\r\n0\r\n\r\n"),
        answered("to its end, to a client of HTTP/1.0", "HTTP/1.1 200 OK\r\n\r\nhello", true)
            .by_http_1_0()
            .closes(&[200])
            .gets("\r\n\r\nhello")
            .gets_not("chunked"),
        answered(
            "chunked to a client of HTTP/1.0",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
        )
        .by_http_1_0()
        .closes(&[200])
        .gets("\r\n\r\nhello")
        .gets_not("chunked"),
    ]);
    rows
}

/// The client must be able to tell that it did not get all.
fn truncated() -> Vec<Row> {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut rows = vec![
        answered("within its length", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", true)
            .breaks_off(),
        answered("before its body", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", true).breaks_off(),
    ];
    for body in [
        "5\r\nhello\r\n",
        "5\r\nhel",
        "5\r\nhello",
        "5",
        "",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\ng\r\n",
        "5\r\nhello\r\n-1\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFFF\r\nhello",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
    ] {
        rows.push(answered(&format!("chunks {body:?}"), format!("{chunked}{body}"), true).breaks_off());
    }
    rows
}

fn heads() -> Vec<Row> {
    let mut rows = Vec::new();
    for head in [
        "HELLO",
        "",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 abc",
        "HTTP/1.1 000 x",
        "HTTP/1.1 099 x",
        "HTTP/1.1  200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/0.9 200 OK",
        "ICY 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1\t200\tOK",
        "HTTP/1.1 -20 x",
        "HTTP/1.1 +20 x",
        "\0HTTP/1.1 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 OK\rX: y",
        "HTTP/1.1 200 \u{7f}",
    ] {
        rows.push(
            answered(&format!("head {head:?}"), format!("{head}\r\nContent-Length: 6\r\n\r\npoison"), true)
                .answers(&[502])
                .gets_not("poison"),
        );
    }
    for field in [
        "NoColon",
        ": empty",
        "Bad Name: x",
        "X(: y",
        " X: y",
        "X: a\0b",
        "X: a\u{1}b",
        "X: a\rSet-Cookie: evil=1",
        "X: a\u{7f}",
        "X\u{e9}: y",
        "X: a\r\n folded",
        "X: a\r\n\tSet-Cookie: evil=1",
    ] {
        rows.push(
            bad(&format!("field {field:?}"), &format!("{field}\r\nContent-Length: 6\r\n"), "poison")
                .gets_not("evil"),
        );
    }
    rows.extend([
        ok("a space before the colon", "X-A : 1\r\nContent-Length: 0\r\n", "").gets("x-a: 1\r\n"),
        ok("many cookies", "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2, c\r\nContent-Length: 0\r\n", "")
            .gets("set-cookie: a=1; Path=/\r\nset-cookie: b=2, c\r\n"),
        ok("bytes beyond ASCII", "X-A: \u{e9}\r\nContent-Length: 0\r\n", "").gets("x-a: \u{c3}\u{a9}\r\n"),
        ok("a challenge", "WWW-Authenticate: Basic realm=\"a\", Bearer\r\nContent-Length: 0\r\n", "").gets("www-authenticate: Basic realm=\"a\", Bearer\r\n"),
        ok("a long field", &format!("X-A: {}\r\nContent-Length: 0\r\n", "a".repeat(30_000)), "").gets("aaaa"),
        ok("for one hop", "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nTE: x\r\nContent-Length: 0\r\n", "")
            .gets_not("x-hop")
            .gets_not("keep-alive:")
            .gets_not("proxy-connection")
            .gets_not("upgrade")
            .gets_not("\r\nte:"),
        ok("a nominated length", "Connection: content-length, set-cookie\r\nSet-Cookie: a=1\r\nContent-Length: 5\r\n", "hello")
            .gets("hello")
            .gets("set-cookie: a=1"),
        ok("a challenge of a proxy", "Proxy-Authenticate: Basic\r\nContent-Length: 0\r\n", "").gets_not("proxy-authenticate"),
        ok("a close is not the client's", "Connection: close\r\nContent-Length: 5\r\n", "hello").gets("hello").keeps_upstream(false),
        ok("close among others", "Connection: keep-alive\r\nConnection: Close\r\nContent-Length: 5\r\n", "hello").keeps_upstream(false),
        answered("too many fields", format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(500)), true).answers(&[502]),
        answered("an endless head", format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(600_000)), true).answers(&[502]),
    ]);
    rows
}

fn codes() -> Vec<Row> {
    let code = |status: u16, lines: &str, body: &str| {
        answered(&format!("{status} {lines:?}"), format!("HTTP/1.1 {status} x\r\n{lines}\r\n{body}"), false)
            .answers(&[status])
    };
    let mut rows = vec![
        code(204, "", "").keeps_upstream(true),
        code(204, "Content-Length: 0\r\n", "").gets_not("content-length: 0\r\n\r\nhttp"),
        code(204, "Content-Length: 67\r\n", POISON).gets_not("poison").keeps_upstream(false),
        code(204, "Transfer-Encoding: chunked\r\n", "6\r\npoison\r\n0\r\n\r\n")
            .gets_not("poison")
            .keeps_upstream(false),
        code(304, "ETag: \"a\"\r\n", "").gets("etag: \"a\""),
        code(304, "Content-Length: 500\r\n", "").keeps_upstream(true),
        code(304, "Content-Length: 67\r\n", POISON).gets_not("poison").keeps_upstream(false),
        code(205, "Content-Length: 0\r\n", ""),
        code(302, "Location: http://evil.example/\r\nContent-Length: 0\r\n", "")
            .gets("location: http://evil.example/\r\n"),
    ];
    for status in [203, 206, 300, 404, 418, 429, 451, 500, 503, 599, 600, 999] {
        rows.push(code(status, "Retry-After: 7\r\nContent-Length: 2\r\n", "no").gets("retry-after: 7\r\n"));
    }
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\nX-Interim: 1\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nX-Interim: </a>\r\n\r\n",
        "HTTP/1.1 199 x\r\nX-Interim: 1\r\nContent-Length: 0\r\n\r\n",
    ] {
        rows.push(
            answered(
                &format!("{interim:?}"),
                format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
                false,
            )
            .answers(&[200])
            .gets("hello")
            .gets_not("x-interim"),
        );
    }
    rows.extend([
        answered(
            "an interim answer with a body",
            "HTTP/1.1 100 Continue\r\nContent-Length: 6\r\n\r\npoison",
            true,
        )
        .answers(&[502])
        .gets_not("poison"),
        answered("nothing but interim", "HTTP/1.1 100 Continue\r\n\r\n", true).by("POST").answers(&[502]),
        answered(
            "a switch",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\npoison",
            true,
        )
        .answers(&[502])
        .gets_not("poison"),
        answered("a switch to nothing", "HTTP/1.1 101 Switching Protocols\r\n\r\npoison", true)
            .answers(&[502])
            .gets_not("poison"),
        answered("nothing", "", true).by("POST").answers(&[502]),
    ]);
    rows
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [framing(), truncated(), heads(), codes()].concat()
}

#[test]
fn answers_have_one_reading() {
    run(framing());
}

#[test]
fn a_truncated_answer_is_shown_as_truncated() {
    run(truncated());
}

#[test]
fn heads_of_answers_are_strict() {
    run(heads());
}

#[test]
fn each_status_has_its_framing() {
    run(codes());
}
