//! Forced refreshes: people who ask for a token now, and upstreams that refuse the one that is served.
//!
//! Owns: when such a wish is granted. Nobody can hurry a doubt, and whoever asks while a request is under way
//! gets its outcome.

use std::time::Duration;

use super::ForcedRefresh;
use super::attempt::Ended;
use super::refresher::Asked;
use super::schedule;
use super::state::Phase;
use super::task::Task;

/// Clock steps, and upstreams that refuse every token, cost no more than this many refreshes in [`FORCED_WINDOW`].
const FORCED_REFRESHES: usize = 2;
const FORCED_WINDOW: Duration = Duration::from_secs(600);
/// Whoever asks within the spacing of token requests waits for its end, but not longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often an old token must be seen dying before that is believed.
const OLD_TOKENS_KILLED: u8 = 2;

impl Task {
    /// Somebody asks for a refresh now.
    pub(super) fn ask(&mut self, asked: Asked) {
        let now = self.clock.boot();
        let too_soon = self.last_request.and_then(|last| {
            let life = self.held.as_ref().map(|held| held.life.terms.lifetime);
            let free = last.plus(schedule::spacing(self.config.min_interval, life));
            Some(free.since(now)).filter(|left| *left > LONGEST_WAIT)
        });
        let refused = match (self.phase, too_soon) {
            (Phase::Dead | Phase::AwaitingLogin, _) => {
                Some(self.remedy.clone().unwrap_or_else(|| "there is no usable refresh token".into()))
            }
            (Phase::InDoubt(_), _) => Some(
                "the last token request may have been carried out: its refresh token is sent again only by the \
                 schedule"
                    .to_owned(),
            ),
            (_, Some(left)) => Some(format!(
                "the last token request was sent a moment ago; ask again in {} s",
                left.as_secs() + 1
            )),
            _ => None,
        };
        match refused {
            Some(reason) => drop(asked.send(ForcedRefresh::Refused(reason))),
            None => {
                self.phase = Phase::Wanted;
                self.waiting.push(asked);
            }
        }
    }

    pub(super) fn answer_all(&mut self, ended: &Ended) {
        let answer = match ended {
            Ended::Refreshed(generation) => ForcedRefresh::Refreshed(*generation),
            Ended::Failed(message) => ForcedRefresh::Failed(message.clone()),
            Ended::Nothing => return,
        };
        // Whoever asked while the request was under way gets its outcome too.
        while let Ok(asked) = self.asked.try_recv() {
            self.waiting.push(asked);
        }
        for asked in self.waiting.drain(..) {
            drop(asked.send(answer.clone()));
        }
    }

    /// The wish was overtaken: by another process's refresh, or by a state that allows none.
    pub(super) fn refuse_all(&mut self) {
        if self.waiting.is_empty() || self.phase == Phase::Wanted {
            return;
        }
        let answer = match (&self.held, self.phase) {
            (Some(held), Phase::Ready) => ForcedRefresh::Refreshed(held.token.generation),
            _ => ForcedRefresh::Failed(
                self.last_error.as_ref().map_or_else(|| "not tried".into(), |error| error.error.clone()),
            ),
        };
        for asked in self.waiting.drain(..) {
            drop(asked.send(answer.clone()));
        }
    }

    /// An upstream refused the token that is served: one refresh for that generation.
    pub(super) fn look_at_rejections(&mut self) {
        let rejected = *self.rejections.borrow_and_update();
        let current = self.held.as_ref().map(|held| held.token.generation);
        self.look_at_old_token(rejected, current);
        if current.is_some_and(|current| rejected >= current)
            && self.phase == Phase::Ready
            && self.may_force()
        {
            tracing::info!(
                credential = %self.config.name,
                generation = rejected,
                "an upstream refused the token: refreshing"
            );
            self.phase = Phase::Wanted;
        }
    }

    pub(super) fn may_force(&mut self) -> bool {
        let now = self.clock.boot();
        while self.forced.front().is_some_and(|first| now.since(*first) >= FORCED_WINDOW) {
            self.forced.pop_front();
        }
        if self.forced.len() >= FORCED_REFRESHES {
            return false;
        }
        self.forced.push_back(now);
        true
    }

    /// A token that was good before its successor came and is refused since: the provider kills the old one.
    /// Once may be chance; twice is noted in the record, and from then on the refresh comes late.
    fn look_at_old_token(&mut self, rejected: u64, current: Option<u64>) {
        let alive = self.old_token_until.is_some_and(|until| self.clock.boot() < until);
        if alive && current == Some(rejected + 1) && rejected > self.rejected_before {
            self.rejected_before = rejected;
            self.old_tokens_killed = self.old_tokens_killed.saturating_add(1);
            if self.old_tokens_killed == OLD_TOKENS_KILLED {
                tracing::info!(
                    credential = %self.config.name,
                    "the provider kills the old access token at a refresh: refreshing late from now on"
                );
            }
        }
    }

    /// Whether that was seen often enough.
    pub(super) fn kills_old_access_token(&self) -> bool {
        self.old_tokens_killed >= OLD_TOKENS_KILLED
    }
}
