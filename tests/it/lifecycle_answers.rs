//! What successful answers do to a credential (reading them is `oauth`'s part and tested there).

use std::time::Duration;

use bearward::credential::{RotationMode, State};
use bearward::idp::{Behaviour, Fault, GraceAnswer, Rotation};
use bearward::secret::SecretSource;

use crate::lifecycle::{HOUR, World, a_while};
use crate::lifecycle_store::Log;

#[tokio::test]
async fn case_01_an_answer_without_a_refresh_token_keeps_the_old_one() {
    let world = World::new().await;
    let seed = world.seeded();
    world.idp.behave(|behaviour| behaviour.rotation = Rotation::Reusable);
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    assert_eq!(world.record().await.refresh_token, Some(seed.clone()));
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(2).await;
    assert_eq!(world.posts_of(&seed), 2);
    assert_eq!(world.record().await.observed.rotates, Some(false));
    replica.assert_serves(&world);
}

#[tokio::test]
async fn case_02_a_new_refresh_token_is_on_disk_before_its_access_token_is_served() {
    let world = World::new().await;
    let seed = world.seeded();
    let replica = world.start(world.config()).await;
    let mut changes = replica.credential.cell().changes();
    let mut seen = 0;
    while seen < 4 {
        changes.changed().await.expect("open");
        let Some(bearer) = replica.bearer(&world) else { continue };
        let record = world.record().await;
        let fingerprint = record.access_token.as_ref().map(|token| token.fingerprint());
        if replica.snapshot().generation > seen {
            seen = replica.snapshot().generation;
            assert_eq!(fingerprint, Some(bearer.fingerprint()), "served before it was on disk");
            assert_ne!(record.refresh_token, Some(seed.clone()));
            world.clock.suspend(HOUR * 8 / 10);
        }
    }
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_03_an_empty_refresh_token_keeps_the_old_one() {
    let world = World::new().await;
    let seed = world.seeded();
    world.idp.behave(|behaviour| behaviour.rotation = Rotation::Reusable);
    world.idp.faults().push(Fault::set("refresh_token", ""));
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    assert_eq!(world.record().await.refresh_token, Some(seed));
}

#[tokio::test]
async fn case_05_without_expires_in_the_configured_default_counts() {
    let world = World::new().await;
    world.seeded();
    world.idp.faults().push(Fault::remove("expires_in"));
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let left = replica.snapshot().expires_in_seconds.expect("known");
    assert!((590..=600).contains(&left), "{left}");
}

#[tokio::test]
async fn case_06_a_zero_or_negative_lifetime_is_not_used_and_starts_no_hot_loop() {
    for bad in [0, -1] {
        let world = World::new().await;
        world.seeded();
        world.idp.faults().always(Fault::set("expires_in", bad));
        let replica = world.start(world.config()).await;
        replica.until("one failure", |now| now.last_error.is_some()).await;
        a_while().await;
        assert!(replica.bearer(&world).is_none());
        assert!(world.idp.posts() <= 2, "{} requests", world.idp.posts());
        world.assert_nothing_spent_twice();
    }
}

#[tokio::test]
async fn case_07_an_endless_lifetime_is_cut_and_still_refreshed_daily() {
    let world = World::new().await;
    world.seeded();
    world.idp.faults().push(Fault::set("expires_in", 1_000_000_000_000_i64));
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let now = replica.snapshot();
    assert!(now.expires_in_seconds.expect("known") <= 10 * 366 * 86_400);
    let due = now.refresh_at.expect("scheduled").checked_since(world.clock().wall()).expect("later");
    assert!(due <= Duration::from_secs(86_400), "{due:?}");
}

#[tokio::test]
async fn case_08_a_year_long_token_is_refreshed_while_its_refresh_token_lives() {
    let week = Duration::from_secs(7 * 86_400);
    let world = World::with(Behaviour {
        access_token_lifetime: Duration::from_secs(31_556_952),
        refresh_token_lifetime: week,
        ..Behaviour::default()
    })
    .await;
    world.seeded();
    let mut config = world.config();
    config.refresh_token_lifetime = Some(week);
    let replica = world.start(config).await;
    replica.generation(1).await;
    let due = replica.snapshot().refresh_at.expect("scheduled");
    assert!(due.checked_since(world.clock().wall()).expect("later") <= week / 2);
    world.clock.suspend(week / 2);
    replica.generation(2).await;
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_17_an_unusable_answer_still_brings_its_refresh_token_to_disk() {
    let world = World::new().await;
    let seed = world.seeded();
    world.idp.faults().push(Fault::remove("access_token"));
    let replica = world.start(world.config()).await;
    replica.until("the failure", |now| now.last_error.is_some()).await;
    let kept = world.record().await.refresh_token.expect("kept");
    assert_ne!(kept, seed, "the new one replaces the spent one");
    world.clock.suspend(Duration::from_secs(70));
    replica.generation(1).await;
    replica.assert_serves(&world);
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_19_a_narrowed_scope_is_recorded_and_warned_of_once() {
    let (log, _here) = Log::begin();
    let world = World::new().await;
    world.seeded();
    world.idp.faults().push(Fault::set("scope", "offline_access"));
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    assert_eq!(world.record().await.scope.as_deref(), Some("offline_access"));
    replica.assert_serves(&world);
    world.idp.faults().push(Fault::set("scope", "offline_access"));
    world.clock.suspend(Duration::from_secs(3000));
    replica.generation(2).await;
    let log = log.text();
    let warned =
        log.lines().filter(|line| line.contains("the provider granted less than the configured scope"));
    assert_eq!(warned.count(), 1, "{log}");
}

#[tokio::test]
async fn case_50_refresh_in_moves_the_next_refresh() {
    let world = World::new().await;
    world.seeded();
    world.idp.faults().push(Fault::set("refresh_in", 600));
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let due = replica.snapshot().refresh_at.expect("scheduled");
    let left = due.checked_since(world.clock().wall()).expect("later").as_secs();
    assert!((470..=600).contains(&left), "{left}");
}

#[tokio::test]
async fn case_67_a_refresh_token_that_dies_with_its_access_token_never_dies() {
    let world = World::with(Behaviour {
        access_token_lifetime: Duration::from_secs(300),
        dies_with_access_token: true,
        ..Behaviour::default()
    })
    .await;
    world.seeded();
    let replica = world.start(world.config()).await;
    for generation in 1..4 {
        replica.generation(generation).await;
        replica.assert_serves(&world);
        world.clock.suspend(Duration::from_secs(240));
    }
    replica.generation(4).await;
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_68_the_same_access_token_twice_is_no_error() {
    let world = World::new().await;
    world.seeded();
    world.idp.behave(|behaviour| behaviour.same_access_token = true);
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let first = replica.bearer(&world);
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(2).await;
    assert_eq!(replica.bearer(&world), first);
    assert!(replica.snapshot().last_error.is_none());
    assert!(replica.snapshot().expires_in_seconds.expect("known") > 3000, "the life is the new one's");
}

#[tokio::test]
async fn case_70_the_same_pair_again_inside_the_grace_is_one_generation() {
    let world = World::new().await;
    world.seeded();
    world.idp.behave(|behaviour| {
        behaviour.grace = Duration::from_secs(30);
        behaviour.grace_answer = GraceAnswer::SamePair;
    });
    world.idp.faults().push(Fault::DropAfter);
    let mut config = world.config();
    config.grace = Duration::from_secs(30);
    let replica = world.start(config).await;
    replica.generation(1).await;
    assert_eq!(replica.snapshot().generation, 1);
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(2).await;
    replica.assert_serves(&world);
}

#[tokio::test]
async fn case_71_a_token_that_no_header_may_hold_is_refused_and_its_refresh_token_kept() {
    let world = World::new().await;
    let seed = world.seeded();
    world.idp.faults().push(Fault::set("access_token", "evil\r\nX-Injected: 1"));
    let replica = world.start(world.config()).await;
    replica.until("the failure", |now| now.last_error.is_some()).await;
    assert!(replica.bearer(&world).is_none());
    assert_ne!(world.record().await.refresh_token, Some(seed));
}

#[tokio::test]
async fn a_reusable_refresh_token_needs_no_ambiguous_procedure() {
    let world = World::new().await;
    let seed = world.seeded();
    world.idp.behave(|behaviour| behaviour.rotation = Rotation::Reusable);
    world.idp.faults().push(Fault::DropAfter);
    let mut config = world.config();
    config.rotation = RotationMode::Reusable;
    let replica = world.start(config).await;
    replica.generation(1).await;
    assert_eq!(world.posts_of(&seed), 2);
    assert_eq!(replica.snapshot().state, State::Fresh);
}

#[tokio::test]
async fn a_static_token_is_served_as_long_as_its_file_says_it() {
    let world = World::new().await;
    std::fs::write(world.path("token"), "first-token\n").expect("write");
    let mut config = world.config();
    config.oauth.grant = bearward::oauth::Grant::Static { token: SecretSource::File(world.path("token")) };
    let replica = world.start(config).await;
    assert_eq!(replica.bearer(&world).expect("served at once").expose(), "first-token");
    assert_eq!(replica.state(), State::Fresh);
    assert_eq!(replica.snapshot().expires_at, None);
    world.clock.suspend(Duration::from_secs(40 * 86_400));
    assert_eq!(replica.bearer(&world).expect("served still").expose(), "first-token");
    std::fs::write(world.path("token"), "second-token\n").expect("write");
    replica.generation(2).await;
    assert_eq!(replica.bearer(&world).expect("served").expose(), "second-token");
    std::fs::remove_file(world.path("token")).expect("remove");
    replica.until("the complaint", |now| now.remedy.is_some()).await;
    assert_eq!(replica.bearer(&world).expect("served still").expose(), "second-token");
    assert_eq!(world.idp.posts(), 0);
}
