//! An upstream refuses the token: is there a newer one, may one be asked for, may the request be sent again?
//!
//! Owns: the memory of refusals of one route, shared by all workers and touched by refused requests only. A 401 says
//! that the request was not applied (RFC 9110, 15.5.2), so that any method may be sent again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::{Identity, Route};
use crate::clock::BootTime;
use crate::credential::State;

/// How long a request that is sent again waits for room.
const WAIT: Duration = Duration::from_secs(5);
/// How long a route that refuses fresh tokens forces none; doubled each time, up to the limit.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What a route remembers of refusals.
#[derive(Debug, Default)]
pub struct Refusals {
    /// The highest generation after which no newer one came in time.
    given_up: AtomicU64,
    /// Until when nothing is forced: milliseconds since boot.
    paused_until: AtomicU64,
    /// The pause that was last made, in milliseconds.
    pause: AtomicU64,
}

impl Refusals {
    fn may_force(&self, generation: u64, now: BootTime) -> bool {
        self.given_up.load(Relaxed) < generation
            && self.paused_until.load(Relaxed) <= millis(now.since_boot())
    }

    fn give_up(&self, generation: u64) {
        self.given_up.fetch_max(generation, Relaxed);
    }

    /// A token that was made for the purpose was refused as well.
    pub(super) fn fresh_token_refused(&self, now: BootTime) {
        let last = self.pause.load(Relaxed);
        let pause = (last * 2).clamp(millis(FIRST_PAUSE), millis(LONGEST_PAUSE));
        self.pause.store(pause, Relaxed);
        self.paused_until.store(millis(now.since_boot()).saturating_add(pause), Relaxed);
    }

    /// A token that was made for the purpose was taken.
    pub(super) fn fresh_token_taken(&self) {
        self.pause.store(0, Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reports the refusal of `generation` and, if the request can be sent again (`repeatable`), waits for a newer token.
pub(super) async fn newer_token(
    identity: &Identity,
    route: &Route,
    generation: u64,
    repeatable: bool,
) -> Option<HeaderValue> {
    let token = route.token.as_ref()?;
    let newer = || match token.borrow_mut().authorize(identity.clock.boot()) {
        Ok((bearer, newest)) if newest > generation => Some(bearer),
        _ => None,
    };
    if repeatable && let Some(bearer) = newer() {
        return Some(bearer);
    }
    if !route.on_unauthorized.refresh || !route.refusals.may_force(generation, identity.clock.boot()) {
        return None;
    }
    let cell = std::sync::Arc::clone(token.borrow().cell());
    // Nothing will come of it without a person.
    let hopeless = || {
        matches!(
            cell.published().state,
            State::Dead | State::Misconfigured | State::AwaitingLogin | State::InDoubt
        )
    };
    if hopeless() {
        return None;
    }
    let mut changes = cell.changes();
    cell.reject(generation);
    if !repeatable {
        return None;
    }
    let deadline = Instant::now() + cell.patience();
    loop {
        changes.mark_unchanged();
        if let Some(bearer) = newer() {
            return Some(bearer);
        }
        if hopeless() || !matches!(tokio::time::timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
            break;
        }
    }
    route.refusals.give_up(generation);
    None
}

/// Waits until the upstream has room for a request that was there before: those that waited for the token come at once.
pub(super) async fn room(route: &Route) {
    let deadline = Instant::now() + WAIT;
    while route.upstream.entrance().is_full() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(2..20))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_always_refuses_forces_twice_in_ten_minutes_at_most() {
        let refusals = Refusals::default();
        let at = |seconds: u64| BootTime::from_boot(Duration::from_secs(seconds + 1_000));
        let mut forced = Vec::new();
        let mut generation = 1;
        for second in 0..7200_u64 {
            if refusals.may_force(generation, at(second)) {
                forced.push(second);
                generation += 1;
                refusals.fresh_token_refused(at(second));
            }
        }
        assert_eq!(forced, [0, 300, 900, 2100, 4500]);
        refusals.fresh_token_taken();
        refusals.fresh_token_refused(at(9000));
        assert!(refusals.may_force(generation, at(9300)));
    }

    #[test]
    fn a_generation_that_brought_no_successor_is_not_waited_for_again() {
        let refusals = Refusals::default();
        let now = BootTime::from_boot(Duration::from_secs(1));
        refusals.give_up(4);
        assert!(!refusals.may_force(4, now));
        assert!(refusals.may_force(5, now));
    }
}
