//! What failures do to a credential: classes, pauses, and what is never done.

use std::time::Duration;

use bearward::credential::{ForcedRefresh, State};
use bearward::idp::{Behaviour, DEFAULT_SECRET, Fault};
use bearward::oauth::{BasicEncoding, ClientAuth};
use bearward::secret::{Secret, SecretSource};

use crate::lifecycle::{HOUR, World, a_while};

#[tokio::test]
async fn case_11_an_error_in_a_200_is_an_error() {
    let world = World::new().await;
    let seed = world.seeded();
    world.idp.faults().push(Fault::status(
        200,
        &[("content-type", "application/json")],
        r#"{"error":"invalid_scope"}"#,
    ));
    let replica = world.start(world.config()).await;
    replica.state_is(State::Misconfigured).await;
    assert_eq!(replica.snapshot().last_error.expect("one").error, "invalid_scope");
    assert_eq!(world.record().await.refresh_token, Some(seed));
}

#[tokio::test]
async fn case_22_a_failed_basic_refresh_tries_no_second_authentication_style() {
    let world = World::new().await;
    world.seeded();
    world.idp.faults().always(Fault::error(401, "invalid_client"));
    let replica = world.start(world.config()).await;
    replica.state_is(State::Misconfigured).await;
    a_while().await;
    assert_eq!(world.idp.posts(), 1);
}

#[tokio::test]
async fn case_28_a_refused_refresh_token_is_dead_and_never_sent_again() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let served = replica.bearer(&world);
    world.idp.faults().always(Fault::error(400, "invalid_grant"));
    world.clock.suspend(HOUR * 8 / 10);
    replica.state_is(State::Dead).await;
    let now = replica.snapshot();
    assert!(now.remedy.expect("a remedy").contains("bearward login primavera"));
    assert_eq!(now.last_error.expect("kept").class, "grant_dead");
    assert_eq!(replica.bearer(&world), served, "served to its hard stop");
    let posts = world.idp.posts();
    world.clock.suspend(Duration::from_secs(720));
    a_while().await;
    assert_eq!(replica.bearer(&world), None, "and no longer");
    assert!(matches!(replica.refresh().await, ForcedRefresh::Refused(_)));
    assert_eq!(world.idp.posts(), posts);
    // Another process believes it; a start tries once.
    world.idp.faults().clear();
    let other = world.start(world.config()).await;
    other.generation(2).await;
    replica.generation(2).await;
    assert_eq!(replica.state(), State::Fresh, "what another process mended is adopted");
}

#[tokio::test]
async fn case_29_a_newer_token_in_the_store_is_adopted_instead_of_dying() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let newer = world.idp.new_seed();
    world
        .idp
        .faults()
        .push_together([Fault::DelayBefore(Duration::from_secs(1)), Fault::error(400, "invalid_grant")]);
    world.clock.suspend(HOUR * 8 / 10);
    world.idp.posts_reached(2).await;
    // Somebody who knows of no lease writes while the request is under way.
    overwrite(&world, &newer).await;
    replica.generation(2).await;
    assert_eq!(replica.state(), State::Fresh);
    assert_eq!(world.posts_of(&newer), 1);
}

/// As an editor or a restored backup would: the file is replaced under the holder of the lease.
async fn overwrite(world: &World, newer: &Secret) {
    let aside = world.path("elsewhere");
    let mut record = world.record().await;
    let name = world.config().name;
    let store = crate::lifecycle::open(&aside).await;
    record.refresh_token = Some(newer.clone());
    record.state = bearward::store::RecordState::Idle;
    let wanted = record.version + 1;
    let lease = store.try_lease(&name).await.expect("a store").expect("free");
    for version in 0..wanted {
        store.commit(&lease, version, &record).await.expect("written");
    }
    let file = |folder: &str| {
        let mut files: Vec<_> = std::fs::read_dir(world.path(folder))
            .expect("readable")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_file() && std::fs::metadata(path).expect("a file").len() > 100)
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    };
    std::fs::rename(file("elsewhere"), file("state")).expect("replaced");
}

#[tokio::test]
async fn case_30_a_wrong_secret_keeps_the_refresh_token_and_is_tried_again_when_its_file_changes() {
    let world = World::new().await;
    let seed = world.seeded();
    let replica = world.start(world.config_with_secret_file("wrong")).await;
    replica.state_is(State::Misconfigured).await;
    assert_eq!(world.record().await.refresh_token, Some(seed.clone()));
    let retry_at = replica.snapshot().last_error.expect("one").retry_at.expect("slowly");
    let pause = retry_at.checked_since(world.clock().wall()).expect("later");
    assert!(pause > Duration::from_secs(29 * 60) && pause <= Duration::from_secs(30 * 60), "{pause:?}");
    a_while().await;
    assert_eq!(world.posts_of(&seed), 1);
    std::fs::write(world.path("secret"), DEFAULT_SECRET).expect("write");
    replica.generation(1).await;
    assert_eq!(world.posts_of(&seed), 2);
    replica.assert_serves(&world);
}

#[tokio::test]
async fn case_30_a_wrong_secret_is_tried_again_after_half_an_hour() {
    let world = World::new().await;
    world.seeded();
    world.idp.faults().push(Fault::error(401, "invalid_client"));
    let replica = world.start(world.config()).await;
    replica.state_is(State::Misconfigured).await;
    world.clock.suspend(Duration::from_secs(29 * 60));
    a_while().await;
    assert_eq!(world.idp.posts(), 1);
    world.clock.suspend(Duration::from_secs(61));
    replica.generation(1).await;
}

#[tokio::test]
async fn case_27_and_79_a_secret_swapped_through_kubernetes_links_is_used() {
    let world = World::new().await;
    world.seeded();
    let mount = world.path("mount");
    for (version, text) in [("..v1", "wrong"), ("..v2", DEFAULT_SECRET)] {
        std::fs::create_dir_all(mount.join(version)).expect("create");
        std::fs::write(mount.join(version).join("secret"), text).expect("write");
    }
    std::os::unix::fs::symlink("..v1", mount.join("..data")).expect("link");
    std::os::unix::fs::symlink("..data/secret", mount.join("secret")).expect("link");
    let mut config = world.config();
    config.oauth.client_auth =
        ClientAuth::Basic { secret: SecretSource::File(mount.join("secret")), encoding: BasicEncoding::Form };
    let replica = world.start(config).await;
    replica.state_is(State::Misconfigured).await;
    std::os::unix::fs::symlink("..v2", mount.join("..data_tmp")).expect("link");
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("swap");
    replica.generation(1).await;
}

#[tokio::test]
async fn case_31_invalid_grant_inside_a_500_kills_nothing() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.idp.faults().push(Fault::error(500, "invalid_grant"));
    world.clock.suspend(HOUR * 8 / 10);
    replica.until("the failure", |now| now.last_error.is_some()).await;
    assert_eq!(replica.state(), State::InDoubt);
    world.clock.suspend(HOUR / 10);
    replica.generation(2).await;
    assert_eq!(replica.state(), State::Fresh);
}

#[tokio::test]
async fn case_32_refusals_with_403_and_with_empty_bodies_are_never_hammered() {
    for (status, body, expected) in [
        (403, r#"{"error":"invalid_grant"}"#, State::Dead),
        (400, "", State::Misconfigured),
        (401, "", State::Misconfigured),
        (403, "", State::Misconfigured),
    ] {
        let world = World::new().await;
        let seed = world.seeded();
        world.idp.faults().always(Fault::status(status, &[("content-type", "application/json")], body));
        let replica = world.start(world.config()).await;
        replica.state_is(expected).await;
        a_while().await;
        assert_eq!(world.idp.posts(), 1, "{status} {body}");
        assert_eq!(world.record().await.refresh_token, Some(seed));
    }
}

#[tokio::test]
async fn case_33_retry_after_is_honoured() {
    for (headers, least) in
        [(vec![("Retry-After", "70")], 70), (vec![("X-Retry-After", "70")], 70), (vec![], 5)]
    {
        let world = World::new().await;
        world.seeded();
        world.idp.faults().push(Fault::status(429, &headers, ""));
        let replica = world.start(world.config()).await;
        replica.until("the failure", |now| now.last_error.is_some()).await;
        assert_eq!(replica.snapshot().last_error.expect("one").class, "transient");
        world.clock.suspend(Duration::from_secs(least - 4));
        a_while().await;
        assert_eq!(world.idp.posts(), 1, "{headers:?}");
        world.clock.suspend(Duration::from_secs(4));
        replica.generation(1).await;
        world.idp.families().iter().for_each(|family| assert!(family.is_alive()));
    }
}

#[tokio::test]
async fn case_34_an_endless_retry_after_is_cut_to_an_hour() {
    let world = World::new().await;
    world.seeded();
    world.idp.faults().push(Fault::status(503, &[("Retry-After", "1000000000")], ""));
    let replica = world.start(world.config()).await;
    replica.until("the failure", |now| now.last_error.is_some()).await;
    let retry_at = replica.snapshot().last_error.expect("one").retry_at.expect("scheduled");
    let pause = retry_at.checked_since(world.clock().wall()).expect("later");
    assert!(pause > HOUR * 9 / 10 && pause <= HOUR + Duration::from_secs(1), "{pause:?}");
}

#[tokio::test]
async fn case_35_an_endless_500_leaves_the_token_served_to_its_hard_stop_and_no_longer() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.idp.faults().always(Fault::status(500, &[], "down"));
    world.clock.suspend(HOUR * 8 / 10);
    replica.until("the failure", |now| now.last_error.is_some()).await;
    replica.assert_serves(&world);
    // At most one request a spacing, whatever the clock does.
    world.clock.suspend(Duration::from_secs(700));
    a_while().await;
    assert!(replica.bearer(&world).is_some(), "20 s of its life are left");
    world.clock.suspend(Duration::from_secs(20));
    assert!(replica.bearer(&world).is_none(), "past its hard stop");
    a_while().await;
    assert!(world.idp.posts() <= 5, "{} requests", world.idp.posts());
    world.idp.faults().clear();
    world.clock.suspend(Duration::from_secs(61));
    replica.generation(2).await;
    replica.assert_serves(&world);
}

#[tokio::test]
async fn case_36_a_refused_connection_is_retried_without_doubt() {
    let world = World::new().await;
    let seed = world.seeded();
    world.idp.close().await;
    let replica = world.start(world.config()).await;
    replica.until("the failure", |now| now.last_error.is_some()).await;
    assert_eq!(replica.snapshot().last_error.expect("one").class, "clean");
    assert_ne!(replica.state(), State::InDoubt);
    assert_eq!(world.record().await.state, bearward::store::RecordState::Idle);
    world.idp.reopen().await.expect("the port is free");
    replica.generation(1).await;
    assert_eq!(world.posts_of(&seed), 1);
}

#[tokio::test]
async fn case_36_an_unknown_host_and_a_peer_without_tls_are_clean_failures() {
    let world = World::new().await;
    world.seeded();
    let address = world.idp.url().trim_start_matches("http://").to_owned();
    for endpoint in
        ["https://no-such-host.invalid/token".to_owned(), format!("https://{address}/oauth2/v1/token")]
    {
        let mut config = world.config();
        config.oauth.endpoint = bearward::oauth::EndpointSource::Url(endpoint.parse().expect("a URL"));
        let replica = world.start_on(config, crate::lifecycle::open(&world.path("other")).await).await;
        replica.until("the failure", |now| now.last_error.is_some()).await;
        assert_eq!(replica.snapshot().last_error.expect("one").class, "clean", "{endpoint}");
        std::fs::remove_dir_all(world.path("other")).expect("remove");
    }
    assert_eq!(world.idp.posts(), 0);
}

#[tokio::test]
async fn case_69_a_server_that_burns_tokens_sees_one_request_with_a_wrong_secret() {
    let world = World::with(Behaviour {
        wrong_secret_burns: true,
        access_token_lifetime: HOUR,
        ..Behaviour::default()
    })
    .await;
    world.seeded();
    let replica = world.start(world.config_with_secret_file(DEFAULT_SECRET)).await;
    replica.generation(1).await;
    std::fs::write(world.path("secret"), "wrong").expect("write");
    world.clock.suspend(HOUR * 8 / 10);
    replica.state_is(State::Misconfigured).await;
    world.clock.suspend(Duration::from_secs(300));
    a_while().await;
    assert_eq!(world.idp.posts(), 2, "nothing changed: nothing is sent");
    assert!(replica.bearer(&world).is_some(), "what is held is served");
}

#[tokio::test]
async fn case_74_a_rotated_client_secret_loses_no_refresh_token() {
    let world = World::new().await;
    let seed = world.seeded();
    let replica = world.start(world.config_with_secret_file(DEFAULT_SECRET)).await;
    replica.generation(1).await;
    let rotate = |secret: &str| {
        world.idp.change_clients(|clients| clients[0].secrets = vec![Secret::from(secret)]);
        world.config_with_secret_file(secret)
    };
    // Under way: its file is all that changes.
    rotate("another secret");
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(2).await;
    replica.stop().await;
    // Between a stop and a start.
    let again = world.start(rotate("a third secret")).await;
    assert!(again.bearer(&world).is_some(), "the access token is kept");
    world.clock.suspend(HOUR * 8 / 10);
    again.generation(3).await;
    assert_eq!(again.snapshot().refreshes_failed, 0);
    assert_eq!(world.posts_of(&seed), 1, "the seed is not redeemed again");
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_75_three_lifetimes_of_503_heal_without_a_person() {
    for retry_after in [Some("5"), None] {
        let world =
            World::with(Behaviour { access_token_lifetime: Duration::from_secs(60), ..Behaviour::default() })
                .await;
        world.seeded();
        let replica = world.start(world.config()).await;
        replica.generation(1).await;
        let headers: Vec<(&str, &str)> =
            retry_after.map(|value| ("Retry-After", value)).into_iter().collect();
        world.idp.faults().always(Fault::status(503, &headers, ""));
        for _ in 0..6 {
            world.clock.suspend(Duration::from_secs(30));
            tokio::time::sleep(Duration::from_millis(1100)).await;
            if let Some(bearer) = replica.bearer(&world) {
                assert!(world.idp.accepts(&bearer), "an expired token is served");
            }
        }
        assert!(replica.bearer(&world).is_none());
        world.idp.faults().clear();
        world.clock.suspend(Duration::from_secs(61));
        replica.generation(2).await;
        replica.assert_serves(&world);
        assert_eq!(replica.state(), State::Fresh);
    }
}

#[tokio::test]
async fn a_forced_refresh_says_what_became_of_it() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    // Within the spacing of token requests it waits for its end.
    let (answer, ()) = tokio::join!(replica.refresh(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(world.idp.log().len(), 1);
        world.clock.suspend(Duration::from_secs(6));
    });
    assert!(matches!(answer, ForcedRefresh::Refreshed(2)));
    world.clock.suspend(Duration::from_secs(6));
    world.idp.faults().push(Fault::error(400, "invalid_scope"));
    assert!(matches!(replica.refresh().await, ForcedRefresh::Failed(why) if why.contains("invalid_scope")));
    let counts = replica.snapshot().counts;
    assert_eq!((counts.ok(), counts.failed()), (2, 1));
    world.assert_families_live(1);
}
