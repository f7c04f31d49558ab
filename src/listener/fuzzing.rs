//! What must hold of the bytes of any client, for the fuzz targets.
//!
//! Owns: the properties of `boundary`. Compiled with the feature `fuzzing` only.

use std::rc::Rc;

use super::boundary::Boundary;
use crate::proxy::{Client, ClientLimits, Link, Malformed, Peer};

/// How a stream was read.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    /// Bytes that were handed on.
    taken: usize,
    /// Whether the stream was refused at that place.
    refused: bool,
    /// What was said of its heads, in order.
    malformed: Vec<Option<Malformed>>,
}

fn read(stream: &[u8], size: usize) -> Reading {
    let client = Client::new(Rc::new(Link::new(Peer::default(), ClientLimits::default())));
    let mut boundary = Boundary::default();
    let mut reading = Reading { taken: 0, refused: false, malformed: Vec::new() };
    while reading.taken < stream.len() {
        let piece = &stream[reading.taken..stream.len().min(reading.taken + size)];
        match boundary.judge(piece, &client) {
            Ok(taken) => {
                assert!(taken > 0 && taken <= piece.len(), "{taken} of {}", piece.len());
                reading.taken += taken;
            }
            Err(_) => {
                reading.refused = true;
                break;
            }
        }
    }
    // One question for each head that could have come.
    for _ in stream.iter().filter(|byte| **byte == b'\n').take(64) {
        reading.malformed.push(client.take_malformed());
    }
    reading
}

/// A stream is read alike however it is cut, up to the place where it is refused.
pub fn stream(bytes: &[u8], size: usize) {
    let (whole, pieces) = (read(bytes, usize::MAX / 2), read(bytes, size.max(1)));
    assert_eq!(whole.refused, pieces.refused);
    assert_eq!(whole.malformed, pieces.malformed);
    if !whole.refused {
        assert_eq!(whole.taken, pieces.taken);
    }
}
