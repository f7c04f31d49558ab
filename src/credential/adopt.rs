//! Adoption: taking over what the store holds, at the start and whenever another process commits.
//!
//! Owns: the way from a record to a served token, and what a standing mark means. Never sends anything and
//! never writes.

use std::time::Duration;

use super::cell::UnfitToken;
use super::schedule::{self, Doubt, Jitter, Terms, TokenLife};
use super::seed::{self, Reconciled};
use super::state::Phase;
use super::task::{FirstSend, Held, Task};
use super::{Prover, RotationMode, Token};
use crate::clock::{BootTime, UnixTime};
use crate::oauth::dpop::DpopKey;
use crate::secret::{Fingerprint, Secret};
use crate::store::{InFlight, Record, RecordState, StoreError};

/// Clocks of machines that share a store differ by this much without anybody being to blame.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);

impl Task {
    /// The first reading of the store: what is still good is served before anything is sent.
    pub(super) async fn first_look(&mut self) {
        self.watch_store().await;
        match self.store.load(&self.config.name).await {
            Ok(stored) => self.take_over(stored, true),
            Err(error) => self.store_unusable(&error),
        }
        let now = self.clock.boot();
        if let (Phase::Ready, Some(held)) = (self.phase, &self.held)
            && now >= held.life.soft()
            && now < held.life.hard()
        {
            let pause = schedule::start_pause(&held.life, now, Jitter::draw());
            self.phase = Phase::Waiting { until: now.plus(pause) };
        }
    }

    pub(super) async fn watch_store(&mut self) {
        match self.store.watch(&self.config.name).await {
            Ok(news) => self.store_news = Some(news),
            Err(error) => {
                tracing::debug!(credential = %self.config.name, %error, "the store cannot be watched yet");
            }
        }
    }

    /// The store changed: follow whoever committed.
    pub(super) async fn follow(&mut self) {
        if self.unsaved.is_some() {
            return;
        }
        match self.store.load(&self.config.name).await {
            Ok(None) => {}
            Ok(Some(stored)) if self.record.as_ref() == Some(&stored) => {}
            Ok(Some(stored)) if self.record.is_some() && stored.identity != self.wanted.identity => {
                self.another_identity();
            }
            Ok(stored) => self.take_over(stored, false),
            Err(error) => self.store_unusable(&error),
        }
    }

    /// A process with another configuration keeps this name in the same store. Only a start may set such a
    /// record aside: two that did it in turn would redeem seeds for ever.
    fn another_identity(&mut self) {
        let until = self.clock.boot().plus(schedule::SLOW_RETRY);
        self.phase = Phase::Misconfigured { until };
        let name = &self.config.name;
        self.remedy = Some(format!(
            "another process keeps `{name}` in the same store with another token endpoint, client id or subject: \
             give one of them another name or another store, or restart the one that is right"
        ));
        tracing::error!(credential = %name, remedy = self.remedy, "the record belongs to another identity");
    }

    /// Makes a stored record this task's own view.
    pub(super) fn take_over(&mut self, stored: Option<Record>, first: bool) {
        self.looked = true;
        let was_there = stored.is_some();
        let ours = stored.clone().filter(|stored| stored.identity == self.wanted.identity);
        let Reconciled { record, new_family, .. } = seed::reconcile(stored, &self.wanted, self.seed.as_ref());
        let before = self.record.take();
        let other_refresh_token =
            before.as_ref().is_none_or(|before| before.refresh_token != record.refresh_token);
        if !first && was_revoked(&record) && self.held.take().is_some() {
            tracing::warn!(credential = %self.config.name, "the tokens were revoked: nothing is served until a login");
        }
        let news = self.adopt_access_token(&record, first);
        if other_refresh_token || matches!(record.state, RecordState::Idle) {
            self.doubt = None;
        }
        self.phase = self.phase_after(&record, first, other_refresh_token || news, new_family);
        if !first && was_there {
            self.leader = false;
            if news {
                self.last_request = Some(self.clock.boot());
                tracing::info!(
                    credential = %self.config.name,
                    generation = self.held.as_ref().map(|held| held.token.generation),
                    "adopted a token that another process obtained"
                );
            }
        }
        self.record = ours;
    }

    fn phase_after(&mut self, record: &Record, first: bool, news: bool, new_family: bool) -> Phase {
        let unattended = self.config.oauth.grant.is_unattended();
        if new_family {
            return Phase::Wanted;
        }
        match (&record.refresh_token, &record.state) {
            (None, _) if !unattended => {
                if !matches!(self.phase, Phase::Dead | Phase::AwaitingLogin) {
                    self.remedy = Some(seed::login_remedy(&self.config, self.seed_error.as_deref()));
                    tracing::warn!(
                        credential = %self.config.name,
                        remedy = self.remedy,
                        "there is no refresh token: waiting for a login"
                    );
                }
                if self.phase == Phase::Dead { Phase::Dead } else { Phase::AwaitingLogin }
            }
            // A start is worth one more try; another process's word is believed.
            (Some(token), RecordState::Refused { rt_hash, .. })
                if !first && !unattended && hash(token) == *rt_hash =>
            {
                self.remedy = Some(seed::login_remedy(&self.config, None));
                Phase::Dead
            }
            _ if self.future_dated(record) => Phase::Wanted,
            _ if news || first => {
                self.failures = 0;
                self.last_error = None;
                self.remedy = None;
                Phase::Ready
            }
            // Another process just tried and got no token: it is as if we had.
            (_, RecordState::Idle) => match self.phase {
                Phase::InDoubt(_) => Phase::Ready,
                Phase::Ready if self.view_is_due() => self.pause_after_another(),
                phase => phase,
            },
            (_, RecordState::InFlight(mark)) => match self.phase {
                Phase::InDoubt(doubt) if mark.owner != self.owner => {
                    self.failures += 1;
                    let pause =
                        schedule::backoff(self.failures, Jitter::draw()).max(self.config.min_interval);
                    Phase::InDoubt(Doubt { not_before: self.clock.boot().plus(pause), ..doubt })
                }
                phase => phase,
            },
            (_, RecordState::Refused { .. }) => self.phase,
        }
    }

    fn view_is_due(&self) -> bool {
        schedule::next(&self.view(), self.clock.boot()) == schedule::Action::Refresh
    }

    fn pause_after_another(&mut self) -> Phase {
        self.failures += 1;
        let pause = schedule::backoff(self.failures, Jitter::draw());
        Phase::Waiting { until: self.clock.boot().plus(pause) }
    }

    /// A record whose times begin in the future was written under another wall clock: it is refreshed first.
    fn future_dated(&self, record: &Record) -> bool {
        record.access_token.is_some()
            && record.obtained_at.is_some_and(|at| at > self.clock.wall().plus(CLOCK_DIFFERENCE))
            && self.held.is_none()
    }

    /// Serves the record's access token if it is another one than is held and its life can be told.
    fn adopt_access_token(&mut self, record: &Record, first: bool) -> bool {
        let (Some(access), Some(expires_at), Some(obtained_at)) =
            (&record.access_token, record.expires_at, record.obtained_at)
        else {
            return false;
        };
        let fingerprint = access.fingerprint();
        let held_generation = self.held.as_ref().map(|held| held.token.generation);
        let same = self.held.as_ref().is_some_and(|held| held.fingerprint == fingerprint)
            && held_generation.is_some_and(|held| record.generation <= held);
        let wall = self.clock.wall();
        let (Some(lifetime), Some(left)) =
            (expires_at.checked_since(obtained_at), expires_at.checked_since(wall))
        else {
            return false;
        };
        if same || obtained_at > wall.plus(CLOCK_DIFFERENCE) {
            return false;
        }
        let expires = self.clock.boot().plus(left.min(lifetime));
        let generation = match held_generation {
            Some(held) => record.generation.max(held + 1),
            None => record.generation.max(1),
        };
        if !self.hold(access, expires, expires_at, lifetime, generation, record) {
            return false;
        }
        self.last_refresh_at = Some(obtained_at);
        tracing::debug!(
            credential = %self.config.name,
            token = %fingerprint,
            left_seconds = left.as_secs(),
            first,
            "took an access token from the store"
        );
        true
    }

    /// Makes an access token the one that is served. False if it cannot stand in a header.
    pub(super) fn hold(
        &mut self,
        access: &Secret,
        expires: BootTime,
        expires_at: UnixTime,
        lifetime: Duration,
        generation: u64,
        record: &Record,
    ) -> bool {
        let life = TokenLife { expires, terms: self.terms(lifetime, record), jitter: Jitter::draw() };
        let life_of_it = (life.hard(), generation, expires_at);
        let made = Token::injected(access, &self.config.injection, &record.headers, life_of_it);
        match made.and_then(|token| self.bound_to_key(token, access, record)) {
            Ok(token) => {
                self.old_token_until = self.held.as_ref().map(|old| old.token.hard_stop);
                self.rejected_before = *self.rejections.borrow();
                self.held = Some(Held { token, life, fingerprint: access.fingerprint() });
                true
            }
            Err(error) => {
                tracing::error!(credential = %self.config.name, %error, "the access token cannot be used");
                false
            }
        }
    }

    /// A token that is bound to a key is of no use without it.
    fn bound_to_key(&self, token: Token, access: &Secret, record: &Record) -> Result<Token, UnfitToken> {
        if !self.config.oauth.dpop {
            return Ok(token);
        }
        let stored = record.dpop_key.as_ref().ok_or(UnfitToken)?;
        let key = DpopKey::try_new(stored).map_err(|_| UnfitToken)?;
        Ok(token.proved(Prover::new(key, access, self.skew(), self.clock.clone())))
    }

    fn terms(&self, lifetime: Duration, record: &Record) -> Terms {
        let refresh_token_lifetime = match (record.refresh_token.as_ref(), record.refresh_expires_at) {
            (None, _) => None,
            (Some(_), Some(end)) => record.obtained_at.and_then(|begun| end.checked_since(begun)),
            (Some(_), None) => record
                .observed
                .refresh_token_lifetime
                .map(Duration::from_secs)
                .or(self.config.refresh_token_lifetime),
        };
        Terms {
            lifetime,
            refresh_in: record.refresh_in.map(Duration::from_secs),
            refresh_token_lifetime,
            kills_old_access_token: record
                .observed
                .kills_old_access_token
                .unwrap_or(self.config.oauth.preset.kills_old_access_token),
            refresh_at_ppm: self.config.refresh_at_ppm,
        }
    }

    /// Whether a use spends the refresh token.
    pub(super) fn single_use(&self, record: &Record) -> bool {
        match self.config.rotation {
            RotationMode::SingleUse => true,
            RotationMode::Reusable => false,
            // What is known goes before what was observed: one that rotates may repeat a refresh token for a while, and
            // one that hands out new ones may leave the old ones good.
            RotationMode::Auto => {
                self.config.oauth.preset.rotates.or(record.observed.rotates).unwrap_or(true)
            }
        }
    }

    /// A mark of another owner stands and nobody holds the lease: its owner is dead, or is in doubt itself.
    /// Only whoever holds the lease may judge that.
    pub(super) async fn judge_standing_mark(&mut self) {
        if self.doubt.is_some() || self.unsaved.is_some() || !self.foreign_mark() {
            return;
        }
        let name = self.config.name.clone();
        let Ok(Some(lease)) = self.store.try_lease(&name).await else { return };
        if let Ok(Some(stored)) = self.store.load(&name).await
            && stored.identity == self.wanted.identity
        {
            if let Some(mark) = standing_mark(&stored).cloned() {
                self.record = Some(stored);
                self.begin_doubt(&mark);
                tracing::warn!(
                    credential = %name,
                    since = %mark.since.rfc3339(),
                    "a token request was under way when its process ended: its refresh token may be spent"
                );
            } else if self.record.as_ref() != Some(&stored) {
                self.take_over(Some(stored), false);
            }
        }
        drop(lease);
    }

    /// Enters the ambiguous procedure for a refresh token that was first sent when the mark says.
    pub(super) fn begin_doubt(&mut self, mark: &InFlight) {
        let now = self.clock.boot();
        let at = match self.clock.wall().checked_since(mark.since) {
            Some(ago) => now.minus(ago),
            // Dated in the future: nobody knows when, so no grace is left.
            None => now.minus(self.config.grace),
        };
        self.doubt = Some(FirstSend { since: mark.since, at });
        self.phase = self.in_doubt(now);
    }

    /// The phase while in doubt.
    pub(super) fn in_doubt(&self, not_before: BootTime) -> Phase {
        let now = self.clock.boot();
        Phase::InDoubt(Doubt {
            first_sent: self.doubt.as_ref().map_or(now, |first| first.at),
            grace: self.config.grace,
            unattended: self.config.oauth.grant.is_unattended(),
            not_before,
        })
    }

    /// The store answers again: what it stood in the way of is decided anew.
    pub(super) fn store_usable(&mut self, stored: Option<&Record>) {
        if !std::mem::take(&mut self.store_trouble) {
            return;
        }
        self.failures = 0;
        if self.last_error.as_ref().is_some_and(|error| error.class == "store") {
            self.last_error = None;
            self.remedy = None;
        }
        if matches!(self.phase, Phase::Waiting { .. } | Phase::Misconfigured { .. }) {
            let unseen = self
                .seed
                .as_ref()
                .is_some_and(|seed| !stored.is_some_and(|stored| stored.has_seen(seed.fingerprint())));
            self.phase = match self.doubt {
                _ if unseen => Phase::Wanted,
                Some(_) => self.in_doubt(self.clock.boot()),
                None => Phase::Ready,
            };
        }
    }

    /// The store cannot be read: nothing is redeemed, what is held is served, and it is looked at again.
    pub(super) fn store_unusable(&mut self, error: &StoreError) {
        let now = self.clock.boot();
        self.failures += 1;
        self.store_trouble = true;
        let until = match error {
            StoreError::Corrupt { .. } | StoreError::Setup(_) => now.plus(Duration::from_secs(10)),
            _ => now.plus(schedule::backoff(self.failures, Jitter::draw())),
        };
        let message = error.to_string();
        let known = self.last_error.as_ref().and_then(|last| last.description.as_ref()) == Some(&message);
        self.note_store_error(&message, Some(until));
        match error {
            StoreError::Corrupt { .. } | StoreError::Setup(_) => {
                self.phase = Phase::Misconfigured { until };
                self.remedy = Some(message);
            }
            _ => self.phase = Phase::Waiting { until },
        }
        if !known {
            tracing::error!(credential = %self.config.name, %error, "the store cannot be used");
        }
    }
}

/// The mark of a token request that may have spent the record's refresh token.
pub(super) fn standing_mark(record: &Record) -> Option<&InFlight> {
    match (&record.state, &record.refresh_token) {
        (RecordState::InFlight(mark), Some(token)) if hash(token) == mark.rt_hash => Some(mark),
        _ => None,
    }
}

/// A record without any token that once had one: somebody took both out.
fn was_revoked(record: &Record) -> bool {
    record.refresh_token.is_none() && record.access_token.is_none() && record.generation > 0
}

/// The hash by which a mark names a refresh token.
pub(super) fn hash(refresh_token: &Secret) -> String {
    Fingerprint::of(refresh_token.expose().as_bytes()).to_hex()
}
