//! The file store under a running credential whose record is damaged or removed.

use std::path::PathBuf;
use std::time::Duration;

use bearward::idp::Fault;
use bearward::store::StoreError;

use crate::lifecycle::{HOUR, Replica, World, a_while};

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

#[tokio::test]
async fn a_record_that_is_damaged_during_a_refresh_is_written_anew_when_a_person_removes_it() {
    let (world, replica) = Box::pin(during_a_refresh()).await;
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
