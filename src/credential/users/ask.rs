//! A user's request for a token, on the data plane.
//!
//! Owns: what is asked, and the way there. Knows no provider and decides nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::credential::{TokenCell, TokenReader};
use crate::names::Name;
use crate::origin::Origin;
use crate::secret::Secret;

/// A keyed digest of a user with a password, or of a user.
pub type UserKey = [u8; 32];

/// A user's request for a token.
pub struct UserAsk {
    /// Of user and password.
    pub key: UserKey,
    /// Of the user alone.
    pub name: UserKey,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserRefused {
    /// The provider does not know the user with this password.
    Wrong,
    /// Too many wrong passwords: none is tried before that.
    Guarded(Duration),
    /// The provider does not answer, or too many ask.
    Unavailable,
}

pub(super) type Reply = oneshot::Sender<Result<Arc<TokenCell>, UserRefused>>;

/// The way to the users' tokens, bound to the origins of the one upstream that they may be sent to.
#[derive(Debug, Clone)]
pub struct BoundUsers {
    pub(super) name: Name,
    pub(super) asks: mpsc::Sender<(UserAsk, Reply)>,
    pub(super) digest_key: Arc<aws_lc_rs::hmac::Key>,
    pub(super) origins: Vec<Origin>,
}

impl BoundUsers {
    /// Whether a user's token may go to this origin.
    pub fn covers(&self, origin: &Origin) -> bool {
        self.origins.contains(origin)
    }

    /// The credential's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What a proof is known by.
    pub fn key(&self, sort: u8, parts: &[u8]) -> UserKey {
        let mut context = aws_lc_rs::hmac::Context::with_key(&self.digest_key);
        context.update(&[sort]);
        context.update(parts);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// Waits for a user's token, within bounds.
    pub async fn ask(&self, ask: UserAsk) -> Result<TokenReader, UserRefused> {
        let (reply, answer) = oneshot::channel();
        self.asks.try_send((ask, reply)).map_err(|_| UserRefused::Unavailable)?;
        let cell = answer.await.map_err(|_| UserRefused::Unavailable)??;
        Ok(cell.reader())
    }
}
