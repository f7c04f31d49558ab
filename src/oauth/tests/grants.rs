//! Grants beside the usual ones: what they send, and what a custom answer is read as.

use ::http::{HeaderName, Method, header};

use super::super::template::{JsonTemplate, Template};
use super::*;

fn template(text: &str) -> Template {
    Template::parse(text).expect(text)
}

fn custom(url: &str) -> Custom {
    Custom {
        method: Method::POST,
        url: template(url),
        headers: Vec::new(),
        body: CustomBody::None,
        response: CustomResponse {
            access_token: "/data/accessToken".into(),
            expires_in: "/data/expiresIn".into(),
            refresh_token: Some("/data/refreshToken".into()),
            headers: Some("/data/requestHeaders".into()),
        },
        client_secret: Some(value("s3cret ü&")),
        username: Some("joe".into()),
        password: Some(value("pass word")),
        subject_token: None,
        seed: None,
    }
}

/// Sends one own request to a provider that answers so.
async fn own(
    reply: Reply,
    change: impl FnOnce(&mut OAuthConfig, &str),
) -> (Seen, Result<TokenResponse, Failure>) {
    let provider = Provider::start(vec![reply]).await;
    let mut config = config(provider.url("/token"));
    change(&mut config, provider.url("").as_str().trim_end_matches('/'));
    let result = OAuthClient::try_new(config).expect("a client").request(TokenRequest::Own, NOW).await;
    (provider.seen().first().cloned().unwrap_or_default(), result)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn the_password_grant_sends_name_and_password() {
    let (seen, result) = own(json(TOKEN), |config, _| {
        config.grant = Grant::Password { username: "joe".into(), password: value("p&ss") };
        config.scope = Some("a b".into());
    })
    .await;
    result.expect("a token");
    let expected = [("grant_type", "password"), ("username", "joe"), ("password", "p&ss"), ("scope", "a b")];
    assert_eq!(seen.form(), pairs(&expected));
    let said = r#"{"error":"invalid_grant","error_description":"p&ss of joe is wrong"}"#;
    let (_, result) = own(error("400 Bad Request", said), |config, _| {
        config.grant = Grant::Password { username: "joe".into(), password: value("p&ss") };
    })
    .await;
    let failure = result.expect_err("refused");
    assert_eq!(failure.class, FailureClass::Configuration);
    assert!(failure.message.ends_with("check `username` and `password`"), "{failure}");
    assert!(!failure.message.contains("p&ss"), "{failure}");
}

#[tokio::test]
async fn token_exchange_reads_its_tokens_for_every_request() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("token");
    std::fs::write(&path, "workload-1\n").expect("write");
    let provider = Provider::start(vec![json(TOKEN)]).await;
    let exchange = TokenExchange {
        subject: ForeignToken { token: SecretSource::File(path.clone()), kind: "urn:x:jwt".into() },
        actor: Some(ForeignToken { token: value("actor-1"), kind: "urn:x:access_token".into() }),
        requested_token_type: Some("urn:x:access_token".into()),
    };
    let client = OAuthClient::try_new(OAuthConfig {
        grant: Grant::TokenExchange(Box::new(exchange)),
        audience: Some("https://api.example".into()),
        resource: vec!["https://r1.example".into(), "https://r2.example".into()],
        ..config(provider.url("/token"))
    })
    .expect("a client");
    assert_eq!(client.watched_files(), std::slice::from_ref(&path));
    client.request(TokenRequest::Own, NOW).await.expect("a token");
    std::fs::write(&path, "workload-2\n").expect("write");
    client.request(TokenRequest::Own, NOW).await.expect("a token");
    let seen = provider.seen();
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "workload-1"),
        ("subject_token_type", "urn:x:jwt"),
        ("actor_token", "actor-1"),
        ("actor_token_type", "urn:x:access_token"),
        ("requested_token_type", "urn:x:access_token"),
        ("audience", "https://api.example"),
        ("resource", "https://r1.example"),
        ("resource", "https://r2.example"),
    ];
    assert_eq!(seen[0].form(), pairs(&expected));
    assert_eq!(seen[1].param("subject_token").as_deref(), Some("workload-2"));
}

#[tokio::test]
async fn a_custom_request_is_what_its_templates_say() {
    let answer = r#"{"data":{"accessToken":"at-1","expiresIn":"120","refreshToken":"rt-1"}}"#;
    let (seen, result) = own(json(answer), |config, origin| {
        config.scope = Some("http://scope/a b".into());
        config.grant = Grant::Custom(Box::new(Custom {
            headers: vec![(HeaderName::from_static("x-login"), template("{username}:{basic}"))],
            body: CustomBody::Json(JsonTemplate::Object(vec![
                ("user".into(), JsonTemplate::Text(template("{client_id}"))),
                ("pass".into(), JsonTemplate::Text(template("{client_secret}"))),
                ("ttl".into(), JsonTemplate::Plain(60.into())),
            ])),
            ..custom(&format!("{origin}/session?scope={{scope}}"))
        }));
    })
    .await;
    let token = result.expect("a token");
    assert_eq!(token.access_token.expose(), "at-1");
    assert_eq!(token.expires_in, Some(Duration::from_secs(120)));
    assert_eq!(token.refresh_token, Some("rt-1".into()));
    assert_eq!(seen.path(), "/session?scope=http%3A%2F%2Fscope%2Fa%20b");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("authorization"), None, "the templates say who asks");
    assert_eq!(seen.header("x-login"), Some("joe:Y2xpZW50LTE6czNjcmV0IMO8Jg=="));
    assert_eq!(seen.body, r#"{"user":"client-1","pass":"s3cret ü&","ttl":60}"#);
}

#[tokio::test]
async fn client_authentication_is_added_where_the_templates_name_no_secret() {
    let answer = r#"{"data":{"accessToken":"at-1"}}"#;
    let check = async |change: &dyn Fn(&mut Custom), authorization: Option<&str>| {
        let (seen, result) = own(json(answer), |config, origin| {
            let mut custom = custom(&format!("{origin}/session"));
            change(&mut custom);
            config.grant = Grant::Custom(Box::new(custom));
        })
        .await;
        let token = result.expect("a token");
        assert_eq!((token.expires_in, token.refresh_token), (None, None));
        assert_eq!(seen.header("authorization"), authorization);
        seen
    };
    let basic = Some("Basic Y2xpZW50LTE6czNjcmV0");
    let seen = check(&|custom| custom.method = Method::GET, basic).await;
    assert!(seen.head.starts_with("GET /session HTTP/1.1"), "{}", seen.head);
    assert_eq!(seen.body, "");
    let form = |fields: &[(&str, &str)]| {
        CustomBody::Form(fields.iter().map(|(name, text)| ((*name).to_owned(), template(text))).collect())
    };
    let seen = check(&|custom| custom.body = form(&[("b", "{scope}"), ("a", "{password}")]), basic).await;
    assert_eq!(seen.body, "b=&a=pass+word");
    check(&|custom| custom.body = form(&[("key", "{client_secret}")]), None).await;
    let own = (header::AUTHORIZATION, template("Vendor x"));
    check(&|custom| custom.headers = vec![own.clone()], Some("Vendor x")).await;
}

#[tokio::test]
async fn a_custom_request_may_spend_refresh_tokens_itself_or_hand_over() {
    let answer = json(r#"{"data":{"accessToken":"at-2","refreshToken":"rt-2"}}"#);
    let provider = Provider::start(vec![answer, json(TOKEN)]).await;
    let origin = provider.url("");
    let body = |text: &str| {
        CustomBody::Json(JsonTemplate::Object(vec![("rt".into(), JsonTemplate::Text(template(text)))]))
    };
    let of = |text: &str| {
        let custom = Custom { body: body(text), ..custom(&format!("{origin}session")) };
        OAuthConfig { grant: Grant::Custom(Box::new(custom)), ..config(provider.url("/token")) }
    };
    let itself = of("{refresh_token}");
    assert!(!itself.grant.is_unattended());
    let token = refresh(itself).await.expect("a token");
    assert_eq!(token.refresh_token, Some("rt-2".into()));
    let hands_over = of("{username}");
    assert!(hands_over.grant.is_unattended());
    refresh(hands_over).await.expect("a token");
    let seen = provider.seen();
    assert_eq!((seen[0].path(), seen[0].body.as_str()), ("/session", r#"{"rt":"rt-0-the-old-one"}"#));
    assert_eq!(seen[1].path(), "/token");
    assert_eq!(seen[1].param("grant_type").as_deref(), Some("refresh_token"));
}

#[tokio::test]
async fn a_custom_answer_without_a_token_says_where_one_was_looked_for() {
    let check = async |reply: Reply, class: FailureClass, words: &str| {
        let (_, result) = own(reply, |config, origin| {
            config.grant = Grant::Custom(Box::new(custom(&format!("{origin}/x/{{password}}"))));
        })
        .await;
        let failure = result.expect_err(words);
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(
            !failure.message.contains("pass word") && !failure.message.contains("pass%20word"),
            "{failure}"
        );
    };
    let wrong = r#"{"access_token":"at-1","data":{"token":"at-1"}}"#;
    check(json(wrong), FailureClass::Configuration, "without a token at `/data/accessToken`").await;
    check(json(r#"{"error":"denied"}"#), FailureClass::Configuration, "denied").await;
    check(error("401 Unauthorized", "{}"), FailureClass::Configuration, "/x/ answered 401").await;
    check(error("502 Bad Gateway", "{}"), FailureClass::Transient, "answered 502").await;
}

#[test]
fn custom_requests_that_cannot_work_are_refused_at_the_start() {
    let check = |change: &dyn Fn(&mut Custom, &mut OAuthConfig), words: &str| {
        let mut config = config("https://idp.example/token".parse().expect("url"));
        let mut custom = custom("https://idp.example/session");
        change(&mut custom, &mut config);
        config.grant = Grant::Custom(Box::new(custom));
        let error = OAuthClient::try_new(config).expect_err(words).to_string();
        assert!(error.contains(words), "{error:?} lacks {words:?}");
    };
    for url in ["https://{username}.example/", "https://idp.example{username}", "{password}", "no url"] {
        check(&|custom, _| custom.url = template(url), "variables can stand behind the host only");
    }
    check(&|custom, _| custom.url = template("http://idp.example/session"), "it must be https");
    check(&|custom, _| custom.url = template("https://u:p@idp.example/x"), "user name or password");
    check(&|custom, _| custom.url = template("https://idp.example/{subject_token}"), "needs `subject_token`");
    let no_secret = |custom: &mut Custom, _: &mut OAuthConfig| {
        custom.client_secret = None;
        custom.url = template("https://idp.example/?key={basic}");
    };
    check(&no_secret, "needs `client.secret`");
    let post = |_: &mut Custom, config: &mut OAuthConfig| {
        config.client_auth = ClientAuth::Post { secret: value("x") };
    };
    check(&post, "writes into a form");
}
