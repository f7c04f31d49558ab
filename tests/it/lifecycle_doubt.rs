//! The ambiguous outcome: a refresh token is sent again only as the procedure says.

use std::time::Duration;

use bearward::credential::{ForcedRefresh, RotationMode, State};
use bearward::idp::{Behaviour, DEFAULT_USER, Fault, GraceAnswer};
use bearward::store::{InFlight, RecordState};

use crate::lifecycle::{HOUR, Process, World, a_while};

const GRACE: Duration = Duration::from_secs(30);

async fn with_grace() -> World {
    World::with(Behaviour { access_token_lifetime: HOUR, grace: GRACE, ..Behaviour::default() }).await
}

#[tokio::test]
async fn case_37_a_lost_answer_is_asked_for_again_inside_the_grace() {
    for fault in [Fault::DropAfter, Fault::CutAfter(120), Fault::status_after(502, "<html>")] {
        let world = with_grace().await;
        let seed = world.seeded();
        world.idp.faults().push(fault);
        let mut config = world.config();
        config.grace = GRACE;
        let replica = world.start(config).await;
        replica.generation(1).await;
        assert_eq!(world.posts_of(&seed), 2);
        assert_eq!(replica.state(), State::Fresh);
        replica.assert_serves(&world);
        assert!(world.idp.families()[0].is_alive());
    }
}

#[tokio::test]
async fn case_38_without_grace_the_old_token_is_served_and_the_refresh_token_resent_late() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    let spent = world.record().await.refresh_token.expect("one");
    world.idp.faults().push(Fault::DropBefore);
    world.clock.suspend(HOUR * 8 / 10);
    replica.state_is(State::InDoubt).await;
    replica.assert_serves(&world);
    let due = replica.snapshot().refresh_at.expect("scheduled");
    let left = due.checked_since(world.clock().wall()).expect("later").as_secs();
    assert!((350..=360).contains(&left), "resent at a tenth of its life: in {left} s");
    assert!(matches!(replica.refresh().await, ForcedRefresh::Refused(_)), "nobody can hurry a doubt");
    a_while().await;
    assert_eq!(world.posts_of(&spent), 1);
    world.clock.suspend(Duration::from_secs(355));
    replica.generation(2).await;
    assert_eq!(world.posts_of(&spent), 2);
    assert_eq!(replica.state(), State::Fresh);
    replica.assert_serves(&world);
}

#[tokio::test]
async fn case_38_a_lost_rotation_ends_in_dead_with_a_definitive_answer_and_no_further_request() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.idp.faults().push(Fault::DropAfter);
    world.clock.suspend(HOUR * 8 / 10);
    replica.state_is(State::InDoubt).await;
    world.clock.suspend(Duration::from_secs(355));
    replica.state_is(State::Dead).await;
    assert_eq!(world.idp.posts(), 3);
    world.clock.suspend(HOUR);
    a_while().await;
    assert_eq!(world.idp.posts(), 3);
    assert!(replica.bearer(&world).is_none());
}

#[tokio::test]
async fn case_38_an_outage_longer_than_a_life_is_asked_with_backoff_until_an_answer_comes() {
    let world = World::new().await;
    world.seeded();
    let replica = world.start(world.config()).await;
    replica.generation(1).await;
    world.idp.faults().always(Fault::DropBefore);
    world.clock.suspend(HOUR * 8 / 10);
    replica.state_is(State::InDoubt).await;
    world.clock.suspend(HOUR);
    let before = world.idp.posts();
    world.idp.posts_reached(before + 1).await;
    world.clock.suspend(Duration::from_secs(61));
    world.idp.posts_reached(before + 2).await;
    assert_eq!(replica.state(), State::InDoubt);
    assert!(replica.bearer(&world).is_none());
    world.idp.faults().clear();
    world.clock.suspend(Duration::from_secs(61));
    replica.generation(2).await;
    replica.assert_serves(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_39_a_process_that_dies_between_request_and_answer_leaves_a_doubt() {
    let world = World::new().await;
    world.seeded();
    let first = Process::start(&world, world.config());
    until_generation(&first, 1).await;
    let spent = world.record().await.refresh_token.expect("one");
    world.idp.faults().push_together([Fault::DelayBefore(Duration::from_secs(20)), Fault::DropBefore]);
    world.clock.suspend(HOUR * 8 / 10);
    world.idp.posts_reached(2).await;
    first.kill();
    assert!(matches!(world.record().await.state, RecordState::InFlight(_)), "the mark was durable");

    let next = world.start(world.config()).await;
    assert_eq!(next.snapshot().generation, 1, "the persisted token is served from the first moment");
    next.assert_serves(&world);
    next.state_is(State::InDoubt).await;
    a_while().await;
    assert_eq!(world.posts_of(&spent), 1, "not before it is late");
    world.clock.suspend(Duration::from_secs(355));
    next.generation(2).await;
    assert_eq!(world.posts_of(&spent), 2);
    next.assert_serves(&world);
}

async fn until_generation(process: &Process, wanted: u64) {
    crate::lifecycle::until("a token", async || process.credential.snapshot().generation >= wanted).await;
}

#[tokio::test]
async fn case_39_a_start_inside_the_grace_asks_at_once_counted_from_the_first_send() {
    for (ago, expected) in [(10, State::Fresh), (40, State::InDoubt)] {
        let world = with_grace().await;
        world.seeded();
        let mut config = world.config();
        config.grace = GRACE;
        let replica = world.start(config.clone()).await;
        replica.generation(1).await;
        replica.stop().await;
        let since = world.clock().wall().minus(Duration::from_secs(ago));
        world.leave_record(|record| record.state = mark_of_another(record, since)).await;
        let next = world.start(config).await;
        if expected == State::Fresh {
            next.generation(2).await;
        } else {
            next.state_is(State::InDoubt).await;
            a_while().await;
            assert_eq!(world.idp.posts(), 1);
        }
        assert_eq!(next.state(), expected, "{ago} s after the first send");
        next.assert_serves(&world);
    }
}

fn mark_of_another(record: &bearward::store::Record, since: bearward::clock::UnixTime) -> RecordState {
    let spent = record.refresh_token.as_ref().expect("one");
    let rt_hash = bearward::secret::Fingerprint::of(spent.expose().as_bytes()).to_hex();
    RecordState::InFlight(InFlight { owner: "a process long dead".into(), since, rt_hash })
}

#[tokio::test]
async fn a_doubt_with_an_own_grant_at_hand_uses_that_at_once() {
    let world = World::new().await;
    let key = SigningPair::new(&world);
    world.idp.change_clients(|clients| clients[0].keys.push(key.verifying));
    let mut config = world.config();
    config.oauth.grant = key.grant;
    let replica = world.start(config).await;
    replica.generation(1).await;
    let spent = world.record().await.refresh_token.expect("the user assertion brings one");
    world.idp.faults().push(Fault::DropAfter);
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(2).await;
    assert_eq!(world.posts_of(&spent), 1, "the refresh token in doubt is not sent again");
    assert_eq!(replica.state(), State::Fresh);
    let grants: Vec<String> = world.idp.log().into_iter().map(|entry| entry.grant).collect();
    let assertion = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    assert_eq!(grants, [assertion, "refresh_token", assertion]);
}

#[tokio::test]
async fn a_dead_refresh_token_is_replaced_by_the_own_grant() {
    let world = World::new().await;
    let key = SigningPair::new(&world);
    world.idp.change_clients(|clients| clients[0].keys.push(key.verifying));
    let mut config = world.config();
    config.oauth.grant = key.grant;
    let replica = world.start(config).await;
    replica.generation(1).await;
    world.idp.revoke_family(1);
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(2).await;
    assert_eq!(replica.state(), State::Fresh);
    replica.assert_serves(&world);
    let grants: Vec<String> = world.idp.log().into_iter().map(|entry| entry.grant).collect();
    assert_eq!(grants[1..], ["refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"]);
}

#[tokio::test]
async fn client_credentials_ask_again_with_the_grant_itself() {
    let world = World::new().await;
    let mut config = world.config();
    config.oauth.grant = bearward::oauth::Grant::ClientCredentials;
    config.oauth.scope = None;
    let replica = world.start(config.clone()).await;
    replica.generation(1).await;
    world.idp.faults().push(Fault::DropAfter);
    world.clock.suspend(HOUR * 8 / 10);
    replica.until("the lost answer", |now| now.last_error.is_some()).await;
    world.clock.suspend(Duration::from_secs(6));
    replica.generation(2).await;
    assert_eq!(
        replica.snapshot().counts.outcomes().find(|(name, _)| *name == "transient"),
        Some(("transient", 1))
    );
    replica.stop().await;
    let again = world.start(config).await;
    again.assert_serves(&world);
    a_while().await;
    assert_eq!(world.idp.posts(), 3, "the persisted token is used");
}

/// A key, and the grant that signs user assertions with it.
struct SigningPair {
    grant: bearward::oauth::Grant,
    verifying: bearward::idp::VerifyingKey,
}

impl SigningPair {
    fn new(world: &World) -> Self {
        use bearward::oauth::{Algorithm, Assertion, Grant, KeyId, SigningKey, UserAssertion};
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        std::fs::write(world.path("user.pem"), pair.serialize_pem()).expect("write");
        let key = SigningKey {
            source: bearward::secret::SecretSource::File(world.path("user.pem")),
            algorithm: Algorithm::Es256,
            key_id: KeyId::default(),
        };
        let claims = bearward::oauth::client_auth::AssertionClaims {
            audience: vec![world.idp.token_endpoint()],
            audience_as_list: false,
            lifetime: Duration::from_secs(60),
            extra: Default::default(),
        };
        let assertion = Assertion { key, claims };
        let verifying = bearward::idp::VerifyingKey::from_pem(
            jsonwebtoken::Algorithm::ES256,
            pair.public_key_pem().as_bytes(),
        );
        Self {
            grant: Grant::JwtBearer(UserAssertion::Minted { subject: DEFAULT_USER.into(), assertion }),
            verifying: verifying.expect("a public key"),
        }
    }
}

#[tokio::test]
async fn case_70_a_pair_given_again_is_taken_once() {
    let world = with_grace().await;
    world.seeded();
    world.idp.behave(|behaviour| behaviour.grace_answer = GraceAnswer::SamePair);
    let mut config = world.config();
    config.grace = GRACE;
    let replica = world.start(config).await;
    replica.generation(1).await;
    world.idp.faults().push(Fault::CutAfter(40));
    world.clock.suspend(HOUR * 8 / 10);
    replica.generation(2).await;
    a_while().await;
    assert_eq!(replica.snapshot().generation, 2);
    replica.assert_serves(&world);
}

#[tokio::test]
async fn case_76_an_answer_cut_at_any_byte_costs_one_resend() {
    let world = with_grace().await;
    let mut config = world.config();
    config.grace = GRACE;
    config.rotation = RotationMode::SingleUse;
    let mut whole_at = None;
    for cut in 0..1000 {
        let seed = world.seeded();
        let folder = world.path(&format!("store-{cut}"));
        world.idp.faults().push(Fault::CutAfter(cut));
        let replica = world.start_on(config.clone(), crate::lifecycle::open(&folder).await).await;
        replica.generation(1).await;
        replica.assert_serves(&world);
        let posts = world.posts_of(&seed);
        replica.stop().await;
        if posts == 1 {
            whole_at = Some(cut);
            break;
        }
        assert_eq!(posts, 2, "cut after {cut} bytes");
    }
    assert!(whole_at.is_some_and(|length| length > 200), "the answer came whole after {whole_at:?} bytes");
    for family in world.idp.families() {
        assert!(family.is_alive() && family.most_posts() <= 2, "{family:?}");
    }
}
