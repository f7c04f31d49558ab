//! Tokens in other places than `Authorization: Bearer`, over the wire: what a client sends there is gone, and nothing
//! that it says removes ours.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use bearward::idp::{DEFAULT_CLIENT, DEFAULT_SCOPE, DEFAULT_SECRET, Idp, Settings};

use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::proxy_rig::OriginServer;

const TOKEN: &str = "canary-token-in-another-place";

/// What the upstream gets of one request that a client sends with these lines.
async fn forwarded(name: &str, inject: &Value, target: &str, lines: &str) -> Vec<String> {
    let run = Arc::new(Run::new(name));
    run.secret(TOKEN);
    let credential = json!({"grant": "static", "token": run.secret_file("token", TOKEN), "inject": inject});
    let origin = OriginServer::ok();
    let bearward =
        Bearward::start(&run, &run.config(&format!("http://{}", origin.address), &credential)).await;
    send(&bearward, target, lines).await;
    assert!(bearward.stop().await.success());
    let requests = origin.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests[0].lines().map(str::to_owned).collect()
}

async fn send(bearward: &Bearward, target: &str, lines: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(bearward.proxy()).await.expect("connected");
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close{lines}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

/// The values of a field, in any spelling with underscores.
fn values<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    let named = |line: &'a String| {
        let (field, value) = line.split_once(": ")?;
        field.replace('_', "-").eq_ignore_ascii_case(name).then_some(value)
    };
    lines.iter().filter_map(named).collect()
}

#[tokio::test]
async fn a_token_stands_in_a_header_of_another_name_whatever_a_client_sends_there() {
    let inject =
        json!([{"header": "X-Api-Key", "value": "{token}"}, {"header": "X-Auth", "scheme": "Vendor"}]);
    let lines = "\r\nConnection: X-Api-Key, x-auth\r\nX-Api-Key: theirs\r\nX_Api_Key: theirs\r\nx-api_key: theirs\r\n\
                 X-AUTH: theirs\r\nAuthorization: Basic dXNlcjpwYXNz";
    let seen = forwarded("inject-header", &inject, "/", lines).await;
    assert_eq!(values(&seen, "x-api-key"), [TOKEN]);
    assert_eq!(values(&seen, "x-auth"), [format!("Vendor {TOKEN}")]);
    assert_eq!(values(&seen, "authorization"), ["Basic dXNlcjpwYXNz"], "the client's own business");
}

#[tokio::test]
async fn a_token_stands_in_authorization_with_another_scheme() {
    let seen = forwarded(
        "inject-scheme",
        &json!({"header": "Authorization", "scheme": "Zoho-oauthtoken"}),
        "/",
        "\r\nAuthorization: Bearer theirs",
    )
    .await;
    assert_eq!(values(&seen, "authorization"), [format!("Zoho-oauthtoken {TOKEN}")]);
}

#[tokio::test]
async fn a_token_stands_in_a_cookie_beside_the_clients_own() {
    let lines = "\r\nCookie: a=1; SID=theirs; b=2\r\nCookie: sid=theirs; c=3\r\nConnection: cookie";
    let seen = forwarded("inject-cookie", &json!({"cookie": "SID"}), "/", lines).await;
    assert_eq!(values(&seen, "cookie"), [format!("SID={TOKEN}; a=1; b=2; c=3")]);
}

#[tokio::test]
async fn a_token_stands_in_the_query_where_that_is_allowed() {
    let inject = json!({"query": "api_key", "allow_query": true});
    let seen = forwarded("inject-query", &inject, "/p?api_key=theirs&x=1&api%5fkey=theirs", "").await;
    assert_eq!(seen[0], format!("GET /p?x=1&api_key={TOKEN} HTTP/1.1"));
    assert_eq!(values(&seen, "authorization"), [""; 0]);
}

#[tokio::test]
async fn what_a_vendors_answer_wants_in_each_request_is_sent_also_after_a_restart() {
    let run = Arc::new(Run::new("inject-vendor"));
    run.client_secret(DEFAULT_CLIENT, DEFAULT_SECRET);
    let idp = Idp::start(Settings::default()).await.expect("it starts");
    let origin = OriginServer::ok();
    let credential = json!({
        "client": {"id": DEFAULT_CLIENT, "secret": run.secret_file("client", DEFAULT_SECRET)},
        "scope": DEFAULT_SCOPE,
        "grant": "custom",
        "token_endpoint": idp.token_endpoint(),
        "custom": {
            "url": idp.vendor_endpoint(),
            "json": {"user": "{client_id}", "pass": "{client_secret}", "scope": "{scope}"},
            "response": {"access_token": "/data/accessToken", "expires_in": "/data/expiresIn",
                         "refresh_token": "/data/refreshToken", "headers": "/data/requestHeaders"},
        },
    });
    let config = run.config(&format!("http://{}", origin.address), &credential);
    for start in 0..2 {
        let bearward = Bearward::start(&run, &config).await;
        bearward.until_state("fresh", std::time::Duration::from_secs(20)).await;
        send(&bearward, "/", "\r\nx-vendor_tenant: theirs\r\nX-Vendor-Tenant: theirs").await;
        assert!(bearward.stop().await.success());
        let requests = origin.requests();
        let seen: Vec<String> = requests[start].lines().map(str::to_owned).collect();
        assert_eq!(values(&seen, "x-vendor-tenant"), ["acme"]);
        assert!(values(&seen, "authorization")[0].starts_with("Bearer "));
    }
    assert_eq!(idp.posts(), 1, "the second start asks nobody");
}

#[tokio::test]
async fn a_member_of_the_tokens_answer_stands_in_a_field_and_a_changed_place_asks_for_a_new_token() {
    let run = Arc::new(Run::new("inject-response"));
    run.client_secret(DEFAULT_CLIENT, DEFAULT_SECRET);
    let idp = Idp::start(Settings::default()).await.expect("it starts");
    let origin = OriginServer::ok();
    let config = |inject: Value| {
        run.config(
            &format!("http://{}", origin.address),
            &json!({
                "client": {"id": DEFAULT_CLIENT, "secret": run.secret_file("client", DEFAULT_SECRET)},
                "scope": DEFAULT_SCOPE,
                "grant": "client_credentials",
                "token_endpoint": idp.token_endpoint(),
                "inject": inject,
            }),
        )
    };
    let lines = "\r\nx-token_type: theirs\r\nX-Token-Type: theirs\r\nConnection: x-token-type";
    let ask = async |config| {
        let bearward = Bearward::start(&run, &config).await;
        bearward.until_state("fresh", std::time::Duration::from_secs(20)).await;
        send(&bearward, "/", lines).await;
        assert!(bearward.stop().await.success());
        origin.requests().last().expect("a request").lines().map(str::to_owned).collect::<Vec<String>>()
    };
    let token = json!({"header": "Authorization"});
    let with = |member: &str| json!([token, {"header": "X-Token-Type", "response": member}]);
    ask(config(token.clone())).await;
    for repetition in 0..2 {
        let seen = ask(config(with("/token_type"))).await;
        assert_eq!(values(&seen, "x-token-type"), ["Bearer"], "start {repetition}");
        assert!(values(&seen, "authorization")[0].starts_with("Bearer "), "{seen:?}");
        assert_eq!(idp.posts(), 2, "the stored token came without the member, the next one with it");
    }
    let bearward = Bearward::start(&run, &config(with("/no/such"))).await;
    bearward.until_state("misconfigured", std::time::Duration::from_secs(20)).await;
    let answer = send(&bearward, "/", lines).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(bearward.stop().await.success());
    assert!(run.everything().contains(
        "without a text or number that fits a header at `/no/such`, which `inject` puts into `x-token-type`"
    ));
}
