//! The token endpoint found from the issuer.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const JSON: &str = "content-type: application/json\r\n";

/// A provider whose metadata stands at `at` and names `issuer` (`{base}` is its own address).
async fn provider(at: &'static str, issuer: &'static str) -> Provider {
    let port = Arc::new(std::sync::OnceLock::<u16>::new());
    let known = Arc::clone(&port);
    let provider = Provider::start_with(None, move |_, seen| {
        let base = format!("http://127.0.0.1:{}", known.get().copied().unwrap_or_default());
        if seen.path() == at {
            let issuer = issuer.replace("{base}", &base);
            json(&format!(r#"{{"issuer":"{issuer}","token_endpoint":"{base}/token","extra":[]}}"#))
        } else if seen.path() == "/token" {
            json(TOKEN)
        } else {
            Reply::Write(answer("404 Not Found", "", "<html>"))
        }
    })
    .await;
    port.set(provider.port).expect("once");
    provider
}

fn discovering(provider: &Provider, path: &str) -> OAuthConfig {
    let issuer = provider.url(path);
    OAuthConfig { endpoint: EndpointSource::Issuer(issuer.clone()), ..config(issuer) }
}

fn paths(provider: &Provider) -> Vec<String> {
    provider.seen().iter().map(|seen| seen.path().to_owned()).collect()
}

#[tokio::test]
async fn both_forms_of_the_address_are_found() {
    let check = async |at: &'static str, issuer: &'static str, path: &str, asked: &[&str]| {
        let provider = provider(at, issuer).await;
        refresh(discovering(&provider, path)).await.expect(at);
        assert_eq!(paths(&provider), asked);
        let document = &provider.seen()[0];
        assert!(document.head.starts_with("GET "), "{document:?}");
        assert_eq!(document.header("authorization"), None);
    };
    let oauth = "/.well-known/oauth-authorization-server";
    let openid = "/.well-known/openid-configuration";
    check(oauth, "{base}", "/", &[oauth, "/token"]).await;
    check(openid, "{base}", "/", &[oauth, openid, "/token"]).await;
    let (before, after) =
        ("/.well-known/oauth-authorization-server/realms/a", "/realms/a/.well-known/openid-configuration");
    check(before, "{base}/realms/a", "/realms/a", &[before, "/token"]).await;
    check(after, "{base}/realms/a", "/realms/a", &[before, after, "/token"]).await;
}

#[tokio::test]
async fn another_issuer_is_refused_and_nothing_is_sent_to_it() {
    let at = "/tenant/.well-known/openid-configuration";
    for issuer in ["https://evil.example/tenant", "{base}", "{base}/tenant/", "{base}/Tenant"] {
        let provider = provider(at, issuer).await;
        let failure = refresh(discovering(&provider, "/tenant")).await.expect_err(issuer);
        assert_eq!(
            (failure.class, failure.error.as_str()),
            (FailureClass::Configuration, "discovery"),
            "{issuer}"
        );
        assert!(!paths(&provider).contains(&"/token".to_owned()), "{issuer}");
    }
    let right = provider(at, "{base}/tenant").await;
    refresh(discovering(&right, "/tenant")).await.expect("the very issuer");
    let at = "/.well-known/openid-configuration";
    let provider = provider(at, "https://evil.example").await;
    let failure = refresh(discovering(&provider, "/")).await.expect_err("evil");
    assert_eq!(failure.class, FailureClass::Configuration);
    assert!(failure.message.contains("names the issuer `https://evil.example`, not"), "{failure}");
}

#[tokio::test]
async fn the_oci_presets_alias_is_accepted_and_becomes_the_audience() {
    let provider = provider("/.well-known/openid-configuration", "https://identity.oraclecloud.com/").await;
    let config = OAuthConfig { preset: &preset::OCI, ..discovering(&provider, "/") };
    refresh(config).await.expect("token");
}

#[tokio::test]
async fn an_assertions_audience_is_the_discovered_issuer() {
    let provider = provider("/.well-known/openid-configuration", "{base}").await;
    let client_auth = ClientAuth::SecretJwt {
        secret: value("s3cret"),
        claims: claims(),
        client_id_param: ClientIdParam::Plain,
    };
    refresh(OAuthConfig { client_auth, ..discovering(&provider, "/") }).await.expect("token");
    let assertion = provider.seen().pop().expect("request").param("client_assertion").expect("assertion");
    let claims = assertion.split('.').nth(1).expect("claims");
    let claims =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).expect("base64");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!(claims["aud"], serde_json::json!(format!("http://127.0.0.1:{}", provider.port)));
}

#[tokio::test]
async fn a_document_is_kept_for_a_day_and_looked_up_again_after_a_failure() {
    let at = "/.well-known/oauth-authorization-server";
    let provider = provider(at, "{base}").await;
    let client = OAuthClient::try_new(discovering(&provider, "/")).expect("client");
    let count = || paths(&provider).iter().filter(|path| *path == at).count();
    let token = Secret::from("rt");
    let request = || TokenRequest::Refresh { token: &token, single_use: true };
    client.request(request(), NOW).await.expect("token");
    client.request(request(), NOW.plus(Duration::from_secs(3600))).await.expect("token");
    assert_eq!(count(), 1);
    client.request(request(), NOW.plus(Duration::from_secs(25 * 3600))).await.expect("token");
    assert_eq!(count(), 2, "a day has passed");
    client.request(request(), NOW).await.expect("token");
    assert_eq!(count(), 3, "the clock was set back: the age is not known");
}

#[tokio::test]
async fn a_failed_request_makes_the_document_suspect_and_the_old_one_serves_if_there_is_no_new_one() {
    let step = Arc::new(AtomicUsize::new(0));
    let (port, now) = (Arc::new(std::sync::OnceLock::<u16>::new()), Arc::clone(&step));
    let known = Arc::clone(&port);
    let provider = Provider::start_with(None, move |_, seen| {
        let base = format!("http://127.0.0.1:{}", known.get().copied().unwrap_or_default());
        match (seen.path(), now.load(Ordering::SeqCst)) {
            ("/.well-known/oauth-authorization-server", 0) => {
                json(&format!(r#"{{"issuer":"{base}","token_endpoint":"{base}/old"}}"#))
            }
            ("/.well-known/oauth-authorization-server", 2) => {
                json(&format!(r#"{{"issuer":"{base}","token_endpoint":"{base}/new"}}"#))
            }
            ("/old", 0) => error("404 Not Found", ""),
            ("/old", 1) | ("/new", _) => json(TOKEN),
            _ => error("503 Busy", ""),
        }
    })
    .await;
    port.set(provider.port).expect("once");
    let client = OAuthClient::try_new(discovering(&provider, "/")).expect("client");
    refresh_with(&client).await.expect_err("404");
    step.store(1, Ordering::SeqCst);
    refresh_with(&client).await.expect("discovery is down, the endpoint of before serves");
    step.store(2, Ordering::SeqCst);
    refresh_with(&client).await.expect("the new document");
    assert_eq!(paths(&provider).last().map(String::as_str), Some("/new"));
}

#[tokio::test]
async fn failures_of_discovery_are_clean() {
    let check = async |reply: Reply, class: FailureClass, words: &str| {
        let provider = Provider::start(vec![reply]).await;
        let failure = refresh(discovering(&provider, "/")).await.expect_err(words);
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(provider.seen().iter().all(|seen| seen.head.starts_with("GET ")));
    };
    check(Reply::Write(answer("404 Not Found", "", "")), FailureClass::Clean, "404; check `issuer`").await;
    check(Reply::Write(answer("500 Oops", "", "")), FailureClass::Clean, "the answer is 500").await;
    check(Reply::Write(answer("200 OK", "", "<html>")), FailureClass::Clean, "no metadata document").await;
    check(Reply::Write(answer("302 Found", "location: /x\r\n", "")), FailureClass::Clean, "302").await;
    check(
        Reply::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()),
        FailureClass::Clean,
        "discovery at",
    )
    .await;
    let provider = Provider::start(vec![Reply::Stall(Vec::new())]).await;
    let config = OAuthConfig { request_timeout: Duration::from_millis(300), ..discovering(&provider, "/") };
    let failure = refresh(config).await.expect_err("silence");
    assert_eq!((failure.class, failure.error.as_str()), (FailureClass::Clean, "timeout"));
}

#[tokio::test]
async fn a_discovered_endpoint_in_the_clear_is_refused() {
    for endpoint in
        ["http://idp.example/token", "ftp://idp.example/token", "/token", "https://idp.example/token#x"]
    {
        let port = Arc::new(std::sync::OnceLock::<u16>::new());
        let known = Arc::clone(&port);
        let provider = Provider::start_with(None, move |_, _| {
            let base = format!("http://127.0.0.1:{}", known.get().copied().unwrap_or_default());
            let body = format!(r#"{{"issuer":"{base}","token_endpoint":"{endpoint}"}}"#);
            Reply::Write(answer("200 OK", JSON, body))
        })
        .await;
        port.set(provider.port).expect("once");
        let failure = refresh(discovering(&provider, "/")).await.expect_err(endpoint);
        assert_eq!(failure.class, FailureClass::Configuration, "{failure}");
        assert!(failure.message.contains("is not an https URL"), "{failure}");
    }
}
