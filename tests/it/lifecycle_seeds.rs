//! Seeds, logins and changes of the configuration.

use std::time::Duration;

use bearward::credential::{ForcedRefresh, State};
use bearward::oauth::Grant;

use crate::lifecycle::{HOUR, World, a_while};

#[tokio::test]
async fn case_72_a_new_seed_is_adopted_at_once_and_the_old_family_kept_aside() {
    let world = World::new().await;
    let first = world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let second = world.seeded();
    replica.generation(2).await;
    assert_eq!((world.posts_of(&first), world.posts_of(&second)), (1, 1));
    assert_eq!(replica.state(), State::Fresh);
    let kept = std::fs::read_dir(world.path("state")).expect("readable").filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().contains("aside")
    });
    assert_eq!(kept.count(), 1, "the old family is kept aside");
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_72_an_old_seed_never_overwrites_a_newer_stored_token() {
    let world = World::new().await;
    let seed = world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let stored = world.record().await.refresh_token;
    replica.stop().await;
    world.put_seed(&seed);
    let again = world.start(world.config()).await;
    a_while().await;
    assert_eq!(world.record().await.refresh_token, stored);
    assert_eq!(world.idp.posts(), 1);
    world.clock.suspend(HOUR * 8 / 10);
    again.generation(2).await;
    assert_eq!(world.posts_of(&seed), 1);
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_73_seeds_a_b_a_redeem_a_once() {
    let world = World::new().await;
    let (a, b) = (world.idp.new_seed(), world.idp.new_seed());
    for (round, seed) in [&a, &b, &a, &b, &a].into_iter().enumerate() {
        world.put_seed(seed);
        let replica = world.start(world.config()).await;
        replica.generation(1).await;
        if round == 1 {
            replica.generation(2).await;
        }
        replica.stop().await;
    }
    assert_eq!((world.posts_of(&a), world.posts_of(&b)), (1, 1));
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn a_credential_without_seed_and_record_waits_for_a_login_and_takes_a_seed_at_once() {
    let world = World::new().await;
    let replica = world.start(world.config()).await;
    replica.state_is(State::AwaitingLogin).await;
    let remedy = replica.snapshot().remedy.expect("a remedy");
    assert!(remedy.contains("bearward login primavera") && remedy.contains("seed"), "{remedy}");
    assert!(matches!(replica.refresh().await, ForcedRefresh::Refused(_)));
    a_while().await;
    assert_eq!(world.idp.posts(), 0);
    world.seeded();
    replica.generation(1).await;
    assert_eq!(replica.state(), State::Fresh);
    assert_eq!(replica.snapshot().remedy, None);
}

#[tokio::test]
async fn a_login_by_another_process_is_picked_up() {
    let world = World::new().await;
    let mut config = world.config();
    config.oauth.grant = Grant::RefreshToken { seed: None };
    let replica = world.start(config).await;
    replica.state_is(State::AwaitingLogin).await;
    let token = world.idp.new_seed();
    world.leave_record(|record| record.refresh_token = Some(token.clone())).await;
    replica.generation(1).await;
    assert_eq!(world.posts_of(&token), 1);
    assert_eq!(replica.state(), State::Fresh);
}

#[tokio::test]
async fn another_client_id_begins_anew_and_keeps_the_old_record_aside() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    replica.stop().await;
    let mut client = bearward::idp::Client::with_secret("another", bearward::idp::DEFAULT_SECRET);
    client.basic = bearward::idp::BasicDecoding::Form;
    world.idp.change_clients(|clients| clients.push(client));
    let seed = world.idp.new_seed_for("another", bearward::idp::DEFAULT_SCOPE);
    world.put_seed(&seed);
    let mut config = world.config();
    config.oauth.client_id = "another".into();
    let again = world.start(config).await;
    assert!(again.bearer(&world).is_none(), "a token of another client is not served");
    again.generation(2).await;
    assert_eq!(world.record().await.identity.client_id, "another");
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn two_processes_with_different_identities_do_not_take_the_record_from_each_other_for_ever() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let mut config = world.config();
    config.oauth.client_id = "another".into();
    config.oauth.grant = Grant::ClientCredentials;
    world.idp.change_clients(|clients| {
        clients.push(bearward::idp::Client::with_secret("another", bearward::idp::DEFAULT_SECRET));
    });
    config.oauth.scope = None;
    let other = world.start(config).await;
    other.generation(2).await;
    replica.state_is(State::Misconfigured).await;
    assert!(replica.snapshot().remedy.expect("told").contains("another process"));
    let posts = world.idp.posts();
    for _ in 0..3 {
        world.clock.suspend(Duration::from_secs(60));
        a_while().await;
    }
    assert_eq!(world.idp.posts(), posts);
    replica.assert_serves(&world);
}

#[tokio::test]
async fn another_scope_drops_the_access_token_and_keeps_the_refresh_token() {
    let world = World::new().await;
    let seed = world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    replica.stop().await;
    let mut config = world.config();
    config.oauth.scope = Some("offline_access".into());
    let again = world.start(config).await;
    assert!(again.bearer(&world).is_none(), "it was granted for something else");
    again.generation(2).await;
    assert_eq!(world.posts_of(&seed), 1);
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn a_missing_seed_file_does_not_matter_once_the_store_has_a_token() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    replica.stop().await;
    std::fs::remove_file(world.path("seed")).expect("remove");
    let again = world.start(world.config()).await;
    again.assert_serves(&world);
    world.clock.suspend(HOUR * 8 / 10);
    again.generation(2).await;
    assert_eq!(again.state(), State::Fresh);
}
