//! `kill -9` at random moments of many refreshes: what is lost, and that the rest is not.
//!
//! The truth is the server's ledger beside the record on disk, read between the kill and the next start:
//! a family is in danger only where the server has rotated and the record does not know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bearward::clock::{Clock, UnixTime};
use bearward::idp::{
    DEFAULT_CLIENT, DEFAULT_SECRET, FamilyReport, FamilyState, Fault, Idp, Outcome, Settings,
};
use bearward::names::Name;
use bearward::secret::{Fingerprint, Secret};
use bearward::store::Record;
use bearward::store::file::FileStore;
use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::{count, eventually};

/// Lanes that run side by side, each with a server and a state directory of its own.
const LANES: usize = 4;
/// Longer than any write took between the answer and the kill, or the record was not written at once.
const LONGEST_WRITE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_random_moments_loses_no_family_outside_the_unavoidable_window() {
    let kills: usize = std::env::var("BEARWARD_CAMPAIGN").map_or(100, |text| text.parse().expect("a number"));
    // Every other server has a grace window for a lost answer.
    let lanes = (0..LANES).map(|number| lane(kills.div_ceil(LANES), number % 2 == 1));
    let mut sum = Tally::default();
    for tally in futures_util::future::join_all(lanes).await {
        sum.add(&tally);
    }
    sum.report();
    assert!(sum.kills >= kills);
    assert!(sum.unprocessed > 0 && sum.durable > 0 && sum.unheard() > 0, "some moment was never hit");
    assert_eq!(sum.ended_dead + sum.healed, sum.unheard());
}

/// What became of the kills.
#[derive(Default)]
struct Tally {
    kills: usize,
    /// The server had not processed the request, or none was under way: nothing was at stake.
    unprocessed: usize,
    /// The new pair was on disk.
    durable: usize,
    /// The request was sent; the server rotated and its answer had not left yet.
    before_answer: usize,
    /// Between the answer and the end of the write.
    in_window: usize,
    /// Of both: the resent token revoked the family, as the procedure says for a server without grace.
    ended_dead: usize,
    /// Of both: resent within the server's grace.
    healed: usize,
    longest_gap: Duration,
}

impl Tally {
    fn unheard(&self) -> usize {
        self.before_answer + self.in_window
    }

    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.unprocessed += other.unprocessed;
        self.durable += other.durable;
        self.before_answer += other.before_answer;
        self.in_window += other.in_window;
        self.ended_dead += other.ended_dead;
        self.healed += other.healed;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }

    fn report(&self) {
        count(&format!(
            "kill -9 at {} refreshes: {} before the server processed the request, {} after the write: families lost 0",
            self.kills, self.unprocessed, self.durable
        ));
        count(&format!(
            "kill -9: {} while the server had rotated and its answer was not out, {} between answer and write (at \
             most {:?} after the answer): of these {} were resent within the server's grace and live, {} were \
             resent once and are dead, as the procedure says without a grace",
            self.before_answer, self.in_window, self.longest_gap, self.healed, self.ended_dead
        ));
    }
}

/// What the server does to the token requests of one turn.
#[derive(Clone, Copy)]
enum Turn {
    /// It takes this long before it rotates, and this long until it answers.
    Delays(Duration, Duration),
    /// It never comes to processing it.
    Hangs,
}

impl Turn {
    fn draw() -> Self {
        let delay = || Duration::from_millis(fastrand::u64(0..120));
        if fastrand::u8(0..10) < 3 { Self::Hangs } else { Self::Delays(delay(), delay()) }
    }

    fn set(self, idp: &Idp) {
        idp.faults().clear();
        match self {
            Self::Hangs => idp.faults().always(Fault::HangBefore),
            Self::Delays(before, after) => {
                idp.faults().always(Fault::DelayBefore(before));
                idp.faults().always(Fault::DelayAfter(after));
            }
        }
    }

    /// A moment to kill at, counted from the request's arrival.
    fn moment(self) -> Duration {
        match self {
            Self::Hangs => Duration::from_millis(fastrand::u64(0..150)),
            // Half of them about the write, which is short.
            Self::Delays(before, after) if fastrand::bool() => {
                before + after + Duration::from_micros(fastrand::u64(0..40_000))
            }
            Self::Delays(before, after) => (before + after).mul_f64(fastrand::f64()),
        }
    }
}

async fn lane(kills: usize, grace: bool) -> Tally {
    let mut lane = Lane::new(grace).await;
    for _ in 0..kills {
        lane.one_kill(Turn::draw()).await;
    }
    lane.finish().await
}

struct Lane {
    run: Arc<Run>,
    idp: Idp,
    config: Value,
    grace: bool,
    tally: Tally,
    /// Kills while this refresh token was the one on disk: how often it may have been sent again.
    kills_on: HashMap<String, u64>,
}

impl Lane {
    async fn new(grace: bool) -> Self {
        let run = Arc::new(Run::new("campaign"));
        run.client_secret(DEFAULT_CLIENT, DEFAULT_SECRET);
        let idp = Idp::start(Settings::default()).await.expect("the server starts");
        let window = if grace { 30 } else { 0 };
        idp.behave(|behaviour| {
            behaviour.access_token_lifetime = Duration::from_secs(2);
            behaviour.grace = Duration::from_secs(window);
        });
        let credential = json!({
            "token_endpoint": idp.token_endpoint(),
            "client": {"id": DEFAULT_CLIENT, "auth": "client_secret_basic",
                       "secret": run.secret_file("client-secret", DEFAULT_SECRET)},
            "grant": "refresh_token",
            "refresh_token": {"file": run.private().join("seed")},
            "rotation": {"mode": "single_use", "grace": format!("{window}s")},
            "refresh": {"at": 0.2, "min_interval": "10ms"},
        });
        let config = run.config(&idp.api_url(), &credential);
        let lane = Self { run, idp, config, grace, tally: Tally::default(), kills_on: HashMap::new() };
        lane.new_seed();
        lane
    }

    fn new_seed(&self) {
        let seed = self.idp.new_seed();
        self.run.secret(seed.expose());
        self.run.secret_file("seed", seed.expose());
    }

    /// The family that the record belongs to: the latest.
    fn family(&self) -> FamilyReport {
        self.idp.families().pop().expect("there is one")
    }

    async fn record(&self) -> Option<Record> {
        let store = FileStore::open(Some(&self.run.state()), &[]).await.expect("the store opens");
        let name = Name::try_new("it").expect("a name");
        let record = store.load(&name).await.expect("no record is ever torn")?;
        for secret in [&record.refresh_token, &record.access_token].into_iter().flatten() {
            self.run.secret(secret.expose());
        }
        Some(record)
    }

    async fn one_kill(&mut self, turn: Turn) {
        let posts = self.idp.posts();
        turn.set(&self.idp);
        let bearward = Bearward::start(&self.run, &self.config).await;
        let arrives = self.idp.posts_reached(posts + 1);
        tokio::time::timeout(Duration::from_secs(20), arrives).await.expect("a refresh is due");
        tokio::time::sleep(turn.moment()).await;
        let killed_at = Clock::System.wall();
        bearward.kill();
        self.tally.kills += 1;
        self.settled(turn).await;

        let family = self.family();
        assert!(family.is_alive(), "a spent refresh token was sent again: {family:?}");
        let on_disk = self.record().await.and_then(|record| record.refresh_token);
        let held = on_disk.as_ref().map_or_else(|| self.seed().fingerprint(), Secret::fingerprint);
        *self.kills_on.entry(held.to_hex()).or_default() += 1;
        let current = family.refresh_tokens.iter().any(|token| token.current && token.fingerprint == held);
        if !current {
            self.unheard_rotation(turn, killed_at, held).await;
        } else if self.issued_since(posts, held) {
            self.tally.durable += 1;
        } else {
            self.tally.unprocessed += 1;
        }
    }

    /// Waits until the server has done with what was sent to it: it carries on when its client is gone.
    async fn settled(&self, turn: Turn) {
        if matches!(turn, Turn::Delays(..)) {
            eventually("the server is done", Duration::from_secs(10), async || {
                let last = self.idp.log().pop()?;
                (last.outcome != Outcome::Pending).then_some(())
            })
            .await;
        }
    }

    /// Whether a request of this turn brought the token.
    fn issued_since(&self, posts: u64, held: Fingerprint) -> bool {
        self.idp.log().iter().filter(|entry| entry.number > posts).any(
            |entry| matches!(entry.outcome, Outcome::Issued { refresh_token: Some(token), .. } if token == held),
        )
    }

    /// The server rotated and the disk does not know: restart, and see it end as the procedure says.
    async fn unheard_rotation(&mut self, turn: Turn, killed_at: UnixTime, spent: Fingerprint) {
        let spent_by = self.idp.log().into_iter().rev().find(|entry| {
            entry.refresh_token == Some(spent) && matches!(entry.outcome, Outcome::Issued { .. })
        });
        let Turn::Delays(before, after) = turn else { panic!("nothing was processed") };
        let answered_at = spent_by.expect("a request has spent it").at.plus(before + after);
        match killed_at.checked_since(answered_at) {
            None => self.tally.before_answer += 1,
            Some(gap) => {
                assert!(gap < LONGEST_WRITE, "the answer was out for {gap:?} and is not on disk");
                self.tally.longest_gap = self.tally.longest_gap.max(gap);
                self.tally.in_window += 1;
            }
        }
        self.idp.faults().clear();
        let bearward = Bearward::start(&self.run, &self.config).await;
        if self.grace {
            bearward.until_state("fresh", Duration::from_secs(20)).await;
            assert!(self.family().is_alive());
            self.tally.healed += 1;
            bearward.kill();
        } else {
            bearward.until_state("dead", Duration::from_secs(20)).await;
            assert_eq!(self.family().state, FamilyState::RevokedByReuse);
            self.tally.ended_dead += 1;
            bearward.kill();
            self.new_seed();
        }
    }

    fn seed(&self) -> Secret {
        Secret::new(std::fs::read_to_string(self.run.private().join("seed")).expect("it is there"))
    }

    /// Whatever happened, the last family lives and goes on.
    async fn finish(self) -> Tally {
        self.idp.faults().clear();
        let bearward = Bearward::start(&self.run, &self.config).await;
        let goes_on = |it: &Value| it["refreshes"]["ok"].as_u64() >= Some(3);
        bearward.until("three more refreshes", Duration::from_secs(30), goes_on).await;
        assert_eq!(bearward.get("/").await.status, 200);
        assert!(bearward.stop().await.success());
        assert!(self.family().is_alive());
        self.record().await;
        for token in self.idp.families().iter().flat_map(|family| &family.refresh_tokens) {
            let resends = self.kills_on.get(&token.fingerprint.to_hex()).copied().unwrap_or_default();
            assert!(token.posts <= 1 + resends, "{token:?} was sent without need ({resends} kills)");
        }
        self.tally
    }
}
