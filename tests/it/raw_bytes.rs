//! Every byte at every kind of place, and messages whose sizes lie about the borders of buffers and limits (RFC 9110, 5.5 and
//! 5.6.2; RFC 9112, 2 to 4).

use crate::raw_rig::{Row, get, post, row, run};

const HOST: &str = "Host: localhost\r\n";
/// What a token is made of beside letters and digits.
const MARKS: &[u8] = b"!#$%&'*+-.^_`|~";

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || MARKS.contains(&byte)
}

/// A head with a byte at the place of `@`.
fn with(byte: u8, place: &str) -> Row {
    let (before, after) = place.split_once('@').expect("a place");
    let head = [before.as_bytes(), &[byte], after.as_bytes()].concat();
    row(&format!("{byte:#04x} in {place:?}"), head)
}

/// Bytes of control, and the line end in two ways.
fn in_values() -> Vec<Row> {
    let place = format!("GET /x HTTP/1.1\r\n{HOST}X-A: a@b\r\n\r\n");
    let value = |byte: u8| {
        let row = with(byte, &place);
        match byte {
            b'\t' | b' '..=b'~' | 0x80.. => {
                row.passes().sees(&format!("\r\nx-a: a{}b\r\n", char::from(byte)))
            }
            _ => row.closes(&[400]),
        }
    };
    let first = |byte: u8| {
        let row = with(byte, &format!("GET /x HTTP/1.1\r\n{HOST}X-A:@b\r\n\r\n"));
        match byte {
            b'\t' | b' ' => row.passes().sees("\r\nx-a: b\r\n"),
            b'!'..=b'~' | 0x80.. => row.passes().sees(&format!("\r\nx-a: {}b\r\n", char::from(byte))),
            _ => row.closes(&[400]),
        }
    };
    let last = |byte: u8| {
        let row = with(byte, &format!("GET /x HTTP/1.1\r\n{HOST}X-A: a@\r\n\r\n"));
        match byte {
            b'\t' | b' ' => row.passes().sees("\r\nx-a: a\r\n"),
            b'!'..=b'~' | 0x80.. => row.passes().sees(&format!("\r\nx-a: a{}\r\n", char::from(byte))),
            _ => row.closes(&[400]),
        }
    };
    (0..=255).flat_map(|byte| [value(byte), first(byte), last(byte)]).collect()
}

fn in_names() -> Vec<Row> {
    let name = |byte: u8| {
        let row = with(byte, &format!("GET /x HTTP/1.1\r\n{HOST}X-@a: b\r\n\r\n"));
        match byte {
            b':' => row.passes().sees("\r\nx-: a: b\r\n"),
            byte if is_token(byte) => {
                let seen = char::from(byte.to_ascii_lowercase());
                row.passes().sees(&format!("\r\nx-{seen}a: b\r\n"))
            }
            _ => row.closes(&[400]),
        }
    };
    let behind = |byte: u8| {
        let row = with(byte, &format!("GET /x HTTP/1.1\r\n{HOST}X-A@: b\r\n\r\n"));
        match byte {
            b':' => row.passes().sees("\r\nx-a: : b\r\n"),
            byte if is_token(byte) => row.passes(),
            _ => row.closes(&[400]),
        }
    };
    (0..=255).flat_map(|byte| [name(byte), behind(byte)]).collect()
}

fn in_lines() -> Vec<Row> {
    let method = |byte: u8| {
        let row = with(byte, &format!("A@B /x HTTP/1.1\r\n{HOST}\r\n"));
        match byte {
            byte if is_token(byte) => row.passes().sees(&format!("A{}B /x HTTP/1.1\r\n", char::from(byte))),
            // A second target.
            _ => row.closes(&[400]),
        }
    };
    // What a path may hold goes on as it came; what no URI holds is refused or goes on, and changes nothing else.
    let target = |byte: u8| {
        let row = with(byte, &format!("GET /a@b HTTP/1.1\r\n{HOST}\r\n"));
        match byte {
            // The last ones belong into no URI, and browsers write them.
            b'/' | b'?' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*'
            | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'"' | b'[' | b']' | b'^' | b'{' | b'|' | b'}' => {
                row.passes().sees(&format!("GET /a{}b HTTP/1.1\r\n", char::from(byte)))
            }
            byte if byte.is_ascii_alphanumeric() => {
                row.passes().sees(&format!("GET /a{}b HTTP/1.1\r\n", char::from(byte)))
            }
            _ => row.refused(),
        }
    };
    let query = |byte: u8| {
        let row = with(byte, &format!("GET /a?b@c HTTP/1.1\r\n{HOST}\r\n"));
        match byte {
            b'#' | b'"' | b'<' | b'>' | 0..=b' ' | 0x7f.. => row.refused(),
            _ => row.passes().sees(&format!("GET /a?b{}c HTTP/1.1\r\n", char::from(byte))),
        }
    };
    let version = |byte: u8| {
        let row = with(byte, &format!("GET /x HTTP/1.@\r\n{HOST}\r\n"));
        match byte {
            b'1' => row.passes(),
            b'0' => row.closes(&[200]),
            _ => row.closes(&[400]),
        }
    };
    let authority = |byte: u8| {
        let row = with(byte, "GET /x HTTP/1.1\r\nHost: local@host\r\n\r\n");
        match byte {
            b'-' | b'_' | b'.' => row.answers(&[421]),
            byte if byte.is_ascii_alphanumeric() => row.answers(&[421]),
            _ => row.refused(),
        }
    };
    (0..=255)
        .flat_map(|byte| [method(byte), target(byte), query(byte), version(byte), authority(byte)])
        .collect()
}

fn in_chunks() -> Vec<Row> {
    let chunked = format!("POST /x HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    let size = |byte: u8| {
        let row = with(byte, &format!("{chunked}@\r\n0123456789abcdef"));
        // Of sixteen bytes so many belong to the chunk, and then none may follow.
        match byte {
            b'0' => row.closes(&[]).breaks(),
            _ => row.breaks(),
        }
    };
    let extension = |byte: u8| {
        let row = with(byte, &format!("{chunked}5;a=@b\r\nhello\r\n0\r\n\r\n"));
        match byte {
            b'\t' | b' '..=b'~' | 0x80.. => row.passes().sees("\r\n\r\nhello"),
            _ => row.breaks(),
        }
    };
    let trailer = |byte: u8| {
        let row = with(byte, &format!("{chunked}5\r\nhello\r\n0\r\nX-A: a@b\r\n\r\n"));
        match byte {
            b'\t' | b' '..=b'~' | 0x80.. => row.passes().sees("\r\n\r\nhello"),
            _ => row.breaks(),
        }
    };
    let named = |byte: u8| {
        let row = with(byte, &format!("{chunked}5\r\nhello\r\n0\r\nX-@A: b\r\n\r\n"));
        match byte {
            b':' => row.passes(),
            byte if is_token(byte) => row.passes(),
            _ => row.breaks(),
        }
    };
    (0..=255).flat_map(|byte| [size(byte), extension(byte), trailer(byte), named(byte)]).collect()
}

/// A head of exactly so many bytes.
fn head_of(length: usize) -> String {
    let rest = format!("GET /x HTTP/1.1\r\n{HOST}X-A: \r\n\r\n").len();
    format!("GET /x HTTP/1.1\r\n{HOST}X-A: {}\r\n\r\n", "a".repeat(length - rest))
}

fn sizes() -> Vec<Row> {
    let mut rows = vec![
        row("a head of as many bytes as may be", head_of(32 * 1024)).passes(),
        row("a head of one byte more", head_of(32 * 1024 + 1)).closes(&[431]),
        row(
            "a target of as many bytes as may be",
            format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(8191)),
        )
        .passes(),
        row("a target of one byte more", format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(8192)))
            .answers(&[414]),
        row(
            "many bytes in many fields",
            format!("GET /x HTTP/1.1\r\n{HOST}{}\r\n", format!("X-A: {}\r\n", "a".repeat(400)).repeat(79)),
        )
        .passes(),
        row(
            "too many bytes in many fields",
            format!("GET /x HTTP/1.1\r\n{HOST}{}\r\n", format!("X-A: {}\r\n", "a".repeat(400)).repeat(83)),
        )
        .closes(&[431]),
        row("as many fields as may be, all of them different", {
            let fields: String = (0..99).map(|number| format!("X-{number}: {number}\r\n")).collect();
            format!("GET /x HTTP/1.1\r\n{HOST}{fields}\r\n")
        })
        .passes()
        .sees("\r\nx-0: 0\r\n")
        .sees("\r\nx-98: 98\r\n"),
        row("a good one behind a large one", format!("{}GET /2 HTTP/1.1\r\n{HOST}\r\n", head_of(30_000)))
            .answers(&[200, 200]),
        row("large ones in sequence", head_of(20_000).repeat(4)).answers(&[200; 4]),
        row("a large one too many", format!("{}{}", head_of(30_000), head_of(40_000))).closes(&[200, 431]),
        get("an empty name among many", &format!("{}: x\r\n", "X-A: 1\r\n".repeat(50))).closes(&[400]),
        get("a name of a thousand bytes", &format!("X-{}: 1\r\n", "a".repeat(1000))).passes(),
    ];
    for around in [1024_usize, 4096, 8192, 16_384, 32_768, 65_536, 131_072] {
        for length in [around - 1, around, around + 1] {
            let body = "b".repeat(length);
            let next = format!("GET /2 HTTP/1.1\r\n{HOST}\r\n");
            rows.push(
                row(
                    &format!("a body of {length}"),
                    format!("POST /x HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n{body}{next}"),
                )
                .answers(&[200, 200])
                .sees(&format!("content-length: {length}\r\n"))
                .sees(&body)
                .sees("GET /2 HTTP/1.1\r\n"),
            );
            rows.push(
                row(
                    &format!("a chunk of {length}"),
                    format!(
                        "POST /x HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n{next}"
                    ),
                )
                .answers(&[200, 200])
                .sees("GET /2 HTTP/1.1\r\n"),
            );
            rows.push(
                row(&format!("an answer of {length}"), format!("GET /x HTTP/1.1\r\n{HOST}\r\n{next}"))
                    .with_answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"))
                    .answers(&[200, 200])
                    .gets(&body),
            );
            rows.push(row(&format!("a chunked answer of {length}"), format!("GET /x HTTP/1.1\r\n{HOST}\r\n{next}"))
                .with_answer(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"))
                .answers(&[200, 200]));
        }
    }
    rows.push(
        post(
            "many small chunks",
            "Transfer-Encoding: chunked\r\n",
            &format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(5000)),
        )
        .passes(),
    );
    rows.push(
        post(
            "a length beyond what a signed number holds",
            "Content-Length: 9223372036854775808\r\n",
            "hello",
        )
        .ends()
        .breaks(),
    );
    rows.push(
        post("a length with twenty zeros", "Content-Length: 000000000000000000005\r\n", "hello")
            .passes()
            .sees("content-length: 5\r\n"),
    );
    rows
}

/// All rows of this file.
pub(crate) fn rows() -> Vec<Row> {
    [in_values(), in_names(), in_lines(), in_chunks(), sizes()].concat()
}

#[test]
fn any_byte_in_a_value() {
    run(in_values());
}

#[test]
fn any_byte_in_a_name() {
    run(in_names());
}

#[test]
fn any_byte_in_a_request_line() {
    run(in_lines());
}

#[test]
fn any_byte_in_a_chunked_body() {
    run(in_chunks());
}

#[test]
fn messages_about_the_size_of_buffers_and_limits() {
    run(sizes());
}
