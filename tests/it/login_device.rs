//! What a person is told by `bearward login` when the provider hesitates, refuses, fails or forgets the refresh token.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http;
use crate::harness::run::Run;
use crate::login::{Login, command, printed};
use crate::replay_rig::{Provider, Reply};

const TOKENS: &str = r#"{"access_token":"AT","token_type":"bearer","expires_in":28800,"refresh_token":"RT"}"#;
const JSON: &str = "content-type: application/json\r\n";

const fn json_of(status: &'static str, body: &'static str) -> Reply {
    Reply::Fixed(status, JSON, body)
}

/// The device's code, good for ten minutes; the code holds what a terminal would obey.
const CODE: Reply = json_of(
    "200 OK",
    r#"{"device_code":"the-device-code-4711","user_code":"WDJB-\u001b[31mMJHT","verification_uri":"https://github.com/login/device","expires_in":600,"interval":1}"#,
);
const PENDING: Reply =
    json_of("200 OK", r#"{"error":"authorization_pending","error_description":"not yet"}"#);

/// A configuration of the preset `github`, whose other endpoints follow from its token endpoint.
fn config(run: &Run, provider: &Provider) -> Value {
    run.config(
        "http://127.0.0.1:9",
        &json!({
            "preset": "github",
            "token_endpoint": format!("{}/login/oauth/access_token", provider.origin()),
            "client": {"id": "Iv1.example", "auth": "none"},
            "grant": "refresh_token",
        }),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_waits_as_it_is_told_and_says_how_it_ended() {
    let check = async |answers: &'static [Reply], code: i32, said: &str, posts: usize| {
        let run = Arc::new(Run::new("login-device"));
        let provider = Provider::start(TOKENS).await;
        provider.next(answers);
        let config = config(&run, &provider);
        let (its, arguments) = (Arc::clone(&run), ["login", "it", "--device"]);
        #[allow(clippy::disallowed_methods, reason = "joined at once")]
        let output = tokio::task::spawn_blocking(move || command(&its, &config, &arguments, "")).await;
        let output = output.expect("it ends");
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(said), "{said}: {text}");
        let asked = provider.asked();
        assert_eq!(asked.len(), posts, "{said}: {text}");
        assert_eq!(asked[0].path(), "/login/device/code", "{said}");
        assert!(asked[1..].iter().all(|asked| asked.path() == "/login/oauth/access_token"), "{said}");
        let device = |asked: &crate::replay_rig::Asked| asked.parameter("device_code").map(str::to_owned);
        assert!(asked[1..].iter().all(|asked| device(asked).as_deref() == Some("the-device-code-4711")));
        assert!(!text.contains("the-device-code-4711") && !text.contains("token-number"), "{text}");
        assert!(text.contains("https://github.com/login/device") && text.contains("WDJB-[31mMJHT"), "{text}");
        assert!(text.contains('█') || text.contains('▀'), "a QR code: {text}");
        asked.iter().map(|asked| asked.at).collect::<Vec<_>>()
    };
    const SLOW: &[Reply] = &[CODE, PENDING, json_of("400 Bad Request", r#"{"error":"slow_down"}"#)];
    const DENIED: &[Reply] = &[CODE, json_of("400 Bad Request", r#"{"error":"access_denied"}"#)];
    const EXPIRED: &[Reply] = &[CODE, PENDING, json_of("200 OK", r#"{"error":"expired_token"}"#)];
    const FAILING: &[Reply] = &[CODE, json_of("502 Bad Gateway", "<html>")];
    const SHORT: &[Reply] = &[
        json_of(
            "200 OK",
            r#"{"device_code":"the-device-code-4711","user_code":"WDJB-\u001b[31mMJHT","verification_uri":"https://github.com/login/device","expires_in":3,"interval":1}"#,
        ),
        PENDING,
        PENDING,
        PENDING,
    ];
    const WRONG: &[Reply] = &[
        CODE,
        json_of(
            "200 OK",
            r#"{"error":"device_flow_disabled","error_description":"Device Flow must be explicitly enabled for this App"}"#,
        ),
    ];
    let (slow, ..) = tokio::join!(
        check(SLOW, 0, "it: logged in", 4),
        check(DENIED, 1, "refused the login (access_denied)", 2),
        check(EXPIRED, 1, "run the command again for a new one (expired_token)", 3),
        check(FAILING, 0, "it: logged in", 3),
        check(SHORT, 1, "nobody entered the code in time", 3),
        check(WRONG, 1, "Device Flow must be explicitly enabled", 2),
    );
    let (second, third) = (slow[2] - slow[1], slow[3] - slow[2]);
    assert!(second >= Duration::from_millis(900), "an interval of a second: {second:?}");
    assert!(third >= Duration::from_millis(5900), "five seconds more after slow_down: {third:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_whose_code_is_refused_or_brings_no_refresh_token_says_so_on_the_page_too() {
    for (answer, said) in [
        (
            json_of(
                "200 OK",
                r#"{"error":"incorrect_client_credentials","error_description":"The client_id is wrong."}"#,
            ),
            "The client_id is wrong.",
        ),
        (
            json_of(
                "200 OK",
                r#"{"access_token":"access-token-number-1","token_type":"bearer","expires_in":3600}"#,
            ),
            "an access token and no refresh token",
        ),
        (json_of("502 Bad Gateway", "<html>"), "answered 502"),
    ] {
        let run = Run::new("login-code");
        let provider = Provider::start(TOKENS).await;
        provider.next(&[answer]);
        let config = config(&run, &provider);
        let login = tokio::task::block_in_place(|| Login::begin(&run, &config, &["--no-browser"]));
        let asked = url::Url::parse(&login.address("http://")).expect("a URL");
        assert_eq!(asked.path(), "/login/oauth/authorize", "{asked}");
        let of =
            |name: &str| asked.query_pairs().find(|(known, _)| known == name).expect(name).1.into_owned();
        let back = url::Url::parse(&of("redirect_uri")).expect("a URL");
        let address = format!("127.0.0.1:{}", back.port().expect("a port")).parse().expect("an address");
        let redirect = format!("/callback?code=the-code-of-this-login&state={}", of("state"));
        let page = http::get(address, &redirect).await.expect("it answers");
        let text = String::from_utf8_lossy(&page.body).into_owned();
        assert_eq!(page.status, 502, "{text}");
        assert!(text.contains("That did not work") && text.contains(said), "{said}: {text}");
        assert_eq!(page.header("cache-control"), Some("no-store"));
        let output = tokio::task::block_in_place(|| login.end());
        assert!(output.contains(said), "{said}: {output}");
        let shown = text + &output;
        assert!(!shown.contains("the-code-of-this-login") && !shown.contains("token-number"), "{shown}");
        let redeemed = provider.asked();
        assert_eq!(redeemed.len(), 1, "a code is redeemed once");
        assert_eq!(redeemed[0].parameter("redirect_uri"), Some(back.as_str()));
        assert!(redeemed[0].parameter("code_verifier").is_some_and(|verifier| verifier.len() == 43));
        let listed = command(&run, &config, &["store", "list"], "");
        assert!(printed(&listed).contains("no records"), "{}", printed(&listed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_presets_parameters_and_scope_are_in_the_address_of_the_login() {
    let check = |preset: &str, path: &str, scope: Option<&str>, expected: &[(&str, &str)], absent: &str| {
        let run = Run::new("login-preset");
        let mut credential = json!({
            "preset": preset,
            "token_endpoint": format!("http://127.0.0.1:9{path}"),
            "client": {"id": "example", "auth": "none"},
            "grant": "refresh_token",
            "login": {"authorization_endpoint": "http://127.0.0.1:9/authorize"},
        });
        if let Some(scope) = scope {
            credential["scope"] = json!(scope);
        }
        let config = run.config("http://127.0.0.1:9", &credential);
        let login = Login::begin(&run, &config, &["--manual", "--timeout", "1s"]);
        let asked = url::Url::parse(&login.address("http://")).expect("a URL");
        for (name, value) in expected {
            let found =
                asked.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned());
            assert_eq!(found.as_deref(), Some(*value), "{preset}: {name} in {asked}");
        }
        assert!(
            absent.is_empty() || asked.query_pairs().all(|(name, _)| name != absent),
            "{preset}: {asked}"
        );
        let output = login.end();
        assert!(output.contains("nothing was pasted in time"), "{output}");
    };
    let google = [
        ("access_type", "offline"),
        ("prompt", "consent"),
        ("scope", "calendar"),
        ("code_challenge_method", "S256"),
    ];
    check("google", "/token", Some("calendar"), &google, "");
    let atlassian = [("audience", "api.atlassian.com"), ("scope", "read:jira-work offline_access")];
    check("atlassian", "/oauth/token", Some("read:jira-work"), &atlassian, "");
    check("okta", "/v1/token", None, &[("scope", "offline_access")], "access_type");
    check("hydra", "/oauth2/token", Some("offline"), &[("scope", "offline")], "");
    check(
        "salesforce",
        "/services/oauth2/token",
        Some("api offline_access"),
        &[("scope", "api offline_access")],
        "",
    );
    check("github", "/login/oauth/access_token", None, &[("response_type", "code")], "scope");
}
