//! A gate: the list of clients of one listener, route or rule, as one worker sees it.
//!
//! Owns: which proofs are asked for, which fields of a request are proofs (they end here) and what is counted.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ask::Pending;
use super::remembered::Remembered;
use super::shared::Clients;
use super::{Caller, Connection, Digest, Kind};
use crate::clock::Clock;
use crate::names::Name;
use crate::secret::Fingerprint;
use crate::telemetry::counters::{ClientCounters, DenialCounters};

/// What a request says of its sender.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// The connection.
    pub connection: &'r Connection,
    /// The client's address, as far as trusted proxies may say it; `None` for a Unix socket.
    pub address: Option<IpAddr>,
    /// The fields, as they came.
    pub headers: &'r HeaderMap,
    /// Whether the request is for a forward proxy: `Proxy-Authorization` is read, and 407 is answered.
    pub proxy: bool,
}

/// All clients in one worker.
#[derive(Debug)]
pub struct Desk {
    pub(super) shared: Arc<Clients>,
    pub(super) clock: Clock,
    pub(super) pending: Pending,
    pub(super) remembered: Remembered,
    callers: Vec<Rc<Caller>>,
}

impl Desk {
    /// For one worker; `counters` are its own, in the order of the clients.
    pub fn new(shared: Arc<Clients>, clock: Clock, counters: &[Arc<ClientCounters>]) -> Rc<Self> {
        let callers = shared.entries.iter().zip(counters).enumerate();
        let callers = callers.map(|(index, (entry, counters))| {
            Rc::new(Caller {
                name: Name::try_new(entry.name.as_str()).expect("it was a name already"),
                kind: entry.kind,
                index,
                counters: Arc::clone(counters),
                allowance: entry.allowance.clone(),
            })
        });
        let callers = callers.collect();
        Rc::new(Self {
            callers,
            clock,
            shared,
            pending: Pending::default(),
            remembered: Remembered::default(),
        })
    }

    /// What a proof is remembered under.
    pub(super) fn digest(&self, sort: u8, proof: &[u8]) -> Digest {
        let mut context = aws_lc_rs::hmac::Context::with_key(&self.shared.digest_key);
        context.update(&[sort]);
        context.update(proof);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    pub(super) fn remember_password(&self, digest: Digest, index: usize, hash: Fingerprint) {
        self.remembered.add_password(digest, index, hash);
    }

    pub(super) fn caller(&self, index: usize) -> Rc<Caller> {
        Rc::clone(&self.callers[index])
    }
}

/// Who may pass here.
#[derive(Debug)]
pub struct Gate {
    pub(super) desk: Rc<Desk>,
    /// Who may, in the order of the list.
    pub(super) clients: Vec<usize>,
    /// Whom the listener lets in elsewhere.
    pub(super) others: Vec<usize>,
    pub(super) challenges: Arc<[HeaderValue]>,
    pub(super) denials: Arc<DenialCounters>,
    pub(super) authorization: bool,
    key_headers: Vec<HeaderName>,
}

impl Gate {
    /// A gate for `clients`; a client of `listener`'s list that is not among them is told that it may not pass. Names
    /// were checked by the configuration; an unknown one is nobody.
    pub fn new(desk: &Rc<Desk>, clients: &[Name], listener: &[Name], denials: Arc<DenialCounters>) -> Self {
        let place = |name: &Name| desk.shared.index_of(name);
        let clients: Vec<usize> = clients.iter().filter_map(place).collect();
        let others: Vec<usize> =
            listener.iter().filter_map(place).filter(|index| !clients.contains(index)).collect();
        let all = || clients.iter().chain(&others).map(|index| &desk.shared.entries[*index]);
        let has = |kind: Kind| all().any(|entry| entry.kind == kind);
        let mut challenges = Vec::new();
        if has(Kind::Basic) {
            challenges.push(HeaderValue::from_static("Basic realm=\"bearward\", charset=\"UTF-8\""));
        }
        if has(Kind::Jwt) {
            challenges.push(HeaderValue::from_static("Bearer realm=\"bearward\""));
        }
        if has(Kind::ApiKey) {
            challenges.push(HeaderValue::from_static("ApiKey realm=\"bearward\""));
        }
        let mut key_headers: Vec<HeaderName> =
            all().filter_map(|entry| entry.key_header().cloned()).collect();
        key_headers.dedup();
        Self {
            authorization: has(Kind::Basic) || has(Kind::Jwt),
            challenges: challenges.into(),
            key_headers,
            desk: Rc::clone(desk),
            clients,
            others,
            denials,
        }
    }

    /// Whether whatever a browser sends by itself proves nothing here: a page of another origin cannot use it.
    pub fn wants_a_field(&self) -> bool {
        let kinds = self.clients.iter().map(|index| self.desk.shared.entries[*index].kind);
        kinds.into_iter().all(|kind| matches!(kind, Kind::ApiKey | Kind::Jwt))
    }

    /// Adds the fields that hold proofs: they are for this proxy alone. `proxy`: they came to a forward proxy, where
    /// `Authorization` is for the server.
    pub fn strip(&self, proxy: bool, remove: &mut Vec<HeaderName>) {
        if self.authorization && !proxy {
            remove.push(http::header::AUTHORIZATION);
        }
        remove.extend_from_slice(&self.key_headers);
    }
}
