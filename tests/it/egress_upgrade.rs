//! `upgrade` and `via_proxy` of the real binary: a plain request goes on over TLS, through another proxy, with the token.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::egress::{absolute, config};
use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, TOKEN, field_of, problem, status};
use crate::tls_rig::Authority;

/// A server that speaks TLS with a certificate for `localhost`, before `origin`.
async fn tls_server(run: &Arc<Run>, authority: &Authority, origin: &OriginServer) -> Bearward {
    let pair = authority.issue(&["localhost"]);
    let config = json!({
        "listeners": [{
            "name": "legacy", "kind": "reverse", "bind": "127.0.0.1:0",
            "tls": {"cert": run.secret_file("front.crt", &pair.cert), "key": run.secret_file("front.key", &pair.key)},
            "routes": [{"name": "all", "upstream": origin.url()}],
        }],
        "store": {"kind": "memory"},
        "admin": {"bind": "127.0.0.1:0"},
    });
    Bearward::start(run, &config).await
}

fn rules(run: &Run, authority: &Authority, port: u16) -> Value {
    json!([{
        "name": "up", "match": {"hosts": ["localhost", "127.0.0.1"], "ports": [80]}, "action": "upgrade",
        "upstream_port": port, "credential": "it",
        "tls": {"ca": run.secret_file("ca.pem", &authority.certificate.pem())},
    }])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_request_goes_on_over_tls_with_the_token() {
    let run = Arc::new(Run::new("egress-upgrade"));
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let front = tls_server(&run, &authority, &origin).await;
    let port = front.proxy().port();
    let allowed = ["localhost", "127.0.0.1"].map(|host| format!("https://{host}:{port}"));
    let proxy = Bearward::start(&run, &config(&run, &rules(&run, &authority, port), &allowed)).await;
    for _ in 0..2 {
        let answer = absolute(&proxy, "http://localhost/x?y", "");
        assert_eq!(status(&answer), 200, "{answer}");
    }
    for request in origin.requests() {
        assert!(request.starts_with("GET /x?y HTTP/1.1\r\n"), "{request}");
        assert_eq!(field_of(&request, "authorization"), Some(format!("Bearer {TOKEN}")));
        assert_eq!(field_of(&request, "x-forwarded-host"), Some(format!("localhost:{port}")));
    }
    // The certificate is for another name: verified, and nothing is sent.
    let answer = absolute(&proxy, "http://127.0.0.1/x", "");
    assert_eq!(
        (status(&answer), &problem(&answer)["type"]),
        (502, &json!("urn:bearward:problem:upstream-certificate"))
    );
    // Its other port is no matter of the rule.
    assert_eq!(status(&absolute(&proxy, &format!("http://localhost:{port}/x"), "")), 403);
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_proxy_on_the_way_sees_where_and_nothing_else() {
    let run = Arc::new(Run::new("egress-via"));
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let front = tls_server(&run, &authority, &origin).await;
    let port = front.proxy().port();
    let way =
        json!([{"name": "way", "match": {"hosts": ["localhost"], "ports": [port]}, "action": "tunnel"}]);
    let parent = Bearward::start(&run, &config(&run, &way, &[])).await;
    let allowed = ["localhost", "127.0.0.1"].map(|host| format!("https://{host}:{port}"));
    let mut child = config(&run, &rules(&run, &authority, port), &allowed);
    let password = run.secret_file("password", "a-password-of-the-proxy");
    run.secret("a-password-of-the-proxy");
    child["listeners"][0]["via_proxy"] =
        json!({"url": format!("http://{}", parent.proxy()), "username": "u", "password": password});
    let child = Bearward::start(&run, &child).await;
    let answer = absolute(&child, "http://localhost/x", "");
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(field_of(&origin.request(), "authorization"), Some(format!("Bearer {TOKEN}")));
    // The parent's rules hold.
    let answer = absolute(&child, "http://127.0.0.1/x", "");
    assert_eq!(
        (status(&answer), &problem(&answer)["type"]),
        (502, &json!("urn:bearward:problem:outbound-proxy"))
    );
    let metrics = String::from_utf8(parent.admin("/metrics").await.body).expect("text");
    let counted = "bearward_requests_total{listener=\"legacy\",route=\"way\",code_class=\"2xx\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}
