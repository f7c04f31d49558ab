//! What the benchmarks call of a listener. No part of the library's interface.

use std::rc::Rc;

use super::boundary::Boundary;
use crate::proxy::{Client, ClientLimits, Link, Peer};

/// The framing of one client connection.
#[derive(Debug)]
pub struct Framing {
    boundary: Boundary,
    client: Client,
}

impl Default for Framing {
    fn default() -> Self {
        let client = Client::new(Rc::new(Link::new(Peer::default(), ClientLimits::default())));
        Self { boundary: Boundary::default(), client }
    }
}

impl Framing {
    /// Walks over a stream of messages; how many times bytes were taken, `None` for a stream that is broken.
    pub fn walk(&mut self, mut bytes: &[u8]) -> Option<usize> {
        let mut turns = 0;
        while !bytes.is_empty() {
            let taken = self.boundary.judge(bytes, &self.client).ok()?;
            bytes = &bytes[taken..];
            turns += 1;
        }
        Some(turns)
    }
}
