//! What an answer of the token endpoint means: the new pair, or the phase after a failure.
//!
//! Owns: the order "save, then publish", and the classes' consequences. A new refresh token is saved before
//! anything else in its answer is judged.

use std::collections::BTreeSet;
use std::time::Duration;

use super::CredentialConfig;
use super::adopt::hash;
use super::attempt::{Ended, Sending, Sent, Work};
use super::schedule::{self, SLOW_RETRY};
use super::seed;
use super::snapshot::{LastError, wall_of};
use super::state::Phase;
use super::task::{FirstSend, Task};
use crate::clock::BootTime;
use crate::oauth::{Failure, FailureClass, TokenResponse};
use crate::secret::Secret;
use crate::store::{RecordState, StoreError};

impl Task {
    /// A usable answer: durable first, then published.
    pub(super) async fn accept(
        &mut self,
        mut work: Work,
        sending: &Sending,
        response: TokenResponse,
        sent: Sent,
    ) -> Ended {
        let lifetime = response.expires_in.unwrap_or(self.config.default_lifetime);
        let rotated = self.put_into_record(&mut work, sending, &response, sent, lifetime);
        let holds_refresh_token = work.record.refresh_token.is_some();
        let saved = self.write(&mut work).await;

        self.doubt = None;
        self.failures = 0;
        self.passwords_refused = 0;
        self.phase = Phase::Ready;
        self.tried = true;
        self.last_error = None;
        self.remedy = None;
        self.last_refresh_at = Some(self.clock.wall());
        let generation = work.record.generation;
        let expires_at = sent.wall.plus(lifetime);
        let record = work.record.clone();
        let fit = self.hold(
            &response.access_token,
            sent.at.plus(lifetime),
            expires_at,
            lifetime,
            generation,
            &record,
        );
        match saved {
            Ok(()) => {}
            Err(error) if holds_refresh_token => self.keep_unsaved(work, &error),
            Err(error) => self.warn_unsaved_access_token(&error),
        }
        if !fit {
            self.phase = Phase::Misconfigured { until: self.clock.boot().plus(SLOW_RETRY) };
            return Ended::Failed("the access token holds a character that no header field may hold".into());
        }
        self.publish();
        tracing::info!(
            credential = %self.config.name,
            generation,
            grant = if matches!(sending, Sending::Own) { "own" } else { "refresh_token" },
            rotated,
            token = %response.access_token.fingerprint(),
            expires_in_seconds = lifetime.as_secs(),
            took_ms = u64::try_from(self.clock.boot().since(sent.at).as_millis()).unwrap_or(u64::MAX),
            "token refreshed"
        );
        Ended::Refreshed(generation)
    }

    fn put_into_record(
        &mut self,
        work: &mut Work,
        sending: &Sending,
        response: &TokenResponse,
        sent: Sent,
        lifetime: Duration,
    ) -> bool {
        self.note_scope(work.record.scope.as_deref(), response.scope.as_deref());
        if self.kills_old_access_token() {
            work.record.observed.kills_old_access_token = Some(true);
        }
        let record = &mut work.record;
        let held = self.held.as_ref().map_or(0, |held| held.token.generation);
        record.generation = record.generation.max(held) + 1;
        record.access_token = Some(response.access_token.clone());
        record.headers.clone_from(&response.headers);
        record.revocation = super::removal::note(&self.config);
        record.obtained_at = Some(sent.wall);
        record.expires_at = Some(sent.wall.plus(lifetime));
        record.refresh_in = response.refresh_in.map(|told| told.as_secs());
        if response.scope.is_some() {
            record.scope.clone_from(&response.scope);
        }
        record.state = RecordState::Idle;
        let rotated = match (&response.refresh_token, &record.refresh_token) {
            (Some(new), Some(old)) => new != old,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if matches!(sending, Sending::Refresh(_)) && (rotated || record.observed.rotates.is_none()) {
            record.observed.rotates = Some(rotated);
        }
        if let Some(told) = response.refresh_token_expires_in {
            record.refresh_expires_at = Some(sent.wall.plus(told));
            if response.refresh_token.is_some() {
                record.observed.refresh_token_lifetime = Some(told.as_secs());
            }
        } else if rotated {
            record.refresh_expires_at = self.config.refresh_token_lifetime.map(|life| sent.wall.plus(life));
        }
        match (&response.refresh_token, sending) {
            // RFC 6749 6: a new one must replace the old one.
            (Some(new), _) => record.refresh_token = Some(new.clone()),
            (None, Sending::Refresh(_)) => {}
            // The own grant was used because the refresh token is gone or in doubt.
            (None, Sending::Own) => {
                record.refresh_token = None;
                record.refresh_expires_at = None;
            }
        }
        rotated
    }

    fn note_scope(&self, before: Option<&str>, granted: Option<&str>) {
        let (Some(asked), Some(granted)) = (self.config.oauth.scope.as_deref(), granted) else { return };
        if before == Some(granted) {
            return;
        }
        let words = |text: &'_ str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        let missing: Vec<String> = words(asked).difference(&words(granted)).cloned().collect();
        if !missing.is_empty() {
            tracing::warn!(
                credential = %self.config.name,
                missing = missing.join(" "),
                "the provider granted less than the configured scope"
            );
        }
    }

    fn warn_unsaved_access_token(&mut self, error: &StoreError) {
        self.note_store_error(&error.to_string(), None);
        tracing::warn!(
            credential = %self.config.name,
            %error,
            "the access token could not be saved; it is served, and a restart asks for another"
        );
    }

    /// A failure. `Ok`: go on with the own grant; `Err`: the attempt is over and the phase is set.
    pub(super) async fn refused(
        &mut self,
        work: &mut Work,
        sending: &Sending,
        failure: &Failure,
        sent: Sent,
    ) -> Result<Sending, Ended> {
        self.failures += 1;
        let mut class = self.class(sending, failure);
        if let Some(new) = &failure.refresh_token {
            self.save_new_refresh_token(work, new).await;
            if matches!(class, FailureClass::GrantDead | FailureClass::Ambiguous) {
                class = FailureClass::Transient;
            }
        }
        match class {
            FailureClass::GrantDead => self.grant_is_dead(work, sending, failure).await,
            FailureClass::Configuration => Err(self.configuration_is_wrong(work, sending, failure).await),
            FailureClass::Ambiguous => Err(self.outcome_is_unknown(work, failure, sent)),
            FailureClass::Transient | FailureClass::Clean => Err(self.will_pass(work, class, failure).await),
        }
    }

    /// An unusable answer brought a new refresh token: the old one is spent.
    async fn save_new_refresh_token(&mut self, work: &mut Work, new: &Secret) {
        work.record.refresh_token = Some(new.clone());
        work.record.refresh_expires_at =
            self.config.refresh_token_lifetime.map(|life| self.clock.wall().plus(life));
        work.record.observed.rotates = Some(true);
        work.record.state = RecordState::Idle;
        work.in_doubt = false;
        self.doubt = None;
        if let Err(error) = self.write(work).await {
            work.behind = true;
            tracing::error!(credential = %self.config.name, %error, "ALARM: a new refresh token is only in memory");
        }
    }

    async fn grant_is_dead(
        &mut self,
        work: &mut Work,
        sending: &Sending,
        failure: &Failure,
    ) -> Result<Sending, Ended> {
        // A login, or somebody who ignores leases, may have written a newer one.
        if let Ok(Some(stored)) = self.store.load(&self.config.name).await
            && let Sending::Refresh(spent) = sending
            && stored.refresh_token.as_ref().is_some_and(|newer| newer != spent)
            && stored.identity == self.wanted.identity
        {
            self.take_over(Some(stored), false);
            return Err(match (&self.held, self.phase) {
                (Some(held), Phase::Ready) => Ended::Refreshed(held.token.generation),
                _ => Ended::Nothing,
            });
        }
        if self.config.oauth.grant.is_unattended() {
            tracing::warn!(
                credential = %self.config.name,
                error = failure.error,
                "the refresh token is dead: using the credential's own grant"
            );
            work.record.refresh_token = None;
            work.record.refresh_expires_at = None;
            work.record.state = RecordState::Idle;
            work.in_doubt = false;
            self.doubt = None;
            return Ok(Sending::Own);
        }
        if let Some(token) = &work.record.refresh_token {
            work.record.state = RecordState::Refused { rt_hash: hash(token), since: self.clock.wall() };
        }
        self.write_or_warn(work).await;
        self.doubt = None;
        self.phase = Phase::Dead;
        let remedy = seed::login_remedy(&self.config, None);
        tracing::error!(
            credential = %self.config.name,
            error = failure.error,
            description = failure.description,
            remedy,
            "the refresh token is dead; nothing more is sent"
        );
        self.remedy = Some(remedy);
        self.note(FailureClass::GrantDead, failure, None);
        Err(Ended::Failed(failure.message.clone()))
    }

    /// Half an hour also where a wrong secret burns refresh tokens: a secret that is mended at the provider
    /// shows nowhere here, and what one wrong request burnt no further one can.
    async fn configuration_is_wrong(
        &mut self,
        work: &mut Work,
        sending: &Sending,
        failure: &Failure,
    ) -> Ended {
        if self.skew_news && seed::uses_assertions(&self.config.oauth) {
            // The assertion was dated by a clock that we now know to be wrong: the next one is not.
            return self.will_pass(work, FailureClass::Configuration, failure).await;
        }
        self.settle(work).await;
        if refuses_password(&self.config, sending, failure) {
            self.passwords_refused += 1;
            if self.password_is_given_up() {
                return self.give_password_up(failure);
            }
        }
        let until = self.clock.boot().plus(SLOW_RETRY);
        self.phase = Phase::Misconfigured { until };
        let remedy = match failure.error.as_str() {
            "invalid_client" | "unauthorized_client" => seed::client_remedy(&self.config),
            _ => failure.message.clone(),
        };
        tracing::error!(
            credential = %self.config.name,
            class = FailureClass::Configuration.as_str(),
            error = failure.error,
            description = failure.description,
            status = failure.status,
            remedy,
            "the provider refuses the request as it is configured; next try in 30 min or when a file changes"
        );
        self.remedy = Some(remedy);
        self.note(FailureClass::Configuration, failure, Some(until));
        Ended::Failed(failure.message.clone())
    }

    /// Whoever sends a wrong password for ever locks its owner out.
    fn give_password_up(&mut self, failure: &Failure) -> Ended {
        self.phase = Phase::Dead;
        let remedy = format!(
            "the provider refused the password of `{}` {} times: nothing is sent until its file changes or the program is \
             started again",
            self.config.name, self.passwords_refused
        );
        tracing::error!(credential = %self.config.name, error = failure.error, remedy, "the password is given up");
        self.remedy = Some(remedy);
        self.note(FailureClass::Configuration, failure, None);
        Ended::Failed(failure.message.clone())
    }

    /// The mark stays: whoever reads the record knows that its token may be spent.
    fn outcome_is_unknown(&mut self, work: &mut Work, failure: &Failure, sent: Sent) -> Ended {
        let now = self.clock.boot();
        let again = self.doubt.is_some();
        if !again {
            self.doubt = Some(FirstSend { since: sent.wall, at: sent.at });
        }
        work.in_doubt = true;
        let not_before = if again || failure.retry_after.is_some() { self.pause(failure) } else { now };
        self.phase = self.in_doubt(not_before);
        let retry_at = self.next_try(now);
        self.warn(FailureClass::Ambiguous, failure, retry_at);
        Ended::Failed(failure.message.clone())
    }

    async fn will_pass(&mut self, work: &mut Work, class: FailureClass, failure: &Failure) -> Ended {
        self.settle(work).await;
        let until = self.pause(failure);
        // That this sending was not carried out says nothing about the first one.
        self.phase = if work.in_doubt { self.in_doubt(until) } else { Phase::Waiting { until } };
        let retry_at = self.next_try(self.clock.boot());
        self.warn(class, failure, retry_at);
        Ended::Failed(failure.message.clone())
    }

    /// The refresh token was not spent: the mark goes, unless an earlier sending is in doubt.
    async fn settle(&mut self, work: &mut Work) {
        if work.in_doubt || matches!(work.record.state, RecordState::Idle) {
            return;
        }
        work.record.state = RecordState::Idle;
        self.write_or_warn(work).await;
    }

    async fn write_or_warn(&mut self, work: &mut Work) {
        if let Err(error) = self.write(work).await {
            tracing::warn!(credential = %self.config.name, %error, "the record could not be brought up to date");
        }
    }

    fn next_try(&self, now: BootTime) -> Option<BootTime> {
        match schedule::next(&self.view(), now) {
            schedule::Action::Wait(until) => Some(until),
            schedule::Action::Refresh => Some(now),
            schedule::Action::Rest => None,
        }
    }

    fn warn(&mut self, class: FailureClass, failure: &Failure, retry_at: Option<BootTime>) {
        let now = self.clock.boot();
        tracing::warn!(
            credential = %self.config.name,
            class = class.as_str(),
            error = failure.error,
            description = failure.description,
            status = failure.status,
            retry_in_seconds = retry_at.map(|at| at.since(now).as_secs_f64()),
            served = self.held.as_ref().is_some_and(|held| now < held.token.hard_stop),
            reason = failure.message,
            "the token request failed"
        );
        self.note(class, failure, retry_at);
    }

    fn note(&mut self, class: FailureClass, failure: &Failure, retry_at: Option<BootTime>) {
        self.last_error = Some(LastError {
            class: class.as_str(),
            error: failure.error.clone(),
            description: failure.description.clone().or_else(|| Some(failure.message.clone())),
            at: self.clock.wall(),
            retry_at: retry_at.map(|at| wall_of(&self.clock, at)),
        });
    }
}

/// Whether it may be the password that is refused, and a repetition may lock the account.
fn refuses_password(config: &CredentialConfig, sending: &Sending, failure: &Failure) -> bool {
    let refused = matches!(failure.error.as_str(), "invalid_grant" | "http_400" | "http_401" | "http_403");
    matches!(sending, Sending::Own) && config.oauth.grant.sends_password() && refused
}
