//! Rows of raw bytes: what a client sends, what the origin must and must not see, what the client gets.
//!
//! Owns: an origin that takes the bytes of each connection as they come and judges them strictly; the run of a row. What
//! no row may ever show is checked for every row: a message that two parties could read differently, a credential that is
//! not ours, our token in an answer, a connection that is neither answered nor closed.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use bearward::route::RouteConfig;

use crate::proxy_rig::{Rig, TOKEN, fields_of, route, status};

/// Answers while a row has no answer of its own.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Follows what a row sends, on the same connection: if the proxy lost its place, this shows.
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What an origin read from one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A message to its end.
    Whole(String),
    /// A message that broke off.
    Cut(String),
}

impl Heard {
    fn text(&self) -> &str {
        match self {
            Self::Whole(text) | Self::Cut(text) => text,
        }
    }
}

/// An origin that records bytes.
pub(crate) struct Recorder {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    open: Arc<Mutex<usize>>,
    answer: Arc<Mutex<Option<Vec<u8>>>>,
    close: Arc<Mutex<bool>>,
    connections: Arc<Mutex<usize>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let this = Self {
            address: listener.local_addr().expect("address"),
            heard: Arc::default(),
            open: Arc::default(),
            answer: Arc::default(),
            close: Arc::default(),
            connections: Arc::default(),
        };
        let (heard, open, answer, close, connections) = (
            Arc::clone(&this.heard),
            Arc::clone(&this.open),
            Arc::clone(&this.answer),
            Arc::clone(&this.close),
            Arc::clone(&this.connections),
        );
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                *connections.lock().expect("lock") += 1;
                let (heard, open, answer, close) =
                    (Arc::clone(&heard), Arc::clone(&open), Arc::clone(&answer), Arc::clone(&close));
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    while let Some(message) = hear(&mut stream, &open) {
                        let whole = matches!(message, Heard::Whole(_));
                        // The row's own answer is for its first message.
                        let own = answer.lock().expect("lock").take();
                        heard.lock().expect("lock").push(message);
                        *open.lock().expect("lock") -= 1;
                        let last = own.is_some() && *close.lock().expect("lock");
                        if !whole || stream.write_all(own.as_deref().unwrap_or(OK)).is_err() || last {
                            return;
                        }
                    }
                });
            }
        });
        this
    }

    /// All that was heard, when nothing is being heard any more.
    fn take(&self) -> Vec<Heard> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while *self.open.lock().expect("lock") > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut *self.heard.lock().expect("lock"))
    }
}

/// One message with the framing that it declares. `None`: not a byte of one came.
fn hear(stream: &mut TcpStream, open: &Mutex<usize>) -> Option<Heard> {
    let mut bytes = Vec::new();
    let mut next = |bytes: &mut Vec<u8>| {
        let mut byte = [0];
        let read = matches!(stream.read(&mut byte), Ok(1));
        if read {
            if bytes.is_empty() {
                *open.lock().expect("lock") += 1;
            }
            bytes.push(byte[0]);
        }
        read
    };
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    while !bytes.ends_with(b"\r\n\r\n") {
        if !next(&mut bytes) {
            return if bytes.is_empty() { None } else { Some(Heard::Cut(text(&bytes))) };
        }
    }
    let head = text(&bytes);
    if !fields_of(&head, "transfer-encoding").is_empty() {
        loop {
            let from = bytes.len();
            while !bytes[from..].ends_with(b"\r\n") {
                if !next(&mut bytes) {
                    return Some(Heard::Cut(text(&bytes)));
                }
            }
            let line = text(&bytes[from..bytes.len() - 2]);
            let size = usize::from_str_radix(&line, 16).expect("the proxy writes plain chunk sizes");
            let end = bytes.len();
            let whole = |bytes: &[u8]| match size {
                0 => bytes[end - 2..].ends_with(b"\r\n\r\n"),
                size => bytes.len() == end + size + 2,
            };
            while !whole(&bytes) {
                if !next(&mut bytes) {
                    return Some(Heard::Cut(text(&bytes)));
                }
            }
            if size == 0 {
                return Some(Heard::Whole(text(&bytes)));
            }
        }
    }
    let length = fields_of(&head, "content-length").first().map_or(0, |text| text.parse().expect("a number"));
    for _ in 0_usize..length {
        if !next(&mut bytes) {
            return Some(Heard::Cut(text(&bytes)));
        }
    }
    Some(Heard::Whole(text(&bytes)))
}

/// A message with its chunks put together.
fn joined(message: &str) -> String {
    let Some((head, mut rest)) = message.split_once("\r\n\r\n") else { return String::new() };
    if fields_of(&format!("{head}\r\n\r\n"), "transfer-encoding").is_empty() {
        return String::new();
    }
    let mut whole = format!("{head}\r\n\r\n");
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        whole.push_str(after.get(..size).unwrap_or_default());
        rest = after.get(size + 2..).unwrap_or_default();
    }
    whole
}

/// What a row expects of the connection to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Then {
    /// It goes on: the request that follows is answered.
    GoesOn,
    /// It is closed; what follows is not read as a request.
    Closes,
    /// Either of them.
    Either,
}

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    what: String,
    sends: Vec<u8>,
    answers: Vec<u16>,
    then: Then,
    sees: Vec<String>,
    sees_not: Vec<String>,
    gets: Vec<String>,
    gets_not: Vec<String>,
    answer: Option<(Vec<u8>, bool)>,
    cut: bool,
    breaks_off: bool,
    once: bool,
    upstream_kept: Option<bool>,
    /// Which final answers are to HEAD.
    to_head: Vec<usize>,
    /// How many bytes are written at a time.
    piece: usize,
    /// The client has said all then, and nothing follows.
    ends: bool,
    /// When the answer was written nobody knew that it would be the last.
    unsaid: bool,
    /// How many bytes come first and alone.
    first: usize,
    /// It is no whole head.
    none: bool,
}

/// A row that sends these bytes.
pub(crate) fn row(what: &str, sends: impl AsRef<[u8]>) -> Row {
    Row {
        what: what.to_owned(),
        sends: sends.as_ref().to_vec(),
        answers: Vec::new(),
        then: Then::GoesOn,
        sees: Vec::new(),
        sees_not: Vec::new(),
        gets: Vec::new(),
        gets_not: Vec::new(),
        answer: None,
        cut: false,
        breaks_off: false,
        once: false,
        upstream_kept: None,
        to_head: if sends.as_ref().starts_with(b"HEAD ") { vec![0] } else { Vec::new() },
        piece: usize::MAX,
        ends: false,
        unsaid: false,
        first: 0,
        none: false,
    }
}

/// `GET /` with a good Host and these lines.
pub(crate) fn get(what: &str, lines: &str) -> Row {
    row(what, format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"))
}

/// `POST /` with a good Host, these lines and this body.
pub(crate) fn post(what: &str, lines: &str, body: &str) -> Row {
    row(what, format!("POST /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}"))
}

/// A GET that the origin answers with these bytes; `close`: it closes then.
pub(crate) fn answered(what: &str, answer: impl AsRef<[u8]>, close: bool) -> Row {
    let mut row = get(what, "");
    row.answer = Some((answer.as_ref().to_vec(), close));
    row
}

impl Row {
    /// The origin answers the first message with these bytes.
    pub(crate) fn with_answer(mut self, answer: impl AsRef<[u8]>) -> Self {
        self.answer = Some((answer.as_ref().to_vec(), false));
        self
    }

    /// The origin sees one message and no more.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// It is forwarded and answered, and the connection goes on.
    pub(crate) fn passes(self) -> Self {
        self.answers(&[200])
    }

    /// These answers, then the connection goes on.
    pub(crate) fn answers(mut self, answers: &[u16]) -> Self {
        self.answers = answers.to_vec();
        self
    }

    /// These answers, then the connection is closed.
    pub(crate) fn closes(mut self, answers: &[u16]) -> Self {
        self.answers = answers.to_vec();
        self.then = Then::Closes;
        self
    }

    /// 400, and the origin sees nothing.
    pub(crate) fn refused(self) -> Self {
        self.refused_with(400)
    }

    /// This status, and the origin sees nothing. The connection may go on or not.
    pub(crate) fn refused_with(mut self, status: u16) -> Self {
        self.answers = vec![status];
        self.then = Then::Either;
        self
    }

    /// The body goes wrong after the head went on: the origin sees no whole message of it.
    pub(crate) fn breaks(mut self) -> Self {
        self.cut = true;
        self.then = Then::Closes;
        self
    }

    /// The origin sees this.
    pub(crate) fn sees(mut self, part: &str) -> Self {
        self.sees.push(part.to_owned());
        self
    }

    /// The origin does not see this, in any case.
    pub(crate) fn sees_not(mut self, part: &str) -> Self {
        self.sees_not.push(part.to_ascii_lowercase());
        self
    }

    /// The client gets this.
    pub(crate) fn gets(mut self, part: &str) -> Self {
        self.gets.push(part.to_owned());
        self
    }

    /// The client does not get this, in any case.
    pub(crate) fn gets_not(mut self, part: &str) -> Self {
        self.gets_not.push(part.to_ascii_lowercase());
        self
    }

    /// The answer breaks off, and the client can tell.
    pub(crate) fn breaks_off(mut self) -> Self {
        self.breaks_off = true;
        self.then = Then::Closes;
        self
    }

    /// Another path than `/x`.
    pub(crate) fn at(mut self, path: &str) -> Self {
        self.sends = String::from_utf8(self.sends).expect("text").replacen("/x", path, 1).into_bytes();
        self
    }

    /// This target instead of `/1`.
    pub(crate) fn at_target(mut self, target: &str) -> Self {
        self.sends = String::from_utf8(self.sends).expect("text").replacen("/1", target, 1).into_bytes();
        self
    }

    /// Another method than GET.
    pub(crate) fn by(mut self, method: &str) -> Self {
        self.sends = String::from_utf8(self.sends).expect("text").replacen("GET", method, 1).into_bytes();
        if method == "HEAD" { self.head_at(0) } else { self }
    }

    /// This final answer, too, is to a HEAD.
    pub(crate) fn head_at(mut self, index: usize) -> Self {
        self.to_head.push(index);
        self
    }

    /// The client has said all then.
    pub(crate) fn ends(mut self) -> Self {
        self.ends = true;
        self.then = Then::Closes;
        self
    }

    /// What ends the connection comes behind the answer.
    pub(crate) fn unsaid(mut self) -> Self {
        self.unsaid = true;
        self
    }

    /// The first so many bytes are written alone.
    pub(crate) fn cut_at(mut self, at: usize) -> Self {
        self.first = at;
        self.may_be_hasty()
    }

    /// A refusal that does not wait for the body, which comes late, may be the last answer.
    fn may_be_hasty(mut self) -> Self {
        if self.then == Then::GoesOn && self.answers.iter().any(|status| !matches!(status, 100 | 200)) {
            self.then = Then::Either;
            self.unsaid = true;
        }
        self
    }

    /// No request comes of it, and no answer, or the answer that it is none.
    pub(crate) fn no_request(mut self) -> Self {
        self.none = true;
        self
    }

    /// What is sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.sends
    }

    /// HTTP/1.0 with keep-alive instead of HTTP/1.1.
    pub(crate) fn by_http_1_0(mut self) -> Self {
        let text = String::from_utf8(self.sends).expect("text");
        let text = text.replacen("HTTP/1.1\r\n", "HTTP/1.0\r\nConnection: keep-alive\r\n", 1);
        self.sends = text.into_bytes();
        self
    }

    /// Whether the connection to the origin is used for the request that follows.
    pub(crate) fn keeps_upstream(mut self, kept: bool) -> Self {
        self.upstream_kept = Some(kept);
        self
    }
}

/// Runs rows against one proxy. Names every row that fails.
pub(crate) fn run(rows: Vec<Row>) {
    run_with(rows, |upstream| vec![route(upstream)]);
}

/// The same with other routes to the origin.
pub(crate) fn run_with(rows: Vec<Row>, routes: impl Fn(&str) -> Vec<RouteConfig>) {
    // The origin may hear of what broke off when the next row has begun: such rows have an origin of their own.
    let (cut, whole): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.cut);
    let mut failures = Vec::new();
    for rows in [cut, whole] {
        let recorder = Recorder::start();
        let rig = Rig::start(routes(&format!("http://{}", recorder.address)));
        for row in rows {
            if let Err(problem) = try_row(&rig, &recorder, &row) {
                let sent = String::from_utf8_lossy(&row.sends[..row.sends.len().min(300)]).into_owned();
                failures.push(format!("{}: {problem}\n  sent {sent:?}", row.what));
            }
        }
    }
    assert!(failures.is_empty(), "{} rows failed:\n{}", failures.len(), failures.join("\n"));
}

/// Runs them once more: each by itself, in pieces of this many bytes.
pub(crate) fn run_in_pieces(rows: Vec<Row>, sizes: &[usize]) {
    let in_pieces = |(index, row): (usize, Row)| {
        let size = sizes[index % sizes.len()];
        let what = format!("{} in pieces of {size}", row.what);
        Row { what, piece: size, ..row }.may_be_hasty()
    };
    run(rows.into_iter().enumerate().map(in_pieces).collect());
}

fn try_row(rig: &Rig, recorder: &Recorder, row: &Row) -> Result<(), String> {
    if let Some((answer, close)) = &row.answer {
        *recorder.answer.lock().expect("lock") = Some(answer.clone());
        *recorder.close.lock().expect("lock") = *close;
    }
    let before = *recorder.connections.lock().expect("lock");
    let got = converse(rig, row)?;
    let heard = recorder.take();
    recorder.answer.lock().expect("lock").take();
    let fresh = *recorder.connections.lock().expect("lock") - before;
    let ensure = |good: bool, problem: &str| {
        if good { Ok(()) } else { Err(format!("{problem}\n  client got {got:?}\n  origin heard {heard:?}")) }
    };
    for message in &heard {
        is_clean(message.text()).map_err(|problem| format!("{problem}\n  origin heard {message:?}"))?;
    }
    ensure(!got.contains(TOKEN), "the token is in an answer")?;
    let after = heard.iter().any(|message| message.text().starts_with("GET /after "));
    let goes_on = match row.then {
        Then::GoesOn => true,
        Then::Closes => false,
        Then::Either => after,
    };
    ensure(after == goes_on, "the request that follows")?;
    ensure(!heard.iter().any(|message| message.text().contains(" /smuggled ")), "a request was smuggled in")?;
    let own: Vec<_> = heard.iter().filter(|message| !message.text().starts_with("GET /after ")).collect();
    ensure(
        row.cut == own.iter().any(|message| matches!(message, Heard::Cut(_))) || own.is_empty(),
        "whole or cut",
    )?;
    if row.breaks_off {
        return ensure(got.is_empty() || breaks_off(&got), "the client takes it for whole");
    }
    let (statuses, last) = statuses(&got, row)?;
    // RFC 9112, 9.6: who closes says so.
    let told = fields_of(&last, "connection").iter().any(|options| options.eq_ignore_ascii_case("close"));
    ensure(
        told || row.cut || row.unsaid || last.is_empty() || last.starts_with("HTTP/1.0"),
        "the last answer does not say that it is the last",
    )?;
    if row.none {
        ensure(own.is_empty() && statuses.iter().all(|status| *status == 400), "it is no request")?;
        return Ok(());
    }
    let mut expected = row.answers.clone();
    if goes_on {
        expected.push(200);
    }
    if row.cut {
        ensure(own.iter().all(|message| matches!(message, Heard::Cut(_))), "the origin took it for whole")?;
        ensure(statuses.iter().all(|status| *status == 400), "an error or nothing")?;
    } else {
        ensure(statuses == expected, &format!("expected {expected:?}, got {statuses:?}"))?;
        let passed = row.answers.iter().filter(|status| **status == 200).count();
        let refused = row.answers.iter().all(|status| (400..500).contains(status)) && row.answer.is_none();
        ensure(!refused || own.is_empty(), "the origin saw what was refused")?;
        ensure(row.answer.is_some() || own.len() >= passed, "the origin did not see it")?;
    }
    ensure(!row.once || own.len() == 1, "the origin sees it once")?;
    // However the proxy has divided it.
    let joined = own.iter().map(|message| joined(message.text()));
    let seen = own.iter().map(|message| message.text().to_owned()).chain(joined).collect::<String>();
    for part in &row.sees {
        ensure(seen.contains(part), &format!("the origin does not see {part:?}"))?;
    }
    for part in &row.sees_not {
        ensure(!seen.to_ascii_lowercase().contains(part), &format!("the origin sees {part:?}"))?;
    }
    for part in &row.gets {
        ensure(got.contains(part), &format!("the client does not get {part:?}"))?;
    }
    for part in &row.gets_not {
        ensure(!got.to_ascii_lowercase().contains(part), &format!("the client gets {part:?}"))?;
    }
    if let Some(kept) = row.upstream_kept {
        // The pool may have had no connection before.
        let most = if kept { 1 } else { 2 };
        ensure(if kept { fresh <= most } else { fresh >= 1 }, &format!("{fresh} new connections upstream"))?;
    }
    Ok(())
}

/// Sends a row and what follows it, reads to the end of the stream.
fn converse(rig: &Rig, row: &Row) -> Result<String, String> {
    let mut stream = TcpStream::connect(rig.address).expect("connected");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(Duration::from_secs(4))).expect("timeout");
    let sends = if row.ends { row.sends.clone() } else { [row.sends.as_slice(), AFTER].concat() };
    let (first, rest) = sends.split_at(row.first);
    let pieces = rest.chunks(row.piece.min(rest.len()).max(1));
    for (number, piece) in Some(first).filter(|first| !first.is_empty()).into_iter().chain(pieces).enumerate()
    {
        if number > 0 {
            // Long enough for most pieces to come alone.
            let pause = if row.first > 0 { 300 } else { 20 };
            std::thread::sleep(Duration::from_micros(pause));
        }
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    if row.ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(format!("{error} after {:?}", String::from_utf8_lossy(&bytes))),
        }
    }
    Ok(bytes.into_iter().map(char::from).collect())
}

/// The statuses of a stream of answers that must be well-formed to its end, and the head of the last.
fn statuses(stream: &str, row: &Row) -> Result<(Vec<u16>, String), String> {
    let mut found = Vec::new();
    let mut last = String::new();
    let mut rest = stream;
    let mut finals = 0;
    while !rest.is_empty() {
        let Some((head, after)) = rest.split_once("\r\n\r\n") else {
            return Err(format!("an answer's head breaks off: {rest:?}"));
        };
        let head = format!("{head}\r\n\r\n");
        is_well_formed(&head)?;
        let status = status(&head);
        found.push(status);
        let lengths = fields_of(&head, "content-length");
        let codings = fields_of(&head, "transfer-encoding");
        if lengths.len() + codings.len() > 1 {
            return Err(format!("an answer is framed twice: {head:?}"));
        }
        rest = after;
        let bodiless = status >= 200 && row.to_head.contains(&finals);
        if status >= 200 {
            finals += 1;
            is_dated(&head)?;
            last.clone_from(&head);
        }
        if bodiless || matches!(status, 100..200 | 204 | 304) {
            if status < 200 && lengths.len() + codings.len() > 0 {
                return Err(format!("an interim answer is framed: {head:?}"));
            }
            if status == 204 && lengths.len() + codings.len() > 0 {
                return Err(format!("a 204 is framed: {head:?}"));
            }
            continue;
        }
        if let Some(length) = lengths.first() {
            let length: usize = length.parse().map_err(|_| format!("a bad length: {head:?}"))?;
            // Truncation is a row's own matter.
            rest = rest.get(length..).unwrap_or_default();
        } else if codings.is_empty() {
            rest = "";
        } else {
            while let Some((size, after)) = rest.split_once("\r\n") {
                let size = usize::from_str_radix(size, 16).map_err(|_| format!("a bad chunk: {rest:?}"))?;
                rest = after.get(size + 2..).unwrap_or_default();
                if size == 0 {
                    break;
                }
            }
        }
    }
    Ok((found, last))
}

/// What each final answer says once: when it was made. And at most once: what becomes of the connection.
fn is_dated(head: &str) -> Result<(), String> {
    if fields_of(head, "date").len() != 1 {
        return Err(format!("not one Date: {head:?}"));
    }
    if fields_of(head, "connection").len() > 1 {
        return Err(format!("several Connection fields: {head:?}"));
    }
    Ok(())
}

/// Whether a client can tell that the only answer in a stream is not whole.
fn breaks_off(stream: &str) -> bool {
    let Some((head, body)) = stream.split_once("\r\n\r\n") else { return true };
    let head = format!("{head}\r\n\r\n");
    if status(&head) == 502 {
        return true;
    }
    match fields_of(&head, "content-length").first() {
        Some(length) => length.parse::<usize>().is_ok_and(|length| body.len() < length),
        None => !fields_of(&head, "transfer-encoding").is_empty() && !body.ends_with("0\r\n\r\n"),
    }
}

/// Lines as RFC 9112 has them: CRLF, names of token characters, no control characters.
fn is_well_formed(head: &str) -> Result<(), String> {
    let body = head.strip_suffix("\r\n\r\n").unwrap_or(head);
    for (index, line) in body.split("\r\n").enumerate() {
        if line.chars().any(|c| c == '\u{7f}' || (c < ' ' && c != '\t')) {
            return Err(format!("a control character in {line:?}"));
        }
        let named = line.split_once(':').is_some_and(|(name, _)| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
        });
        if index > 0 && !named {
            return Err(format!("not a field: {line:?}"));
        }
    }
    Ok(())
}

/// What an origin must never see, whatever was sent.
fn is_clean(message: &str) -> Result<(), String> {
    let head = match message.split_once("\r\n\r\n") {
        Some((head, _)) => format!("{head}\r\n\r\n"),
        None => return Err("a head that breaks off".to_owned()),
    };
    is_well_formed(&head)?;
    let line: Vec<_> = head.split("\r\n").next().unwrap_or_default().split(' ').collect();
    let [_, target, "HTTP/1.1"] = line.as_slice() else { return Err("a bad request line".to_owned()) };
    let path = target.split('?').next().unwrap_or_default();
    if !(path.starts_with('/') || *target == "*") || path.contains('\\') || target.contains('#') {
        return Err(format!("a bad target {target:?}"));
    }
    if fields_of(&head, "authorization") != [format!("Bearer {TOKEN}")] {
        return Err("not our credential alone".to_owned());
    }
    if fields_of(&head, "host").len() != 1 {
        return Err("not one Host".to_owned());
    }
    let (lengths, codings) = (fields_of(&head, "content-length"), fields_of(&head, "transfer-encoding"));
    if lengths.len() + codings.len() > 1 || codings.iter().any(|coding| coding != "chunked") {
        return Err("framed twice, or not plainly".to_owned());
    }
    if lengths.iter().any(|length| length.len() > 1 && length.starts_with('0')) {
        return Err("a length that some read as octal".to_owned());
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "http2-settings"] {
        if !fields_of(&head, name).is_empty() {
            return Err(format!("{name} went on"));
        }
    }
    if fields_of(&head, "via").is_empty() || fields_of(&head, "x-forwarded-for") != ["127.0.0.1"] {
        return Err("not what the proxy says of the client".to_owned());
    }
    Ok(())
}

#[test]
fn there_are_rows_enough() {
    let counts = [
        crate::raw_framing::rows().len(),
        crate::raw_targets::rows().len(),
        crate::raw_fields::rows().len(),
        crate::raw_answers::rows().len(),
        crate::raw_interim::rows().len(),
        crate::raw_routes::rows().len(),
        crate::raw_bytes::rows().len(),
        crate::raw_sequences::rows().len(),
        crate::raw_cuts::rows().len(),
    ];
    let sum: usize = counts.iter().sum();
    crate::harness::count(&format!("{sum} rows of raw bytes through the data plane"));
    assert!(sum >= 150, "{counts:?}");
}
