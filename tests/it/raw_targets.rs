//! Request lines, targets and authorities (RFC 9112, 3; RFC 9110, 4 and 7.2).

use crate::raw_rig::{Row, get, row, run};

fn with_host(what: &str, host: &str) -> Row {
    row(what, format!("GET /x HTTP/1.1\r\n{host}\r\n"))
}

fn authorities() -> Vec<Row> {
    let mut rows = Vec::new();
    for bad in [
        "",
        " ",
        "localhost, evil",
        "localhost,evil",
        "localhost evil",
        "localhost/x",
        "localhost/../x",
        "localhost?x",
        "localhost#x",
        "localhost\\x",
        "user@localhost",
        "user:pass@localhost",
        "@localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:99999",
        "localhost:+80",
        "localhost:-1",
        "localhost:80:80",
        "localhost:http",
        "localhost:8 0",
        ":80",
        "::1",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1%25lo]",
        "[localhost]",
        "[]",
        "%6cocalhost",
        "l\u{f6}calhost",
        "*",
        "*.localhost",
        "localhost\u{7f}",
        ".",
        "http://localhost",
        "localhost;x",
        "localhost'",
        "<localhost>",
    ] {
        rows.push(with_host(&format!("host {bad:?}"), &format!("Host: {bad}\r\n")).refused());
    }
    for lines in [
        "",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nHost: evil\r\n",
        "Host: evil\r\nhOST: localhost\r\n",
        "Host : localhost\r\n",
        "Host:\r\n localhost\r\n",
        "Host: local\r\n host\r\n",
        "Host: localhost\r\n\tevil\r\n",
        "X-Forwarded-Host: localhost\r\n",
        "_Host: localhost\r\n",
    ] {
        rows.push(with_host(&format!("{lines:?}"), lines).refused());
    }
    for other in [
        "evil.example",
        ".localhost",
        "local..host",
        "localhost.evil.example",
        "evil-localhost",
        "169.254.169.254",
        "0x7f.1",
        "2130706433",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
        "localhost.localdomain",
        "127.0.0.2",
    ] {
        rows.push(with_host(&format!("host {other:?}"), &format!("Host: {other}\r\n")).answers(&[421]));
    }
    for good in [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "localhost.:80",
        "localhost:080",
        "localhost:1",
        "localhost:65535",
        "127.0.0.1",
        "127.0.0.1:80",
        " localhost\t",
    ] {
        rows.push(
            with_host(&format!("host {good:?}"), &format!("Host: {good}\r\n"))
                .passes()
                .sees("\r\nhost: 127.0.0.1:"),
        );
    }
    rows.push(
        row("no host by HTTP/1.0", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .passes()
            .sees("host: 127"),
    );
    rows.push(
        row("two hosts by HTTP/1.0", "GET /x HTTP/1.0\r\nHost: localhost\r\nHost: a\r\n\r\n").refused(),
    );
    rows
}

fn target(target: &str) -> Row {
    row(&format!("target {target:?}"), format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn absolute() -> Vec<Row> {
    let mut rows = vec![
        target("http://localhost/a?b").passes().sees("GET /a?b HTTP/1.1\r\n"),
        target("http://localhost").passes().sees("GET / HTTP/1.1\r\n"),
        target("http://localhost?q").passes().sees("GET /?q HTTP/1.1\r\n"),
        target("HTTP://LOCALHOST/a").passes().sees("GET /a HTTP/1.1\r\n"),
        target("http://localhost:80/a").passes().sees("GET /a HTTP/1.1\r\n"),
        target("http://localhost/a/../b").passes().sees("GET /b HTTP/1.1\r\n"),
        target("http://evil.example/").answers(&[421]),
        target("http://169.254.169.254/latest/meta-data").answers(&[421]),
        row("the target wins over Host", "GET http://localhost/a HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            .passes()
            .sees("GET /a HTTP/1.1\r\n")
            .sees_not("evil"),
        row(
            "Host does not win over the target",
            "GET http://evil.example/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        .answers(&[421]),
        row("a bad Host beside an absolute target", "GET http://localhost/a HTTP/1.1\r\nHost: a b\r\n\r\n")
            .refused(),
        row("no Host beside an absolute target", "GET http://localhost/a HTTP/1.1\r\n\r\n").refused(),
    ];
    for bad in [
        "https://localhost/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "javascript:x",
        "http:/x",
        "http:x",
        "http://",
        "http:///x",
        "http://user@localhost/",
        "http://localhost@evil/",
        "http://user:p@localhost/",
        "http://localhost:/",
        "http://localhost:0/",
        "http://localhost:99999/",
        "http://localhost:x/",
        "http://local%68ost/",
        "http://[::1/",
        "http://localhost\\@evil/",
        "http://localhost#x",
        "http://localhost/a#x",
        "//",
        "localhost",
        "localhost:80",
        "localhost/x",
        "x",
        "?x",
        "#x",
        "*",
        "*/x",
        "",
        "ws://localhost/",
    ] {
        // An empty path is a path.
        rows.push(if bad == "//" { target(bad).passes() } else { target(bad).refused() });
    }
    rows
}

fn paths() -> Vec<Row> {
    let mut rows = Vec::new();
    for (sent, seen) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("/a//b", "/a//b"),
        ("/./a", "/a"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/./b/../c", "/a/c"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2fb"),
        ("/%41%7e", "/A~"),
        ("/%2Ea", "/.a"),
        ("/a;b=c", "/a;b=c"),
        ("/a%3Bb", "/a%3Bb"),
        ("/a%20b", "/a%20b"),
        ("/%C3%A9", "/%C3%A9"),
        ("/%ff", "/%ff"),
        ("/%25", "/%25"),
        ("/%2541", "/%2541"),
        ("/a%3Fb", "/a%3Fb"),
        ("/a%23b", "/a%23b"),
        ("/a?", "/a?"),
        ("/a?b=%00", "/a?b=%00"),
        ("/a?../..", "/a?../.."),
        ("/a?b?c", "/a?b?c"),
        ("/a?//x", "/a?//x"),
        ("/a?b=%zz", "/a?b=%zz"),
        ("/...", "/..."),
        ("/a/...", "/a/..."),
        ("/a+b", "/a+b"),
        ("/a:b@c", "/a:b@c"),
        ("/a%0d%0aX:%20y", "/a%0d%0aX:%20y"),
        ("/%u0041x", ""),
    ] {
        rows.push(match seen {
            "" => target(sent).refused(),
            seen => target(sent).passes().sees(&format!("GET {seen} HTTP/1.1\r\n")),
        });
    }
    for bad in [
        "/%",
        "/%4",
        "/%zz",
        "/%G0",
        "/%00",
        "/a%00b",
        "/\\",
        "/a#b",
        "/a?b#c",
        "/#",
        "/a\\b",
        "/..\\a",
        "/a b",
        "/a\tb",
        "/a\u{1}b",
        "/a\u{7f}",
        "/a\0b",
        "/\u{e9}",
        "/%2e%2e",
        "/%2e%2e/a",
        "/.%2e/a",
        "/%2e./a",
        "/%2E%2E%2Fa",
        "/..%2fa",
        "/..%5ca",
        "/%5c..%5ca",
        "/%2e%2e%5ca",
        "/%252e%252e/a",
        "/%252e%252e%252fa",
        "/%25252e%25252e/a",
        "/..;/a",
        "/..;x=y/a",
        "/a/..;/..;/b",
        "/a/%2e%2e/%2e%2e/b",
        "/a%2f..%2f..%2fb",
    ] {
        rows.push(target(bad).refused());
    }
    let long = |length: usize| format!("/{}", "a".repeat(length));
    rows.push(target(&long(8000)).passes());
    rows.push(target(&long(8200)).answers(&[414]));
    rows.push(target(&format!("/?{}", "a".repeat(9000))).answers(&[414]));
    rows.push(target(&long(31_000)).answers(&[414]));
    rows.push(target(&long(40_000)).closes(&[414]).gets("urn:bearward:problem:uri-too-long"));
    rows.push(target(&long(100_000)).closes(&[414]));
    for byte in ["<", ">", "\"", "\u{7f}", " "] {
        rows.push(target(&format!("/x?a={byte}")).refused());
    }
    for byte in ["{", "}", "|", "^", "[", "]", "'", "`", "%", "%zz", "%00", "%0d%0a"] {
        // What a query means is the server's matter.
        rows.push(target(&format!("/x?a={byte}")).passes().sees(&format!("GET /x?a={byte} HTTP/1.1\r\n")));
    }
    rows
}

fn lines() -> Vec<Row> {
    let host = "Host: localhost\r\n\r\n";
    let mut rows = Vec::new();
    for bad in [
        "GET /x",
        "GET  /x HTTP/1.1",
        "GET /x  HTTP/1.1",
        " GET /x HTTP/1.1",
        "GET\t/x\tHTTP/1.1",
        "GET /x HTTP/1.1 ",
        "GET /x HTTP/1.1\t",
        "GET /x HTTP/1.1 x",
        "GET /x http/1.1",
        "GET /x HTTP/1",
        "GET /x HTTP/1.",
        "GET /x HTTP/11",
        "GET /x HTTP/1.01",
        "GET /x HTTP/ 1.1",
        "GET /x HTTP /1.1",
        "GET /x HTTPS/1.1",
        "GET /x ICY/1.1",
        "GET /x XTTP/1.1",
        "GET /x",
        "/x HTTP/1.1",
        "GET HTTP/1.1",
        "GE\0T /x HTTP/1.1",
        "G@T /x HTTP/1.1",
        "G(T /x HTTP/1.1",
        "\u{c9}T /x HTTP/1.1",
        "GET: /x HTTP/1.1",
        "GET /x\rHTTP/1.1",
        "GET /x HTTP/1.1\r",
        "GET /x HTTP/1.1\0",
        "\"GET\" /x HTTP/1.1",
    ] {
        rows.push(row(&format!("line {bad:?}"), format!("{bad}\r\n{host}")).closes(&[400]));
    }
    for version in ["0.9", "1.2", "1.9", "2.0", "3.0", "9.9"] {
        rows.push(
            row(&format!("version {version}"), format!("GET /x HTTP/{version}\r\n{host}")).closes(&[400]),
        );
    }
    for method in ["get", "Get", "FOO", "PROPFIND", "M-SEARCH", "PATCH", "DELETE", "a", "!#$%&'*+-.^_`|~"] {
        rows.push(
            row(&format!("method {method}"), format!("{method} /x HTTP/1.1\r\n{host}"))
                .passes()
                .sees(&format!("{method} /x HTTP/1.1\r\n")),
        );
    }
    for method in ["TRACE", "TRACK", "trace", "Track", "DEBUG"] {
        let line = format!("{method} /x HTTP/1.1\r\n{host}");
        rows.push(if method == "DEBUG" {
            row(method, line).passes()
        } else {
            row(method, line).answers(&[405])
        });
    }
    let request = |what: &str, text: &str| row(what, format!("{text}{host}"));
    rows.extend([
        request("a tunnel", "CONNECT localhost:443 HTTP/1.1\r\n").refused_with(405),
        request("a tunnel to here", "CONNECT /x HTTP/1.1\r\n").refused_with(405),
        request("OPTIONS *", "OPTIONS * HTTP/1.1\r\n").answers(&[204]).sees_not("OPTIONS").gets("allow: "),
        request("OPTIONS of a path", "OPTIONS /x HTTP/1.1\r\n").passes().sees("OPTIONS /x "),
        request("the last hop", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: 0\r\n")
            .answers(&[204])
            .sees_not("OPTIONS"),
        request("one hop of many", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: 7\r\n")
            .passes()
            .sees("max-forwards: 6\r\n"),
        request("hops do not count for GET", "GET /x HTTP/1.1\r\nMax-Forwards: 0\r\n").passes(),
        request("hops do not open TRACE", "TRACE /x HTTP/1.1\r\nMax-Forwards: 0\r\n").answers(&[405]),
        request("OPTIONS of a root", "OPTIONS http://localhost/ HTTP/1.1\r\n").passes().sees("OPTIONS / "),
        request("OPTIONS of a query", "OPTIONS http://localhost?x HTTP/1.1\r\n")
            .passes()
            .sees("OPTIONS /?x "),
        request("OPTIONS of another server", "OPTIONS http://evil.example HTTP/1.1\r\n").answers(&[421]),
        row("OPTIONS * of another server", "OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            .answers(&[421]),
        request("hops below nought", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: -1\r\n")
            .passes()
            .sees("max-forwards: -1\r\n"),
        request("hops with a sign", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: +0\r\n")
            .passes()
            .sees("max-forwards: +0\r\n"),
        request("hops in a list", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: 0, 0\r\n").passes(),
        request("hops twice", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: 5\r\nMax-Forwards: 0\r\n")
            .answers(&[204]),
        request("hops twice, not the last", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: 5\r\nMax-Forwards: 3\r\n")
            .passes()
            .sees("max-forwards: 2\r\n")
            .sees_not("max-forwards: 5"),
        request("hops with zeros", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: 00\r\n").answers(&[204]),
        request("more hops than anybody counts", "OPTIONS /x HTTP/1.1\r\nMax-Forwards: 99999999999\r\n")
            .passes()
            .sees("max-forwards: 99999999998\r\n"),
        request("what is allowed instead of TRACE", "TRACE /x HTTP/1.1\r\n")
            .answers(&[405])
            .gets("allow: GET, "),
        row("HTTP/0.9", "GET /x\r\n").closes(&[400]),
        row("TLS here", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").closes(&[400]),
        row("binary", b"\x00\x01\x02\x03\xff\xfe\r\n\r\n").closes(&[400]),
        row("a long method", format!("{} /x HTTP/1.1\r\n{host}", "M".repeat(40_000))).closes(&[431]),
        get("a good one", "").passes(),
    ]);
    rows
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [authorities(), absolute(), paths(), lines()].concat()
}

#[test]
fn an_authority_is_one_or_none() {
    run(authorities());
}

#[test]
fn absolute_targets_are_judged_by_their_authority() {
    run(absolute());
}

#[test]
fn a_path_is_sent_as_it_was_judged() {
    run(paths());
}

#[test]
fn request_lines_are_strict() {
    run(lines());
}
