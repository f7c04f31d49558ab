//! The file store among processes: killed writers, stopped holders, races, and watchers.
//!
//! Other processes are this test binary itself, run again with [`ROLE`] set.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use bearward::names::Name;
use bearward::secret::{Secret, SecretSource};
use bearward::store::{Identity, Lease, Record, Store, StoreConfig, StoreError, StoreKind};
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "BEARWARD_TEST_STORE_ROLE";
const PLACE: &str = "BEARWARD_TEST_STORE_PLACE";
/// The user `nobody`.
const NOBODY: u32 = 65_534;

pub(crate) fn key() -> Name {
    Name::try_new("primavera").expect("a name")
}

pub(crate) fn record_with(token: &str) -> Record {
    let mut record = Record::new(Identity::default());
    record.refresh_token = Some(Secret::from(token));
    record
}

pub(crate) async fn try_open(path: &Path, keys: &[&str]) -> Result<Store, StoreError> {
    let encryption = keys.iter().map(|key| SecretSource::Value(Secret::from(*key))).collect();
    Store::open(&StoreConfig { kind: StoreKind::File { path: Some(path.to_owned()) }, encryption }).await
}

pub(crate) async fn open(path: &Path) -> Store {
    try_open(path, &[]).await.expect("open")
}

/// Version and refresh token of what is stored.
pub(crate) async fn stored(store: &Store) -> Option<(u64, String)> {
    let record = store.load(&key()).await.expect("load")?;
    Some((record.version, record.refresh_token.expect("a refresh token").expose().to_owned()))
}

/// Waits for the lease as a refresher would.
pub(crate) async fn lease(store: &Store) -> Lease {
    let polled = async {
        loop {
            if let Some(lease) = store.try_lease(&key()).await.expect("try_lease") {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), polled).await.expect("the lease comes free")
}

/// This binary in another process, playing a part of [`child_process`].
pub(crate) struct Player {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Player {
    pub(crate) fn start(role: &str, place: &Path) -> Self {
        let program = std::env::current_exe().expect("this binary");
        Self::run(Command::new(program), role, place)
    }

    /// The same as another user, who may not be able to reach this binary where it is.
    pub(crate) fn start_unprivileged(role: &str, place: &Path, program: &Path) -> Self {
        std::fs::copy(std::env::current_exe().expect("this binary"), program).expect("copy of this binary");
        let mut command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY);
        Self::run(command, role, place)
    }

    fn run(mut command: Command, role: &str, place: &Path) -> Self {
        let mut child = command
            .args(["--exact", "store::child_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(PLACE, place)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, lines }
    }

    /// The next line that the player said, without what the test harness says; `None` at its end.
    pub(crate) fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).expect("read") == 0 {
                return None;
            }
            // The harness leaves its own words before ours on the first line.
            if let Some((_, said)) = line.trim_end().split_once("> ") {
                return Some(said.to_owned());
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("kill");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("wait")
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {what}").expect("write");
    out.flush().expect("flush");
}

/// Not a test: what the other processes of this module run.
#[tokio::test]
#[ignore = "played by the tests of this module in processes of their own"]
async fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = PathBuf::from(std::env::var_os(PLACE).expect("the directory"));
    match role.as_str() {
        "commit" => commit_for_ever(&place).await,
        "race" => add_two_hundred(&place).await,
        "hold" => {
            let _held = lease(&open(&place).await).await;
            say("held");
            std::future::pending().await
        }
        "idle" => watch_idly(&place).await,
        "unprivileged" => crate::store_faults::suffer_lost_permissions(&place).await,
        other => panic!("no role {other}"),
    }
}

async fn commit_for_ever(place: &Path) {
    let store = open(place).await;
    loop {
        let held = lease(&store).await;
        let version = store.load(&key()).await.expect("load").map_or(0, |record| record.version);
        let next = record_with(&format!("t{}", version + 1));
        let written = store.commit(&held, version, &next).await.expect("commit");
        drop(held);
        say(&written.to_string());
    }
}

async fn add_two_hundred(place: &Path) {
    let store = open(place).await;
    say("ready");
    for _ in 0..200 {
        let held = lease(&store).await;
        let mut record = store.load(&key()).await.expect("load").unwrap_or_else(|| record_with("x"));
        record.generation += 1;
        let version = record.version;
        store.commit(&held, version, &record).await.expect("nobody else holds the lease");
    }
    say("done");
}

/// Ends well only if waiting costs next to nothing and all threads end with the store.
async fn watch_idly(place: &Path) {
    let threads = || std::fs::read_dir("/proc/self/task").expect("tasks").count();
    let store = open(place).await;
    let _watch = store.watch(&key()).await.expect("watch");
    let before = cpu_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = cpu_time() - before;
    assert!(spent < Duration::from_millis(50), "{spent:?} of CPU in 2 s of waiting");
    let with_watch = threads();
    drop(store);
    for _ in 0..100 {
        if threads() + 2 <= with_watch {
            say("idle");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} of {with_watch} threads are left", threads());
}

fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("below 10^9"))
}

#[tokio::test]
async fn case_40_a_writer_killed_at_any_moment_leaves_the_old_or_the_new_record_whole() {
    let folder = tempfile::tempdir().expect("tempdir");
    let place = folder.path().join("state");
    let mut last = 0;
    let mut unacknowledged = 0;
    for round in 0..100 {
        let mut player = Player::start("commit", &place);
        let mut acknowledged = player.hear().expect("a first commit").parse::<u64>().expect("a version");
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..15_000))).await;
        player.signal(Signal::KILL);
        while let Some(line) = player.hear() {
            acknowledged = line.parse().unwrap_or(acknowledged);
        }
        player.wait();
        let store = open(&place).await;
        let (version, token) = stored(&store).await.expect("a record");
        assert_eq!(token, format!("t{version}"), "round {round}");
        assert!(version > last, "round {round}: {version} after {last}");
        assert!(
            version == acknowledged || version == acknowledged + 1,
            "round {round}: {version} stands, {acknowledged} was acknowledged"
        );
        unacknowledged += version - acknowledged;
        last = version;
        lease(&store).await;
        let rest: Vec<_> = std::fs::read_dir(&place)
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
            .filter(|name| name != "primavera.record" && name != "primavera.lock")
            .collect();
        assert!(rest.is_empty(), "round {round}: {rest:?}");
    }
    say(&format!("{last} commits, 100 kills, {unacknowledged} commits landed without a word"));
}

#[tokio::test]
async fn case_46_two_processes_that_race_lose_no_update() {
    let folder = tempfile::tempdir().expect("tempdir");
    let place = folder.path().join("state");
    let mut players = [Player::start("race", &place), Player::start("race", &place)];
    for player in &mut players {
        assert_eq!(player.hear().as_deref(), Some("ready"));
    }
    for player in &mut players {
        assert_eq!(player.hear().as_deref(), Some("done"));
        assert!(player.wait().success());
    }
    let record = open(&place).await.load(&key()).await.expect("load").expect("a record");
    assert_eq!((record.version, record.generation), (400, 400));
}

#[tokio::test]
async fn case_78_a_stopped_holder_keeps_its_lease_until_it_ends() {
    let folder = tempfile::tempdir().expect("tempdir");
    let place = folder.path().join("state");
    let store = open(&place).await;
    let held = lease(&store).await;
    store.commit(&held, 0, &record_with("served meanwhile")).await.expect("commit");
    drop(held);
    let mut holder = Player::start("hold", &place);
    assert_eq!(holder.hear().as_deref(), Some("held"));
    assert!(store.try_lease(&key()).await.expect("try_lease").is_none());
    assert_eq!(store.lease_holder(&key()).await, Some(holder.child.id()), "a person can be told who it is");
    holder.signal(Signal::STOP);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(store.try_lease(&key()).await.expect("try_lease").is_none(), "stopped, not dead");
    }
    assert_eq!(stored(&store).await, Some((1, "served meanwhile".to_owned())));
    holder.signal(Signal::CONT);
    assert!(store.try_lease(&key()).await.expect("try_lease").is_none(), "it goes on");
    holder.signal(Signal::STOP);
    holder.signal(Signal::KILL);
    holder.wait();
    assert!(store.try_lease(&key()).await.expect("try_lease").is_some(), "the kernel gave it back");
    assert_eq!(store.lease_holder(&key()).await, None);
}

#[tokio::test]
async fn case_44_a_watcher_hears_of_another_process_within_a_second() {
    let folder = tempfile::tempdir().expect("tempdir");
    let place = folder.path().join("state");
    let store = open(&place).await;
    let mut watch = store.watch(&key()).await.expect("watch");
    let mut player = Player::start("commit", &place);
    for _ in 0..50 {
        let version: u64 = player.hear().expect("a commit").parse().expect("a version");
        let heard =
            tokio::time::timeout(Duration::from_secs(1), watch.wait_for(|seen| *seen >= version)).await;
        heard.expect("within a second").expect("the store is open");
    }
}

#[test]
fn waiting_for_changes_costs_nothing_and_ends_with_the_store() {
    let folder = tempfile::tempdir().expect("tempdir");
    let mut player = Player::start("idle", &folder.path().join("state"));
    assert_eq!(player.hear().as_deref(), Some("idle"));
    assert!(player.wait().success());
}
