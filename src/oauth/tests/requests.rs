//! What goes over the wire: form, authentication, secrets read afresh.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Sends one request of the configuration and returns what the provider saw.
async fn sent(change: impl FnOnce(&mut OAuthConfig), request: TokenRequest<'_>) -> Seen {
    let provider = Provider::start(vec![json(TOKEN)]).await;
    let mut config = config(provider.url("/token"));
    change(&mut config);
    OAuthClient::try_new(config).expect("client").request(request, NOW).await.expect("token");
    let seen = provider.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].head.starts_with("POST /token HTTP/1.1"), "{:?}", seen[0]);
    let mut names: Vec<_> =
        seen[0].form().into_iter().map(|(name, _)| name).filter(|n| n != "resource").collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "no parameter twice: {:?}", seen[0]);
    seen[0].clone()
}

fn form(seen: &Seen) -> Vec<(String, String)> {
    seen.form()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_refresh_sends_the_token_and_no_scope_unless_one_is_configured() {
    let token = Secret::from("rt+1/=&");
    let request = || TokenRequest::Refresh { token: &token, single_use: true };
    let seen = sent(|config| config.scope = Some("first only".into()), request()).await;
    assert_eq!(form(&seen), pairs(&[("grant_type", "refresh_token"), ("refresh_token", "rt+1/=&")]));
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.body, "grant_type=refresh_token&refresh_token=rt%2B1%2F%3D%26");
    let seen = sent(|config| config.refresh_scope = Some("less".into()), request()).await;
    assert_eq!(seen.param("scope").as_deref(), Some("less"));
}

#[tokio::test]
async fn client_credentials_send_scope_audience_resources_and_parameters() {
    let seen = sent(
        |config| {
            config.grant = Grant::ClientCredentials;
            config.scope = Some("a b".into());
            config.audience = Some("https://api.example".into());
            config.resource = vec!["https://r1.example".into(), "https://r2.example".into()];
            config.parameters = BTreeMap::from([("tenant".into(), "acme".into())]);
        },
        TokenRequest::Own,
    )
    .await;
    let expected = [
        ("grant_type", "client_credentials"),
        ("scope", "a b"),
        ("audience", "https://api.example"),
        ("resource", "https://r1.example"),
        ("resource", "https://r2.example"),
        ("tenant", "acme"),
    ];
    assert_eq!(form(&seen), pairs(&expected));
}

#[tokio::test]
async fn cases_20_and_21_basic_sends_the_exact_bytes() {
    let check = async |id: &str, secret: &str, encoding, expected: &str| {
        let change = |config: &mut OAuthConfig| {
            config.client_id = id.into();
            config.grant = Grant::ClientCredentials;
            config.client_auth = ClientAuth::Basic { secret: value(secret), encoding };
        };
        let seen = sent(change, TokenRequest::Own).await;
        let encoded =
            seen.header("authorization").and_then(|text| text.strip_prefix("Basic ")).expect("Basic");
        let decoded = STANDARD.decode(encoded).expect("base64");
        assert_eq!(String::from_utf8(decoded).expect("UTF-8"), expected);
        assert_eq!(seen.param("client_id"), None, "one method only");
        assert_eq!(seen.param("client_secret"), None, "one method only");
    };
    let odd = "a b+/:%&é*-._~";
    check("client-1", odd, BasicEncoding::Form, "client-1:a%20b%2B%2F%3A%25%26%C3%A9*-._%7E").await;
    check("client-1", odd, BasicEncoding::Raw, "client-1:a b+/:%&é*-._~").await;
    check("id:1 x", "plain", BasicEncoding::Form, "id%3A1%20x:plain").await;
}

#[tokio::test]
async fn post_and_none_name_the_client_in_the_body() {
    let post = |config: &mut OAuthConfig| config.client_auth = ClientAuth::Post { secret: value("a b&c") };
    let token = Secret::from("rt");
    let request = || TokenRequest::Refresh { token: &token, single_use: true };
    let seen = sent(post, request()).await;
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.param("client_id").as_deref(), Some("client-1"));
    assert_eq!(seen.param("client_secret").as_deref(), Some("a b&c"));
    let seen = sent(|config| config.client_auth = ClientAuth::None, request()).await;
    assert_eq!(seen.header("authorization"), None);
    let expected = [("grant_type", "refresh_token"), ("refresh_token", "rt"), ("client_id", "client-1")];
    assert_eq!(form(&seen), pairs(&expected));
}

#[tokio::test]
async fn case_22_a_failed_authentication_is_not_tried_another_way() {
    let provider = Provider::start(vec![error("401 Unauthorized", r#"{"error":"invalid_client"}"#)]).await;
    let failure = refresh(config(provider.url("/token"))).await.expect_err("401");
    assert_eq!(failure.class, FailureClass::Configuration);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn case_27_a_replaced_secret_is_used_by_the_next_attempt() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("secret");
    std::fs::write(&path, "old\n").expect("write");
    let provider = Provider::start(vec![json(TOKEN)]).await;
    let client_auth = ClientAuth::Post { secret: SecretSource::File(path.clone()) };
    let client =
        OAuthClient::try_new(OAuthConfig { client_auth, ..config(provider.url("/token")) }).expect("client");
    assert_eq!(client.watched_files(), std::slice::from_ref(&path));
    refresh_with(&client).await.expect("token");
    std::fs::write(&path, "new\n").expect("write");
    refresh_with(&client).await.expect("token");
    std::fs::remove_file(&path).expect("remove");
    assert_eq!(client.lapses(), 0);
    refresh_with(&client).await.expect("the last good one stands in");
    assert_eq!(client.lapses(), 1);
    let secrets: Vec<_> = provider.seen().iter().filter_map(|seen| seen.param("client_secret")).collect();
    assert_eq!(secrets, ["old", "new", "new"]);
}

#[tokio::test]
async fn a_secret_that_was_replaced_is_scrubbed_from_what_the_provider_says() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("secret");
    let said = r#"{"error":"invalid_client","error_description":"first-one is not second-one"}"#;
    let provider = Provider::start(vec![json(TOKEN), error("401 Unauthorized", said)]).await;
    let client_auth = ClientAuth::Post { secret: SecretSource::File(path.clone()) };
    std::fs::write(&path, "first-one").expect("write");
    let client =
        OAuthClient::try_new(OAuthConfig { client_auth, ..config(provider.url("/token")) }).expect("client");
    refresh_with(&client).await.expect("token");
    std::fs::write(&path, "second-one").expect("write");
    let failure = refresh_with(&client).await.expect_err("refused");
    assert_eq!(failure.description.as_deref(), Some("[removed] is not [removed]"));
}

#[tokio::test]
async fn a_secret_command_that_fails_is_tried_again() {
    let provider = Provider::start(vec![json(TOKEN)]).await;
    let client_auth = ClientAuth::Post { secret: SecretSource::Exec(vec!["false".into()]) };
    let failure =
        refresh(OAuthConfig { client_auth, ..config(provider.url("/token")) }).await.expect_err("exec");
    assert_eq!((failure.class, failure.error.as_str()), (FailureClass::Clean, "secret"));
    assert_eq!(provider.seen().len(), 0);
}

#[tokio::test]
async fn a_static_token_is_read_and_asks_nobody() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("token");
    std::fs::write(&path, "static-1\n").expect("write");
    let static_config = OAuthConfig {
        endpoint: EndpointSource::None,
        client_id: String::new(),
        client_auth: ClientAuth::None,
        grant: Grant::Static { token: SecretSource::File(path.clone()) },
        ..config("https://unused.example".parse().expect("url"))
    };
    let client = OAuthClient::try_new(static_config).expect("client");
    let token = client.request(TokenRequest::Own, NOW).await.expect("token");
    assert_eq!((token.access_token.expose(), token.expires_in), ("static-1", None));
    std::fs::write(&path, "two lines\nof it\n").expect("write");
    let failure = client.request(TokenRequest::Own, NOW).await.expect_err("no header");
    assert_eq!((failure.class, failure.error.as_str()), (FailureClass::Configuration, "unusable"));
    assert_eq!(refresh_with(&client).await.expect_err("no refresh").class, FailureClass::Configuration);
}

#[test]
fn settings_that_cannot_work_are_refused_at_the_start() {
    let url = |text: &str| EndpointSource::Url(text.parse().expect("url"));
    let check = |change: &dyn Fn(&mut OAuthConfig), words: &str| {
        let mut config = config("https://idp.example/token".parse().expect("url"));
        change(&mut config);
        let error = OAuthClient::try_new(config).expect_err(words).to_string();
        assert!(error.contains(words), "{error:?} lacks {words:?}");
    };
    check(&|c| c.endpoint = url("http://idp.example/token"), "it must be https");
    check(&|c| c.endpoint = url("https://u:p@idp.example/token"), "user name or password");
    check(&|c| c.endpoint = url("https://idp.example/token#x"), "fragment");
    check(&|c| c.endpoint = EndpointSource::None, "needs `token_endpoint` or `issuer`");
    check(&|c| c.client_id = String::new(), "client.id is missing");
    check(
        &|c| c.client_auth = ClientAuth::Post { secret: SecretSource::Env("BEARWARD_NONE".into()) },
        "is not set",
    );
    for reserved in ["grant_type", "client_secret", "scope", "refresh_token", "resource"] {
        let parameters = BTreeMap::from([(reserved.to_owned(), "x".to_owned())]);
        check(
            &|c| c.parameters = parameters.clone(),
            &format!("parameters: `{reserved}` is set by the proxy"),
        );
    }
    check(&|c| c.tls.ca = Some("/no/such/ca.pem".into()), "/no/such/ca.pem: no such file");
    let socks = |c: &mut OAuthConfig| c.outbound_proxy = Some("socks5://proxy:1080".parse().expect("url"));
    check(&socks, "outbound_proxy: not the URL of a proxy (http://host:port)");
    let proxied = |c: &mut OAuthConfig| {
        c.tls.server_name = Some("idp.internal".into());
        c.outbound_proxy = Some("http://proxy:3128".parse().expect("url"));
    };
    check(&proxied, "cannot be used through an outbound_proxy");
}

#[test]
fn debug_shows_neither_parameters_nor_the_proxys_password() {
    let mut config = config("https://idp.example/token".parse().expect("url"));
    config.parameters = BTreeMap::from([("pin".into(), "hidden-parameter".into())]);
    config.outbound_proxy = Some("http://user:hidden-password@proxy:3128".parse().expect("url"));
    let shown = format!("{:?}", OAuthClient::try_new(config).expect("client"));
    assert!(shown.contains("client-1") && !shown.contains("hidden") && !shown.contains("s3cret"), "{shown}");
}
