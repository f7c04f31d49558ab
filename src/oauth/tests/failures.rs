//! How refusals are classified and worded.

use super::*;
use FailureClass::{Ambiguous, Configuration, GrantDead, Transient};

/// Sends a refresh of a one-time token, of a reusable one, and a client_credentials request, to a provider that
/// answers so, and checks the three classes and the word.
async fn check(status: &str, fields: &str, body: &str, classes: [FailureClass; 3], error: &str) {
    let provider = Provider::start(vec![Reply::Write(answer(status, fields, body))]).await;
    let own = OAuthConfig { grant: Grant::ClientCredentials, ..config(provider.url("/token")) };
    let client = OAuthClient::try_new(own).expect("client");
    let token = Secret::from("rt-0-the-old-one");
    let requests = [
        TokenRequest::Refresh { token: &token, single_use: true },
        TokenRequest::Refresh { token: &token, single_use: false },
        TokenRequest::Own,
    ];
    for (request, class) in requests.into_iter().zip(classes) {
        let place = format!("{status} {body:.60} for {request:?}");
        let failure = client.request(request, NOW).await.expect_err(&place);
        assert_eq!((failure.class, failure.error.as_str()), (class, error), "{place}: {failure}");
        assert_eq!(failure.status.map(|code| code.to_string()), status.get(..3).map(str::to_owned));
        assert!(failure.message.starts_with("http://127.0.0.1:"), "{failure}");
        assert!(!failure.message.contains('<') && !failure.message.contains('\n'), "{failure}");
    }
    assert_eq!(provider.seen().len(), 3, "one request each");
}

const SAME: fn(FailureClass) -> [FailureClass; 3] = |class| [class; 3];
const JSON: &str = "content-type: application/json\r\n";
const HTML: &str = "content-type: text/html\r\n";
const PAGE: &str = "<html><body>Bad\nGateway</body></html>";

#[tokio::test]
async fn cases_11_and_12_an_error_with_200_is_an_error() {
    let dead = [GrantDead, GrantDead, Configuration];
    check("200 OK", JSON, r#"{"error":"bad_refresh_token"}"#, dead, "bad_refresh_token").await;
    check("200 OK", "", "error=bad_refresh_token&error_description=no", dead, "bad_refresh_token").await;
    check("200 OK", JSON, r#"{"ok":false,"error":"invalid_refresh_token"}"#, dead, "invalid_refresh_token")
        .await;
    check("200 OK", JSON, r#"{"ok":false,"error":"ratelimited"}"#, SAME(Transient), "ratelimited").await;
    check("200 OK", JSON, r#"{"ok":false}"#, SAME(Configuration), "not_ok").await;
    check(
        "200 OK",
        JSON,
        r#"{"error":"incorrect_client_credentials"}"#,
        SAME(Configuration),
        "incorrect_client_credentials",
    )
    .await;
}

#[tokio::test]
async fn case_14_html_is_never_shown_and_a_502_passes() {
    check("502 Bad Gateway", HTML, PAGE, [Ambiguous, Transient, Transient], "http_502").await;
    check("200 OK", HTML, PAGE, [Ambiguous, Transient, Transient], "unreadable").await;
    check("403 Forbidden", HTML, PAGE, SAME(Transient), "http_403").await;
    check("404 Not Found", HTML, PAGE, SAME(Configuration), "http_404").await;
}

#[tokio::test]
async fn case_16_a_redirect_is_not_followed() {
    for status in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let elsewhere = Provider::start(vec![json(TOKEN)]).await;
        let fields = format!("location: http://u:p@127.0.0.1:{}/token?code=secret\r\n", elsewhere.port);
        check(status, &fields, "", SAME(Configuration), "redirect").await;
        assert_eq!(elsewhere.seen().len(), 0);
        let failure = refresh_answered(Reply::Write(answer(status, &fields, ""))).await.expect_err(status);
        let target =
            format!("redirects to http://127.0.0.1:{}/token; token requests are never", elsewhere.port);
        assert!(failure.message.contains(&target), "{failure}");
        assert!(failure.message.contains("configure the final address as `token_endpoint`"), "{failure}");
    }
}

#[tokio::test]
async fn case_28_invalid_grant_is_dead_for_a_refresh_token_only() {
    let body = r#"{"error":"invalid_grant","error_description":"expired"}"#;
    for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden"] {
        check(status, JSON, body, [GrantDead, GrantDead, Configuration], "invalid_grant").await;
    }
    check("422 Unprocessable", JSON, body, SAME(Configuration), "invalid_grant").await;
    let failure = refresh_answered(error("400 Bad Request", body)).await.expect_err("dead");
    assert_eq!(failure.description.as_deref(), Some("expired"));
    assert!(failure.message.contains("answered 400 invalid_grant (expired)"), "{failure}");
}

#[tokio::test]
async fn cases_30_and_69_a_refused_client_is_a_matter_of_configuration() {
    for code in [
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_request",
        "odd",
    ] {
        let body = format!(r#"{{"error":"{code}"}}"#);
        check("400 Bad Request", JSON, &body, SAME(Configuration), code).await;
        check("401 Unauthorized", JSON, &body, SAME(Configuration), code).await;
    }
    let failure =
        refresh_answered(error("401 Unauthorized", r#"{"error":"invalid_client"}"#)).await.expect_err("401");
    assert!(failure.message.contains("check `client.id`"), "{failure}");
}

#[tokio::test]
async fn case_31_invalid_grant_inside_a_500_is_not_permanent() {
    let body = r#"{"error":"invalid_grant"}"#;
    check("500 Oops", JSON, body, [Ambiguous, Transient, Transient], "invalid_grant").await;
    check("503 Busy", JSON, body, [Ambiguous, Transient, Transient], "invalid_grant").await;
    check("429 Slow", JSON, body, SAME(Transient), "invalid_grant").await;
}

#[tokio::test]
async fn case_32_an_empty_refusal_is_judged_by_status_as_the_preset_says() {
    for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden"] {
        let error = format!("http_{}", &status[..3]);
        check(status, "", "", SAME(Configuration), &error).await;
        check(status, "", "no JSON here", SAME(Configuration), &error).await;
        check(status, JSON, "{}", SAME(Configuration), &error).await;
        static DYING: Preset = Preset { bare_refusal: GrantDead, ..preset::GENERIC };
        let provider = Provider::start(vec![Reply::Write(answer(status, "", ""))]).await;
        let failure = refresh(OAuthConfig { preset: &DYING, ..config(provider.url("/token")) }).await;
        assert_eq!(failure.expect_err(status).class, GrantDead);
    }
}

#[tokio::test]
async fn a_5xx_may_hide_a_rotation_unless_a_503_names_a_time() {
    for status in ["500 Oops", "502 Bad Gateway", "503 Busy", "504 Timeout"] {
        let error = format!("http_{}", &status[..3]);
        check(status, "", "", [Ambiguous, Transient, Transient], &error).await;
    }
    check("503 Busy", "retry-after: 7\r\n", "", SAME(Transient), "http_503").await;
    check("500 Oops", "retry-after: 7\r\n", "", [Ambiguous, Transient, Transient], "http_500").await;
    check(
        "400 Bad",
        JSON,
        r#"{"error":"temporarily_unavailable"}"#,
        SAME(Transient),
        "temporarily_unavailable",
    )
    .await;
    check("400 Bad", JSON, r#"{"error":"server_error"}"#, SAME(Transient), "server_error").await;
    for status in ["408 Timeout", "425 Early", "429 Slow"] {
        check(status, "", "", SAME(Transient), &format!("http_{}", &status[..3])).await;
    }
}

#[tokio::test]
async fn cases_33_and_34_retry_after_is_read_in_each_form_and_capped() {
    let check = async |fields: &str, expected: Option<u64>| {
        let failure = refresh_answered(Reply::Write(answer("429 Slow", fields, ""))).await.expect_err(fields);
        assert_eq!(failure.class, Transient);
        assert_eq!(failure.retry_after, expected.map(Duration::from_secs), "{fields}");
    };
    check("", None).await;
    check("retry-after: 7\r\n", Some(7)).await;
    check("x-retry-after: 7\r\n", Some(7)).await;
    check("x-retry-after: 9\r\nretry-after: 7\r\n", Some(7)).await;
    check("retry-after: 1000000000\r\n", Some(3600)).await;
    check("retry-after: 99999999999999999999999999\r\n", Some(3600)).await;
    check("retry-after: -1\r\n", None).await;
    check("retry-after: soon\r\n", None).await;
    // NOW is Tue, 14 Nov 2023 22:13:20 GMT.
    check("retry-after: Tue, 14 Nov 2023 22:13:50 GMT\r\n", Some(30)).await;
    check("retry-after: Tue, 14 Nov 2023 22:00:00 GMT\r\n", Some(0)).await;
    check("retry-after: Fri, 14 Nov 2053 22:13:50 GMT\r\n", Some(3600)).await;
    // The provider's own clock counts where it tells it.
    let skewed = "date: Tue, 14 Nov 2023 21:00:00 GMT\r\nretry-after: Tue, 14 Nov 2023 21:00:09 GMT\r\n";
    check(skewed, Some(9)).await;
}

#[tokio::test]
async fn case_63_what_was_sent_is_not_repeated_in_a_message() {
    let basic = "Y2xpZW50LTE6czNjcmV0";
    let body = format!(
        r#"{{"error":"invalid_grant","error_description":"token rt-0-the-old-one of {basic} (s3cret)\r\nis dead {}"}}"#,
        "x".repeat(400)
    );
    let provider = Provider::start(vec![error("400 Bad Request", &body)]).await;
    let failure = refresh(config(provider.url("/token?tenant=private"))).await.expect_err("dead");
    assert!(provider.seen()[0].head.contains(basic), "the test knows what is sent");
    assert!(provider.seen()[0].path().ends_with("?tenant=private"));
    let shown = format!("{failure} {failure:?}");
    for hidden in [basic, "s3cret", "rt-0", "private"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
    let description = failure.description.expect("description");
    assert!(
        description.starts_with("token [removed] of [removed] ([removed])  is dead xxx"),
        "{description}"
    );
    assert!(description.chars().count() <= 201);
}
