//! Reading whole answers from pieces, for the fuzz target. Not part of the program.
//!
//! Owns: nothing but the loop that a connection has otherwise.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::head;
use crate::http1::Reading;

/// What is read of answers that come in these pieces: for each the status, fields, body and whether it ended, up to the
/// first that does not.
pub(in crate::upstream) fn read_all(pieces: &mut dyn Iterator<Item = Bytes>, asked: &Method) -> Vec<String> {
    let (mut unread, mut found) = (Bytes::new(), Vec::new());
    let mut fill = |unread: &mut Bytes| match pieces.next() {
        Some(piece) => {
            *unread = [&unread[..], &piece[..]].concat().into();
            true
        }
        None => false,
    };
    loop {
        let mut again = false;
        let answered = loop {
            match head::read_answer(&mut unread, asked, again) {
                Ok(Some(answered)) => break answered,
                Ok(None) => again = !unread.is_empty(),
                Err(_) => return found,
            }
            if !fill(&mut unread) {
                return found;
            }
        };
        let head::Answered { response, body: mut reading, persists } = answered;
        let (mut data, mut trailers) = (Vec::new(), None);
        let whole = loop {
            match reading.take(&mut unread) {
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(piece) => data.extend_from_slice(&piece),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
                Ok(None) if reading == Reading::Done => break true,
                Ok(None) if fill(&mut unread) => {}
                Ok(None) | Err(_) => break false,
            }
        };
        found.push(format!("{response:?} {data:?} {trailers:?} {whole} {persists}"));
        if !whole || !persists || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return found;
        }
    }
}
