//! Whom a request comes from, by what it presents.
//!
//! Owns: the order of proofs. What a request presents goes before what its connection shows, so that a client behind a
//! shared address is known by its own name; of several clients that fit, the first of the list is it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::gate::{Asked, Gate};
use super::presented;
use super::shared::Known;
use super::throttle::Counted;
use super::{Caller, Kind};
use crate::secret::Fingerprint;

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// It does not show that it comes from a client: 401, or 407 with `proxy`.
    Unknown {
        /// How it could, one value of the field each; empty where nothing that a request can say helps.
        challenges: Arc<[HeaderValue]>,
        /// For `Proxy-Authenticate`.
        proxy: bool,
        /// What it presented is wrong, rather than missing.
        wrong: bool,
    },
    /// A client, but not one of those that may pass here: 403.
    Forbidden,
    /// Too many failed attempts: 429.
    Throttled {
        /// When to try again.
        retry_after: Duration,
    },
    /// It cannot be told now: 503.
    Busy,
}

impl Denied {
    /// The place of the reason among [`crate::telemetry::counters::DENIAL_REASONS`].
    pub(super) fn reason(&self) -> usize {
        match self {
            Self::Unknown { wrong: false, .. } => 0,
            Self::Unknown { wrong: true, .. } => 1,
            Self::Forbidden => 2,
            Self::Throttled { .. } => 3,
            Self::Busy => 4,
        }
    }
}

/// What can be told at once.
#[derive(Debug)]
pub enum Judged {
    /// A client.
    Known(Rc<Caller>),
    /// Nobody who may pass.
    Denied(Denied),
}

/// What came of the proofs in header fields.
enum Explicit {
    /// There is none.
    Missing,
    /// It is nobody's; this is what it tried to be.
    Wrong(Vec<u8>),
    /// It is this client's.
    Of(usize),
}

impl Gate {
    /// Judges a request.
    pub fn judge(&self, asked: &Asked<'_>) -> Judged {
        let explicit = self.explicit(asked);
        let found = match explicit {
            Explicit::Of(index) => Some(index),
            _ => self.ambient(&self.clients, asked).or_else(|| self.ambient(&self.others, asked)),
        };
        match found {
            Some(index) if self.clients.contains(&index) => Judged::Known(self.desk.caller(index)),
            Some(_) => self.denied(Denied::Forbidden),
            None => self.denied(self.unknown(asked, explicit)),
        }
    }

    pub(super) fn denied(&self, denied: Denied) -> Judged {
        self.denials.reasons[denied.reason()].increment();
        Judged::Denied(denied)
    }

    /// Counts a wrong proof. It is nobody's and could not have been guessed, so no other request has to wait for it.
    fn unknown(&self, asked: &Asked<'_>, explicit: Explicit) -> Denied {
        let challenges = Arc::clone(&self.challenges);
        let Explicit::Wrong(name) = explicit else {
            return match challenges.is_empty() {
                true => Denied::Forbidden,
                false => Denied::Unknown { challenges, proxy: asked.proxy, wrong: false },
            };
        };
        let (throttle, now) = (&self.desk.shared.throttle, self.desk.clock.boot());
        if let Some(retry_after) = throttle.wait(asked.address, &name, now) {
            return Denied::Throttled { retry_after };
        }
        if throttle.count(asked.address, &name, now) == Counted::First {
            tell(asked);
        }
        Denied::Unknown { challenges, proxy: asked.proxy, wrong: true }
    }

    /// Proofs in header fields.
    fn explicit(&self, asked: &Asked<'_>) -> Explicit {
        let mut outcome = Explicit::Missing;
        for index in self.clients.iter().chain(&self.others) {
            let Known::ApiKey { config, keys } = &self.desk.shared.entries[*index].proof else { continue };
            let Some(value) = presented::only(asked.headers, &config.header) else { continue };
            if keys.load().contain(&Fingerprint::of(value.as_bytes())) {
                return Explicit::Of(*index);
            }
            outcome = Explicit::Wrong(Kind::ApiKey.as_str().into());
        }
        outcome
    }

    /// What holds for the connection or the address.
    fn ambient(&self, clients: &[usize], asked: &Asked<'_>) -> Option<usize> {
        let fits = |kinds: &[Kind]| {
            let mut of_kind =
                clients.iter().filter(|index| kinds.contains(&self.desk.shared.entries[**index].kind));
            of_kind.find(|index| self.fits(**index, asked)).copied()
        };
        fits(&[Kind::Mtls]).or_else(|| fits(&[Kind::UnixPeer])).or_else(|| fits(&[Kind::Cidr]))
    }

    fn fits(&self, index: usize, asked: &Asked<'_>) -> bool {
        match &self.desk.shared.entries[index].proof {
            Known::Mtls(rule) => {
                let Some(chain) = &asked.connection.chain else { return false };
                let mut matched = asked.connection.matched.borrow_mut();
                if let Some((_, fits)) = matched.iter().find(|(of, _)| *of == index) {
                    return *fits;
                }
                let fits = rule.admits(chain);
                matched.push((index, fits));
                fits
            }
            Known::UnixPeer(config) => asked
                .connection
                .unix
                .is_some_and(|peer| config.uid.contains(&peer.uid) || config.gid.contains(&peer.gid)),
            Known::Cidr(networks) => asked
                .address
                .map(|ip| ip.to_canonical())
                .is_some_and(|ip| networks.iter().any(|network| network.contains(&ip))),
            Known::ApiKey { .. } => false,
        }
    }
}

/// Once for each that begins to wait: the table bounds how often.
pub(super) fn tell(asked: &Asked<'_>) {
    let from = asked.address.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
    tracing::warn!(
        from,
        "several failed attempts to be a client; further ones are slowed down and only counted"
    );
}
