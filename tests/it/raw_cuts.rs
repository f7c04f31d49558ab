//! Messages that do not come at once: in pieces, or not to their end. How bytes are cut changes nothing.

use crate::raw_rig::{Row, run, run_in_pieces};

const HOST: &str = "Host: localhost\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Rows whose bytes are few enough to come one by one.
fn short(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().filter(|row| row.bytes().len() < 400).collect()
}

fn streams() -> Vec<(&'static str, String, Vec<u16>)> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{HOST}\r\n");
    vec![
        ("a body", format!("POST /1 HTTP/1.1\r\n{HOST}Content-Length: 5\r\nX-A: b\r\n\r\nhello"), vec![200]),
        (
            "a chunked body",
            format!(
                "POST /1 HTTP/1.1\r\n{HOST}{CHUNKED}\r\n5;a=\"b\"\r\nhello\r\n0b\r\nhello\r\nhell\r\n00\r\nX-A: b\r\n\r\n"
            ),
            vec![200],
        ),
        ("two and an empty line", format!("{}\r\n{}", get("/1"), get("/2")), vec![200, 200]),
        ("a refused one", format!("GET /%00 HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\n\r\n\r\n"), vec![400]),
        (
            "a chunked body that is refused, and another",
            format!("PUT /%00 HTTP/1.1\r\n{HOST}{CHUNKED}\r\n1\r\nx\r\n0\r\n\r\n{}", get("/2")),
            vec![400, 200],
        ),
        ("HTTP/1.0", format!("GET /1 HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n"), vec![200]),
    ]
}

/// Each stream in two pieces, cut at every place.
fn in_two() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, stream, answers) in streams() {
        for at in 1..stream.len() {
            rows.push(
                crate::raw_rig::row(&format!("{what}, cut at {at}"), &stream).answers(&answers).cut_at(at),
            );
        }
    }
    rows
}

/// Each of these, broken off at every place by a client that has said all.
fn broken_off() -> Vec<Row> {
    let streams = [
        format!("POST /1 HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello"),
        format!("PUT /1 HTTP/1.1\r\n{HOST}{CHUNKED}\r\n5;a\r\nhello\r\n0\r\nX-A: b\r\n\r\n"),
        format!("GET /1 HTTP/1.0\r\n{HOST}\r\n"),
    ];
    let mut rows = Vec::new();
    for stream in &streams {
        for at in 1..stream.len() {
            let row = crate::raw_rig::row(&format!("{} of {stream:?}", at), &stream[..at]).ends();
            rows.push(if stream[..at].contains("\r\n\r\n") {
                row.breaks()
            } else {
                row.unsaid().no_request()
            });
        }
        rows.push(crate::raw_rig::row(&format!("all of {stream:?}"), stream).ends().closes(&[200]));
    }
    rows
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [in_two(), broken_off()].concat()
}

#[test]
fn messages_are_read_alike_in_two_pieces() {
    run(in_two());
}

#[test]
fn a_message_that_breaks_off_is_none() {
    run(broken_off());
}

#[test]
fn targets_and_fields_are_judged_alike_byte_by_byte() {
    let rows = [crate::raw_targets::rows(), crate::raw_fields::fields_at_once()].concat();
    run_in_pieces(short(rows), &[1, 2, 3, 5]);
}

#[test]
fn framing_and_sequences_are_judged_alike_byte_by_byte() {
    let rows =
        [crate::raw_framing::rows(), crate::raw_sequences::rows(), crate::raw_interim::rows()].concat();
    run_in_pieces(short(rows), &[1, 2, 3, 5]);
}
