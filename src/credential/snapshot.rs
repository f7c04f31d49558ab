//! What is known of a credential from outside its task: status, readiness and the material of metrics.
//!
//! Owns: the counters and the board on which the task writes what it knows. Never holds a token or a
//! secret, only times, counts and scrubbed words.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::schedule::{self, Action, View};
use super::state::Phase;
use super::{State, TokenCell};
use crate::clock::{BootTime, Clock, UnixTime};
use crate::names::Name;
use crate::oauth::FailureClass;

/// What is known of a credential now: the material of `/api/v1/status`, `/readyz` and the metrics.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The name.
    pub name: Name,
    /// Where it stands now (a token past its hard stop is `expired` here even before the task wakes).
    pub state: State,
    /// Counts access tokens.
    pub generation: u64,
    /// When the access token dies.
    pub expires_at: Option<UnixTime>,
    /// Life left by the boot clock, seconds; negative never.
    pub expires_in_seconds: Option<u64>,
    /// When the next token request is due.
    pub refresh_at: Option<UnixTime>,
    /// When the refresh token dies.
    pub refresh_token_expires_at: Option<UnixTime>,
    /// When the last successful answer was taken.
    pub last_refresh_at: Option<UnixTime>,
    /// The last failure, until a success.
    pub last_error: Option<LastError>,
    /// Token requests that brought a token.
    pub refreshes_ok: u64,
    /// Token requests that failed.
    pub refreshes_failed: u64,
    /// The same by outcome, with durations and the store's errors.
    pub counts: Counts,
    /// The store's kind.
    pub store_kind: &'static str,
    /// Whether this process holds the lease or refreshed last.
    pub leader: bool,
    /// `required` of the configuration.
    pub required: bool,
    /// Whether one attempt has ended (readiness waits for it).
    pub tried: bool,
    /// A rotated token that is not on disk yet: an alarm.
    pub unsaved: bool,
    /// What a person must do, in words, where somebody must (`bearward login primavera`).
    pub remedy: Option<String>,
}

/// The last failure as the API shows it.
#[derive(Debug, Clone)]
pub struct LastError {
    /// [`crate::oauth::FailureClass::as_str`], or `store`.
    pub class: &'static str,
    /// The OAuth code or our own word.
    pub error: String,
    /// Scrubbed description.
    pub description: Option<String>,
    /// When.
    pub at: UnixTime,
    /// When it is tried again, if it is.
    pub retry_at: Option<UnixTime>,
}

/// The answer to a forced refresh.
#[derive(Debug, Clone)]
pub enum ForcedRefresh {
    /// A new token of this generation is published.
    Refreshed(u64),
    /// The attempt failed; a message for a person.
    Failed(String),
    /// Not tried, with the reason (dead, awaiting login, minimum interval).
    Refused(String),
}

/// The outcomes of token requests, in the order of [`Counts::outcomes`].
const OUTCOMES: [&str; 6] = ["ok", "grant_dead", "configuration", "transient", "clean", "ambiguous"];

/// Upper bounds of the buckets of [`Counts::durations`], in seconds; one more bucket takes the rest.
pub const DURATION_BOUNDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Counters since the start of the credential.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    outcomes: [u64; OUTCOMES.len()],
    /// Token requests by how long they took; not cumulative.
    pub durations: [u64; DURATION_BOUNDS.len() + 1],
    /// All durations together, in seconds.
    pub duration_sum: f64,
    /// Reads and writes of the store that failed.
    pub store_errors: u64,
    /// How often a secret, key or certificate file that was replaced could not be used, so that the last good one was.
    pub file_errors: u64,
}

impl Counts {
    /// Each outcome (`ok` or a [`FailureClass`]) with its count.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.outcomes)
    }

    /// Token requests that brought a token.
    pub fn ok(&self) -> u64 {
        self.outcomes[0]
    }

    /// Token requests that failed.
    pub fn failed(&self) -> u64 {
        self.outcomes[1..].iter().sum()
    }

    pub(super) fn count(&mut self, outcome: Result<(), FailureClass>, took: Duration) {
        let name = outcome.err().map_or("ok", FailureClass::as_str);
        if let Some(index) = OUTCOMES.iter().position(|known| *known == name) {
            self.outcomes[index] += 1;
        }
        let seconds = took.as_secs_f64();
        let bucket = DURATION_BOUNDS.iter().position(|bound| seconds <= *bound);
        self.durations[bucket.unwrap_or(DURATION_BOUNDS.len())] += 1;
        self.duration_sum += seconds;
    }
}

/// What the task writes down after each step.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) view: View,
    pub(super) generation: u64,
    pub(super) expires_known: bool,
    pub(super) refresh_token_expires_at: Option<UnixTime>,
    pub(super) last_refresh_at: Option<UnixTime>,
    pub(super) last_error: Option<LastError>,
    pub(super) counts: Counts,
    pub(super) leader: bool,
    pub(super) tried: bool,
    pub(super) unsaved: bool,
    pub(super) remedy: Option<String>,
}

impl Facts {
    /// Before anything is known.
    pub(super) fn nothing(min_interval: Duration) -> Self {
        Self {
            view: View { token: None, phase: Phase::Ready, last_request: None, min_interval },
            generation: 0,
            expires_known: false,
            refresh_token_expires_at: None,
            last_refresh_at: None,
            last_error: None,
            counts: Counts::default(),
            leader: false,
            tried: false,
            unsaved: false,
            remedy: None,
        }
    }
}

/// Where task and control plane meet: the task writes, anybody reads.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) cell: Arc<TokenCell>,
    clock: Clock,
    store_kind: &'static str,
    required: bool,
    facts: Mutex<Facts>,
}

impl Board {
    pub(super) fn new(
        cell: Arc<TokenCell>,
        clock: Clock,
        store_kind: &'static str,
        required: bool,
        facts: Facts,
    ) -> Self {
        Self { cell, clock, store_kind, required, facts: Mutex::new(facts) }
    }

    pub(super) fn write(&self, facts: Facts) {
        *self.locked() = facts;
    }

    fn locked(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let facts = self.locked().clone();
        let now = self.clock.boot();
        let wall_of = |moment: BootTime| wall_of(&self.clock, moment);
        let expires = facts.view.token.filter(|_| facts.expires_known).map(|token| token.expires);
        Snapshot {
            name: self.cell.name().clone(),
            state: schedule::state(&facts.view, facts.tried, now),
            generation: facts.generation,
            expires_at: expires.map(wall_of),
            expires_in_seconds: expires.map(|expires| expires.since(now).as_secs()),
            refresh_at: match schedule::next(&facts.view, now) {
                Action::Refresh => Some(self.clock.wall()),
                Action::Wait(until) if facts.expires_known || facts.view.token.is_none() => {
                    Some(wall_of(until))
                }
                Action::Wait(_) | Action::Rest => None,
            },
            refresh_token_expires_at: facts.refresh_token_expires_at,
            last_refresh_at: facts.last_refresh_at,
            last_error: facts.last_error,
            refreshes_ok: facts.counts.ok(),
            refreshes_failed: facts.counts.failed(),
            counts: facts.counts,
            store_kind: self.store_kind,
            leader: facts.leader,
            required: self.required,
            tried: facts.tried,
            unsaved: facts.unsaved,
            remedy: facts.remedy,
        }
    }
}

/// The wall-clock name of a moment on the boot clock, as the wall clock stands now.
pub(super) fn wall_of(clock: &Clock, moment: BootTime) -> UnixTime {
    let (now, wall) = (clock.boot(), clock.wall());
    if moment >= now { wall.plus(moment.since(now)) } else { wall.minus(now.since(moment)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_and_durations_are_counted() {
        let mut counts = Counts::default();
        counts.count(Ok(()), Duration::from_millis(20));
        counts.count(Err(FailureClass::Ambiguous), Duration::from_secs(31));
        counts.count(Err(FailureClass::Clean), Duration::from_millis(100));
        assert_eq!((counts.ok(), counts.failed()), (1, 2));
        let named: Vec<_> = counts.outcomes().filter(|(_, count)| *count > 0).collect();
        assert_eq!(named, [("ok", 1), ("clean", 1), ("ambiguous", 1)]);
        assert_eq!(counts.durations, [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        for class in [FailureClass::GrantDead, FailureClass::Configuration, FailureClass::Transient] {
            assert!(OUTCOMES.contains(&class.as_str()));
        }
    }
}
