//! Stopping: one signal for everyone, and a list of who has not finished yet.
//!
//! Owns: the tracker through which every task of the control plane is spawned, so that each has a
//! name and is joined.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The signal to stop, and the tracker of tasks. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Not stopping, nothing tracked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to stop. May be called more than once.
    pub fn begin(&self) {
        self.token.cancel();
        self.tasks.close();
    }

    /// Whether stopping has begun.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when stopping begins.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// The signal itself, for those who want to hold a child of it.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Spawns a task of the control plane under a name that appears in debug logs.
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns, so that every task is tracked")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(async move {
            let output = future.await;
            tracing::debug!(task = name, "task ended");
            output
        })
    }

    /// Resolves when every spawned task has ended and stopping has begun.
    pub async fn finished(&self) {
        self.tasks.wait().await;
    }
}
