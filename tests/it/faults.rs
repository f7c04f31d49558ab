//! What befalls a running proxy: stopped processes, races, disks, clocks, floods and providers that hang.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bearward::idp::{DEFAULT_CLIENT, DEFAULT_SECRET, Fault, Idp, Settings};
use bearward::names::Name;
use bearward::store::Record;
use bearward::store::file::FileStore;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::bearward::Bearward;
use crate::harness::http::Connection;
use crate::harness::run::Run;
use crate::harness::traffic::{Outcome, Traffic, tally};
use crate::harness::{count, eventually};

const SOON: Duration = Duration::from_secs(20);

/// A server, a directory and a configuration.
struct Scene {
    run: Arc<Run>,
    idp: Idp,
    config: Value,
}

impl Scene {
    async fn new(name: &str, token_life: Duration) -> Self {
        let run = Arc::new(Run::new(name));
        run.client_secret(DEFAULT_CLIENT, DEFAULT_SECRET);
        let idp = Idp::start(Settings::default()).await.expect("the server starts");
        idp.behave(|behaviour| behaviour.access_token_lifetime = token_life);
        let seed = idp.new_seed();
        run.secret(seed.expose());
        let credential = json!({
            "token_endpoint": idp.token_endpoint(),
            "client": {"id": DEFAULT_CLIENT, "auth": "client_secret_basic",
                       "secret": run.secret_file("client-secret", DEFAULT_SECRET)},
            "grant": "refresh_token",
            "refresh_token": run.secret_file("seed", seed.expose()),
        });
        let config = run.config(&idp.api_url(), &credential);
        Self { run, idp, config }
    }

    async fn start(&self) -> Bearward {
        Bearward::start(&self.run, &self.config).await
    }

    async fn start_fresh(&self) -> Bearward {
        let bearward = self.start().await;
        bearward.until_state("fresh", SOON).await;
        bearward
    }

    /// Sets `rotation`, `refresh` or another key of the credential.
    fn credential(&mut self, key: &str, value: Value) {
        self.config["credentials"]["it"][key] = value;
    }

    async fn record(&self) -> Record {
        let path = self.config["store"]["path"].as_str().expect("it is text");
        let store = FileStore::open(Some(Path::new(path)), &[]).await.expect("the store opens");
        let record =
            store.load(&Name::try_new("it").expect("a name")).await.expect("it reads").expect("it is there");
        for secret in [&record.refresh_token, &record.access_token].into_iter().flatten() {
            self.run.secret(secret.expose());
        }
        record
    }

    /// The record holds the token that the server takes next.
    async fn saved(&self) -> bool {
        let held = self.record().await.refresh_token.expect("it has one").fingerprint();
        let families = self.idp.families();
        families
            .iter()
            .flat_map(|family| &family.refresh_tokens)
            .any(|one| one.current && one.fingerprint == held)
    }

    fn assert_family_lives_and_no_token_was_sent_twice(&self) {
        for family in self.idp.families() {
            assert!(family.is_alive(), "{family:?}");
            assert!(family.most_posts() <= 1, "{family:?}");
        }
    }
}

fn generation(credential: &Value) -> u64 {
    credential["generation"].as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_stopped_for_longer_than_the_lease_commits_late_and_the_other_alarms_and_recovers() {
    let scene = Scene::new("stopped", Duration::from_secs(6)).await;
    let first = scene.start_fresh().await;
    let second = scene.start().await;
    second.until_state("fresh", SOON).await;

    // Either may ask next: the first is stopped at each request until it was its own.
    loop {
        let posts = scene.idp.posts();
        scene.idp.faults().push(Fault::DelayAfter(Duration::from_millis(700)));
        tokio::time::timeout(SOON, scene.idp.posts_reached(posts + 1)).await.expect("a refresh is due");
        first.signal(Signal::STOP);
        let another = scene.idp.posts_reached(posts + 2);
        if tokio::time::timeout(Duration::from_secs(8), another).await.is_err() {
            break;
        }
        first.signal(Signal::CONT);
    }
    let (holder, other) = (first, second);
    let posts = scene.idp.posts();
    let alarmed = |it: &Value| {
        it["last_error"]["error"].as_str().is_some_and(|text| text.contains("stopped"))
            || it["last_error"]["description"].as_str().is_some_and(|text| text.contains("stopped"))
    };
    other.until("an alarm about the stopped holder", Duration::from_secs(60), alarmed).await;
    assert_eq!(scene.idp.posts(), posts, "nobody else may spend the token that the holder has sent");
    assert_eq!(other.get("/").await.status, 503, "an expired token is never sent");

    holder.signal(Signal::CONT);
    for bearward in [&holder, &other] {
        bearward.until_state("fresh", SOON).await;
        assert_eq!(bearward.get("/").await.status, 200);
    }
    scene.assert_family_lives_and_no_token_was_sent_twice();
    assert!(holder.stop().await.success() && other.stop().await.success());
    assert!(scene.saved().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_directory_send_one_request_a_rotation_and_both_have_the_token_within_a_second()
{
    let scene = Scene::new("racing", Duration::from_secs(4)).await;
    let (first, second) = tokio::join!(scene.start(), scene.start());
    first.until_state("fresh", SOON).await;
    second.until_state("fresh", SOON).await;
    let mut latest = Duration::ZERO;
    for _ in 0..12 {
        let now = generation(&first.credential().await).max(generation(&second.credential().await));
        let (one, other) = tokio::join!(reached(&first, now + 1), reached(&second, now + 1));
        latest = latest.max(one.max(other) - one.min(other));
    }
    let requests = scene.idp.posts();
    let rotations = generation(&first.credential().await);
    count(&format!(
        "two processes on one directory: {requests} token requests for {rotations} rotations, the other had the \
         token at most {latest:?} later"
    ));
    assert!(latest < Duration::from_secs(1), "{latest:?}");
    assert!(requests <= scene.idp.families()[0].generation, "one request a rotation");
    scene.assert_family_lives_and_no_token_was_sent_twice();
    scene.record().await;

    // Whoever is left takes over.
    first.kill();
    let now = generation(&second.credential().await);
    second.until("the other goes on alone", SOON, |it| generation(it) >= now + 2).await;
    scene.assert_family_lives_and_no_token_was_sent_twice();
}

/// When the process has the generation.
async fn reached(bearward: &Bearward, wanted: u64) -> tokio::time::Instant {
    bearward.until("the next generation", SOON, |it| generation(it) >= wanted).await;
    tokio::time::Instant::now()
}

/// A small file system of its own.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(scene: &mut Scene) -> Self {
        let path = scene.run.private().join("mounted");
        std::fs::create_dir(&path).expect("it can be made");
        system("mount", &["-t", "tmpfs", "-o", "size=128k,mode=0700", "tmpfs"], &path);
        scene.config["store"]["path"] = json!(path.join("state"));
        Self(path)
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("ballast")).expect("it can be made");
        for size in [4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("it is there");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn system(program: &str, arguments: &[&str], path: &Path) {
    let status = Command::new(program).args(arguments).arg(path).status().expect(program);
    assert!(status.success(), "{program} {arguments:?} {}: {status} (is this root?)", path.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_after_a_rotation_costs_an_alarm_and_nothing_else() {
    let mut scene = Scene::new("disk-full", Duration::from_secs(12)).await;
    let mount = Mount::new(&mut scene);
    let bearward = scene.start_fresh().await;
    let before = generation(&bearward.credential().await);

    scene.idp.faults().push(Fault::DelayAfter(Duration::from_millis(500)));
    let posts = scene.idp.posts();
    tokio::time::timeout(SOON, scene.idp.posts_reached(posts + 1)).await.expect("a refresh is due");
    mount.fill();
    let alarmed = |it: &Value| generation(it) == before + 1 && it["last_error"]["class"] == "store";
    let alarm = bearward.until("the new token is served and an alarm raised", SOON, alarmed).await;
    assert!(!scene.saved().await, "the disk was not full: {alarm}");
    assert_eq!(bearward.get("/").await.status, 200);
    assert!(scene.run.everything().contains("ALARM"), "the log says so");

    mount.empty();
    eventually("the write lands", SOON, async || scene.saved().await.then_some(())).await;
    bearward.until("the alarm ends", SOON, |it| it["last_error"].is_null()).await;
    assert!(bearward.stop().await.success());

    let again = scene.start().await;
    again.until("it goes on after a restart", SOON, |it| generation(it) >= before + 2).await;
    scene.assert_family_lives_and_no_token_was_sent_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_before_a_rotation_delays_it_and_loses_nothing() {
    let mut scene = Scene::new("disk-full-before", Duration::from_secs(8)).await;
    let mount = Mount::new(&mut scene);
    let bearward = scene.start_fresh().await;
    mount.fill();
    let posts = scene.idp.posts();
    bearward.until("an alarm", SOON, |it| it["last_error"]["class"] == "store").await;
    assert_eq!(scene.idp.posts(), posts, "no token is spent before its mark is on disk");
    mount.empty();
    bearward.until("it goes on", SOON, |it| it["state"] == "fresh" && it["last_error"].is_null()).await;
    scene.assert_family_lives_and_no_token_was_sent_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_directory_serves_what_it_holds_and_says_why_it_takes_nothing() {
    let mut scene = Scene::new("read-only", Duration::from_secs(12)).await;
    let mount = Mount::new(&mut scene);
    let bearward = scene.start_fresh().await;
    assert!(bearward.stop().await.success());
    let posts = scene.idp.posts();

    system("mount", &["-o", "remount,ro"], &mount.0);
    let bearward = scene.start().await;
    assert_eq!(bearward.get("/").await.status, 200, "the stored token is served");
    bearward.until("the reason is shown", SOON, |it| it["last_error"]["class"] == "store").await;
    assert!(scene.run.everything().contains("mounted read-only"), "the log names the cause");
    assert_eq!(scene.idp.posts(), posts, "no token is spent whose successor could not be saved");

    system("mount", &["-o", "remount,rw"], &mount.0);
    bearward.until("it goes on", SOON, |it| it["state"] == "fresh" && it["last_error"].is_null()).await;
    scene.assert_family_lives_and_no_token_was_sent_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_record_is_named_with_its_remedy_and_nothing_is_written_or_sent() {
    let scene = Scene::new("torn", Duration::from_secs(60)).await;
    let bearward = scene.start_fresh().await;
    assert!(bearward.stop().await.success());
    scene.record().await;
    let path = scene.run.state().join("it.record");
    let whole = std::fs::read(&path).expect("it is there");
    let torn = &whole[..whole.len() / 2];
    std::fs::write(&path, torn).expect("it can be written");
    let posts = scene.idp.posts();

    match Bearward::try_start(&scene.run, &scene.config, |_| ()).await {
        Ok(bearward) => {
            bearward.until("the reason is shown", SOON, |it| it["last_error"]["class"] == "store").await;
            assert_eq!(bearward.get("/").await.status, 503);
        }
        Err(refused) => assert_eq!(refused.status.code(), Some(1), "{}", refused.printed),
    }
    let printed = scene.run.everything();
    assert!(printed.contains("it.record") && printed.contains("backup"), "file and remedy are named");
    assert_eq!(std::fs::read(&path).expect("it is there"), torn, "it was written over");
    assert_eq!(scene.idp.posts(), posts, "a seed may be spent that only the record knows of");

    std::fs::write(&path, &whole).expect("it can be written");
    let bearward = scene.start_fresh().await;
    assert_eq!(bearward.get("/").await.status, 200);
    assert_eq!(scene.idp.posts(), posts, "the whole record still has its token");
    scene.assert_family_lives_and_no_token_was_sent_twice();
}

/// The wall clock of one process, moved through libfaketime.
struct WallClock(std::path::PathBuf);

impl WallClock {
    fn new(run: &Run) -> Self {
        let clock = Self(run.private().join("wall-clock"));
        clock.set("+0");
        clock
    }

    fn set(&self, offset: &str) {
        std::fs::write(&self.0, offset).expect("it can be written");
    }

    fn apply(&self, command: &mut Command) {
        let library = std::fs::read_dir("/usr/lib")
            .expect("it is there")
            .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
            .find(|path| path.exists())
            .expect("libfaketime is not installed: run ./test");
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &self.0);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("DONT_FAKE_MONOTONIC", "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_steps_of_an_hour_cause_no_503_and_no_storm_even_with_the_provider_down() {
    let scene = Scene::new("clock-steps", Duration::from_secs(60)).await;
    let clock = WallClock::new(&scene.run);
    let bearward = Bearward::start_with(&scene.run, &scene.config, |command| clock.apply(command)).await;
    bearward.until_state("fresh", SOON).await;
    let traffic = Traffic::begin(&scene.run, bearward.proxy(), "/", 2, Duration::from_millis(10));

    for offset in ["+3600", "-3600", "+0"] {
        clock.set(offset);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let life = bearward.credential().await["expires_in_seconds"].as_u64().expect("it has a token");
        assert!((20..=60).contains(&life), "the wall clock moved the life of a token: {life} s left");
    }
    let posts = scene.idp.posts();
    assert!((2..=3).contains(&posts), "a step is noticed and costs no storm: {posts} token requests");

    scene.idp.close().await;
    for offset in ["+3600", "-3600"] {
        clock.set(offset);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let outcomes = traffic.end().await;
    count(&format!(
        "clock steps of ±1 h: {} requests ({}), {posts} token requests",
        outcomes.len(),
        tally(&outcomes)
    ));
    assert!(outcomes.iter().all(|outcome| outcome.status == 200), "{}", tally(&outcomes));
    bearward.kill();
    scene.record().await;
    scene.assert_family_lives_and_no_token_was_sent_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_ten_thousand_requests_at_the_moment_of_expiry_cost_one_token_request() {
    const CONNECTIONS: usize = 1000;
    const EACH: usize = 10;
    let mut scene = Scene::new("flood", Duration::from_secs(10)).await;
    scene.config["listeners"][0]["routes"][0]["wait_for_token"] = json!("10s");
    let bearward = scene.start_fresh().await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(bearward.proxy()).await.expect("it accepts"));
    }
    // The refresh that is due in the middle of its life fails until the end of it.
    let unavailable = Fault::status(503, &[("Retry-After", "5")], "");
    scene.idp.faults().always(unavailable);
    bearward.until_state("expired", SOON).await;
    scene.idp.faults().clear();
    scene.idp.behave(|behaviour| behaviour.access_token_lifetime = Duration::from_secs(600));
    scene.idp.faults().always(Fault::DelayAfter(Duration::from_secs(2)));
    let posts = scene.idp.posts();

    let mut flood = JoinSet::new();
    for mut connection in connections {
        flood.spawn(async move {
            // All at once: the proxy reads them one by one, and the first waits for the token.
            for _ in 0..EACH {
                connection.send("/").await.expect("it takes them");
            }
            let mut statuses = Vec::new();
            for _ in 0..EACH {
                statuses.push(connection.receive().await.map_or(0, |response| response.status));
            }
            statuses
        });
    }
    let statuses: Vec<u16> = flood.join_all().await.into_iter().flatten().collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    let asked = scene.idp.posts() - posts;
    count(&format!(
        "{} requests at the moment of expiry: {served} × 200, {asked} token request(s)",
        statuses.len()
    ));
    assert_eq!((statuses.len(), served), (CONNECTIONS * EACH, CONNECTIONS * EACH));
    assert_eq!(asked, 1);
    scene.record().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_during_a_refresh_cancels_nothing() {
    let mut scene = Scene::new("disconnect", Duration::from_secs(60)).await;
    scene.config["listeners"][0]["routes"][0]["wait_for_token"] = json!("10s");
    scene.idp.faults().push(Fault::DelayAfter(Duration::from_secs(2)));
    let bearward = scene.start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Connection::open(bearward.proxy()).await.expect("it accepts");
        client.send("/").await.expect("it takes a request");
        clients.push(client);
    }
    tokio::time::timeout(SOON, scene.idp.posts_reached(1)).await.expect("a refresh is under way");
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(clients);
    bearward.until_state("fresh", SOON).await;
    assert_eq!(bearward.get("/").await.status, 200);
    assert_eq!(scene.idp.posts(), 1);
    scene.record().await;
    scene.assert_family_lives_and_no_token_was_sent_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_a_token_endpoint_that_hangs_for_thirty_seconds_adds_nothing_to_any_request() {
    let mut scene = Scene::new("hang", Duration::from_secs(100)).await;
    scene.credential("refresh", json!({"at": 0.1}));
    let bearward = scene.start_fresh().await;
    let pause = Duration::from_millis(5);
    let traffic = Traffic::begin(&scene.run, bearward.proxy(), "/", 2, pause);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = traffic.end().await;

    scene.idp.faults().always(Fault::HangBefore);
    let posts = scene.idp.posts();
    tokio::time::timeout(SOON, scene.idp.posts_reached(posts + 1)).await.expect("a refresh is due");
    let traffic = Traffic::begin(&scene.run, bearward.proxy(), "/", 2, pause);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let during = traffic.end().await;
    bearward.until_state("in_doubt", SOON).await;

    count(&format!(
        "a token endpoint that hangs for 30 s: {} requests ({}), median {:?} (before: {:?}), slowest {:?} ({:?})",
        during.len(),
        tally(&during),
        quantile(&during, 0.5),
        quantile(&before, 0.5),
        quantile(&during, 1.0),
        quantile(&before, 1.0),
    ));
    assert!(during.iter().all(|outcome| outcome.status == 200), "{}", tally(&during));
    assert!(quantile(&during, 0.5) < quantile(&before, 0.5) * 2 + Duration::from_millis(2));
    assert!(quantile(&during, 0.99) < quantile(&before, 0.99) * 3 + Duration::from_millis(10));
    assert!(quantile(&during, 1.0) < Duration::from_secs(2));
    bearward.kill();
    scene.record().await;
}

fn quantile(outcomes: &[Outcome], part: f64) -> Duration {
    let mut times: Vec<Duration> = outcomes.iter().map(|outcome| outcome.took).collect();
    times.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small count")]
    let index = ((times.len() - 1) as f64 * part) as usize;
    times[index]
}
