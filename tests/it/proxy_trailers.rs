//! Trailers: what is declared and harmless passes both ways, to those who take it.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::proxy_rig::{OriginServer, Rig, TOKEN, Wire, fields_of, status};

/// Reads a head and a chunked body with its trailers, to the last empty line.
fn read_chunked(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        let last = bytes.windows(3).rposition(|end| end == b"0\r\n");
        if last.is_some_and(|at| at > 0 && bytes[at - 1] == b'\n') && bytes.ends_with(b"\r\n\r\n") {
            return String::from_utf8(bytes).expect("text");
        }
        stream.read_exact(&mut byte).expect("a byte");
        bytes.push(byte[0]);
    }
}

fn trailers_of(message: &str) -> &str {
    message.split_once("\r\n0\r\n").expect("a last chunk").1
}

fn answering_chunked(head: &str, trailers: &str) -> OriginServer {
    let answer =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{head}\r\n2\r\nok\r\n0\r\n{trailers}\r\n");
    OriginServer::scripted(move |stream, _| stream.write_all(answer.as_bytes()).is_ok())
}

fn get(rig: &Rig, lines: &str) -> (String, Wire) {
    let mut wire = rig.connect();
    wire.write(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
    (read_chunked(&mut wire.0), wire)
}

#[test]
fn an_answers_trailers_reach_a_client_that_takes_them() {
    let origin = answering_chunked(
        "Trailer: X-Sum, Authorization\r\n",
        "X-Sum: 7\r\nAuthorization: a\r\nX-Other: 1\r\n",
    );
    let rig = Rig::to(&origin);
    let (answer, mut wire) = get(&rig, "TE: gzip, trailers\r\nConnection: te\r\n");
    assert_eq!(status(&answer), 200);
    assert_eq!(fields_of(&answer, "trailer"), ["x-sum"]);
    assert_eq!(trailers_of(&answer), "x-sum: 7\r\n\r\n");
    let request = &origin.requests()[0];
    assert_eq!(
        (fields_of(request, "te"), fields_of(request, "connection")),
        (vec!["trailers".into()], vec!["te".into()])
    );
    // Both connections are good for more.
    wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = read_chunked(&mut wire.0);
    assert_eq!((fields_of(&answer, "trailer"), trailers_of(&answer)), (vec![], "\r\n"));
    assert_eq!(fields_of(&origin.requests()[1], "te"), Vec::<String>::new());
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_answers_trailers_are_dropped_where_nobody_takes_or_declares_them() {
    let check = |lines: &str, head: &str| {
        let origin = answering_chunked(head, "X-Sum: 7\r\n");
        let rig = Rig::to(&origin);
        let (answer, mut wire) = get(&rig, lines);
        assert_eq!(fields_of(&answer, "trailer"), Vec::<String>::new(), "{answer}");
        assert_eq!(trailers_of(&answer), "\r\n", "{lines:?} {head:?}");
        wire.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status(&read_chunked(&mut wire.0)), 200);
    };
    check("", "Trailer: X-Sum\r\n");
    check("TE: gzip\r\n", "Trailer: X-Sum\r\n");
    check("TE: trailers\r\n", "");
    check("TE: trailers\r\n", "Trailer: host, content-length\r\n");
}

#[test]
fn a_requests_trailers_reach_the_upstream() {
    let (heard, hears) = std::sync::mpsc::channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            heard.send(read_chunked(&mut stream)).expect("sent");
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let rig = Rig::start(vec![crate::proxy_rig::route(&url)]);
    let check = |declared: &str, trailers: &str, expected: (&[&str], &str)| {
        let answer = rig.send(&format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{declared}\r\n2\r\nhi\r\n0\r\n{trailers}\r\n"
        ));
        assert_eq!(status(&answer), 200, "{declared:?}");
        let request = hears.recv().expect("heard");
        assert_eq!(fields_of(&request, "trailer"), expected.0, "{request}");
        assert_eq!(trailers_of(&request), expected.1, "{declared:?}");
        assert_eq!(fields_of(&request, "authorization"), [format!("Bearer {TOKEN}")]);
    };
    check("Trailer: X-Sum\r\n", "X-Sum: 7\r\n", (&["x-sum"], "x-sum: 7\r\n\r\n"));
    check(
        "Trailer: authorization, host, content-length, transfer-encoding, x-sum, x_forwarded_for\r\n",
        "Authorization: Bearer stolen\r\nHost: evil\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nX-Sum: 7\r\nX_Forwarded_For: 6.6.6.6\r\n",
        (&["x-sum"], "x-sum: 7\r\n\r\n"),
    );
    check("", "X-Sum: 7\r\n", (&[], "\r\n"));
    check("", "Authorization: Bearer stolen\r\n", (&[], "\r\n"));
}
