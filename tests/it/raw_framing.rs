//! Framing of requests (RFC 9112, 6 and 7): one reading of every message, or none.

use crate::raw_rig::{Row, get, post, row, run};

/// What a smuggler hides.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// It contains a request, but not at a place where one begins.
const LIKE_A_REQUEST: &str = "x=1\r\n\r\nGET /inside HTTP/1.1\r\nHost: localhost\r\n\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn lengths() -> Vec<Row> {
    let mut rows = Vec::new();
    for bad in [
        "+5",
        "-1",
        "-0",
        "5, 6",
        "5 5",
        "5,",
        ",5",
        "0x5",
        "5.0",
        "five",
        "5;",
        "1e1",
        "5_0",
        "\"5\"",
        "5\u{a0}",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999",
        "\u{665}",
        "",
        " ",
        "5\u{b}",
        "5\0",
    ] {
        let lines = format!("Content-Length: {bad}\r\n");
        rows.push(post(&format!("length {bad:?}"), &lines, "hello").closes(&[400]));
    }
    for (first, second) in
        [("5", "6"), ("6", "5"), ("0", "5"), ("5", "0"), ("5", "+5"), ("5", ""), ("5", "5")]
    {
        let lines = format!("Content-Length: {first}\r\nX: y\r\nContent-Length: {second}\r\n");
        rows.push(post(&format!("two lengths {first:?} {second:?}"), &lines, "hello").closes(&[400]));
    }
    let plain = |what, lines: &str| post(what, lines, "hello").passes().sees("\r\n\r\nhello");
    rows.extend([
        post("a list of equal lengths", "Content-Length: 5, 5\r\n", "hello").closes(&[400]),
        plain("leading zeros", "Content-Length: 0005\r\n").sees("content-length: 5\r\n"),
        plain("length in odd case", "cOnTeNt-LeNgTh: 5\r\n"),
        plain("tabs around the length", "Content-Length:\t5\t\r\n"),
        post("space before the colon", "Content-Length : 5\r\n", "hello").closes(&[400]),
        post("tab before the colon", "Content-Length\t: 5\r\n", "hello").closes(&[400]),
        post("a folded length", "Content-Length:\r\n 5\r\n", "hello").closes(&[400]),
        post("no length", "", "").passes(),
        post("length 0", "Content-Length: 0\r\n", "").passes(),
        get("a GET with length 0", "Content-Length: 0\r\n").passes(),
        row("a GET with a body", "GET /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
            .passes()
            .sees("\r\n\r\nhello"),
        row(
            "a DELETE with a body",
            "DELETE /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        )
        .passes()
        .sees("\r\n\r\nhello"),
        post(
            "a body like a request",
            &format!("Content-Length: {}\r\n", LIKE_A_REQUEST.len()),
            LIKE_A_REQUEST,
        )
        .passes()
        .sees(LIKE_A_REQUEST),
        post("an alias of the length", "Content_Length: 5\r\n", "").answers(&[400]),
        plain("HTTP/1.0 with a length", "Content-Length: 5\r\n").by_http_1_0(),
    ]);
    rows
}

fn codings() -> Vec<Row> {
    let mut rows = Vec::new();
    for bad in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "cow",
        "\"chunked\"",
        "'chunked'",
        "chunked;q=1",
        "chunked;x",
        ",chunked",
        "chunked,",
        "chunked, ",
        "",
        "chun ked",
        "\u{b}chunked",
        "\u{c}chunked",
        "chunked\0",
        "\u{a0}chunked",
        "\u{85}chunked",
        "\u{17f}chunked",
        "c\u{200b}hunked",
        "gzip",
        "deflate, chunked",
    ] {
        let lines = format!("Transfer-Encoding: {bad}\r\n");
        rows.push(post(&format!("coding {bad:?}"), &lines, &format!("0\r\n\r\n{HIDDEN}")).closes(&[400]));
    }
    for lines in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding\0: chunked\r\n",
        "\u{b}Transfer-Encoding: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding:\r\n\tchunked\r\n",
        "Transfer-Encoding: \r\n chunked\r\n",
        "Transfer-Encoding: chunked\r\n identity\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\rX: y\r\n",
        "X: y\r\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding chunked\r\n",
        "Transfer-Encoding\u{200b}: chunked\r\n",
    ] {
        rows.push(post(&format!("{lines:?}"), lines, &format!("0\r\n\r\n{HIDDEN}")).closes(&[400]));
    }
    let plain = |what, lines: &str| {
        post(what, lines, "5\r\nhello\r\n0\r\n\r\n")
            .passes()
            .sees("hello")
            .sees("transfer-encoding: chunked\r\n")
    };
    rows.extend([
        plain("chunked", CHUNKED),
        plain("chunked in capitals", "TRANSFER-ENCODING: CHUNKED\r\n"),
        plain("chunked with blanks", "Transfer-Encoding:\t chunked \t\r\n"),
        plain("nominated", "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n"),
        plain("a DELETE", CHUNKED),
        post("an alias beside a length", "Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "hello")
            .answers(&[400]),
        post("an alias of the coding", "Transfer_Encoding: chunked\r\n", "").answers(&[400]),
        post("HTTP/1.0 with a coding", CHUNKED, &format!("0\r\n\r\n{HIDDEN}")).by_http_1_0().closes(&[400]),
    ]);
    rows
}

/// Both framings: by Transfer-Encoding alone, and then the connection ends (RFC 9112, 6.1), or 400.
fn both() -> Vec<Row> {
    let both = |what, lines: &str, body: &str| post(what, lines, body);
    vec![
        both("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"),
        both("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", &format!("0\r\n\r\n{HIDDEN}")),
        both("CL.TE whole", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        both(
            "CL 0 and TE",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            &format!("0\r\n\r\n{HIDDEN}"),
        ),
        both("TE and a bad CL", "Transfer-Encoding: chunked\r\nContent-Length: x\r\n", "0\r\n\r\n"),
        both("a bad CL and TE", "Content-Length: x\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        both(
            "CL.TE.CL",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n",
            "0\r\n\r\n",
        ),
        both("CL and TE identity", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "hello"),
        both(
            "TE hidden by a nomination",
            "Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
    ]
    .into_iter()
    .map(|row| row.closes(&[400]))
    .collect()
}

fn chunks() -> Vec<Row> {
    let mut rows = Vec::new();
    for bad in [
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "5,\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rXhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\rX0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\r\nhi\r\n0\r\n\r\nxx",
        "5;x\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0 \r\n\r\n",
        "5;a=\0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\nX: b\r\n\r\n",
        "5;x\rhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "\u{665}\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n",
        "5\r\nhello\r\n\r\n",
        "5\r\nhello\r\n-0\r\n\r\n",
        "5\r\nhello\r\n0x0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
    ] {
        rows.push(post(&format!("chunks {bad:?}"), CHUNKED, &format!("{bad}{HIDDEN}")).breaks());
    }
    let endless = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(20_000));
    let long_trailer = format!("0\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let many_trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(200));
    rows.extend([
        post("an endless extension", CHUNKED, &endless).breaks(),
        post("a long trailer", CHUNKED, &long_trailer).breaks(),
        post("many trailers", CHUNKED, &many_trailers).breaks(),
    ]);
    let whole = |what, body: &str| post(what, CHUNKED, body).passes().sees("hello");
    rows.extend([
        whole("an extension", "5;name=value\r\nhello\r\n0\r\n\r\n").sees_not("name=value"),
        whole("a quoted extension", "5;a=\"b;c\"\r\nhello\r\n0;last\r\n\r\n").sees_not("last"),
        whole("blanks before an extension", "5 ; a=b\r\nhello\r\n0\r\n\r\n").sees_not("a=b"),
        whole("leading zeros", "000005\r\nhello\r\n000\r\n\r\n").sees_not("000005"),
        whole("capital digits", "A\r\nhelloworld\r\n0\r\n\r\n"),
        whole("a trailer that is not declared", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n").sees_not("x-sum"),
        whole("a credential as trailer", "5\r\nhello\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n")
            .sees_not("stolen"),
        whole("a length as trailer", "5\r\nhello\r\n0\r\nContent-Length: 99\r\n\r\n")
            .sees_not("content-length"),
        post("no chunk but the last", CHUNKED, "0\r\n\r\n").passes(),
        post(
            "what lies behind the last chunk is a request",
            CHUNKED,
            "0\r\n\r\nGET /second HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        .answers(&[200, 200])
        .sees("GET /second HTTP/1.1\r\n"),
        post("what lies behind the last chunk is none", CHUNKED, "0\r\n\r\nxyz\r\n\r\n").closes(&[200, 400]),
        post(
            "a body like a request",
            CHUNKED,
            &format!("{:x}\r\n{LIKE_A_REQUEST}\r\n0\r\n\r\n", LIKE_A_REQUEST.len()),
        )
        .passes()
        .sees(LIKE_A_REQUEST),
    ]);
    rows
}

fn sequences() -> Vec<Row> {
    let host = "Host: localhost\r\n";
    vec![
        row("two at once", format!("GET /1 HTTP/1.1\r\n{host}\r\nGET /2 HTTP/1.1\r\n{host}\r\n"))
            .answers(&[200, 200])
            .sees("GET /1 ")
            .sees("GET /2 "),
        row(
            "a body between two",
            format!("GET /1 HTTP/1.1\r\n{host}\r\nPOST /2 HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\n{host}\r\n"),
        )
        .answers(&[200, 200, 200])
        .sees("GET /3 "),
        row("a refused path before a good one", format!("GET /%zz HTTP/1.1\r\n{host}\r\nGET /2 HTTP/1.1\r\n{host}\r\n"))
            .answers(&[400, 200])
            .sees("GET /2 "),
        row(
            "a refused body is no request",
            format!("POST /%zz HTTP/1.1\r\n{host}Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()),
        )
        .answers(&[400]),
        row(
            "a refused chunked body is no request",
            format!("POST /%zz HTTP/1.1\r\n{host}{CHUNKED}\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len()),
        )
        .answers(&[400]),
        row("a bad one after a good one", format!("GET /1 HTTP/1.1\r\n{host}\r\nGET /2 HTTP/1.1\r\n{host}Bad Name: x\r\n\r\n"))
            .closes(&[200, 400])
            .sees_not("/2"),
        row("a bad framing after a good one", format!("GET /1 HTTP/1.1\r\n{host}\r\nPOST /2 HTTP/1.1\r\n{host}Content-Length: 1, 2\r\n\r\nx"))
            .closes(&[200, 400])
            .sees_not("/2"),
        row("nothing is read after a close", format!("GET /1 HTTP/1.1\r\n{host}Connection: close\r\n\r\n{HIDDEN}"))
            .closes(&[200]),
        row("close among others", format!("GET /1 HTTP/1.1\r\n{host}Connection: keep-alive, x\r\nConnection: CLOSE\r\n\r\n{HIDDEN}"))
            .closes(&[200]),
        row("HTTP/1.0 closes", format!("GET /1 HTTP/1.0\r\n{host}\r\n{HIDDEN}")).closes(&[200]),
        row("HTTP/1.0 keeps when asked", format!("GET /1 HTTP/1.0\r\n{host}Connection: Keep-Alive\r\n\r\n"))
            .passes()
            .gets("connection: keep-alive"),
        row("a fragment behind a good one", format!("GET /1 HTTP/1.1\r\n{host}\r\nGET /2#x HTTP/1.1\r\n{host}\r\n")).answers(&[200, 400]),
        row("a fragment behind a body", format!("POST /1 HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabcGET /2#x HTTP/1.1\r\n{host}\r\n"))
            .answers(&[200, 400]),
        row("a bare line feed behind chunks", format!("POST /1 HTTP/1.1\r\n{host}{CHUNKED}\r\n3\r\n\n#\n\r\n0\r\n\r\nGET /2 HTTP/1.1\n{host}\r\n"))
            .closes(&[200, 400]),
        row(
            "a body without a length behind an answer by HTTP/1.0",
            format!("GET /1 HTTP/1.1\r\n{host}\r\nPOST /2 HTTP/1.1\r\n{host}{CHUNKED}\r\n5\r\nhello\r\n0\r\n\r\n"),
        )
        .with_answer("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        .answers(&[200, 200])
        .sees("POST /2 HTTP/1.1\r\n")
        .sees("\r\n\r\nhello"),
        row("a request behind an answer by HTTP/1.0", format!("GET /1 HTTP/1.1\r\n{host}\r\nGET /2 HTTP/1.1\r\n{host}\r\n"))
            .with_answer("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
            .answers(&[200, 200])
            .sees("GET /2 HTTP/1.1\r\n"),
        row("a body with OPTIONS *", format!("OPTIONS * HTTP/1.1\r\n{host}Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len())).answers(&[204]),
        row("a body with TRACE", format!("TRACE /x HTTP/1.1\r\n{host}Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len())).answers(&[405]),
        row("a body for another host", format!("POST /x HTTP/1.1\r\nHost: evil\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len())).answers(&[421]),
        row("a body with HEAD", format!("HEAD /x HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello")).passes().sees("\r\n\r\nhello"),
        row("a request behind a body", format!("POST /1 HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\n{host}\r\n"))
            .answers(&[200, 200])
            .sees("GET /2 "),
        row("CR alone before a request", format!("\rGET /1 HTTP/1.1\r\n{host}\r\n")).closes(&[400]),
        row("LF alone before a request", format!("\nGET /1 HTTP/1.1\r\n{host}\r\n")).closes(&[400]),
        row("many empty lines before a request", format!("{}GET /1 HTTP/1.1\r\n{host}\r\n", "\r\n".repeat(1000))).passes(),
        row("nothing but empty lines", "\r\n".repeat(20_000)).closes(&[431]),
        row("a space before the first line", format!(" \r\nGET /1 HTTP/1.1\r\n{host}\r\n")).closes(&[400]),
        row("an empty line before a request", format!("\r\nGET /1 HTTP/1.1\r\n{host}\r\n")).passes(),
        row("empty lines between requests", format!("GET /1 HTTP/1.1\r\n{host}\r\n\r\n\r\nGET /2 HTTP/1.1\r\n{host}\r\n"))
            .answers(&[200, 200]),
    ]
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [lengths(), codings(), both(), chunks(), sequences()].concat()
}

#[test]
fn lengths_have_one_reading() {
    run(lengths());
}

#[test]
fn transfer_codings_have_one_reading() {
    run(codings());
}

#[test]
fn both_framings_are_refused() {
    run(both());
}

#[test]
fn chunks_are_whole_or_cut() {
    run(chunks());
}

#[test]
fn requests_in_sequence_stay_apart() {
    run(sequences());
}
