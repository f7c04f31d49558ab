//! Who is at the other end of a connection, and what holds for all of its exchanges.
//!
//! Owns: the values that are made once a connection. Changes nothing of them.

use std::net::IpAddr;
use std::rc::Rc;

use rustls::pki_types::CertificateDer;

use super::egress::Inside;
use super::forward::Forwarded;
use super::limits::ClientLimits;
use crate::policy::clients::{Connection, UnixPeer};
use crate::policy::trusted::TrustedProxies;

/// Who is at the other end of a connection.
#[derive(Debug, Default)]
pub struct Peer {
    /// Its address; `None` for a Unix socket.
    pub address: Option<IpAddr>,
    /// The address that it dialled.
    pub local: Option<IpAddr>,
    /// Whether it speaks TLS.
    pub secure: bool,
    /// Whom the listener trusts, if this peer is one of them.
    pub trusted: Option<Rc<TrustedProxies>>,
    /// Its own certificate and those that came with it, verified against the listener's `client_ca`.
    pub chain: Option<Box<[CertificateDer<'static>]>>,
    /// Who holds the other end of a Unix socket.
    pub unix: Option<UnixPeer>,
}

/// What holds for a whole connection.
#[derive(Debug)]
pub struct Link {
    /// What it says of its client.
    pub(super) connection: Connection,
    /// The address that the client dialled.
    pub local_ip: Option<IpAddr>,
    /// Whether it speaks TLS.
    pub(super) secure: bool,
    pub(super) forwarded: Forwarded,
    pub(super) limits: ClientLimits,
    /// It runs through a tunnel that is intercepted.
    pub(super) inside: Option<Inside>,
}

impl Link {
    /// A connection of `peer`.
    pub fn new(peer: Peer, limits: ClientLimits) -> Self {
        Self {
            limits,
            local_ip: peer.local,
            secure: peer.secure,
            forwarded: Forwarded::new(&peer),
            connection: Connection::new(peer.chain, peer.unix),
            inside: None,
        }
    }

    /// Whether it runs through a tunnel that is intercepted.
    pub fn is_inside(&self) -> bool {
        self.inside.is_some()
    }

    /// A connection through a tunnel of the client of `outside`, which has proven who it is there.
    pub fn inside(outside: &Self, inside: Inside) -> Self {
        Self {
            limits: outside.limits,
            local_ip: outside.local_ip,
            secure: true,
            // What stands in the fields of a request inside is the client's own word.
            forwarded: Forwarded::new(&Peer { address: inside.address(), ..Peer::default() }),
            connection: Connection::new(None, None),
            inside: Some(inside),
        }
    }
}
