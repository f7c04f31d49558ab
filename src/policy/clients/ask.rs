//! Proofs that cannot be judged at once: a password that must be hashed, a token whose key must be fetched.
//!
//! Owns: asking once for what many requests wait for, and never longer than a bound.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::basic::Hash;
use super::gate::{Asked, Gate};
use super::judge::{Denied, Explicit, Judged, tell};
use super::shared::Known;
use super::throttle::Counted;
use super::{Caller, Digest};

/// How long a request waits for the keys of an issuer.
const KEYS_WAIT: Duration = Duration::from_secs(3);

/// What must be asked.
#[derive(Debug)]
pub struct Question(pub(super) Ask);

#[derive(Debug)]
pub(super) enum Ask {
    /// Whether a password is a client's; `index` is `None` where no client has the name, which must take as long.
    Password {
        index: Option<usize>,
        hash: Arc<Hash>,
        user: Vec<u8>,
        password: Zeroizing<Vec<u8>>,
        digest: Digest,
    },
    /// Whether new keys of this client's issuer verify the token.
    Keys { index: usize },
}

/// Passwords that are being verified in one worker.
pub(super) type Pending = RefCell<HashMap<Digest, watch::Receiver<Option<bool>>>>;

impl Gate {
    /// Who sends a request, where [`Gate::judge`] could not tell.
    pub async fn answer(&self, asked: &Asked<'_>, question: Question) -> Result<Rc<Caller>, Denied> {
        let explicit = match question.0 {
            Ask::Password { index, hash, user, password, digest } => {
                self.password(asked, (index, hash), &user, password, digest).await
            }
            Ask::Keys { index } => {
                self.fetch_keys(index).await;
                self.explicit(asked, false)
            }
        };
        match self.settle(asked, explicit) {
            Judged::Known(caller) => Ok(caller),
            Judged::Denied(denied) => Err(denied),
            // It is not asked twice.
            Judged::Ask(_) => Err(Denied::Busy),
        }
    }

    async fn password(
        &self,
        asked: &Asked<'_>,
        (index, hash): (Option<usize>, Arc<Hash>),
        user: &[u8],
        password: Zeroizing<Vec<u8>>,
        digest: Digest,
    ) -> Explicit {
        let (shared, id) = (&self.desk.shared, hash.id);
        let known = self.desk.pending.borrow().get(&digest).cloned();
        let good = match known {
            Some(mut waiting) => waiting.wait_for(Option::is_some).await.ok().and_then(|answer| *answer),
            None => {
                let (outcome, waiting) = watch::channel(None);
                self.desk.pending.borrow_mut().insert(digest, waiting);
                let _gone = Forget { pending: &self.desk.pending, digest };
                if shared.throttle.count(asked.address, user, self.desk.clock.boot()) == Counted::First {
                    tell(asked);
                }
                let good = shared.verifiers.verify(hash, password).await;
                if good == Some(true) && index.is_some() {
                    shared.throttle.clear(asked.address, user, self.desk.clock.boot());
                }
                outcome.send_replace(good);
                good
            }
        };
        match (good, index) {
            (Some(true), Some(index)) => {
                self.desk.remember_password(digest, index, id);
                asked.connection.proven.set(Some(digest));
                Explicit::Of(index)
            }
            (Some(_), _) => Explicit::Counted,
            (None, _) => Explicit::Denied(Denied::Busy),
        }
    }

    /// Asks the control plane for the keys of a client's issuer and waits for them.
    async fn fetch_keys(&self, index: usize) {
        let Known::Jwt(rule) = &self.desk.shared.entries[index].proof else { return };
        let mut changed = rule.source.changed.subscribe();
        rule.source.wanted.notify_one();
        let _ = tokio::time::timeout(KEYS_WAIT, changed.changed()).await;
    }
}

/// A password is verified no more, also when its client has gone.
struct Forget<'d> {
    pending: &'d Pending,
    digest: Digest,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.pending.borrow_mut().remove(&self.digest);
    }
}
