//! How a line is written.
//!
//! Owns: JSON and Combined, each correct for any byte that a client can send: one exchange is one line, and no value can
//! be taken for the end of another.

use http::Version;

use super::record::{Record, Use};
use crate::clock::UnixTime;

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// What nginx says of a client that closed before it was answered.
const CLIENT_CLOSED: u16 = 499;

/// The access line as a JSON object.
pub(super) fn json(out: &mut Vec<u8>, record: &Record, time: &str) {
    begin(out, record, time, "{\"log\":\"access\",\"time\":\"");
    if let Some(credential) = record.labels.as_ref().and_then(|labels| labels.credential.as_ref()) {
        text(out, ",\"credential\":\"", credential.as_str());
    }
    egress(out, record);
    text(out, ",\"method\":\"", record.method.as_str());
    authority(out, record);
    out.extend_from_slice(b",\"path\":\"");
    escape_json(out, &record.path);
    text(out, "\",\"protocol\":\"", protocol(record));
    number(out, ",\"status\":", u64::from(record.status.unwrap_or(CLIENT_CLOSED)));
    number(out, ",\"bytes_in\":", record.received);
    number(out, ",\"bytes_out\":", record.sent);
    millis(out, ",\"duration_ms\":", record.duration());
    if let Some((spoken, duration)) = record.upstream {
        text(out, ",\"upstream_protocol\":\"", version(spoken));
        millis(out, ",\"upstream_ms\":", duration);
    }
    for (flag, words) in [
        (record.retried, ",\"retried\":true"),
        (record.replayed, ",\"replayed\":true"),
        (record.incomplete || record.status.is_none(), ",\"incomplete\":true"),
    ] {
        if flag {
            out.extend_from_slice(words.as_bytes());
        }
    }
    if let Some((slug, error)) = record.refusal {
        text(out, ",\"problem\":\"", slug);
        text(out, ",\"proxy_error\":\"", error);
    }
    if !record.agent.is_empty() {
        out.extend_from_slice(b",\"user_agent\":\"");
        escape_json(out, &record.agent);
        out.push(b'"');
    }
    out.extend_from_slice(b"}\n");
}

/// The audit line as a JSON object.
pub(super) fn audit(out: &mut Vec<u8>, record: &Record, time: &str) {
    begin(out, record, time, "{\"log\":\"audit\",\"time\":\"");
    if let Some(credential) = record.labels.as_ref().and_then(|labels| labels.credential.as_ref()) {
        text(out, ",\"credential\":\"", credential.as_str());
    }
    let outcome = match (record.usage(), record.status) {
        (Use::Unavailable, _) => "unavailable",
        (Use::Rejected, _) => "rejected",
        (_, None) => "aborted",
        (_, Some(_)) if record.refusal.is_some() => "failed",
        _ => "used",
    };
    // Of a denial there is no use to tell.
    let outcome = match record.decision {
        Some((decision, _)) if record.usage() == Use::None => decision,
        _ => outcome,
    };
    text(out, ",\"outcome\":\"", outcome);
    egress(out, record);
    text(out, ",\"method\":\"", record.method.as_str());
    authority(out, record);
    number(out, ",\"status\":", u64::from(record.status.unwrap_or(CLIENT_CLOSED)));
    if record.replayed {
        out.extend_from_slice(b",\"replayed\":true");
    }
    out.extend_from_slice(b"}\n");
}

/// What an egress listener decided.
fn egress(out: &mut Vec<u8>, record: &Record) {
    let Some((decision, action)) = record.decision else { return };
    text(out, ",\"decision\":\"", decision);
    if let Some(action) = action {
        text(out, ",\"action\":\"", action);
    }
}

/// Where a forward proxy was to go.
fn authority(out: &mut Vec<u8>, record: &Record) {
    if !record.authority.is_empty() {
        out.extend_from_slice(b",\"authority\":\"");
        escape_json(out, &record.authority);
        out.push(b'"');
    }
}

/// What both JSON lines begin with.
fn begin(out: &mut Vec<u8>, record: &Record, time: &str, opening: &str) {
    text(out, opening, time);
    out.extend_from_slice(b",\"request_id\":\"");
    escape_json(out, &record.id);
    out.extend_from_slice(b"\",");
    if let Some(labels) = &record.labels {
        out.extend_from_slice(labels.json.as_bytes());
        out.push(b',');
    }
    out.extend_from_slice(b"\"client\":\"");
    escape_json(out, &record.client);
    out.push(b'"');
    if !record.client_name.is_empty() {
        out.extend_from_slice(b",\"client_name\":\"");
        out.extend_from_slice(&record.client_name);
        out.push(b'"');
    }
}

/// The Combined Log Format. The field of the referrer is always `-`: the address of a page may hold secrets.
pub(super) fn combined(out: &mut Vec<u8>, record: &Record, time: &str) {
    escape_combined(out, &record.client);
    out.extend_from_slice(b" - ");
    let name = record.client_name.as_slice();
    out.extend_from_slice(if name.is_empty() { b"-" } else { name });
    out.extend_from_slice(b" [");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"] \"");
    out.extend_from_slice(record.method.as_str().as_bytes());
    out.push(b' ');
    escape_combined(out, &record.path);
    out.push(b' ');
    out.extend_from_slice(protocol(record).as_bytes());
    number(out, "\" ", u64::from(record.status.unwrap_or(CLIENT_CLOSED)));
    number(out, " ", record.sent);
    out.extend_from_slice(b" \"-\" \"");
    if record.agent.is_empty() {
        out.push(b'-');
    }
    escape_combined(out, &record.agent);
    out.extend_from_slice(b"\"\n");
}

fn protocol(record: &Record) -> &'static str {
    if record.socks { "SOCKS5" } else { version(record.version) }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// `key` opens the quotes; the value needs no escaping.
fn text(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three places.
fn millis(out: &mut Vec<u8>, key: &str, value: std::time::Duration) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    number(out, key, micros / 1000);
    let places = micros % 1000;
    let digit = |place: u64| DIGITS[usize::try_from(places / place % 10).unwrap_or(0)];
    out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

/// Whether all bytes stand for themselves in every format. Without a branch a byte, so that it goes over many at once.
fn is_plain(bytes: &[u8]) -> bool {
    !bytes
        .iter()
        .fold(false, |odd, byte| odd | !(0x20..0x7f).contains(byte) | (*byte == b'"') | (*byte == b'\\'))
}

/// Writes bytes as the inside of a JSON string. UTF-8 stays; a byte that is none becomes U+FFFD.
fn escape_json(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..0x20 | 0x7f => {
                    out.extend_from_slice(b"\\u00");
                    hex(out, byte);
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Writes bytes as nginx and Apache do: what is not visible ASCII as `\xHH`.
fn escape_combined(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                out.extend_from_slice(b"\\x");
                hex(out, *byte);
            }
            _ => out.push(*byte),
        }
    }
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// A time as text, made anew once a second.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<i64>,
    rfc3339: String,
    combined: String,
}

/// Where the milliseconds stand in `2026-11-24T21:35:30.123Z`.
const MILLIS_AT: usize = 20;

impl Stamp {
    /// `2026-11-24T21:35:30.123Z`.
    pub(super) fn rfc3339(&mut self, time: UnixTime) -> &str {
        self.turn(time);
        let millis = time.millis().rem_euclid(1000);
        let digits = [millis / 100, millis / 10 % 10, millis % 10]
            .map(|digit| char::from(DIGITS[usize::try_from(digit).unwrap_or(0)]));
        self.rfc3339.truncate(MILLIS_AT);
        self.rfc3339.extend(digits);
        self.rfc3339.push('Z');
        &self.rfc3339
    }

    /// `24/Nov/2026:21:35:30 +0000`.
    pub(super) fn combined(&mut self, time: UnixTime) -> &str {
        self.turn(time);
        &self.combined
    }

    fn turn(&mut self, time: UnixTime) {
        if self.second != Some(time.seconds()) {
            self.second = Some(time.seconds());
            self.write(time);
        }
    }

    #[cold]
    fn write(&mut self, time: UnixTime) {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        self.rfc3339 = time.rfc3339();
        let shown = |from: usize, to: usize| self.rfc3339.get(from..to).unwrap_or_default();
        let month = shown(5, 7).parse().unwrap_or(1_usize).clamp(1, 12);
        self.combined =
            [shown(8, 10), "/", MONTHS[month - 1], "/", shown(0, 4), ":", shown(11, 19), " +0000"].concat();
        // In place of the `Z`.
        self.rfc3339.truncate(MILLIS_AT - 1);
        self.rfc3339.push('.');
    }
}
