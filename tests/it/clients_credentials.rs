//! Which credential a client gets, and tokens of users whose passwords are translated.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bearward::secret::Fingerprint;
use serde_json::{Value, json};

use crate::clients_rig::{Wire, ask, basic, config, credential, start, token_of};
use crate::h2_rig;
use crate::harness::bearward::Bearward;
use crate::harness::count;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, field_of, fields_of, status};

fn key(name: &str) -> Value {
    json!({"api_key": {"sha256": [Fingerprint::of(format!("the-key-of-{name}").as_bytes()).to_hex()]}})
}

fn per_client(origin: &OriginServer) -> Value {
    let mut config =
        config(origin, &json!({"batch": key("batch"), "erp": key("erp"), "guest": key("guest")}));
    config["listeners"][0]["routes"][0]["credential"] = json!({"per_client": {"batch": "a", "erp": "b"}});
    config["credentials"] = json!({"a": credential("a"), "b": credential("b")});
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_gets_its_own_credential_also_on_one_connection() {
    let (run, origin) = (Arc::new(Run::new("clients-per-client")), OriginServer::ok());
    let bearward = start(&run, &per_client(&origin)).await;
    let mut wire = Wire::to(bearward.proxy());
    for _ in 0..20 {
        for (client, credential) in [("batch", "a"), ("erp", "b")] {
            let answer = wire.get("/", &[("X-Api-Key", &format!("the-key-of-{client}")), ("X-Who", client)]);
            assert_eq!(status(&answer), 200, "{answer}");
            let request = origin.requests().pop().expect("a request");
            assert_eq!(field_of(&request, "x-who").as_deref(), Some(client));
            assert_eq!(fields_of(&request, "authorization"), [format!("Bearer {}", token_of(credential))]);
        }
        let refused = wire.get("/", &[("X-Api-Key", "the-key-of-guest")]);
        assert_eq!(status(&refused), 403, "{refused}");
        assert!(refused.contains("urn:bearward:problem:no-credential"), "{refused}");
    }
    assert_eq!(origin.requests().len(), 40);
    assert_eq!(origin.connections(), 2, "each credential has connections of its own");
}

/// Whatever a client sends under the name of another one's place is its own business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_clients_token_stands_where_its_own_credential_puts_it() {
    let (run, origin) = (Arc::new(Run::new("clients-inject")), OriginServer::ok());
    let mut config = per_client(&origin);
    config["credentials"]["a"]["inject"] = json!({"header": "X-Api-Key", "value": "key {token}"});
    config["credentials"]["b"]["inject"] =
        json!([{"cookie": "SID"}, {"header": "Authorization", "scheme": "Vendor"}]);
    let bearward = start(&run, &config).await;
    let mut wire = Wire::to(bearward.proxy());
    let mut sent = |client: &str| {
        let key = format!("the-key-of-{client}");
        let fields =
            [("X-Api-Key", key.as_str()), ("Authorization", "Basic dGhlaXJz"), ("Cookie", "SID=theirs; a=b")];
        let answer = wire.get("/", &fields);
        assert_eq!(status(&answer), 200, "{answer}");
        let request = origin.requests().pop().expect("a request");
        assert!(!request.contains("the-key-of"), "{request}");
        ["x-api-key", "authorization", "cookie"].map(|name| fields_of(&request, name).join(" | "))
    };
    for _ in 0..3 {
        let a = [format!("key {}", token_of("a")), "Basic dGhlaXJz".into(), "SID=theirs; a=b".into()];
        assert_eq!(sent("batch"), a);
        let b = [String::new(), format!("Vendor {}", token_of("b")), format!("SID={}; a=b", token_of("b"))];
        assert_eq!(sent("erp"), b);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_connection_get_the_credential_of_their_own_client() {
    let (run, origin) = (Arc::new(Run::new("clients-h2")), OriginServer::ok());
    let bearward = start(&run, &per_client(&origin)).await;
    let proxy = bearward.proxy();
    // A thread of its own: the client has a runtime of its own.
    let streams = std::thread::spawn(move || {
        let client = h2_rig::Client::to(proxy);
        let sent = (0..60).map(|number| {
            let name = if number % 2 == 0 { "batch" } else { "erp" };
            let key = format!("the-key-of-{name}");
            let head = h2_rig::request(http::Method::GET, "/", &[("x-api-key", &key), ("x-who", name)]);
            let mut sender = client.sender.clone();
            client.runtime.spawn(async move {
                let (answer, _) = sender.send_request(head, true).expect("sent");
                h2_rig::whole(answer.await.expect("a head")).await.expect("a body").status
            })
        });
        let sent: Vec<_> = sent.collect();
        sent.into_iter().map(|one| client.runtime.block_on(one).expect("joined")).collect::<Vec<_>>()
    });
    assert_eq!(streams.join().expect("no panic"), [200; 60]);
    let requests = origin.requests();
    assert_eq!(requests.len(), 60);
    for request in requests {
        let expected = if field_of(&request, "x-who").as_deref() == Some("batch") { "a" } else { "b" };
        assert_eq!(fields_of(&request, "authorization"), [format!("Bearer {}", token_of(expected))]);
        assert!(!request.contains("the-key-of"), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_decides_only_where_a_trusted_proxy_sets_it() {
    let (run, origin) = (Arc::new(Run::new("clients-by-header")), OriginServer::ok());
    let mut config = config(&origin, &json!({}));
    let listener = &mut config["listeners"][0];
    listener.as_object_mut().expect("a listener").remove("clients");
    listener["trusted_proxies"] = json!(["127.0.0.1"]);
    listener["routes"][0]["credential"] =
        json!({"by_header": {"name": "X-Tenant", "values": {"north": "a", "south": "b"}}, "default": "it"});
    config["credentials"] = json!({"a": credential("a"), "b": credential("b"), "it": credential("it")});
    let bearward = start(&run, &config).await;
    let check = |fields: &[(&str, &str)], expected: Option<&str>| {
        let (status, answer) = ask(bearward.proxy(), fields);
        assert_eq!(status, if expected.is_some() { 200 } else { 403 }, "{answer}");
        let Some(credential) = expected else { return };
        let request = origin.requests().pop().expect("a request");
        assert_eq!(fields_of(&request, "authorization"), [format!("Bearer {}", token_of(credential))]);
        assert_eq!(fields_of(&request, "x-tenant"), Vec::<String>::new());
    };
    check(&[("X-Tenant", "north")], Some("a"));
    check(&[("X-Tenant", "south")], Some("b"));
    check(&[("X-Tenant", "west")], None);
    check(&[("X-Tenant", "north"), ("X-Tenant", "south")], None);
    check(&[], Some("it"));
    drop(bearward);
    config["listeners"][0]["trusted_proxies"] = json!(["192.0.2.1"]);
    let bearward = start(&run, &config).await;
    let (status, _) = ask(bearward.proxy(), &[("X-Tenant", "north")]);
    let request = origin.requests().pop().expect("a request");
    assert_eq!(status, 200);
    assert_eq!(
        fields_of(&request, "authorization"),
        [format!("Bearer {}", token_of("it"))],
        "it decides nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_choice_that_cannot_be_made_refuses_to_start() {
    let (run, origin) = (Arc::new(Run::new("clients-choice")), OriginServer::ok());
    for (credential, told) in [
        (json!({"per_client": {"nobody": "a"}}), "is not among the clients of this route"),
        (json!({"per_client": {"batch": "c"}}), "there is no credential `c`"),
        (json!({"by_header": {"name": "X-Tenant", "values": {"x": "a"}}}), "nobody whose word is taken"),
        (json!({"default": "a"}), "one thing decides"),
        (json!({"translate_basic": "a"}), "is no credential of users"),
    ] {
        let mut config = per_client(&origin);
        config["listeners"][0]["routes"][0]["credential"] = credential.clone();
        let failed = Bearward::try_start(&run, &config, |_| ()).await.err().expect("it does not start");
        assert!(failed.printed.contains(told), "{credential}: {}", failed.printed);
    }
}

/// A provider that knows the password `password-of-USER` of each user but `nobody`, and counts what each one tried.
struct Provider {
    server: OriginServer,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Provider {
    fn start() -> Self {
        let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let log = Arc::clone(&asked);
        let server = OriginServer::scripted(move |stream, request| {
            use std::io::Write;
            let body = request.split("\r\n\r\n").nth(1).unwrap_or_default();
            let form: HashMap<String, String> =
                form_urlencoded::parse(body.as_bytes()).into_owned().collect();
            let user = form.get("username").cloned().unwrap_or_default();
            *log.lock().expect("lock").entry(user.clone()).or_default() += 1;
            let good = form.get("grant_type").is_some_and(|grant| grant == "password")
                && form.get("password") == Some(&format!("password-of-{user}"));
            let (status, answer) = if good {
                (
                    "200 OK",
                    json!({"access_token": format!("token-of-{user}"), "token_type": "Bearer", "expires_in": 3600}),
                )
            } else {
                ("400 Bad Request", json!({"error": "invalid_grant"}))
            };
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}",
                answer.len()
            );
            stream.write_all(format!("{head}\r\n\r\n{answer}").as_bytes()).is_ok()
        });
        Self { server, asked }
    }

    fn asked(&self, user: &str) -> usize {
        self.asked.lock().expect("lock").get(user).copied().unwrap_or_default()
    }

    fn config(&self, origin: &OriginServer) -> Value {
        let mut config = config(origin, &json!({}));
        config["listeners"][0].as_object_mut().expect("a listener").remove("clients");
        config["listeners"][0]["routes"][0]["credential"] = json!({"translate_basic": "people"});
        config["credentials"] = json!({"people": {
            "grant": "password", "token_endpoint": format!("{}/token", self.server.url()),
            "client": {"id": "legacy", "secret": {"value": "the-secret-of-legacy"}},
        }});
        config
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_exchanged_once_for_a_token_of_its_user() {
    let (run, origin, provider) = (Arc::new(Run::new("users-one")), OriginServer::ok(), Provider::start());
    run.secret("password-of-anna");
    run.secret("token-of-anna");
    let bearward = start(&run, &provider.config(&origin)).await;
    let (anna, berta) = (basic("anna", "password-of-anna"), basic("berta", "password-of-berta"));
    let (refused, answer) = ask(bearward.proxy(), &[]);
    assert_eq!(refused, 401);
    assert!(
        field_of(&answer, "www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic ")),
        "{answer}"
    );
    let mut wire = Wire::to(bearward.proxy());
    for _ in 0..10 {
        for (pair, token) in [(&anna, "token-of-anna"), (&berta, "token-of-berta")] {
            let answer = wire.get("/", &[("Authorization", pair)]);
            assert_eq!(status(&answer), 200, "{answer}");
            let request = origin.requests().pop().expect("a request");
            assert_eq!(fields_of(&request, "authorization"), [format!("Bearer {token}")]);
            assert!(!request.contains("password") && !request.contains("Basic"), "{request}");
        }
    }
    // Another worker asks the control plane, not the provider.
    let asks: Vec<_> = (0..8).map(|_| ask(bearward.proxy(), &[("Authorization", &anna)]).0).collect();
    assert_eq!(asks, [200; 8]);
    assert_eq!((provider.asked("anna"), provider.asked("berta")), (1, 1));
    // One user's password with another's name is nobody's.
    assert_eq!(ask(bearward.proxy(), &[("Authorization", &basic("anna", "password-of-berta"))]).0, 401);
    assert_eq!(status(&wire.get("/", &[])), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_token_stands_where_inject_puts_it_and_the_password_goes_nowhere() {
    let (run, provider) = (Arc::new(Run::new("users-inject")), Provider::start());
    for (inject, expected) in [
        (json!({"header": "X-Api-Key"}), ["token-of-anna", "", ""]),
        (
            json!({"header": "Authorization", "scheme": "Zoho-oauthtoken"}),
            ["", "Zoho-oauthtoken token-of-anna", ""],
        ),
        (
            json!([{"cookie": "SID"}, {"header": "X-Api-Key", "value": "t={token}"}]),
            ["t=token-of-anna", "", "SID=token-of-anna"],
        ),
    ] {
        let origin = OriginServer::ok();
        let mut config = provider.config(&origin);
        config["credentials"]["people"]["inject"] = inject;
        let bearward = start(&run, &config).await;
        let anna = basic("anna", "password-of-anna");
        let fields = [("Authorization", anna.as_str()), ("X-Api-Key", "theirs"), ("Cookie", "SID=theirs")];
        for _ in 0..2 {
            let (status, answer) = ask(bearward.proxy(), &fields);
            assert_eq!(status, 200, "{answer}");
        }
        for request in origin.requests() {
            let seen =
                ["x-api-key", "authorization", "cookie"].map(|name| fields_of(&request, name).join(" | "));
            let theirs = |at: usize| if at == 0 { "theirs" } else { "SID=theirs" };
            for (at, (seen, expected)) in seen.iter().zip(expected).enumerate() {
                let expected = if expected.is_empty() && at != 1 { theirs(at) } else { expected };
                assert_eq!(seen, expected, "{request}");
            }
            assert!(!request.contains("password") && !request.contains(&anna), "{request}");
        }
        assert_eq!(origin.requests().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_reach_no_upstream_and_lock_nobody_out() {
    let (run, origin, provider) = (Arc::new(Run::new("users-wrong")), OriginServer::ok(), Provider::start());
    let bearward = start(&run, &provider.config(&origin)).await;
    let anna = basic("anna", "password-of-anna");
    let mut kept = Wire::to(bearward.proxy());
    assert_eq!(status(&kept.get("/", &[("Authorization", &anna)])), 200);
    let served = origin.requests().len();
    let mut statuses = Vec::new();
    for guess in 0..40 {
        // The same one twice is not even asked again.
        for _ in 0..2 {
            statuses.push(
                ask(bearward.proxy(), &[("Authorization", &basic("anna", &format!("guess-{guess}")))]).0,
            );
        }
    }
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)), "{statuses:?}");
    assert_eq!(origin.requests().len(), served, "no wrong password reached the upstream");
    assert!(provider.asked("anna") <= 1 + 3, "{} attempts reached the provider", provider.asked("anna"));
    // The user goes on, and so does another.
    assert_eq!(status(&kept.get("/", &[("Authorization", &anna)])), 200);
    assert_eq!(ask(bearward.proxy(), &[("Authorization", &basic("berta", "password-of-berta"))]).0, 200);
    count(&format!(
        "basic translation: 80 requests with 40 wrong passwords, {} reached the provider",
        provider.asked("anna") - 1
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_users_take_one_token_request_each() {
    let (run, origin, provider) =
        (Arc::new(Run::new("users-thousand")), OriginServer::ok(), Provider::start());
    let bearward = start(&run, &provider.config(&origin)).await;
    let memory = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number")
    };
    assert_eq!(ask(bearward.proxy(), &[("Authorization", &basic("first", "password-of-first"))]).0, 200);
    let before = memory(bearward.pid());
    let proxy = bearward.proxy();
    let threads = (0..4).map(|thread| {
        std::thread::spawn(move || {
            let mut wire = Wire::to(proxy);
            for round in 0..2 {
                for user in (0..1000).filter(|user| user % 4 == thread) {
                    let pair = basic(&format!("user{user}"), &format!("password-of-user{user}"));
                    let answer = wire.get("/", &[("Authorization", &pair)]);
                    assert_eq!(status(&answer), 200, "{round}: {answer}");
                }
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("no panic");
    }
    let after = memory(bearward.pid());
    let most = (0..1000).map(|user| provider.asked(&format!("user{user}"))).max();
    let least = (0..1000).map(|user| provider.asked(&format!("user{user}"))).min();
    assert_eq!((least, most), (Some(1), Some(1)));
    let grown = after.saturating_sub(before);
    count(&format!("basic translation: 1,000 users, one token request each, {grown} KiB more memory"));
    assert!(grown < 20 * 1024, "{grown} KiB");
}
