//! Clocks, starts and short lives.

use std::time::Duration;

use bearward::clock::Clock;
use bearward::credential::{Credential, State};
use bearward::idp::{Behaviour, Fault, VerifyingKey};
use bearward::oauth::client_auth::AssertionClaims;
use bearward::oauth::{Algorithm, Assertion, ClientAuth, ClientIdParam, KeyId, SigningKey};
use bearward::secret::SecretSource;
use bearward::shutdown::Shutdown;

use crate::lifecycle::{HOUR, World, a_while};

#[tokio::test]
async fn case_42_and_43_ten_thousand_requests_at_expiry_cost_one_token_request_and_cancel_nothing() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.idp.faults().push(Fault::DelayAfter(Duration::from_millis(800)));
    world.clock.suspend(HOUR);
    let mut asked = Vec::new();
    for _ in 0..10_000 {
        let mut reader = replica.credential.cell().reader();
        assert!(reader.authorize(world.clock().boot()).is_err(), "an expired token is never sent");
    }
    world.idp.posts_reached(2).await;
    // People who ask and go away, too.
    for _ in 0..100 {
        asked.push(replica.credential.refresh());
    }
    drop(asked);
    replica.generation(2).await;
    for _ in 0..10_000 {
        let mut reader = replica.credential.cell().reader();
        assert!(reader.authorize(world.clock().boot()).is_ok());
    }
    a_while().await;
    assert_eq!(world.idp.posts(), 2);
}

#[tokio::test]
async fn case_47_a_suspended_machine_wakes_with_an_expired_token_and_sends_none() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.clock.suspend(8 * HOUR);
    assert!(replica.bearer(&world).is_none(), "at the first request after the wake");
    assert_eq!(replica.state(), State::Expired);
    replica.generation(2).await;
    replica.assert_serves(&world);
}

#[tokio::test]
async fn case_48_a_stepped_wall_clock_costs_one_refresh_and_no_request() {
    for step in [3_600_000, -3_600_000] {
        let world = World::new().await;
        world.seeded();
        let replica = world.start(world.config()).await;
        replica.generation(1).await;
        world.clock.suspend(Duration::from_secs(60));
        world.clock.step_wall(step);
        replica.assert_serves(&world);
        replica.generation(2).await;
        a_while().await;
        assert_eq!(world.idp.posts(), 2, "one refresh, no storm");
        replica.assert_serves(&world);
        // Stepping again and again is no reason to ask again and again.
        for _ in 0..4 {
            world.clock.step_wall(step);
            world.clock.suspend(Duration::from_secs(6));
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        assert!(world.idp.posts() <= 3, "{} requests", world.idp.posts());
        replica.assert_serves(&world);
    }
}

#[tokio::test]
async fn case_48_a_stepped_wall_clock_while_the_provider_is_down_stops_nothing_before_the_hard_stop() {
    for step in [3_600_000, -3_600_000] {
        let world = World::new().await;
        world.seeded();
        let replica = world.start(world.config()).await;
        replica.generation(1).await;
        world.idp.close().await;
        world.clock.suspend(Duration::from_secs(60));
        world.clock.step_wall(step);
        replica.until("a failed try", |now| now.last_error.is_some()).await;
        for _ in 0..5 {
            replica.assert_serves(&world);
            world.clock.suspend(Duration::from_secs(690));
        }
        world.clock.suspend(Duration::from_secs(81));
        assert!(replica.bearer(&world).is_none(), "its hour is over by the boot clock");
    }
}

#[tokio::test]
async fn case_48_a_record_from_the_future_is_refreshed_before_it_is_served() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    replica.stop().await;
    world.clock.step_wall(-3_600_000);
    world.idp.faults().push(Fault::DelayBefore(Duration::from_millis(500)));
    let again = world.start(world.config()).await;
    assert!(again.bearer(&world).is_none(), "nobody knows how long it lives");
    again.generation(2).await;
    again.assert_serves(&world);
    assert_eq!(world.idp.posts(), 2);
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_49_tokens_of_thirty_seconds_are_never_stale_and_asked_for_every_five_seconds_at_most() {
    let world =
        World::with(Behaviour { access_token_lifetime: Duration::from_secs(30), ..Behaviour::default() })
            .await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let begun = world.clock().boot();
    for _ in 0..30 {
        world.clock.suspend(Duration::from_secs(4));
        replica.until("a token", |now| now.state == State::Fresh || now.state == State::Stale).await;
        replica.assert_serves(&world);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let spent = world.clock().boot().since(begun).as_secs();
    assert!(world.idp.posts() <= spent / 5 + 1, "{} in {spent} s", world.idp.posts());
    let log = world.idp.log();
    for pair in log.windows(2) {
        let apart = pair[1].at.checked_since(pair[0].at).expect("in order");
        assert!(apart >= Duration::from_millis(4900), "{apart:?} apart");
    }
    world.assert_nothing_spent_twice();
}

#[tokio::test]
async fn case_49_tokens_of_three_seconds_are_kept_alive_on_the_real_clock() {
    let idp =
        World::with(Behaviour { access_token_lifetime: Duration::from_secs(3), ..Behaviour::default() })
            .await;
    idp.seeded();
    let replica = idp.start(idp.config()).await;
    replica.generation(1).await;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        replica.assert_serves(&idp);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((5..=8).contains(&idp.idp.posts()), "{} requests in 8 s", idp.idp.posts());
}

#[tokio::test]
async fn case_51_replicas_that_start_together_with_one_store_cost_one_request() {
    let world = World::new().await;
    world.seeded();
    let shutdown = Shutdown::new();
    let store = world.store().await;
    let mut replicas = Vec::new();
    for _ in 0..100 {
        let config = world.config();
        replicas
            .push(Credential::start(config, store.clone(), world.clock(), &shutdown).await.expect("starts"));
    }
    crate::lifecycle::until("all have a token", async || {
        replicas.iter().all(|replica| replica.snapshot().generation == 1)
    })
    .await;
    assert_eq!(world.idp.posts(), 1);
    let mut due: Vec<i64> =
        replicas.iter().map(|replica| replica.snapshot().refresh_at.expect("scheduled").seconds()).collect();
    due.sort_unstable();
    assert!(due[99] - due[0] > 200, "their next refreshes are spread: {due:?}");
    shutdown.begin();
}

#[tokio::test]
async fn case_52_a_valid_persisted_token_costs_no_request_at_the_start() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    replica.stop().await;
    world.clock.suspend(Duration::from_secs(600));
    let again = world.start(world.config()).await;
    assert_eq!(again.snapshot().generation, 1, "in the cell when `start` returns");
    again.assert_serves(&world);
    a_while().await;
    assert!(again.snapshot().tried, "there is nothing to try: ready");
    assert_eq!(world.idp.posts(), 1);
    let left = again.snapshot().expires_in_seconds.expect("known");
    assert!((2990..=3000).contains(&left), "{left}");
}

#[tokio::test]
async fn an_assertion_refused_for_its_date_is_dated_by_the_providers_clock_at_the_next_try() {
    let world =
        World::with(Behaviour { skew_seconds: 600, access_token_lifetime: HOUR, ..Behaviour::default() })
            .await;
    world.seeded();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    std::fs::write(world.path("client.pem"), pair.serialize_pem()).expect("write");
    let key = VerifyingKey::from_pem(jsonwebtoken::Algorithm::ES256, pair.public_key_pem().as_bytes());
    let key = key.expect("a public key");
    world.idp.change_clients(|clients| clients[0].keys.push(key));
    let mut config = world.config();
    config.oauth.client_auth = ClientAuth::PrivateKeyJwt {
        assertion: Assertion {
            key: SigningKey {
                source: SecretSource::File(world.path("client.pem")),
                algorithm: Algorithm::Es256,
                key_id: KeyId::default(),
            },
            claims: AssertionClaims {
                audience: vec![world.idp.token_endpoint()],
                audience_as_list: false,
                lifetime: Duration::from_secs(60),
                extra: Default::default(),
            },
        },
        client_id_param: ClientIdParam::Plain,
        secret: None,
    };
    let replica = world.start(config).await;
    replica.until("the refusal", |now| now.refreshes_failed == 1).await;
    world.clock.suspend(Duration::from_secs(6));
    replica.generation(1).await;
    replica.assert_serves(&world);
    let left = replica.snapshot().expires_in_seconds.expect("known");
    assert!(left > 3500, "lifetimes are durations: {left}");
}

#[tokio::test]
async fn the_system_clock_works_as_well() {
    let world = World::new().await;
    let idp = bearward::idp::Idp::start(bearward::idp::Settings::default()).await.expect("starts");
    world.put_seed(&idp.new_seed());
    let mut config = world.config();
    config.oauth.endpoint =
        bearward::oauth::EndpointSource::Url(idp.token_endpoint().parse().expect("a URL"));
    let shutdown = Shutdown::new();
    let store = world.store().await;
    let credential = Credential::start(config, store, Clock::System, &shutdown).await.expect("starts");
    crate::lifecycle::until("a token", async || credential.snapshot().state == State::Fresh).await;
    shutdown.begin();
    shutdown.finished().await;
    assert_eq!(idp.posts(), 1);
}
