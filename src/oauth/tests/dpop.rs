//! DPoP at the token endpoint: proofs, nonces, and no token without them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::dpop::DpopKey;
use super::*;

const BOUND: &str = r#"{"access_token":"at-1","token_type":"DPoP","expires_in":3600}"#;

fn claims(seen: &Seen) -> serde_json::Value {
    let proof = seen.header("dpop").expect("a proof");
    let part = proof.split('.').nth(1).expect("claims");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

fn bound(provider: &Provider) -> OAuthClient {
    let config = OAuthConfig { dpop: true, ..config(provider.url("/token?tenant=a")) };
    let client = OAuthClient::try_new(config).expect("a client");
    client.bind(DpopKey::try_new(&DpopKey::generate().expect("a key")).expect("readable"));
    client
}

#[tokio::test]
async fn case_66_a_nonce_is_taken_up_once_and_remembered() {
    let wants = Reply::Write(answer(
        "400 Bad Request",
        "content-type: application/json\r\nDPoP-Nonce: nonce-1\r\n",
        r#"{"error":"use_dpop_nonce"}"#,
    ));
    let provider = Provider::start(vec![wants.clone(), json(BOUND), json(BOUND), wants]).await;
    let client = bound(&provider);
    refresh_with(&client).await.expect("a token at the second try");
    refresh_with(&client).await.expect("a token at the first");
    let failure = refresh_with(&client).await.expect_err("a provider that always wants another one");
    assert_eq!((failure.error.as_str(), failure.class), ("use_dpop_nonce", FailureClass::Configuration));
    let seen = provider.seen();
    assert_eq!(seen.len(), 5, "one more try each time, and no third");
    let said: Vec<_> = seen.iter().map(claims).collect();
    assert_eq!(said[0].get("nonce"), None);
    assert!(said[1..].iter().all(|claims| claims["nonce"] == "nonce-1"), "{said:?}");
    assert_eq!(said[0]["htm"], "POST");
    assert_eq!(said[0]["htu"], provider.url("/token").as_str(), "no query");
    assert_eq!(said[0]["iat"], NOW.seconds());
    let mut ids: Vec<_> = said.iter().map(|claims| claims["jti"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "no proof is sent twice");
    assert_eq!(seen[0].form(), seen[1].form());
}

#[tokio::test]
async fn case_66_a_token_that_is_not_bound_is_refused_and_its_refresh_token_kept() {
    for kind in [r#""token_type":"Bearer","#, ""] {
        let body = format!(r#"{{"access_token":"at-1",{kind}"refresh_token":"rt-1","expires_in":3600}}"#);
        let provider = Provider::start(vec![json(&body)]).await;
        let failure = refresh_with(&bound(&provider)).await.expect_err(kind);
        assert_eq!(failure.class, FailureClass::Configuration);
        assert!(failure.message.contains("not bound to our key"), "{failure}");
        assert_eq!(failure.refresh_token, Some("rt-1".into()));
    }
    let provider = Provider::start(vec![json(BOUND)]).await;
    let failure = refresh(config(provider.url("/token"))).await.expect_err("nobody asked for DPoP");
    assert!(failure.message.contains("only Bearer is understood"), "{failure}");
}

#[tokio::test]
async fn nothing_is_sent_without_the_key() {
    let provider = Provider::start(vec![json(BOUND)]).await;
    let config = OAuthConfig { dpop: true, ..config(provider.url("/token")) };
    let failure = refresh(config).await.expect_err("no key");
    assert_eq!(failure.error, "key");
    assert_eq!(provider.seen().len(), 0);
}
