//! `grant: static`: a token that somebody else keeps fresh.
//!
//! Owns: re-reading it when its file changes, when an upstream refuses it, and from time to time where there
//! is no file to look at. Knows no lifetime: it is served as long as its source says it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::refresher::Asked;
use super::snapshot::{Board, Facts, LastError};
use super::state::Phase;
use super::{CredentialConfig, ForcedRefresh, Published, State, Token, TokenCell};
use crate::clock::{BootTime, Clock};
use crate::file_watch::FileWatch;
use crate::secret::{Secret, SecretSource};

const TICK: Duration = Duration::from_secs(1);
/// "For ever": ten years, the longest life that any token is given.
const LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The task of a static credential.
pub(super) struct Task {
    config: CredentialConfig,
    source: SecretSource,
    clock: Clock,
    board: Arc<Board>,
    asked: mpsc::UnboundedReceiver<Asked>,
    stop: CancellationToken,
    file: FileWatch,
    rejections: watch::Receiver<u64>,
    held: Option<(Secret, Token)>,
    read_at: BootTime,
    facts: Facts,
}

impl Task {
    /// Reads the token once and publishes it.
    pub(super) async fn begin(
        config: CredentialConfig,
        source: SecretSource,
        clock: Clock,
        cell: Arc<TokenCell>,
        asked: mpsc::UnboundedReceiver<Asked>,
        stop: CancellationToken,
    ) -> Self {
        let facts = Facts::nothing(config.min_interval);
        let rejections = cell.rejections();
        cell.leave_to_others();
        let board = Board::new(cell, clock.clone(), "none", config.required, facts.clone());
        let file = FileWatch::begin(source.path().into_iter().collect()).await;
        let mut task = Self {
            read_at: clock.boot(),
            config,
            source,
            clock,
            board: Arc::new(board),
            asked,
            stop,
            file,
            rejections,
            held: None,
            facts,
        };
        task.read().await;
        task
    }

    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Until it is stopped.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {
                    if self.file.changed().await || self.is_stale() {
                        self.read().await;
                    }
                }
                Ok(()) = self.rejections.changed() => self.read().await,
                Some(asked) = self.asked.recv() => {
                    self.read().await;
                    drop(asked.send(match &self.facts.last_error {
                        None => ForcedRefresh::Refreshed(self.facts.generation),
                        Some(error) => ForcedRefresh::Failed(error.description.clone().unwrap_or_default()),
                    }));
                }
            }
        }
    }

    /// Variables do not change and files are watched; a command is asked again, and a failure mended.
    fn is_stale(&self) -> bool {
        let wait = match (&self.source, &self.held) {
            (_, None) => Duration::from_secs(10),
            (SecretSource::Exec(_), Some(_)) => self.config.default_lifetime,
            _ => return false,
        };
        self.clock.boot().since(self.read_at) >= wait
    }

    async fn read(&mut self) {
        self.read_at = self.clock.boot();
        let outcome = match self.source.read().await {
            Ok(secret) => self.take(secret),
            Err(error) => Err(error.to_string()),
        };
        self.facts.tried = true;
        match outcome {
            Ok(()) => {
                self.facts.last_error = None;
                self.facts.remedy = None;
            }
            Err(message) => self.note(message),
        }
        self.publish();
    }

    fn take(&mut self, secret: Secret) -> Result<(), String> {
        if self.held.as_ref().is_some_and(|(held, _)| *held == secret) {
            return Ok(());
        }
        let (now, wall) = (self.clock.boot(), self.clock.wall());
        let generation = self.facts.generation + 1;
        let life = (now.plus(LIFE), generation, wall.plus(LIFE));
        let token =
            Token::injected(&secret, &self.config.injection, &[], life).map_err(|error| error.to_string())?;
        tracing::info!(
            credential = %self.config.name,
            generation,
            token = %secret.fingerprint(),
            "took the static token"
        );
        self.facts.generation = generation;
        self.facts.last_refresh_at = Some(wall);
        self.held = Some((secret, token));
        Ok(())
    }

    /// What is held is served all the same.
    fn note(&mut self, message: String) {
        if self.facts.remedy.as_ref() != Some(&message) {
            tracing::error!(credential = %self.config.name, error = message, "the static token cannot be read");
        }
        self.facts.last_error = Some(LastError {
            class: "configuration",
            error: "static".into(),
            description: Some(message.clone()),
            at: self.clock.wall(),
            retry_at: None,
        });
        self.facts.remedy = Some(message);
    }

    fn publish(&mut self) {
        let token = self.held.as_ref().map(|(_, token)| token.clone());
        let state = if token.is_some() { State::Fresh } else { State::Misconfigured };
        self.facts.view.phase = match &token {
            Some(_) => Phase::Standing,
            None => Phase::Misconfigured { until: self.clock.boot().plus(Duration::from_secs(10)) },
        };
        self.board.cell.publish(Published { state, token, retry_at: None });
        self.board.write(self.facts.clone());
    }
}
