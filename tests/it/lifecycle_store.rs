//! Several processes on one store, and a store that fails.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearward::credential::{RotationMode, State};
use bearward::idp::Fault;
use bearward::secret::Secret;
use bearward::store::{InFlight, Record, RecordState};
use tracing_subscriber::fmt::MakeWriter;

use crate::lifecycle::{HOUR, Process, World, a_while, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_40_a_process_killed_at_any_moment_leaves_a_whole_record() {
    let world = World::new().await;
    let (mut whole, mut marked) = (0, 0);
    for round in 0..30 {
        // A family of its own each round: what is lost in flight is another test's matter.
        world.seeded();
        let process = Process::start(&world, world.config());
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..12_000))).await;
        process.kill();
        let store = world.store().await;
        match store.load(&world.config().name).await.unwrap_or_else(|torn| panic!("round {round}: {torn}")) {
            Some(Record { state: RecordState::InFlight(_), .. }) => marked += 1,
            Some(_) => whole += 1,
            None => {}
        }
    }
    assert!(whole + marked > 0, "no process got as far as a write");
}

#[tokio::test]
async fn case_41_a_full_disk_after_a_rotation_alarms_and_is_mended_by_the_next_write_that_lands() {
    let world = World::new().await;
    world.seeded();
    let mount = Mount::on(world.path("state"));
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let spent = world.record().await.refresh_token.expect("one");
    world.idp.faults().push(Fault::DelayAfter(Duration::from_millis(700)));
    world.clock.suspend(HOUR * 8 / 10);
    world.idp.posts_reached(2).await;
    mount.fill();
    replica.generation(2).await;
    replica.assert_serves(&world);
    let now = replica.snapshot();
    assert!(now.unsaved && now.counts.store_errors > 0);
    assert_eq!(now.last_error.expect("told").class, "store");
    assert_eq!(world.record().await.refresh_token, Some(spent), "the disk has the old one still");
    // Even the next refresh goes on from memory.
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(3).await;
    assert!(replica.snapshot().unsaved);
    mount.empty();
    replica.until("it is saved", |now| !now.unsaved).await;
    let served = replica.bearer(&world).expect("served");
    assert_eq!(world.record().await.access_token, Some(served));
    assert!(replica.snapshot().last_error.is_none());
    replica.stop().await;
    let again = world.start(world.config()).await;
    again.assert_serves(&world);
    world.clock.suspend(HOUR * 8 / 10);
    again.generation(4).await;
    world.assert_nothing_spent_twice();
    again.stop().await;
}

#[tokio::test]
async fn a_disk_that_cannot_take_the_mark_keeps_the_refresh_token_unspent() {
    let world = World::new().await;
    world.seeded();
    let mount = Mount::on(world.path("state"));
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    mount.fill();
    world.clock.suspend(HOUR * 8 / 10);
    replica.until("the complaint", |now| now.last_error.is_some()).await;
    a_while().await;
    assert_eq!(world.idp.posts(), 1, "nothing is sent that could not be remembered");
    replica.assert_serves(&world);
    mount.empty();
    world.clock.suspend(Duration::from_secs(61));
    replica.generation(2).await;
    world.assert_nothing_spent_twice();
    replica.stop().await;
}

/// A small file system of its own, unmounted when dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    fn on(path: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&path).expect("create");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"])
            .arg(&path)
            .status()
            .expect("mount runs");
        assert!(done.success(), "a tmpfs can be mounted (needs root)");
        Self(path)
    }

    fn fill(&self) {
        let _ = std::fs::write(self.0.join("filler"), vec![b'x'; 128 * 1024]);
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("remove");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn case_44_two_processes_send_one_request_and_both_have_its_token_within_a_second() {
    let world = World::new().await;
    world.seeded();
    let (one, other) = (world.start(world.config()).await, world.start(world.config()).await);
    for generation in 1..4 {
        one.generation(generation).await;
        let second = Duration::from_secs(1);
        other.until_within(second, "the other follows", |now| now.generation == generation).await;
        let leaders = [&one, &other].iter().filter(|replica| replica.snapshot().leader).count();
        assert_eq!(leaders, 1);
        assert_eq!(one.bearer(&world), other.bearer(&world));
        one.assert_serves(&world);
        // Only one of them gets the time to be first.
        world.clock.suspend(HOUR * 8 / 10);
    }
    one.generation(4).await;
    other.generation(4).await;
    assert_eq!(world.idp.posts(), 4);
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn any_process_takes_over_when_the_leader_ends() {
    let world = World::new().await;
    world.seeded();
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(world.start(world.config()).await);
    }
    for generation in 1..4 {
        for replica in &replicas {
            replica.generation(generation).await;
        }
        let leader = replicas.iter().position(|replica| replica.snapshot().leader).expect("one led");
        replicas.remove(leader).stop().await;
        world.clock.suspend(HOUR * 8 / 10);
    }
    assert_eq!(world.idp.posts(), 3);
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_45_and_46_whoever_lost_its_lease_neither_overwrites_nor_revokes() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let newer = world.idp.new_seed();
    world.idp.faults().push(Fault::DelayAfter(Duration::from_secs(1)));
    world.clock.suspend(HOUR * 8 / 10);
    world.idp.posts_reached(2).await;
    remove_lock(&world);
    // Another process takes the lease that ours believes to have, and commits.
    world
        .leave_record(|record| {
            record.refresh_token = Some(newer.clone());
            record.access_token = Some(Secret::from("the-other-process-has-this"));
            record.obtained_at = Some(world.clock().wall());
            record.expires_at = Some(world.clock().wall().plus(HOUR));
            record.generation += 1;
            record.state = RecordState::Idle;
        })
        .await;
    until("it serves what stands in the store", async || {
        replica.bearer(&world).is_some_and(|bearer| bearer.expose() == "the-other-process-has-this")
    })
    .await;
    until("it gave its own up", async || !replica.snapshot().unsaved).await;
    let record = world.record().await;
    assert_eq!(record.refresh_token, Some(newer), "not overwritten");
    assert!(world.idp.families().iter().all(|family| family.is_alive()), "not revoked");
}

#[tokio::test]
async fn case_45_a_late_commit_lands_where_our_own_mark_still_stands() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.idp.faults().push(Fault::DelayAfter(Duration::from_secs(1)));
    world.clock.suspend(HOUR * 8 / 10);
    world.idp.posts_reached(2).await;
    remove_lock(&world);
    replica.generation(2).await;
    replica.until("it is saved", |now| !now.unsaved).await;
    assert_eq!(world.record().await.access_token, replica.bearer(&world));
    assert_eq!(world.record().await.state, RecordState::Idle);
    world.assert_nothing_spent_twice();
}

fn remove_lock(world: &World) {
    let mut removed = 0;
    for entry in std::fs::read_dir(world.path("state")).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            std::fs::remove_file(path).expect("remove");
            removed += 1;
        }
    }
    assert_eq!(removed, 1, "lock files");
}

#[tokio::test]
async fn case_78_while_the_lease_holder_is_stopped_the_others_serve_alarm_and_recover() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    // A process that took the lease, wrote its mark and does not move any more.
    let store = world.store().await;
    let name = world.config().name;
    let lease = store.try_lease(&name).await.expect("a store").expect("free");
    let mut record = world.record().await;
    let spent = record.refresh_token.clone().expect("one");
    let rt_hash = spent.fingerprint().to_hex();
    let since = world.clock().wall();
    record.state = RecordState::InFlight(InFlight { owner: "stopped".into(), since, rt_hash });
    store.commit(&lease, record.version, &record).await.expect("written");
    world.clock.suspend(HOUR * 8 / 10);
    replica.state_is(State::Stale).await;
    // It waits longer than any token request may take.
    a_while().await;
    a_while().await;
    world.clock.suspend(Duration::from_secs(45));
    replica
        .until("the alarm", |now| now.remedy.as_ref().is_some_and(|text| text.contains("may be stopped")))
        .await;
    replica.assert_serves(&world);
    assert_eq!(world.posts_of(&spent), 0);
    drop(lease);
    replica.state_is(State::InDoubt).await;
    world.clock.suspend(Duration::from_secs(320));
    replica.generation(2).await;
    assert_eq!(world.posts_of(&spent), 1);
    replica.assert_serves(&world);
}

#[tokio::test]
async fn a_follower_that_sees_a_doubt_settled_goes_on_with_the_new_pair() {
    let world = World::new().await;
    world.seeded();
    let (one, other) = (world.start(world.config()).await, world.start(world.config()).await);
    one.generation(1).await;
    other.generation(1).await;
    let spent = world.record().await.refresh_token.expect("one");
    world.idp.faults().push(Fault::DropBefore);
    world.clock.suspend(HOUR * 8 / 10);
    one.state_is(State::InDoubt).await;
    other.state_is(State::InDoubt).await;
    a_while().await;
    assert_eq!(world.posts_of(&spent), 1);
    world.clock.suspend(Duration::from_secs(355));
    one.generation(2).await;
    other.generation(2).await;
    assert_eq!(world.posts_of(&spent), 2, "one resend for both");
    assert_eq!((one.state(), other.state()), (State::Fresh, State::Fresh));
}

#[tokio::test]
async fn a_corrupt_record_is_left_as_it_is_and_no_seed_is_redeemed() {
    let world = World::new().await;
    let seed = world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    replica.stop().await;
    let file = record_file(&world);
    let good = std::fs::read(&file).expect("readable");
    std::fs::write(&file, &good[..good.len() / 2]).expect("write");
    let again = world.start(world.config()).await;
    again.state_is(State::Misconfigured).await;
    assert!(again.snapshot().remedy.expect("a remedy").contains("backup"));
    world.clock.suspend(Duration::from_secs(3600));
    a_while().await;
    assert_eq!(world.idp.posts(), 1);
    assert_eq!(std::fs::read(&file).expect("readable"), &good[..good.len() / 2]);
    std::fs::write(&file, &good).expect("write");
    world.clock.suspend(Duration::from_secs(11));
    again.generation(2).await;
    assert_eq!(world.posts_of(&seed), 1);
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn a_store_that_cannot_be_read_for_a_while_costs_no_token_request() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let file = record_file(&world);
    let good = std::fs::read(&file).expect("readable");
    std::fs::write(&file, b"not a record").expect("write");
    replica.state_is(State::Misconfigured).await;
    replica.assert_serves(&world);
    std::fs::write(&file, &good).expect("write");
    world.clock.suspend(Duration::from_secs(11));
    replica.state_is(State::Fresh).await;
    assert!(replica.snapshot().last_error.is_none());
    assert_eq!(world.idp.posts(), 1);
}

fn record_file(world: &World) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(world.path("state"))
        .expect("readable")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file() && path.extension().is_some_and(|extension| extension != "lock"))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().expect("one")
}

/// What is logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// From now on; ends with the guard.
    pub(crate) fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn case_63_and_80_no_token_seed_or_secret_is_in_any_log_line_status_or_debug_text() {
    let (log, _here) = Log::begin();
    let world = World::new().await;
    let seed = world.seeded();
    let mut secrets = vec![seed, Secret::from(bearward::idp::DEFAULT_SECRET)];
    let mut config = world.config_with_secret_file(bearward::idp::DEFAULT_SECRET);
    config.rotation = RotationMode::SingleUse;
    let replica = world.start(config).await;
    let mut shown = String::new();
    let faults = [
        None,
        Some(Fault::error(400, "invalid_scope")),
        Some(Fault::status(429, &[], "")),
        Some(Fault::remove("access_token")),
        Some(Fault::DropAfter),
    ];
    for (round, fault) in faults.into_iter().enumerate() {
        if let Some(fault) = fault {
            world.idp.faults().push(fault);
        }
        if round > 0 {
            world.clock.suspend(Duration::from_secs(6));
            let _ = replica.refresh().await;
        } else {
            replica.generation(1).await;
        }
        let record = world.record().await;
        secrets.extend(record.refresh_token.clone());
        secrets.extend(record.access_token.clone());
        shown += &format!("{record:?} {:?} {:?}", replica.snapshot(), replica.credential);
    }
    shown += &log.text();
    assert!(shown.contains("token refreshed"), "the log was captured");
    for secret in &secrets {
        assert!(!shown.contains(secret.expose()), "{secret} is shown");
    }
    assert!(secrets.len() > 8);
}

#[tokio::test]
async fn one_refused_token_costs_one_refresh_and_a_route_that_refuses_all_two_in_ten_minutes() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.clock.suspend(Duration::from_secs(10));
    for _ in 0..100 {
        replica.credential.cell().reject(1);
    }
    replica.generation(2).await;
    replica.credential.cell().reject(1);
    a_while().await;
    assert_eq!(world.idp.posts(), 2, "the refused generation is gone already");
    for _ in 0..5 {
        world.clock.suspend(Duration::from_secs(10));
        replica.credential.cell().reject(replica.snapshot().generation);
        a_while().await;
    }
    assert_eq!(world.idp.posts(), 3, "two forced refreshes in ten minutes");
    world.clock.suspend(Duration::from_secs(600));
    replica.credential.cell().reject(replica.snapshot().generation + 1);
    replica.generation(4).await;
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn a_provider_that_is_seen_killing_the_old_access_token_is_asked_late() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    for generation in 1..4 {
        replica.generation(generation).await;
        assert_eq!(world.record().await.observed.kills_old_access_token, None);
        // Requests that were under way with the token before come back refused.
        replica.credential.cell().reject(generation - 1);
        a_while().await;
        world.clock.suspend(HOUR * 8 / 10);
    }
    replica.generation(4).await;
    assert_eq!(world.record().await.observed.kills_old_access_token, Some(true));
    let due = replica.snapshot().refresh_at.expect("scheduled");
    let left = due.checked_since(world.clock().wall()).expect("later");
    assert!(left > HOUR * 85 / 100, "in {left:?}");
    assert_eq!(world.idp.posts(), 4, "the old token's refusal is no reason to refresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_processes_race_for_short_tokens_and_never_spend_one_twice() {
    let world = World::with(bearward::idp::Behaviour {
        access_token_lifetime: Duration::from_millis(2500),
        ..bearward::idp::Behaviour::default()
    })
    .await;
    world.seeded();
    let mut processes: Vec<Process> = (0..5).map(|_| Process::start(&world, world.config())).collect();
    let begun = tokio::time::Instant::now();
    let mut last = 0;
    while begun.elapsed() < Duration::from_secs(12) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let generation = processes.iter().map(|process| process.credential.snapshot().generation).max();
        last = last.max(generation.unwrap_or(0));
        // Every few seconds one of those that only follow ends, and a new one comes.
        if begun.elapsed().as_millis() % 3000 < 50
            && let Some(follower) = processes.iter().position(|process| !process.credential.snapshot().leader)
        {
            processes.swap_remove(follower).stop();
            processes.push(Process::start(&world, world.config()));
        }
    }
    assert!(last >= 6, "{last} generations");
    assert!(world.idp.posts() <= last + 1, "one request a generation: {} for {last}", world.idp.posts());
    for process in processes {
        process.stop();
    }
    world.assert_nothing_spent_twice();
}
