//! Each provider's documented answers, errors and rotation rule, replayed to a credential of its preset.
//!
//! What is asserted is what the presets' pages promise: how the client authenticates, what is kept, when the next
//! refresh is due, what becomes of a lost answer, and which state, message and retry time an error leads to.

use std::time::Duration;

use base64::Engine as _;
use bearward::credential::State;
use bearward::oauth::preset;

use crate::lifecycle::{Replica, World};
use crate::replay_rig::{Provider, Reply, SECRET, access_token, refresh_token};

/// What a provider documents.
struct Replay {
    preset: &'static str,
    /// Of its token endpoint.
    path: &'static str,
    /// How a client with a secret authenticates.
    auth: Auth,
    /// The body of a success; AT and RT stand for new tokens.
    tokens: &'static str,
    /// The access token's life in seconds, as it is counted.
    life: u64,
    /// The refresh token's, where it is known.
    refresh_life: Option<u64>,
    /// Whether the next refresh comes in the last fifth of the life.
    late: bool,
    /// What a lost answer leads to.
    lost: Lost,
    refusals: &'static [Refusal],
}

#[derive(PartialEq)]
enum Auth {
    Basic,
    Post,
}

enum Lost {
    /// The same refresh token is sent again at once.
    Again,
    /// It waits until the access token is about to end.
    Late,
    /// It is tried again after a moment: nothing was at stake.
    Harmless,
}

/// An error as the provider documents it.
struct Refusal {
    reply: Reply,
    state: State,
    error: &'static str,
    /// What is said of it contains this.
    said: &'static str,
    /// When it is tried again, in seconds from then; `None`: not by itself.
    retry: Option<(u64, u64)>,
}

const JSON: &str = "content-type: application/json\r\n";
const HALF_AN_HOUR: Option<(u64, u64)> = Some((1780, 1800));

const fn json(status: &'static str, body: &'static str) -> Reply {
    Reply::Fixed(status, JSON, body)
}

/// The refresh token is refused for good.
const fn dead(status: &'static str, body: &'static str, error: &'static str, said: &'static str) -> Refusal {
    Refusal { reply: json(status, body), state: State::Dead, error, said, retry: None }
}

/// The client is refused; the refresh token is kept.
const fn client(
    status: &'static str,
    body: &'static str,
    error: &'static str,
    said: &'static str,
) -> Refusal {
    Refusal { reply: json(status, body), state: State::Misconfigured, error, said, retry: HALF_AN_HOUR }
}

/// It passes.
const fn passing(reply: Reply, error: &'static str, said: &'static str, retry: (u64, u64)) -> Refusal {
    Refusal { reply, state: State::Stale, error, said, retry: Some(retry) }
}

const DAY: u64 = 86_400;

macro_rules! replays {
    ($($test:ident: $replay:expr;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                static REPLAY: Replay = $replay;
                replay(&REPLAY).await;
            }
        )+

        /// Every preset is replayed.
        #[test]
        fn no_preset_is_left_out() {
            let mut replayed = vec![$({ const REPLAY: Replay = $replay; REPLAY.preset }),+];
            replayed.sort_unstable();
            let mut all: Vec<_> = preset::ALL.iter().map(|preset| preset.name).collect();
            all.sort_unstable();
            assert_eq!(replayed, all);
        }
    };
}

replays! {
    generic_keeps_to_the_standard: Replay {
        preset: "generic", path: "/token", auth: Auth::Basic,
        tokens: r#"{"access_token":"AT","token_type":"Bearer","expires_in":3600,"refresh_token":"RT"}"#,
        life: 3600, refresh_life: None, late: false, lost: Lost::Late,
        refusals: &[
            dead("400 Bad Request", r#"{"error":"invalid_grant"}"#, "invalid_grant", "bearward login primavera"),
            client("401 Unauthorized", r#"{"error":"invalid_client"}"#, "invalid_client", "client"),
        ],
    };
    oci_rotates_for_a_week: Replay {
        preset: "oci", path: "/oauth2/v1/token", auth: Auth::Basic,
        tokens: r#"{"access_token":"AT","token_type":"Bearer","expires_in":3600,"refresh_token":"RT"}"#,
        life: 3600, refresh_life: Some(7 * DAY), late: false, lost: Lost::Late,
        refusals: &[
            dead(
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"The refresh token is invalid or expired.","ecid":"x9Rz"}"#,
                "invalid_grant",
                "The refresh token is invalid or expired.",
            ),
            client(
                "401 Unauthorized",
                r#"{"error":"invalid_client","error_description":"Client authentication failed.","ecid":"x9Rz"}"#,
                "invalid_client",
                "Client authentication failed.",
            ),
        ],
    };
    okta_forgives_for_half_a_minute: Replay {
        preset: "okta", path: "/oauth2/default/v1/token", auth: Auth::Basic,
        tokens: r#"{"token_type":"Bearer","expires_in":3600,"access_token":"AT","scope":"offline_access orders.read","refresh_token":"RT"}"#,
        life: 3600, refresh_life: Some(7 * DAY), late: false, lost: Lost::Again,
        refusals: &[
            dead(
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"The refresh token is invalid or expired."}"#,
                "invalid_grant",
                "The refresh token is invalid or expired.",
            ),
            passing(
                json("429 Too Many Requests", r#"{"errorCode":"E0000047","errorSummary":"API call exceeded rate limit due to too many requests."}"#),
                "http_429",
                "429",
                (0, 6),
            ),
        ],
    };
    auth0_refuses_with_403: Replay {
        preset: "auth0", path: "/oauth/token", auth: Auth::Post,
        tokens: r#"{"access_token":"AT","refresh_token":"RT","scope":"orders.read offline_access","expires_in":86400,"token_type":"Bearer"}"#,
        life: DAY, refresh_life: None, late: false, lost: Lost::Late,
        refusals: &[
            dead(
                "403 Forbidden",
                r#"{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}"#,
                "invalid_grant",
                "Unknown or invalid refresh token.",
            ),
            client(
                "401 Unauthorized",
                r#"{"error":"access_denied","error_description":"Unauthorized"}"#,
                "access_denied",
                "Unauthorized",
            ),
        ],
    };
    entra_leaves_the_old_refresh_token_good: Replay {
        preset: "entra", path: "/t/oauth2/v2.0/token", auth: Auth::Post,
        tokens: r#"{"token_type":"Bearer","scope":"Orders.Read","expires_in":86399,"ext_expires_in":86399,"refresh_in":43199,"access_token":"AT","refresh_token":"RT"}"#,
        life: 86_399, refresh_life: Some(90 * DAY), late: false, lost: Lost::Harmless,
        refusals: &[
            dead(
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired due to inactivity.","error_codes":[700082],"timestamp":"2026-01-01 00:00:00Z","trace_id":"b","correlation_id":"c"}"#,
                "invalid_grant",
                "AADSTS700082",
            ),
            client(
                "400 Bad Request",
                r#"{"error":"interaction_required","error_description":"AADSTS50076: you must use multi-factor authentication.","error_codes":[50076],"suberror":"basic_action"}"#,
                "interaction_required",
                "AADSTS50076",
            ),
            passing(json("503 Service Unavailable", r#"{"error":"temporarily_unavailable"}"#), "temporarily_unavailable", "", (0, 6)),
        ],
    };
    google_never_rotates: Replay {
        preset: "google", path: "/token", auth: Auth::Post,
        tokens: r#"{"access_token":"AT","expires_in":3599,"scope":"https://www.googleapis.com/auth/calendar.readonly","token_type":"Bearer"}"#,
        life: 3599, refresh_life: None, late: false, lost: Lost::Harmless,
        refusals: &[
            dead(
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
                "invalid_grant",
                "Token has been expired or revoked.",
            ),
            dead(
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"reauth related error (invalid_rapt)","error_subtype":"invalid_rapt"}"#,
                "invalid_grant",
                "invalid_rapt",
            ),
            client(
                "401 Unauthorized",
                r#"{"error":"invalid_client","error_description":"The provided client secret is invalid."}"#,
                "invalid_client",
                "The provided client secret is invalid.",
            ),
        ],
    };
    keycloak_counts_its_reuse: Replay {
        preset: "keycloak", path: "/realms/a/protocol/openid-connect/token", auth: Auth::Basic,
        tokens: r#"{"access_token":"AT","expires_in":300,"refresh_expires_in":1800,"refresh_token":"RT","token_type":"Bearer","not-before-policy":0,"session_state":"s","scope":"email profile"}"#,
        life: 300, refresh_life: Some(1800), late: false, lost: Lost::Late,
        refusals: &[
            dead(
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"Maximum allowed refresh token reuse exceeded"}"#,
                "invalid_grant",
                "Maximum allowed refresh token reuse exceeded",
            ),
            client(
                "401 Unauthorized",
                r#"{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}"#,
                "unauthorized_client",
                "Invalid client or Invalid client credentials",
            ),
            // It may have spent the token: a 5xx is a lost answer.
            Refusal {
                reply: json("500 Internal Server Error", r#"{"error":"unknown_error","error_description":"For more on this error consult the server log."}"#),
                state: State::InDoubt, error: "unknown_error", said: "consult the server log", retry: Some((40, 80)),
            },
        ],
    };
    salesforce_tells_no_lifetime: Replay {
        preset: "salesforce", path: "/services/oauth2/token", auth: Auth::Post,
        tokens: r#"{"access_token":"AT","signature":"c2lnbmF0dXJl","scope":"refresh_token api","instance_url":"https://acme.my.salesforce.com","id":"https://login.salesforce.com/id/00D/005","token_type":"Bearer","issued_at":"1708058728442"}"#,
        life: 900, refresh_life: None, late: false, lost: Lost::Harmless,
        refusals: &[
            dead(
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#,
                "invalid_grant",
                "expired access/refresh token",
            ),
            dead("400 Bad Request", r#"{"error":"inactive_user","error_description":"user is inactive"}"#, "inactive_user", "user is inactive"),
            passing(
                json("400 Bad Request", r#"{"error":"unknown_error","error_description":"retry your request"}"#),
                "unknown_error",
                "retry your request",
                (0, 6),
            ),
            client("400 Bad Request", r#"{"error":"invalid_client_id","error_description":"client identifier invalid"}"#, "invalid_client_id", "client identifier invalid"),
        ],
    };
    ping_is_taken_for_single_use: Replay {
        preset: "ping", path: "/e/as/token", auth: Auth::Basic,
        tokens: r#"{"access_token":"AT","token_type":"Bearer","expires_in":3600,"scope":"openid","refresh_token":"RT"}"#,
        life: 3600, refresh_life: None, late: false, lost: Lost::Late,
        refusals: &[
            dead("400 Bad Request", r#"{"error":"invalid_grant","error_description":"unknown, invalid, or expired refresh token"}"#, "invalid_grant", "unknown, invalid, or expired"),
            client("401 Unauthorized", r#"{"error":"invalid_client","error_description":"Request denied: Unsupported authentication method"}"#, "invalid_client", "Unsupported authentication method"),
        ],
    };
    cognito_answers_without_a_refresh_token: Replay {
        preset: "cognito", path: "/oauth2/token", auth: Auth::Basic,
        tokens: r#"{"access_token":"AT","id_token":"i","token_type":"Bearer","expires_in":3600}"#,
        life: 3600, refresh_life: None, late: false, lost: Lost::Harmless,
        refusals: &[
            dead("400 Bad Request", r#"{"error":"invalid_grant"}"#, "invalid_grant", "bearward login primavera"),
            client("400 Bad Request", r#"{"error":"invalid_client"}"#, "invalid_client", "client"),
            passing(json("429 Too Many Requests", r#"{"code":"TooManyRequestsException","message":"Rate exceeded"}"#), "http_429", "429", (0, 6)),
        ],
    };
    github_kills_both_old_tokens_and_reports_errors_as_200: Replay {
        preset: "github", path: "/login/oauth/access_token", auth: Auth::Post,
        tokens: r#"{"access_token":"AT","expires_in":28800,"refresh_token":"RT","refresh_token_expires_in":15897600,"scope":"","token_type":"bearer"}"#,
        life: 28_800, refresh_life: Some(15_897_600), late: true, lost: Lost::Late,
        refusals: &[
            dead(
                "200 OK",
                r#"{"error":"bad_refresh_token","error_description":"The refresh token passed is incorrect or expired.","error_uri":"https://docs.github.com"}"#,
                "bad_refresh_token",
                "The refresh token passed is incorrect or expired.",
            ),
            client(
                "200 OK",
                r#"{"error":"incorrect_client_credentials","error_description":"The client_id and/or client_secret passed are incorrect."}"#,
                "incorrect_client_credentials",
                "client_secret passed are incorrect",
            ),
        ],
    };
    gitlab_kills_both_old_tokens: Replay {
        preset: "gitlab", path: "/oauth/token", auth: Auth::Post,
        tokens: r#"{"access_token":"AT","token_type":"Bearer","expires_in":7200,"refresh_token":"RT","scope":"read_api","created_at":1607635748}"#,
        life: 7200, refresh_life: None, late: true, lost: Lost::Late,
        refusals: &[
            dead(
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued to another client."}"#,
                "invalid_grant",
                "The provided authorization grant is invalid",
            ),
            client("401 Unauthorized", r#"{"error":"invalid_client","error_description":"Client authentication failed due to unknown client."}"#, "invalid_client", "unknown client"),
        ],
    };
    atlassian_forgives_for_ten_minutes_and_refuses_with_403: Replay {
        preset: "atlassian", path: "/oauth/token", auth: Auth::Post,
        tokens: r#"{"access_token":"AT","refresh_token":"RT","expires_in":3600,"scope":"read:jira-work offline_access"}"#,
        life: 3600, refresh_life: Some(90 * DAY), late: true, lost: Lost::Again,
        refusals: &[
            dead(
                "403 Forbidden",
                r#"{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}"#,
                "invalid_grant",
                "Unknown or invalid refresh token.",
            ),
            client("401 Unauthorized", r#"{"error":"access_denied","error_description":"Unauthorized"}"#, "access_denied", "Unauthorized"),
        ],
    };
    slack_says_ok_false: Replay {
        preset: "slack", path: "/api/oauth.v2.access", auth: Auth::Post,
        tokens: r#"{"ok":true,"app_id":"A0","authed_user":{"id":"U0"},"scope":"chat:write,channels:read","token_type":"bot","access_token":"AT","bot_user_id":"B0","refresh_token":"RT","expires_in":43200,"team":{"id":"T0","name":"a"},"enterprise":null,"is_enterprise_install":false}"#,
        life: 43_200, refresh_life: None, late: false, lost: Lost::Late,
        refusals: &[
            dead("200 OK", r#"{"ok":false,"error":"invalid_refresh_token"}"#, "invalid_refresh_token", "bearward login primavera"),
            client("200 OK", r#"{"ok":false,"error":"bad_client_secret"}"#, "bad_client_secret", "bad_client_secret"),
            passing(Reply::Fixed("429 Too Many Requests", "retry-after: 30\r\n", r#"{"ok":false,"error":"ratelimited"}"#), "ratelimited", "", (28, 31)),
        ],
    };
    xero_forgives_for_half_an_hour: Replay {
        preset: "xero", path: "/connect/token", auth: Auth::Basic,
        tokens: r#"{"id_token":"i","access_token":"AT","expires_in":1800,"token_type":"Bearer","refresh_token":"RT","scope":"accounting.transactions offline_access"}"#,
        life: 1800, refresh_life: Some(60 * DAY), late: false, lost: Lost::Again,
        refusals: &[
            dead("400 Bad Request", r#"{"error":"invalid_grant"}"#, "invalid_grant", "bearward login primavera"),
            client("400 Bad Request", r#"{"error":"invalid_client"}"#, "invalid_client", "client"),
        ],
    };
    quickbooks_tells_both_lifetimes: Replay {
        preset: "quickbooks", path: "/oauth2/v1/tokens/bearer", auth: Auth::Basic,
        tokens: r#"{"token_type":"bearer","expires_in":3600,"refresh_token":"RT","x_refresh_token_expires_in":8726400,"access_token":"AT"}"#,
        life: 3600, refresh_life: Some(8_726_400), late: false, lost: Lost::Late,
        refusals: &[
            dead("400 Bad Request", r#"{"error_description":"Incorrect or invalid refresh token","error":"invalid_grant"}"#, "invalid_grant", "Incorrect or invalid refresh token"),
            client("401 Unauthorized", r#"{"error":"invalid_client"}"#, "invalid_client", "client"),
        ],
    };
    hubspot_has_its_code_in_status: Replay {
        preset: "hubspot", path: "/oauth/v3/token", auth: Auth::Post,
        tokens: r#"{"token_type":"bearer","refresh_token":"RT","access_token":"AT","expires_in":1800,"hub_id":1234567}"#,
        life: 1800, refresh_life: None, late: false, lost: Lost::Late,
        refusals: &[
            dead(
                "400 Bad Request",
                r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token","correlationId":"aeb5f871-7f07-4993-9211-075dc63e7cbf"}"#,
                "BAD_REFRESH_TOKEN",
                "missing or invalid refresh token",
            ),
            client(
                "400 Bad Request",
                r#"{"status":"BAD_CLIENT_SECRET","message":"missing or invalid client secret","correlationId":"aeb5f871-7f07-4993-9211-075dc63e7cbf"}"#,
                "BAD_CLIENT_SECRET",
                "missing or invalid client secret",
            ),
        ],
    };
    zoho_reports_errors_as_200: Replay {
        preset: "zoho", path: "/oauth/v2/token", auth: Auth::Post,
        tokens: r#"{"access_token":"AT","api_domain":"https://www.zohoapis.eu","token_type":"Bearer","expires_in":3600}"#,
        life: 3600, refresh_life: None, late: false, lost: Lost::Harmless,
        refusals: &[
            dead("200 OK", r#"{"error":"invalid_code"}"#, "invalid_code", "bearward login primavera"),
            client("200 OK", r#"{"error":"invalid_client_secret"}"#, "invalid_client_secret", "invalid_client_secret"),
            passing(
                json("400 Bad Request", r#"{"error_description":"You have made too many requests continuously. Please try again after some time.","error":"Access Denied","status":"failure"}"#),
                "Access Denied",
                "too many requests",
                (50, 61),
            ),
        ],
    };
    zitadel_kills_the_old_access_token: Replay {
        preset: "zitadel", path: "/oauth/v2/token", auth: Auth::Basic,
        tokens: r#"{"access_token":"AT","token_type":"Bearer","refresh_token":"RT","expires_in":43199,"id_token":"i"}"#,
        life: 43_199, refresh_life: Some(30 * DAY), late: true, lost: Lost::Late,
        refusals: &[
            dead("400 Bad Request", r#"{"error":"invalid_grant","error_description":"Errors.User.RefreshToken.Invalid"}"#, "invalid_grant", "Errors.User.RefreshToken.Invalid"),
            client("401 Unauthorized", r#"{"error":"invalid_client","error_description":"invalid secret"}"#, "invalid_client", "invalid secret"),
        ],
    };
    hydra_ends_the_login_on_reuse: Replay {
        preset: "hydra", path: "/oauth2/token", auth: Auth::Basic,
        tokens: r#"{"access_token":"AT","expires_in":3599,"refresh_token":"RT","scope":"offline_access orders.read","token_type":"bearer"}"#,
        life: 3599, refresh_life: Some(30 * DAY), late: false, lost: Lost::Late,
        refusals: &[
            dead(
                "401 Unauthorized",
                r#"{"error":"token_inactive","error_description":"Token is inactive because it is malformed, expired or otherwise invalid. Token validation failed."}"#,
                "token_inactive",
                "Token is inactive",
            ),
            client(
                "401 Unauthorized",
                r#"{"error":"invalid_client","error_description":"Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method)."}"#,
                "invalid_client",
                "Client authentication failed",
            ),
        ],
    };
}

/// The value changes once a day: many answers repeat it, and it may be spent all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_quickbooks_repeats_is_still_not_sent_twice() {
    let world = World::new().await;
    let same = r#"{"token_type":"bearer","expires_in":3600,"refresh_token":"refresh-token-number-0","x_refresh_token_expires_in":8726400,"access_token":"AT"}"#;
    let provider = Provider::start(same).await;
    let path = "/oauth2/v1/tokens/bearer";
    let replica = world.start(provider.credential(&world, "quickbooks", path, "")).await;
    replica.generation(1).await;
    until_due(&world, &replica);
    replica.generation(2).await;
    assert_eq!(world.record().await.observed.rotates, Some(false), "as it was observed");
    provider.next(&[Reply::Lost]);
    until_due(&world, &replica);
    replica.state_is(State::InDoubt).await;
    assert_eq!(provider.spent().len(), 3, "it waits");
}

async fn replay(replay: &'static Replay) {
    let refusals = replay.refusals.iter().map(|refusal| refused(replay, refusal));
    let all = futures_util::future::join_all(refusals);
    tokio::join!(rotations(replay), a_lost_answer(replay), all);
}

async fn begin(replay: &Replay) -> (World, Provider, Replica) {
    let (world, provider) = (World::new().await, Provider::start(replay.tokens).await);
    let config = provider.credential(&world, replay.preset, replay.path, "");
    let replica = world.start(config).await;
    replica.generation(1).await;
    (world, provider, replica)
}

fn rotates(replay: &Replay) -> bool {
    replay.tokens.contains("RT")
}

/// The refresh token that is kept after so many answers.
fn kept(replay: &Replay, answers: usize) -> String {
    refresh_token(if rotates(replay) { answers } else { 0 })
}

/// Goes to the moment when the next refresh is due.
fn until_due(world: &World, replica: &Replica) {
    let due = replica.snapshot().refresh_at.expect("scheduled");
    let left = due.checked_since(world.clock().wall()).unwrap_or_default();
    world.clock.suspend(left + Duration::from_millis(100));
}

/// Answers as documented: what is sent, kept and scheduled.
async fn rotations(replay: &Replay) {
    let (world, provider, replica) = Box::pin(begin(replay)).await;
    let name = replay.preset;
    let first = provider.asked().remove(0);
    assert_eq!(first.path(), replay.path, "{name}");
    assert_eq!(first.header("accept"), Some("application/json"), "{name}");
    assert_eq!(first.parameter("grant_type"), Some("refresh_token"), "{name}");
    assert_eq!(first.parameter("scope"), None, "{name}");
    let pair = base64::engine::general_purpose::STANDARD.encode("the-client:client%20secret%3A%20100%25");
    let (header, id, secret) = match replay.auth {
        Auth::Basic => (Some(format!("Basic {pair}")), None, None),
        Auth::Post => (None, Some("the-client"), Some(SECRET)),
    };
    assert_eq!(first.header("authorization").map(str::to_owned), header, "{name}");
    assert_eq!((first.parameter("client_id"), first.parameter("client_secret")), (id, secret), "{name}");

    let record = world.record().await;
    let obtained = record.obtained_at.expect("known");
    let life = record.expires_at.expect("known").checked_since(obtained).expect("later");
    assert_eq!(life.as_secs(), replay.life, "{name}");
    let refresh_life =
        record.refresh_expires_at.map(|end| end.checked_since(obtained).expect("later").as_secs());
    assert_eq!(refresh_life, replay.refresh_life, "{name}");
    let due = replica.snapshot().refresh_at.expect("scheduled").checked_since(obtained).expect("later");
    let part = due.as_secs_f64() / replay.life as f64;
    assert_eq!(
        part >= 0.74,
        replay.late || part >= 0.74 && replay.life < 7200,
        "{name}: refreshed at {part}"
    );
    assert!(part < 1.0 && part > 0.3, "{name}: refreshed at {part}");

    for answers in 1..4 {
        assert_eq!(replica.bearer(&world).expect("a token").expose(), access_token(answers), "{name}");
        let record = world.record().await;
        assert_eq!(record.refresh_token.expect("kept").expose(), kept(replay, answers), "{name}");
        until_due(&world, &replica);
        replica.generation(answers as u64 + 1).await;
    }
    let expected: Vec<_> = (0..4).map(|answers| kept(replay, answers)).collect();
    assert_eq!(provider.spent(), expected, "{name}");
    assert_eq!(replica.state(), State::Fresh, "{name}");
}

/// A request that was read and not answered.
async fn a_lost_answer(replay: &Replay) {
    let (world, provider, replica) = Box::pin(begin(replay)).await;
    let name = replay.preset;
    if !rotates(replay) {
        // That it need not be replaced is observed with the first answer, where the preset does not know it.
        until_due(&world, &replica);
        replica.generation(2).await;
    }
    let before = provider.spent().len();
    let generation = replica.snapshot().generation;
    provider.next(&[Reply::Lost]);
    until_due(&world, &replica);
    match replay.lost {
        Lost::Again => {}
        Lost::Late => {
            replica.state_is(State::InDoubt).await;
            assert_eq!(provider.spent().len(), before + 1, "{name}: it is not sent again yet");
            assert!(replica.bearer(&world).is_some(), "{name}");
            until_due(&world, &replica);
        }
        Lost::Harmless => {
            replica.until("a failure that passes", |now| now.last_error.is_some()).await;
            let error = replica.snapshot().last_error.expect("one");
            assert_eq!((error.class, error.error.as_str()), ("transient", "cut"), "{name}");
            until_due(&world, &replica);
        }
    }
    replica.generation(generation + 1).await;
    let spent = provider.spent();
    assert_eq!(spent.len(), before + 2, "{name}");
    assert_eq!(spent[before], spent[before + 1], "{name}: the same refresh token");
}

/// A documented error.
async fn refused(replay: &Replay, refusal: &Refusal) {
    let (world, provider, replica) = Box::pin(begin(replay)).await;
    let name = format!("{} {}", replay.preset, refusal.error);
    provider.next(&[refusal.reply]);
    until_due(&world, &replica);
    replica.until(&name, |now| now.last_error.is_some()).await;
    let now = replica.snapshot();
    assert_eq!(now.state, refusal.state, "{name}: {now:?}");
    let error = now.last_error.clone().expect("one");
    assert_eq!(error.error, refusal.error, "{name}");
    let said = format!(
        "{} {}",
        error.description.clone().unwrap_or_default(),
        now.remedy.clone().unwrap_or_default()
    );
    assert!(said.contains(refusal.said), "{name}: {said}");
    let retry = error.retry_at.map(|at| at.checked_since(error.at).unwrap_or_default().as_secs());
    match (retry, refusal.retry) {
        (None, None) => {}
        (Some(pause), Some((least, most))) => {
            assert!((least..=most).contains(&pause), "{name}: in {pause} s")
        }
        other => panic!("{name}: {other:?}"),
    }
    // Whatever it was, the token in hand is served, and the refresh token is where it was.
    assert_eq!(replica.bearer(&world).expect("served").expose(), access_token(1), "{name}");
    assert_eq!(world.record().await.refresh_token.expect("kept").expose(), kept(replay, 1), "{name}");
    match refusal.state {
        State::Dead => {
            world.clock.suspend(Duration::from_secs(replay.life));
            replica.until("the hard stop", |now| now.state == State::Dead).await;
            tokio::time::sleep(Duration::from_millis(1200)).await;
            assert_eq!(provider.asked().len(), 2, "{name}: a dead refresh token is not sent again");
            assert!(replica.bearer(&world).is_none(), "{name}");
        }
        _ => {
            until_due(&world, &replica);
            replica.generation(2).await;
            assert_eq!(provider.spent(), [refresh_token(0), kept(replay, 1), kept(replay, 1)], "{name}");
        }
    }
}
