//! One attempt: lease, re-read inside it, durable mark, token request, and what the answer means.
//!
//! Owns: the order of these steps. Never sends a refresh token that is not marked on disk first, and never
//! sends one twice except as the ambiguous procedure says.

use std::time::Duration;

use super::adopt::{hash, standing_mark};
use super::schedule::{self, Action, Jitter};
use super::seed::{self, Reconciled};
use super::state::Phase;
use super::task::Task;
use crate::clock::{BootTime, Deadline, UnixTime};
use crate::oauth::dpop::DpopKey;
use crate::oauth::{Failure, FailureClass, TokenRequest, TokenResponse};
use crate::secret::Secret;
use crate::store::{InFlight, Lease, Record, RecordState, StoreError};

/// How often a lease that another process holds is asked for.
const LEASE_POLL: Duration = Duration::from_millis(150);
/// What a token request may take beyond its own deadlines before it is given up.
const REQUEST_MARGIN: Duration = Duration::from_secs(5);
/// A difference between the provider's clock and ours that `Date`, which counts seconds, cannot explain.
const SKEW: i64 = 2_000;

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// A new token is published: by us or adopted.
    Refreshed(u64),
    /// A token request failed; one line for a person.
    Failed(String),
    /// Nothing was sent.
    Nothing,
}

/// What an attempt works on: the lease and the record under it.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) lease: Lease,
    pub(super) record: Record,
    /// The version on disk.
    pub(super) version: u64,
    /// The disk is behind: an earlier pair is not saved yet.
    pub(super) behind: bool,
    /// Whether the refresh token may have been spent before.
    pub(super) in_doubt: bool,
}

/// Which request is sent.
#[derive(Debug, Clone)]
pub(super) enum Sending {
    /// Spend this refresh token.
    Refresh(Secret),
    /// The credential's own grant.
    Own,
}

/// A request that was sent: when, and by which clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) at: BootTime,
    pub(super) wall: UnixTime,
}

impl Task {
    /// One attempt from lease to release. Leaves a phase behind from which there is a next action.
    pub(super) async fn attempt(&mut self) -> Ended {
        let mut work = match self.begin_work().await {
            Ok(work) => work,
            Err(ended) => return ended,
        };
        self.leader = true;
        let mut sending = match self.choose(&mut work) {
            Ok(sending) => sending,
            Err(ended) => return ended,
        };
        if let Err(ended) = self.bind_to_key(&mut work) {
            return ended;
        }
        loop {
            if let Err(ended) = self.mark(&mut work, &sending).await {
                return ended;
            }
            let (answer, sent) = self.send(&sending).await;
            let next = match answer {
                Ok(response) => return self.accept(work, &sending, response, sent).await,
                Err(failure) => self.refused(&mut work, &sending, &failure, sent).await,
            };
            match next {
                // The refresh token is gone and the credential can do without a person.
                Ok(own) => sending = own,
                Err(ended) => {
                    self.tried = true;
                    if work.behind {
                        self.put_back(work, false);
                    }
                    return ended;
                }
            }
        }
    }

    /// Lease and re-read. `Err`: somebody else did the work, or it cannot be done now.
    async fn begin_work(&mut self) -> Result<Work, Ended> {
        if let Some(unsaved) = self.unsaved.take() {
            match unsaved.into_work() {
                Ok(mut work) => {
                    work.in_doubt = self.doubt.is_some();
                    return Ok(work);
                }
                Err(unsaved) => {
                    // Its lease was lost; until the write is settled nothing may be sent.
                    let until = self.clock.boot().plus(Duration::from_secs(1));
                    self.unsaved = Some(unsaved);
                    self.phase = Phase::Waiting { until };
                    return Err(Ended::Nothing);
                }
            }
        }
        let lease = self.take_lease().await?;
        let stored = match self.store.load(&self.config.name).await {
            Ok(stored) => stored,
            Err(error) => {
                self.store_unusable(&error);
                self.tried = true;
                return Err(Ended::Failed(error.to_string()));
            }
        };
        if self.record.is_some()
            && stored.as_ref().is_some_and(|stored| stored.identity != self.wanted.identity)
        {
            self.follow().await;
            return Err(Ended::Failed("the record belongs to another identity".into()));
        }
        self.store_usable(stored.as_ref());
        if !self.looked || (stored.is_some() && stored != self.record) {
            self.take_over(stored.clone(), !self.looked);
        }
        if !self.is_due() {
            return Err(self.overtaken());
        }
        self.reconciled_work(lease, stored).await
    }

    fn is_due(&self) -> bool {
        schedule::next(&self.view(), self.clock.boot()) == Action::Refresh
    }

    fn overtaken(&mut self) -> Ended {
        self.tried = true;
        match (&self.held, self.phase) {
            (Some(held), Phase::Ready) => Ended::Refreshed(held.token.generation),
            _ => Ended::Nothing,
        }
    }

    async fn reconciled_work(&mut self, lease: Lease, stored: Option<Record>) -> Result<Work, Ended> {
        let version = stored.as_ref().map_or(0, |stored| stored.version);
        let Reconciled { mut record, aside, new_family } =
            seed::reconcile(stored, &self.wanted, self.seed.as_ref());
        let mut work_version = version;
        if let Some(why) = aside {
            tracing::warn!(credential = %self.config.name, why, "setting the old record aside");
            if let Err(error) = self.store.set_aside(&lease, &self.config.name, why).await {
                self.store_unusable(&error);
                return Err(Ended::Failed(error.to_string()));
            }
            work_version = 0;
        }
        if new_family {
            self.doubt = None;
        }
        let mut in_doubt = false;
        if let Some(mark) = standing_mark(&record).cloned() {
            // Our own mark without doubt is one whose end could not be written.
            in_doubt = mark.owner != self.owner || self.doubt.is_some();
            if in_doubt && self.doubt.is_none() {
                self.begin_doubt(&mark);
            }
        }
        if !in_doubt && matches!(record.state, RecordState::InFlight(_)) {
            record.state = RecordState::Idle;
        }
        Ok(Work { lease, record, version: work_version, behind: false, in_doubt })
    }

    /// Polls the lease; meanwhile follows what the holder commits.
    async fn take_lease(&mut self) -> Result<Lease, Ended> {
        let begun = self.clock.boot();
        let patience = self.config.oauth.request_timeout + self.config.oauth.connect_timeout + REQUEST_MARGIN;
        let mut alarmed = false;
        let name = self.config.name.clone();
        loop {
            match self.store.try_lease(&name).await {
                Ok(Some(lease)) => return Ok(lease),
                Ok(None) => {}
                Err(error) => {
                    self.store_unusable(&error);
                    self.tried = true;
                    return Err(Ended::Failed(error.to_string()));
                }
            }
            if self.stopping() {
                return Err(Ended::Nothing);
            }
            self.leader = false;
            let waited = self.clock.boot().since(begun);
            if !alarmed && waited > patience {
                alarmed = true;
                self.alarm_about_holder(waited).await;
            }
            self.publish();
            tokio::time::sleep(LEASE_POLL + LEASE_POLL.mul_f64(fastrand::f64())).await;
            // Cheap against what a missed notice would cost: a lease held until its owner's next refresh.
            self.follow().await;
            if !self.is_due() {
                return Err(self.overtaken());
            }
        }
    }

    async fn alarm_about_holder(&mut self, waited: Duration) {
        let holder = match self.store.lease_holder(&self.config.name).await {
            Some(pid) => format!("process {pid}"),
            None => "another process".to_owned(),
        };
        let message = format!(
            "{holder} has held the lease of `{}` for {} s: it may be stopped; what is held is served, \
             and the refresh goes on as soon as that process ends",
            self.config.name,
            waited.as_secs()
        );
        tracing::error!(credential = %self.config.name, "{message}");
        self.note_store_error(&message, None);
        self.remedy = Some(message);
    }

    /// What may be sent now, if anything.
    fn choose(&mut self, work: &mut Work) -> Result<Sending, Ended> {
        let unattended = self.config.oauth.grant.is_unattended();
        if work.in_doubt {
            if !matches!(self.phase, Phase::InDoubt(_)) {
                self.phase = self.in_doubt(self.clock.boot());
            }
            if !self.is_due() {
                self.record = Some(work.record.clone());
                return Err(Ended::Nothing);
            }
            if unattended {
                return Ok(Sending::Own);
            }
        }
        let expired = |record: &Record| record.refresh_expires_at.is_some_and(|end| end <= self.clock.wall());
        match &work.record.refresh_token {
            Some(_) if unattended && expired(&work.record) => Ok(Sending::Own),
            Some(token) => Ok(Sending::Refresh(token.clone())),
            None if unattended => Ok(Sending::Own),
            None => {
                self.phase = Phase::AwaitingLogin;
                self.tried = true;
                self.remedy = Some(seed::login_remedy(&self.config, self.seed_error.as_deref()));
                Err(Ended::Nothing)
            }
        }
    }

    /// The mark that is durable before a refresh token leaves. The own grant spends nothing and needs none.
    async fn mark(&mut self, work: &mut Work, sending: &Sending) -> Result<(), Ended> {
        let Sending::Refresh(token) = sending else { return Ok(()) };
        let since = match &self.doubt {
            Some(first) if work.in_doubt => first.since,
            _ => self.clock.wall(),
        };
        let before = work.record.state.clone();
        work.record.state =
            RecordState::InFlight(InFlight { owner: self.owner.clone(), since, rt_hash: hash(token) });
        let Err(error) = self.write(work).await else { return Ok(()) };
        // A pair that is only in memory is lost at a crash with or without this request.
        if work.behind || !self.single_use(&work.record) {
            return Ok(());
        }
        work.record.state = before;
        tracing::error!(
            credential = %self.config.name,
            %error,
            "the store cannot take the mark of a token request: nothing is sent"
        );
        if matches!(error, StoreError::Conflict { .. }) {
            self.phase = Phase::Waiting { until: self.clock.boot().plus(LEASE_POLL) };
            self.note_store_error(&error.to_string(), None);
        } else {
            self.store_unusable(&error);
        }
        self.tried = true;
        Err(Ended::Failed(error.to_string()))
    }

    /// The token request itself.
    async fn send(&mut self, sending: &Sending) -> (Result<TokenResponse, Failure>, Sent) {
        self.publish();
        let sent = Sent { at: self.clock.boot(), wall: self.clock.wall() };
        let earlier = self.last_request.replace(sent.at);
        let request = match sending {
            Sending::Refresh(token) => TokenRequest::Refresh {
                token,
                single_use: self.record.as_ref().is_none_or(|record| self.single_use(record)),
            },
            Sending::Own => TokenRequest::Own,
        };
        let longest = self.config.oauth.request_timeout + self.config.oauth.connect_timeout + REQUEST_MARGIN;
        let mut deadline = Deadline::at(tokio::time::Instant::now() + longest);
        let dated = self.provider_now(sent);
        let asking = Box::pin(self.client.request(request, dated));
        let answer = match deadline.bound(asking).await {
            Ok(answer) => answer,
            Err(_) => Err(given_up()),
        };
        let took = self.clock.boot().since(sent.at);
        self.counts.count(answer.as_ref().map(|_| ()).map_err(|failure| self.class(sending, failure)), took);
        if answer.as_ref().is_err_and(|failure| failure.class == FailureClass::Clean) {
            self.last_request = earlier;
        }
        let date = match &answer {
            Ok(response) => response.date,
            Err(failure) => failure.date,
        };
        if let Some(date) = date {
            let boot = i64::try_from(self.clock.boot().since_boot().as_millis()).unwrap_or(i64::MAX);
            self.provider_offset = Some(date.millis() - boot);
        }
        self.skew_news = (self.provider_now(sent).millis() - dated.millis()).abs() > SKEW;
        (answer, sent)
    }

    /// The key that tokens are bound to: made once, and durable with the mark before a refresh token is sent.
    fn bind_to_key(&self, work: &mut Work) -> Result<(), Ended> {
        if !self.config.oauth.dpop {
            return Ok(());
        }
        let made = match &work.record.dpop_key {
            Some(stored) => Ok(stored.clone()),
            None => DpopKey::generate(),
        };
        let bound = made.and_then(|stored| Ok((DpopKey::try_new(&stored)?, stored)));
        let (key, stored) = bound.map_err(|error| Ended::Failed(error.to_string()))?;
        work.record.dpop_key = Some(stored);
        self.client.bind(key);
        Ok(())
    }

    /// What the provider's clock is ahead of ours, in milliseconds.
    pub(super) fn skew(&self) -> i64 {
        let sent = Sent { at: self.clock.boot(), wall: self.clock.wall() };
        self.provider_now(sent).millis() - sent.wall.millis()
    }

    /// The wall clock as the provider has it, where the two differ by more than rounding.
    fn provider_now(&self, sent: Sent) -> UnixTime {
        let Some(offset) = self.provider_offset else { return sent.wall };
        let boot = i64::try_from(sent.at.since_boot().as_millis()).unwrap_or(i64::MAX);
        let theirs = UnixTime::from_millis(boot.saturating_add(offset));
        if (theirs.millis() - sent.wall.millis()).abs() <= SKEW { sent.wall } else { theirs }
    }

    /// What a failure means for this request: a doubt needs a refresh token that its use spends, and only a
    /// refresh token can be dead.
    pub(super) fn class(&self, sending: &Sending, failure: &Failure) -> FailureClass {
        let spends = matches!(sending, Sending::Refresh(_))
            && self.record.as_ref().is_none_or(|record| self.single_use(record));
        match failure.class {
            FailureClass::Ambiguous if !spends => FailureClass::Transient,
            FailureClass::GrantDead if matches!(sending, Sending::Own) => FailureClass::Configuration,
            class => class,
        }
    }

    pub(super) fn pause(&self, failure: &Failure) -> BootTime {
        let now = self.clock.boot();
        let drawn = schedule::backoff(self.failures, Jitter::draw());
        match failure.retry_after {
            // Not a moment earlier than told; a second's spread after it.
            Some(told) => now.plus(told.max(drawn)).plus(Duration::from_millis(fastrand::u64(0..1000))),
            None => now.plus(drawn),
        }
    }
}

fn given_up() -> Failure {
    Failure {
        class: FailureClass::Ambiguous,
        error: "timeout".into(),
        description: None,
        message: "the token request did not end within its deadline".into(),
        status: None,
        retry_after: None,
        refresh_token: None,
        date: None,
    }
}
