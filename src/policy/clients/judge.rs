//! Whom a request comes from, by what it presents.
//!
//! Owns: the order of proofs. What a request presents goes before what its connection shows, so that a client behind a
//! shared address is known by its own name; of several clients that fit, the first of the list is it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::ask::{Ask, Question};
use super::gate::{Asked, Gate};
use super::presented::{self, Authorization};
use super::shared::Known;
use super::throttle::Counted;
use super::{Caller, Kind, basic, jwt, remembered};
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
    /// It takes longer: [`Gate::answer`] tells.
    Ask(Question),
}

/// What came of the proofs in header fields.
pub(super) enum Explicit {
    /// There is none.
    Missing,
    /// It is nobody's; this is what it tried to be.
    Wrong(Vec<u8>),
    /// The same, and it was counted already.
    Counted,
    /// It is this client's.
    Of(usize),
    /// It is not looked at now.
    Denied(Denied),
    /// It takes longer to tell.
    Ask(Ask),
}

impl Gate {
    /// Judges a request.
    pub fn judge(&self, asked: &Asked<'_>) -> Judged {
        self.settle(asked, self.explicit(asked, true))
    }

    pub(super) fn settle(&self, asked: &Asked<'_>, explicit: Explicit) -> Judged {
        let found = match explicit {
            Explicit::Ask(ask) => return Judged::Ask(Question(ask)),
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
        let unknown = |wrong| Denied::Unknown { challenges, proxy: asked.proxy, wrong };
        let name = match explicit {
            Explicit::Wrong(name) => name,
            Explicit::Denied(denied) => return denied,
            Explicit::Counted => return unknown(true),
            _ if self.challenges.is_empty() => return Denied::Forbidden,
            _ => return unknown(false),
        };
        let (throttle, now) = (&self.desk.shared.throttle, self.desk.clock.boot());
        if let Some(retry_after) = throttle.wait(asked.address, &name, now) {
            return Denied::Throttled { retry_after };
        }
        if throttle.count(asked.address, &name, now) == Counted::First {
            tell(asked);
        }
        unknown(true)
    }

    /// Proofs in header fields. `may_ask`: whether keys may be fetched for it.
    pub(super) fn explicit(&self, asked: &Asked<'_>, may_ask: bool) -> Explicit {
        let of_key = self.api_key(asked);
        if matches!(of_key, Explicit::Of(_)) || !self.authorization {
            return of_key;
        }
        let authorization = match presented::authorization(asked.headers, asked.proxy) {
            Authorization::Basic(pair) if self.has(Kind::Basic) => self.basic(asked, pair),
            Authorization::Bearer(token) if self.has(Kind::Jwt) => self.bearer(token, may_ask),
            Authorization::Absent => Explicit::Missing,
            _ => Explicit::Wrong(b"authorization".to_vec()),
        };
        match authorization {
            Explicit::Missing => of_key,
            other => other,
        }
    }

    fn all(&self) -> impl Iterator<Item = (usize, &Known)> {
        let indices = self.clients.iter().chain(&self.others);
        indices.map(|index| (*index, &self.desk.shared.entries[*index].proof))
    }

    fn has(&self, kind: Kind) -> bool {
        self.clients.iter().chain(&self.others).any(|index| self.desk.shared.entries[*index].kind == kind)
    }

    fn api_key(&self, asked: &Asked<'_>) -> Explicit {
        let mut outcome = Explicit::Missing;
        for (index, known) in self.all() {
            let Known::ApiKey { config, keys } = known else { continue };
            let Some(value) = presented::only(asked.headers, &config.header) else { continue };
            if keys.load().contain(&Fingerprint::of(value.as_bytes())) {
                return Explicit::Of(index);
            }
            outcome = Explicit::Wrong(Kind::ApiKey.as_str().into());
        }
        outcome
    }

    /// A password that was good is known by its digest; for any other a throttled sender waits first, so that a right
    /// guess is not told from a wrong one. Only who was let in with it on this connection does not.
    fn basic(&self, asked: &Asked<'_>, pair: &[u8]) -> Explicit {
        let digest = self.desk.digest(Kind::Basic as u8, pair);
        let remembered = self.desk.remembered.password(&digest).filter(|(index, id)| {
            let known = &self.desk.shared.entries[*index].proof;
            self.serves(*index) && matches!(known, Known::Basic { hash, .. } if hash.load().id == *id)
        });
        if let Some((index, _)) = remembered
            && asked.connection.proven.get() == Some(digest)
        {
            return Explicit::Of(index);
        }
        let Some((user, password)) = basic::user_and_password(pair) else {
            return Explicit::Wrong(b"basic".to_vec());
        };
        let now = self.desk.clock.boot();
        if let Some(retry_after) = self.desk.shared.throttle.wait(asked.address, &user, now) {
            return Explicit::Denied(Denied::Throttled { retry_after });
        }
        if let Some((index, _)) = remembered {
            asked.connection.proven.set(Some(digest));
            return Explicit::Of(index);
        }
        let mut candidates = self.all().filter_map(|(index, known)| match known {
            Known::Basic { config, hash } => Some((index, config.username.as_bytes() == user, hash)),
            _ => None,
        });
        let first = candidates.next();
        let found = first.filter(|(_, named, _)| *named).or_else(|| candidates.find(|(_, named, _)| *named));
        let ask = |index, hash: &arc_swap::ArcSwap<basic::Hash>| {
            Explicit::Ask(Ask::Password { index, hash: hash.load_full(), user, password, digest })
        };
        match (found, first) {
            (Some((index, _, hash)), _) => ask(Some(index), hash),
            // Nobody has this name: that must not show in the time that it takes.
            (None, Some((_, _, hash))) if self.ambient(&self.clients, asked).is_none() => ask(None, hash),
            _ => Explicit::Missing,
        }
    }

    fn serves(&self, index: usize) -> bool {
        self.clients.contains(&index) || self.others.contains(&index)
    }

    fn bearer(&self, token: &[u8], may_ask: bool) -> Explicit {
        let digest = self.desk.digest(Kind::Jwt as u8, token);
        let now = u64::try_from(self.desk.clock.wall().seconds()).unwrap_or_default();
        let good = |known: &remembered::Token| {
            let proof = &self.desk.shared.entries[known.index].proof;
            let current = matches!(proof, Known::Jwt(rule) if rule.source.keys.load().serial == known.serial);
            current && known.until > now && self.serves(known.index)
        };
        if let Some(known) = self.desk.remembered.token(&digest).filter(good) {
            return Explicit::Of(known.index);
        }
        let mut without_key = None;
        for (index, known) in self.all() {
            let Known::Jwt(rule) = known else { continue };
            let serial = rule.source.keys.load().serial;
            match rule.judge(token) {
                jwt::Outcome::Good(until) => {
                    self.desk.remembered.add_token(digest, remembered::Token { index, until, serial });
                    return Explicit::Of(index);
                }
                jwt::Outcome::NoKey if serial == 0 || rule.source.may_ask(self.desk.clock.boot()) => {
                    without_key = without_key.or(Some((index, serial)));
                }
                jwt::Outcome::NoKey | jwt::Outcome::Wrong => {}
            }
        }
        match without_key {
            Some((index, _)) if may_ask => Explicit::Ask(Ask::Keys { index }),
            // No key was ever read: nobody can be told from anybody.
            Some((_, 0)) => Explicit::Denied(Denied::Busy),
            _ => Explicit::Wrong(b"bearer".to_vec()),
        }
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
            Known::ApiKey { .. } | Known::Basic { .. } | Known::Jwt(_) => false,
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
