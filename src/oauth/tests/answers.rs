//! What is made of a 200.

use proptest::strategy::Strategy;

use super::*;

#[tokio::test]
async fn case_01_a_response_without_a_refresh_token_brings_none() {
    let token = refresh_answered(json(TOKEN)).await.expect("token");
    assert_eq!(token.access_token.expose(), "at-1");
    assert_eq!(token.refresh_token, None);
}

#[tokio::test]
async fn cases_02_and_03_a_new_refresh_token_is_read_and_an_empty_one_is_none() {
    let check = async |body: &str, expected: Option<&str>| {
        let token = refresh_answered(json(body)).await.expect(body);
        assert_eq!(token.refresh_token.as_ref().map(Secret::expose), expected, "{body}");
    };
    check(r#"{"access_token":"a","token_type":"Bearer","refresh_token":"rt-1"}"#, Some("rt-1")).await;
    check(r#"{"access_token":"a","token_type":"Bearer","refresh_token":""}"#, None).await;
    check(r#"{"access_token":"a","token_type":"Bearer","refresh_token":null}"#, None).await;
}

#[tokio::test]
async fn cases_04_05_07_and_09_expires_in_is_read_in_each_shape() {
    let check = async |expires_in: &str, expected: Option<f64>| {
        let body = format!(r#"{{"access_token":"a","token_type":"Bearer"{expires_in}}}"#);
        let token = refresh_answered(json(&body)).await.expect(expires_in);
        assert_eq!(token.expires_in, expected.map(Duration::from_secs_f64), "{expires_in}");
    };
    check(r#","expires_in":3600"#, Some(3600.0)).await;
    check(r#","expires_in":"3600""#, Some(3600.0)).await;
    check(r#","expires_in":" 3600 ""#, Some(3600.0)).await;
    check("", None).await;
    check(r#","expires_in":null"#, None).await;
    check(r#","expires_in":"soon""#, None).await;
    check(r#","expires_in":"""#, None).await;
    check(r#","expires_in":1000000000000"#, Some(315_360_000.0)).await;
    check(r#","expires_in":"1e300""#, Some(315_360_000.0)).await;
    check(r#","expires_in":31556952"#, Some(31_556_952.0)).await;
    check(r#","expires_in":59.5"#, Some(59.5)).await;
    check(r#","expires_in":"59.5""#, Some(59.5)).await;
}

#[tokio::test]
async fn case_06_a_token_that_has_expired_already_is_refused_and_its_refresh_token_carried() {
    for expires_in in ["0", "-1", "\"0\"", "-1e9"] {
        let body = format!(
            r#"{{"access_token":"a","token_type":"Bearer","refresh_token":"rt-1","expires_in":{expires_in}}}"#
        );
        let failure = refresh_answered(json(&body)).await.expect_err(expires_in);
        assert_eq!((failure.class, failure.error.as_str()), (FailureClass::Transient, "unusable"));
        assert_eq!(failure.refresh_token, Some(Secret::from("rt-1")));
    }
}

#[tokio::test]
async fn case_10_token_type_is_case_insensitive_and_anything_but_bearer_is_refused() {
    let check = async |token_type: &str, preset: &'static Preset, expected: bool| {
        let body = format!(r#"{{"access_token":"a","refresh_token":"rt-1"{token_type}}}"#);
        let provider = Provider::start(vec![json(&body)]).await;
        let config = OAuthConfig { preset, ..config(provider.url("/token")) };
        match (refresh(config).await, expected) {
            (Ok(_), true) => {}
            (Err(failure), false) => {
                assert_eq!(failure.class, FailureClass::Configuration, "{token_type}");
                assert_eq!(failure.refresh_token, Some(Secret::from("rt-1")));
            }
            (got, _) => panic!("{got:?} for {token_type}"),
        }
    };
    static STRICT: Preset = Preset { strict_token_type: true, ..preset::GENERIC };
    check(r#","token_type":"bearer""#, &preset::GENERIC, true).await;
    check(r#","token_type":"BEARER""#, &preset::GENERIC, true).await;
    check("", &preset::GENERIC, true).await;
    check("", &STRICT, false).await;
    check(r#","token_type":"mac""#, &preset::GENERIC, false).await;
    check(r#","token_type":"DPoP""#, &preset::GENERIC, false).await;
}

#[tokio::test]
async fn a_member_that_goes_with_the_token_is_found_or_missed_without_losing_the_refresh_token() {
    let check = async |pointer: &str, expected: Option<&str>| {
        let body = r#"{"access_token":"a","token_type":"Bearer","refresh_token":"rt-1","a/b":"slash","empty":"","lines":"a\r\nb","umlaut":"ü",
            "org":{"ids":["x",7]},"none":null}"#;
        let provider = Provider::start(vec![json(body)]).await;
        let carried = vec![Carried { name: "x-org".into(), pointer: pointer.into() }];
        match refresh(OAuthConfig { carried, ..config(provider.url("/token")) }).await {
            Ok(token) => {
                let (name, value) = &token.headers[0];
                assert_eq!((name.as_str(), Some(value.expose())), ("x-org", expected), "{pointer}");
            }
            Err(failure) => {
                assert_eq!(expected, None, "{pointer}: {}", failure.message);
                assert_eq!(failure.class, FailureClass::Configuration);
                assert!(failure.message.contains("which `inject` puts into `x-org`"), "{}", failure.message);
                assert_eq!(failure.refresh_token, Some(Secret::from("rt-1")));
            }
        }
    };
    check("/org/ids/1", Some("7")).await;
    check("/org/ids/0", Some("x")).await;
    check("/a~1b", Some("slash")).await;
    for missed in ["/org", "/org/ids/2", "/empty", "/none", "/nothing", "/lines", "/umlaut"] {
        check(missed, None).await;
    }
}

#[tokio::test]
async fn cases_13_and_18_each_encoding_of_the_body_is_read() {
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).expect("gzip");
        encoder.finish().expect("gzip")
    };
    let check = async |fields: &str, body: &[u8]| {
        let token = refresh_answered(Reply::Write(answer("200 OK", fields, body))).await.expect(fields);
        assert_eq!(token.access_token.expose(), "at-1");
        assert_eq!(token.expires_in, Some(Duration::from_secs(3600)));
    };
    let form = b"access_token=at-1&token_type=bearer&expires_in=3600&unknown=1";
    check("content-type: application/x-www-form-urlencoded\r\n", form).await;
    check("content-type: text/html\r\n", form).await;
    check("content-type: text/plain\r\n", TOKEN.as_bytes()).await;
    check("", TOKEN.as_bytes()).await;
    check("content-type: application/json\r\n", format!("\u{feff}\r\n {TOKEN}\n").as_bytes()).await;
    check("content-type: application/json\r\ncontent-encoding: gzip\r\n", &gzip(TOKEN)).await;
    let unknown = r#"{"new":{"deep":[1,2]},"access_token":"at-1","expires_in":3600,"id_token":"x.y.z"}"#;
    check("content-type: application/json;charset=UTF-8\r\n", unknown.as_bytes()).await;
}

#[tokio::test]
async fn case_17_a_refresh_token_without_an_access_token_is_an_error_that_carries_it() {
    for body in [r#"{"refresh_token":"rt-1"}"#, r#"{"access_token":"","refresh_token":"rt-1"}"#] {
        let failure = refresh_answered(json(body)).await.expect_err(body);
        assert_eq!((failure.class, failure.error.as_str()), (FailureClass::Transient, "unusable"));
        assert_eq!(failure.refresh_token, Some(Secret::from("rt-1")));
        assert!(failure.message.contains("without an access_token"), "{failure}");
    }
    let failure = refresh_answered(json("{}")).await.expect_err("nothing");
    assert_eq!(failure.class, FailureClass::Ambiguous, "the provider may have rotated");
}

#[tokio::test]
async fn case_19_the_granted_scope_is_read() {
    let check = async |scope: &str, expected: Option<&str>| {
        let body = format!(r#"{{"access_token":"a","token_type":"Bearer"{scope}}}"#);
        assert_eq!(refresh_answered(json(&body)).await.expect(scope).scope.as_deref(), expected);
    };
    check(r#","scope":"a b""#, Some("a b")).await;
    check(r#","scope":["a","b"]"#, Some("a b")).await;
    check(r#","scope":"""#, None).await;
    check("", None).await;
}

#[tokio::test]
async fn lifetime_hints_and_the_date_are_read() {
    let check = async |hint: &str, expected: Option<u64>| {
        let body = format!(r#"{{"access_token":"a","token_type":"Bearer","refresh_in":1800,{hint}}}"#);
        let fields = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let token = refresh_answered(Reply::Write(answer("200 OK", fields, &body))).await.expect(hint);
        assert_eq!(token.refresh_token_expires_in, expected.map(Duration::from_secs), "{hint}");
        assert_eq!(token.refresh_in, Some(Duration::from_secs(1800)));
        assert_eq!(token.date, Some(UnixTime::from_millis(784_111_777_000)));
    };
    check(r#""refresh_token_expires_in":604800"#, Some(604_800)).await;
    check(r#""refresh_expires_in":"1800""#, Some(1800)).await;
    check(r#""x_refresh_token_expires_in":8726400"#, Some(8_726_400)).await;
    // Keycloak's way to say "never".
    check(r#""refresh_expires_in":0"#, None).await;
}

#[tokio::test]
async fn case_68_the_same_access_token_twice_is_no_error() {
    let provider = Provider::start(vec![json(TOKEN)]).await;
    let client = OAuthClient::try_new(config(provider.url("/token"))).expect("client");
    for _ in 0..2 {
        assert_eq!(refresh_with(&client).await.expect("token").access_token.expose(), "at-1");
    }
}

#[tokio::test]
async fn case_71_a_token_that_is_no_header_is_refused_and_its_refresh_token_carried() {
    for bad in [r"a\r\nX-Evil: 1", r"a\nb", "tökén", "a b", r"a\u0000", r"a\u007f"] {
        let body = format!(r#"{{"access_token":"{bad}","token_type":"Bearer","refresh_token":"rt-1"}}"#);
        let failure = refresh_answered(json(&body)).await.expect_err(bad);
        assert_eq!(
            (failure.class, failure.error.as_str()),
            (FailureClass::Configuration, "unusable"),
            "{bad}"
        );
        assert_eq!(failure.refresh_token, Some(Secret::from("rt-1")), "{bad}");
        assert!(!failure.message.contains("Evil"), "{failure}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_the_bytes_are_a_token_that_is_taken_fits_a_header(
        status in 100_u16..600,
        fields in proptest::sample::select(vec!["text/html", "application/json", "application/x-www-form-urlencoded"]),
        body in proptest::prop_oneof![
            proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            r#"\{"(access_token|refresh_token|expires_in|error|token_type)":("[^"]{0,9}"|-?[0-9]{1,30}|null|\[\]|\{\})(,"(access_token|expires_in|ok)":("[ -~]{0,9}"|0|1e9|false))?\}"#
                .prop_map(String::into_bytes),
            "(access_token|error|refresh_token)=[ -~]{0,30}(&expires_in=[-0-9.e]{0,9})?".prop_map(String::into_bytes),
        ],
    ) {
        let answer = answer::Answer {
            status: ::http::StatusCode::from_u16(status).expect("a status"),
            headers: [(::http::header::CONTENT_TYPE, fields.parse().expect("a value"))].into_iter().collect(),
            body: zeroize::Zeroizing::new(body),
        };
        let scrubber = scrub::Scrubber::default();
        let judge = error::Judge {
            stake: error::Stake::OneTimeToken,
            preset: &preset::GENERIC,
            endpoint: "https://idp.example/token",
            scrubber: &scrubber,
            now: NOW,
            grant: &Grant::ClientCredentials,
            response: None,
            carried: &[],
            dpop: false,
        };
        match token::read(answer, &judge) {
            Ok(token) => {
                proptest::prop_assert!((200..300).contains(&status));
                proptest::prop_assert!(::http::HeaderValue::from_str(token.access_token.expose()).is_ok());
                proptest::prop_assert!(token.expires_in.is_none_or(|life| !life.is_zero() && life <= token::MAX_LIFETIME));
            }
            Err(failure) => {
                proptest::prop_assert_eq!(failure.status, Some(status));
                proptest::prop_assert!(!failure.message.chars().any(char::is_control));
                proptest::prop_assert!(failure.class != FailureClass::Clean);
            }
        }
    }
}
