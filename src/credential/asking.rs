//! Forced refreshes: people who ask for a token now, and what they are told.
//!
//! Owns: when such a wish is granted. Nobody can hurry a doubt, and whoever asks while a request is under way
//! gets its outcome.

use super::ForcedRefresh;
use super::attempt::Ended;
use super::refresher::Asked;
use super::schedule;
use super::state::Phase;
use super::task::Task;

impl Task {
    /// Somebody asks for a refresh now.
    pub(super) fn ask(&mut self, asked: Asked) {
        let now = self.clock.boot();
        let too_soon = self.last_request.and_then(|last| {
            let life = self.held.as_ref().map(|held| held.life.terms.lifetime);
            let free = last.plus(schedule::spacing(self.config.min_interval, life));
            (free > now).then(|| free.since(now))
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
}
