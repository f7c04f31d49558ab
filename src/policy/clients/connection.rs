//! What a connection itself says of its client.
//!
//! Owns: facts that hold for all requests of a connection. A proof in a header field is never one of them: each request
//! brings its own.

use std::cell::{Cell, RefCell};

use rustls::pki_types::CertificateDer;

/// Who holds the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixPeer {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The facts of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// The client's certificate and those that came with it, verified against the listener's `client_ca`.
    pub chain: Option<Box<[CertificateDer<'static>]>>,
    /// The peer of a Unix socket, unless it speaks for somebody else.
    pub unix: Option<UnixPeer>,
    /// Which clients' certificate rules were looked at, with the outcome.
    pub(super) matched: RefCell<Vec<(usize, bool)>>,
    /// The digest of the proof that was good last: who guesses on one connection has none.
    pub(super) proven: Cell<Option<[u8; 32]>>,
}

impl Connection {
    /// Whether a proof with this digest was good on this connection, and was the last one.
    pub fn has_proven(&self, digest: &[u8; 32]) -> bool {
        self.proven.get() == Some(*digest)
    }

    /// A proof was good.
    pub fn prove(&self, digest: [u8; 32]) {
        self.proven.set(Some(digest));
    }

    /// From what the handshake and the socket say.
    pub fn new(chain: Option<Box<[CertificateDer<'static>]>>, unix: Option<UnixPeer>) -> Self {
        Self { chain, unix, ..Self::default() }
    }
}
