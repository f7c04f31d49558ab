//! The task of one credential: waits for the schedule, the store, files, clocks and people, and acts.
//!
//! Owns: the loop and what is held in memory. One request is under way at a time, and nobody outside can
//! cancel it. Never publishes a rotated token that was not tried to be saved first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::adopt::standing_mark;
use super::attempt::Ended;
use super::refresher::Asked;
use super::saving::Unsaved;
use super::schedule::{self, Action, TokenLife, View};
use super::seed::{self, Wanted};
use super::snapshot::{Board, Counts, Facts, LastError, wall_of};
use super::state::Phase;
use super::{CredentialConfig, Published, State, Token, TokenCell};
use crate::clock::{BootTime, Clock, UnixTime};
use crate::file_watch::FileWatch;
use crate::oauth::OAuthClient;
use crate::secret::{Fingerprint, Secret};
use crate::store::{Record, Store};

/// The longest sleep: files are looked at, a suspended machine and a stepped clock are noticed.
const TICK: Duration = Duration::from_secs(1);
/// After an attempt that found nothing to do.
const BREATH: Duration = Duration::from_millis(50);
/// A wall clock that moved more than this against the boot clock was set by somebody.
const CLOCK_STEP: i64 = 10_000;
/// A refused password is sent this often in all.
const PASSWORD_TRIES: u8 = 3;
/// The token that is served.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) life: TokenLife,
    pub(super) fingerprint: Fingerprint,
}

/// The first sending of a refresh token whose fate is unknown.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstSend {
    pub(super) since: UnixTime,
    pub(super) at: BootTime,
}

/// See the module.
pub(super) struct Task {
    pub(super) config: CredentialConfig,
    pub(super) client: OAuthClient,
    pub(super) store: Store,
    pub(super) clock: Clock,
    stop: CancellationToken,
    board: Arc<Board>,
    pub(super) asked: mpsc::UnboundedReceiver<Asked>,
    pub(super) waiting: Vec<Asked>,

    /// New at every start: tells this process's marks from those of dead ones.
    pub(super) owner: String,
    pub(super) wanted: Wanted,
    pub(super) seed: Option<Secret>,
    pub(super) seed_error: Option<String>,
    seed_file: FileWatch,
    files: FileWatch,
    pub(super) store_news: Option<watch::Receiver<u64>>,
    pub(super) rejections: watch::Receiver<u64>,

    /// The record as it was last read or written; `None` until there is one of this credential.
    pub(super) record: Option<Record>,
    pub(super) held: Option<Held>,
    pub(super) phase: Phase,
    pub(super) doubt: Option<FirstSend>,
    pub(super) failures: u32,
    /// How often the provider has refused the password that is configured.
    pub(super) passwords_refused: u8,
    pub(super) last_request: Option<BootTime>,
    pub(super) unsaved: Option<Box<Unsaved>>,
    pub(super) forced: VecDeque<BootTime>,
    /// Until when the token before the one that is held would have lived.
    pub(super) old_token_until: Option<BootTime>,
    /// The highest generation that was refused when the token came that is held.
    pub(super) rejected_before: u64,
    pub(super) old_tokens_killed: u8,
    wall_offset: i64,
    /// The provider's clock minus our boot clock, in milliseconds.
    pub(super) provider_offset: Option<i64>,

    pub(super) leader: bool,
    pub(super) tried: bool,
    /// Whether the store was ever read.
    pub(super) looked: bool,
    /// The phase is the store's fault alone.
    pub(super) store_trouble: bool,
    /// When files of a credential with a client certificate changed.
    certificate_change: Option<BootTime>,
    /// The last answer showed that assertions were dated wrongly.
    pub(super) skew_news: bool,
    pub(super) last_refresh_at: Option<UnixTime>,
    pub(super) last_error: Option<LastError>,
    pub(super) counts: Counts,
    pub(super) remedy: Option<String>,
    shown: Option<(State, u64, Option<BootTime>)>,
}

impl Task {
    /// Reads seed and store once and publishes what is still good.
    pub(super) async fn begin(
        config: CredentialConfig,
        client: OAuthClient,
        store: Store,
        clock: Clock,
        cell: Arc<TokenCell>,
        asked: mpsc::UnboundedReceiver<Asked>,
        stop: CancellationToken,
    ) -> Self {
        let seed_path = seed::source(&config).and_then(crate::secret::SecretSource::path);
        let seed_file = FileWatch::begin(seed_path.into_iter().collect()).await;
        let files = FileWatch::begin(client.watched_files()).await;
        let rejections = cell.rejections();
        let facts = Facts::nothing(config.min_interval);
        let board = Board::new(cell, clock.clone(), store.kind(), config.required, facts);
        let mut task = Self {
            wanted: Wanted {
                identity: seed::identity(&config.oauth),
                request_digest: seed::request_digest(&config.oauth),
            },
            owner: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            wall_offset: offset(clock.wall(), clock.boot()),
            config,
            client,
            store,
            clock,
            stop,
            board: Arc::new(board),
            asked,
            waiting: Vec::new(),
            seed: None,
            seed_error: None,
            seed_file,
            files,
            store_news: None,
            rejections,
            record: None,
            held: None,
            phase: Phase::Ready,
            doubt: None,
            failures: 0,
            passwords_refused: 0,
            last_request: None,
            unsaved: None,
            forced: VecDeque::new(),
            old_token_until: None,
            rejected_before: 0,
            old_tokens_killed: 0,
            provider_offset: None,
            leader: false,
            tried: false,
            looked: false,
            store_trouble: false,
            certificate_change: None,
            skew_news: false,
            last_refresh_at: None,
            last_error: None,
            counts: Counts::default(),
            remedy: None,
            shown: None,
        };
        task.read_seed().await;
        task.first_look().await;
        task.publish();
        task
    }

    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Until it is stopped.
    pub(super) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            self.look_around().await;
            self.publish();
            let now = self.clock.boot();
            let action = schedule::next(&self.view(), now);
            if action == Action::Refresh {
                let ended = self.attempt().await;
                self.publish();
                self.answer_all(&ended);
                if matches!(ended, Ended::Nothing) {
                    tokio::time::sleep(BREATH).await;
                }
                continue;
            }
            // Nothing is due: there is nothing that readiness should wait for.
            self.tried = true;
            self.refuse_all();
            self.wait(action, now).await;
        }
        self.save_before_the_end().await;
        self.publish();
    }

    async fn wait(&mut self, action: Action, now: BootTime) {
        let pause = match action {
            Action::Wait(until) => until.since(now).clamp(Duration::from_millis(1), TICK),
            Action::Refresh | Action::Rest => TICK,
        };
        let news = async {
            let told = match &mut self.store_news {
                Some(news) => news.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            () = news => self.follow().await,
            Ok(()) = self.rejections.changed() => {}
            Some(asked) = self.asked.recv() => self.ask(asked),
        }
    }

    /// All that may have changed while nobody told us.
    async fn look_around(&mut self) {
        self.save_again().await;
        if self.store_news.is_none() {
            self.watch_store().await;
        }
        if self.seed_file.changed().await {
            self.read_seed().await;
            let fresh = self.seed.as_ref().is_some_and(|seed| {
                !self.record.as_ref().is_some_and(|record| record.has_seen(seed.fingerprint()))
            });
            if fresh {
                tracing::info!(credential = %self.config.name, "a new refresh token is configured: adopting it");
                self.want_at_once();
            }
        }
        let changed = self.files.changed().await;
        if changed
            && (matches!(self.phase, Phase::Misconfigured { .. } | Phase::Waiting { .. })
                || self.password_is_given_up())
        {
            tracing::info!(credential = %self.config.name, "a secret or key file changed: trying at once");
            self.want_at_once();
        }
        self.look_at_certificate(changed);
        self.look_at_clocks();
        self.look_at_rejections();
        self.judge_standing_mark().await;
    }

    /// A token that is bound to the certificate of before is of no use beside the new one (RFC 8705 3). The upstreams are
    /// shown the new one first: a request between the two is answered 401 and sent again.
    fn look_at_certificate(&mut self, changed: bool) {
        if self.client.config().tls.identity.is_none() {
            return;
        }
        let now = self.clock.boot();
        if changed {
            self.certificate_change = Some(now);
        }
        let is_due = self.certificate_change.is_some_and(|at| now.since(at) >= TICK);
        if is_due && self.phase == Phase::Ready && self.held.is_some() {
            self.certificate_change = None;
            tracing::info!(
                credential = %self.config.name,
                "the client certificate was replaced: asking for a token that goes with it"
            );
            self.phase = Phase::Wanted;
        }
    }

    pub(super) fn want_at_once(&mut self) {
        self.phase = Phase::Wanted;
        self.passwords_refused = 0;
        self.failures = 0;
        self.last_request = None;
    }

    async fn read_seed(&mut self) {
        let Some(source) = seed::source(&self.config) else { return };
        match source.read().await {
            Ok(seed) => {
                self.seed = Some(seed);
                self.seed_error = None;
            }
            Err(error) => self.seed_error = Some(error.to_string()),
        }
    }

    /// A wall clock that was set never expires a token by itself; it is a reason to ask for a new one, since
    /// other parties may now read its times differently.
    fn look_at_clocks(&mut self) {
        let offset = offset(self.clock.wall(), self.clock.boot());
        let step = offset - self.wall_offset;
        if step.abs() <= CLOCK_STEP {
            return;
        }
        self.wall_offset = offset;
        let refreshes = self.phase == Phase::Ready && self.held.is_some() && self.may_force();
        tracing::warn!(
            credential = %self.config.name,
            step_seconds = step / 1000,
            refreshes,
            "the wall clock was set; lifetimes go on by the boot clock"
        );
        if refreshes {
            self.phase = Phase::Wanted;
        }
    }

    pub(super) fn view(&self) -> View {
        View {
            token: self.held.as_ref().map(|held| held.life),
            phase: self.phase,
            last_request: self.last_request,
            min_interval: self.config.min_interval,
        }
    }

    /// A password that the provider refused this often is not sent again: the next time might lock the account.
    pub(super) fn password_is_given_up(&self) -> bool {
        self.passwords_refused >= PASSWORD_TRIES
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Writes down what is known, and swaps the cell where readers would see a difference.
    pub(super) fn publish(&mut self) {
        let now = self.clock.boot();
        let view = self.view();
        let state = schedule::state(&view, self.tried, now);
        let generation = self.held.as_ref().map_or(0, |held| held.token.generation);
        let usable = self.held.as_ref().is_some_and(|held| now < held.token.hard_stop);
        let retry_at = match schedule::next(&view, now) {
            Action::Wait(until) if !usable => Some(until),
            _ => None,
        };
        if self.shown != Some((state, generation, retry_at)) {
            self.shown = Some((state, generation, retry_at));
            let token = self.held.as_ref().map(|held| held.token.clone());
            self.board.cell.publish(Published { state, token, retry_at });
        }
        self.counts.file_errors = self.client.lapses();
        self.board.write(Facts {
            view,
            generation,
            expires_known: self.held.is_some(),
            refresh_token_expires_at: self.record.as_ref().and_then(|record| record.refresh_expires_at),
            last_refresh_at: self.last_refresh_at,
            last_error: self.last_error.clone(),
            counts: self.counts.clone(),
            leader: self.leader,
            tried: self.tried,
            unsaved: self.unsaved.is_some(),
            remedy: self.remedy.clone(),
        });
    }

    /// Notes a failure of the store: an error of its own class.
    pub(super) fn note_store_error(&mut self, error: &str, until: Option<BootTime>) {
        self.counts.store_errors += 1;
        self.last_error = Some(LastError {
            class: "store",
            error: "store".into(),
            description: Some(error.to_owned()),
            at: self.clock.wall(),
            retry_at: until.map(|until| wall_of(&self.clock, until)),
        });
    }

    /// Whether a mark of another process stands in the record.
    pub(super) fn foreign_mark(&self) -> bool {
        self.record.as_ref().and_then(standing_mark).is_some_and(|mark| mark.owner != self.owner)
    }
}

fn offset(wall: UnixTime, boot: BootTime) -> i64 {
    wall.millis() - i64::try_from(boot.since_boot().as_millis()).unwrap_or(i64::MAX)
}
