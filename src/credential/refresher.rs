//! A running credential as the control plane holds it.
//!
//! Owns: start and stop of the one task that refreshes a credential, and the ways to ask it something. The
//! work itself is in `task`, `attempt`, `answer`, `adopt` and `saving`.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::snapshot::Board;
use super::task::Task;
use super::{CredentialConfig, ForcedRefresh, Snapshot, TokenCell, static_token};
use crate::clock::Clock;
use crate::oauth::{Grant, OAuthClient, SetupError};
use crate::shutdown::Shutdown;
use crate::store::Store;

/// What is asked of the task.
pub(super) type Asked = oneshot::Sender<ForcedRefresh>;

/// A running credential: what the control plane holds of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Credential {
    board: Arc<Board>,
    ask: mpsc::UnboundedSender<Asked>,
    stop: CancellationToken,
}

impl Credential {
    /// Checks keys and secrets, then begins: reads the store, publishes what is still good and spawns the task.
    /// Sends nothing before the first turn of the task; returns when the store was read once, so that a
    /// persisted token is in the cell already.
    pub async fn start(
        config: CredentialConfig,
        store: Store,
        clock: Clock,
        shutdown: &Shutdown,
    ) -> Result<Self, SetupError> {
        let cell = TokenCell::new(config.name.clone());
        let (ask, asked) = mpsc::unbounded_channel();
        let stop = shutdown.token().child_token();
        let board = if let Grant::Static { token } = config.oauth.grant.clone() {
            let task = static_token::Task::begin(config, token, clock, cell, asked, stop.clone()).await;
            let board = task.board();
            shutdown.spawn("credential", task.run());
            board
        } else {
            let client = OAuthClient::try_new(config.oauth.clone())?;
            let task = Task::begin(config, client, store, clock, cell, asked, stop.clone()).await;
            let board = task.board();
            shutdown.spawn("credential", task.run());
            board
        };
        Ok(Self { board, ask, stop })
    }

    /// The cell that routes bind.
    pub fn cell(&self) -> &Arc<TokenCell> {
        &self.board.cell
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.board.snapshot()
    }

    /// Asks for a refresh now (`bearward refresh`). Dropping the receiver cancels nothing.
    pub fn refresh(&self) -> oneshot::Receiver<ForcedRefresh> {
        let (answer, receiver) = oneshot::channel();
        if let Err(mpsc::error::SendError(answer)) = self.ask.send(answer) {
            // Nobody listens any more: say so rather than let the receiver fail.
            let _ = answer.send(ForcedRefresh::Refused("the credential is stopping".into()));
        }
        receiver
    }

    /// Ends this credential's task alone; a token request that is under way is finished first.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}
