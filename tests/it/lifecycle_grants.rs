//! Grants beside the usual ones through the life of a credential: the first token, the hand-over to refresh tokens,
//! and what happens when one is refused.

use std::time::Duration;

use bearward::credential::{ForcedRefresh, State};
use bearward::idp::{AuthMethod, DEFAULT_SCOPE, DEFAULT_SECRET, DEFAULT_USER, Idp, User};
use bearward::oauth::template::{JsonTemplate, Template};
use bearward::oauth::{ClientAuth, Custom, CustomBody, CustomResponse, ForeignToken, Grant, TokenExchange};
use bearward::secret::{Secret, SecretSource};

use crate::lifecycle::{HOUR, World};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

fn grants(world: &World) -> Vec<String> {
    world.idp.log().into_iter().map(|entry| entry.grant).collect()
}

#[tokio::test]
async fn a_workload_token_is_exchanged_again_when_nothing_else_is_left() {
    let world = World::new().await;
    let path = world.path("workload");
    std::fs::write(&path, "workload-token-1").expect("write");
    world.idp.change_clients(|clients| clients[0].foreign_tokens = vec![Secret::from("workload-token-1")]);
    let mut config = world.config();
    let kind = "urn:ietf:params:oauth:token-type:jwt".to_owned();
    config.oauth.grant = Grant::TokenExchange(Box::new(TokenExchange {
        subject: ForeignToken { token: SecretSource::File(path.clone()), kind },
        actor: None,
        requested_token_type: None,
    }));
    config.oauth.scope = Some("api".into());
    let replica = world.start(config).await;
    replica.generation(1).await;

    // Somebody replaced both the file and what the provider knows: the next request uses it.
    std::fs::write(&path, "workload-token-2").expect("write");
    world.idp.change_clients(|clients| clients[0].foreign_tokens = vec![Secret::from("workload-token-2")]);
    world.clock.suspend(HOUR);
    replica.generation(2).await;
    assert_eq!(grants(&world), [EXCHANGE, EXCHANGE]);

    // A refused one waits, and is tried at once when its file changes.
    world.idp.change_clients(|clients| clients[0].foreign_tokens = vec![Secret::from("workload-token-3")]);
    world.clock.suspend(HOUR);
    replica.state_is(State::Misconfigured).await;
    std::fs::write(&path, "workload-token-3").expect("write");
    replica.generation(3).await;
}

#[tokio::test]
async fn a_password_brings_a_refresh_token_and_is_not_sent_while_that_lives() {
    let world = World::new().await;
    let (mut config, _) = with_password(&world, "the right password");
    config.oauth.scope = Some(DEFAULT_SCOPE.into());
    let replica = world.start(config).await;
    replica.generation(1).await;
    world.clock.suspend(HOUR);
    replica.generation(2).await;
    world.clock.suspend(HOUR);
    replica.generation(3).await;
    assert_eq!(grants(&world), ["password", "refresh_token", "refresh_token"]);
    let family = world.idp.families()[0].id;
    world.idp.revoke_family(family);
    world.clock.suspend(HOUR);
    replica.generation(4).await;
    assert_eq!(grants(&world)[3..], ["refresh_token", "password"], "the dead one is replaced");
}

#[tokio::test]
async fn a_refused_password_is_sent_three_times_and_then_only_after_a_change() {
    let world = World::new().await;
    let (config, path) = with_password(&world, "a wrong password");
    let replica = world.start(config).await;
    replica.state_is(State::Misconfigured).await;
    for refused in 2..=3 {
        world.clock.suspend(Duration::from_secs(31 * 60));
        replica.until("one more refusal", |now| now.refreshes_failed == refused).await;
    }
    replica.state_is(State::Dead).await;
    for _ in 0..5 {
        world.clock.suspend(HOUR);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let refused = replica.refresh().await;
    assert!(
        matches!(&refused, ForcedRefresh::Refused(why) if why.contains("nothing is sent until its file changes")),
        "{refused:?}"
    );
    assert_eq!(world.idp.posts(), 3, "a fourth might lock the account");
    std::fs::write(&path, "the right password").expect("write");
    replica.generation(1).await;
    assert_eq!(world.idp.posts(), 4);
}

/// A user with the password "the right password", and a credential that sends what is given.
fn with_password(
    world: &World,
    password: &str,
) -> (bearward::credential::CredentialConfig, std::path::PathBuf) {
    let right = Some(Secret::from("the right password"));
    world.idp.change_users(|users| *users = vec![User { name: DEFAULT_USER.into(), password: right }]);
    let path = world.path("password");
    std::fs::write(&path, password).expect("write");
    let mut config = world.config();
    config.oauth.grant =
        Grant::Password { username: DEFAULT_USER.into(), password: SecretSource::File(path.clone()) };
    (config, path)
}

#[tokio::test]
async fn a_vendors_endpoint_gives_the_first_token_and_the_refresh_token_grant_goes_on() {
    let world = World::new().await;
    let mut config = world.config();
    config.oauth.scope = Some(DEFAULT_SCOPE.into());
    config.oauth.grant = Grant::Custom(Box::new(vendor(&world.idp, false)));
    config.oauth.client_auth = ClientAuth::Post { secret: SecretSource::Value(DEFAULT_SECRET.into()) };
    let replica = world.start(config).await;
    replica.generation(1).await;
    world.clock.suspend(HOUR);
    replica.generation(2).await;
    assert_eq!(grants(&world), ["x-vendor", "refresh_token"]);
    let log = world.idp.log();
    assert!(log.iter().all(|entry| entry.client_auth == AuthMethod::ClientSecretPost), "{log:?}");
    assert!(world.idp.families().iter().all(|family| family.id == 1), "one family: handed over");
}

#[tokio::test]
async fn a_vendors_endpoint_may_be_all_that_spends_refresh_tokens() {
    let world = World::new().await;
    let seed = world.seeded();
    let mut config = world.config();
    let seed_file = Some(SecretSource::File(world.path("seed")));
    config.oauth.grant = Grant::Custom(Box::new(Custom { seed: seed_file, ..vendor(&world.idp, true) }));
    // Nothing is served at the token endpoint: each refresh goes to the vendor's.
    config.oauth.endpoint =
        bearward::oauth::EndpointSource::Url(format!("{}/nowhere", world.idp.url()).parse().expect("a URL"));
    let replica = world.start(config).await;
    replica.generation(1).await;
    for generation in 2..5 {
        world.clock.suspend(HOUR);
        replica.generation(generation).await;
    }
    assert_eq!(grants(&world), ["refresh_token"; 4]);
    assert_eq!(world.idp.log()[0].refresh_token, Some(seed.fingerprint()));
}

fn vendor(idp: &Idp, refreshes: bool) -> Custom {
    let text = |text: &str| JsonTemplate::Text(Template::parse(text).expect(text));
    let mut fields = vec![
        ("user".to_owned(), text("{client_id}")),
        ("pass".to_owned(), text("{client_secret}")),
        ("scope".to_owned(), text("{scope}")),
    ];
    if refreshes {
        fields.push(("refreshToken".to_owned(), text("{refresh_token}")));
    }
    Custom {
        method: http::Method::POST,
        url: Template::parse(&idp.vendor_endpoint()).expect("a URL"),
        headers: Vec::new(),
        body: CustomBody::Json(JsonTemplate::Object(fields)),
        response: CustomResponse {
            access_token: "/data/accessToken".into(),
            expires_in: "/data/expiresIn".into(),
            refresh_token: Some("/data/refreshToken".into()),
            headers: Some("/data/requestHeaders".into()),
        },
        client_secret: Some(SecretSource::Value(DEFAULT_SECRET.into())),
        username: None,
        password: None,
        subject_token: None,
        seed: None,
    }
}
