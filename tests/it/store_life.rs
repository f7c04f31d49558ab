//! The file store under a running credential: leases that are lost, records that others write, damage or
//! remove, and seeds that change.

use std::path::PathBuf;
use std::time::Duration;

use bearward::credential::State;
use bearward::idp::Fault;
use bearward::secret::Secret;
use bearward::store::{Record, RecordState, StoreError};

use crate::lifecycle::{HOUR, Replica, World, a_while, until};

/// A credential with its first token, and a token request that the provider holds back for a second.
async fn during_a_refresh() -> (World, Replica) {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.idp.faults().push(Fault::DelayBefore(Duration::from_secs(1)));
    world.clock.suspend(HOUR * 8 / 10);
    world.idp.posts_reached(2).await;
    (world, replica)
}

fn file(world: &World, ending: &str) -> PathBuf {
    world.path("state").join(format!("primavera.{ending}"))
}

fn kept(world: &World, what: &str) -> usize {
    let entries = std::fs::read_dir(world.path("state")).expect("list");
    entries
        .filter(|entry| entry.as_ref().expect("entry").file_name().to_string_lossy().contains(what))
        .count()
}

/// The record on disk, if it can be read.
async fn readable(world: &World) -> Option<Record> {
    world.store().await.load(&world.config().name).await.ok().flatten()
}

#[tokio::test]
async fn case_45_a_write_under_a_lost_lease_is_rejected_and_lands_late_over_its_own_mark() {
    let (world, replica) = during_a_refresh().await;
    std::fs::remove_file(file(&world, "lock")).expect("remove");
    replica.generation(2).await;
    replica.assert_serves(&world);
    until("it lands", async || readable(&world).await.is_some_and(|record| record.generation == 2)).await;
    assert_eq!(world.record().await.state, RecordState::Idle);
    replica.until("the alarm ends", |now| !now.unsaved).await;
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_46_a_loser_neither_overwrites_nor_revokes() {
    let (world, replica) = during_a_refresh().await;
    // Somebody broke the lock, took the lease and wrote what is newer.
    std::fs::remove_file(file(&world, "lock")).expect("remove");
    let newer = world.idp.new_seed();
    world
        .leave_record(|record| {
            record.refresh_token = Some(newer.clone());
            record.state = RecordState::Idle;
        })
        .await;
    let theirs = std::fs::read(file(&world, "record")).expect("read");
    until("the answer came", async || world.issued() == 2).await;
    a_while().await;
    assert_eq!(
        std::fs::read(file(&world, "record")).expect("read"),
        theirs,
        "the record of the other stands"
    );
    world.clock.suspend(HOUR);
    until("the other's token is used", async || world.posts_of(&newer) == 1).await;
    replica.state_is(State::Fresh).await;
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn a_record_that_is_damaged_during_a_refresh_is_written_anew_when_a_person_removes_it() {
    let (world, replica) = during_a_refresh().await;
    let whole = std::fs::read(file(&world, "record")).expect("read");
    std::fs::write(file(&world, "record"), &whole[..whole.len() / 2]).expect("write");
    replica.until("an alarm", |now| now.unsaved && now.remedy.is_some()).await;
    replica.assert_serves(&world);
    a_while().await;
    assert_eq!(
        std::fs::read(file(&world, "record")).expect("read"),
        &whole[..whole.len() / 2],
        "not touched"
    );
    assert_eq!(kept(&world, "corrupt-"), 1);
    std::fs::remove_file(file(&world, "record")).expect("remove");
    replica.until("it is saved", |now| !now.unsaved).await;
    assert_eq!(world.record().await.generation, 2);
    world.clock.suspend(HOUR);
    replica.generation(3).await;
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn a_damaged_record_at_the_start_sends_nothing_until_a_person_acts() {
    let world = World::new().await;
    let seed = world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    replica.stop().await;
    let whole = std::fs::read(file(&world, "record")).expect("read");
    std::fs::write(file(&world, "record"), &whole[..whole.len() - 20]).expect("write");
    let replica = world.start(world.config()).await;
    replica.until("it says so", |now| now.last_error.as_ref().is_some_and(|it| it.class == "store")).await;
    a_while().await;
    assert_eq!(world.posts_of(&seed), 1, "the spent seed is not sent");
    let error = world.store().await.load(&world.config().name).await.expect_err("damaged");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    std::fs::write(file(&world, "record"), &whole).expect("put back");
    replica.generation(1).await;
    replica.assert_serves(&world);
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(2).await;
    world.assert_nothing_spent_twice();
}

/// One life of the process with this seed configured, until nothing is to do any more.
async fn live_once(world: &World, seed: &Secret) {
    world.put_seed(seed);
    let replica = world.start(world.config()).await;
    replica.state_is(State::Fresh).await;
    replica.stop().await;
}

#[tokio::test]
async fn case_72_a_new_seed_begins_a_new_family_and_an_old_one_never_replaces_a_newer_token() {
    let world = World::new().await;
    let first = world.seeded();
    live_once(&world, &first).await;
    world.clock.suspend(HOUR);
    live_once(&world, &first).await;
    let rotated = world.record().await;
    live_once(&world, &first).await;
    assert_eq!(world.record().await.refresh_token, rotated.refresh_token, "the seed does not come back");
    assert_eq!((world.posts_of(&first), kept(&world, "aside-")), (1, 0));
    let second = world.idp.new_seed();
    world.put_seed(&second);
    let replica = world.start(world.config()).await;
    until("the new one is redeemed, though the old token is fresh", async || world.posts_of(&second) == 1)
        .await;
    replica.generation(3).await;
    replica.stop().await;
    let record = world.record().await;
    assert!(record.has_seen(first.fingerprint()) && record.has_seen(second.fingerprint()));
    assert_ne!(record.refresh_token, rotated.refresh_token);
    assert_eq!(kept(&world, "aside-"), 1, "the older family's record is kept");
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_73_seeds_a_b_a_redeem_a_once() {
    let world = World::new().await;
    let (a, b) = (world.idp.new_seed(), world.idp.new_seed());
    for seed in [&a, &b, &a, &b] {
        live_once(&world, seed).await;
        world.clock.suspend(HOUR);
    }
    assert_eq!((world.posts_of(&a), world.posts_of(&b)), (1, 1));
    world.assert_nothing_spent_twice();
}
