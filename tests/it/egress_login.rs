//! Clients that must say who they are: user and password from real clients to a forward proxy and to SOCKS5, right, wrong
//! and missing, and what the clients make of a refusal.

use std::process::Output;

use bearward::policy::clients::basic::hash_password;
use serde_json::{Value, json};

use crate::clients_rig::basic;
use crate::egress_clients::{files, repository};
use crate::egress_inside::chromium_trusts;
use crate::egress_intercept::Scene;
use crate::harness::count;
use crate::harness::run::Run;
use crate::harness::server::{Server, node, python};

/// With characters that mean something in a URL and in a header field.
const PASSWORD: &str = "a pass:word/of@batch";
const IN_URLS: &str = "a%20pass%3Aword%2Fof%40batch";

/// An interception, and plain requests to the same upstream, for the client `batch` alone.
struct Door {
    scene: Scene,
    plain: String,
    _upstream: Server,
}

/// `batch` is the only client of the listener; SOCKS5 is spoken.
fn ask_who(config: &mut Value) {
    let hash = hash_password(PASSWORD.as_bytes()).expect("a hash");
    config["clients"] = json!({"batch": {"basic": {"username": "batch", "password_hash": {"value": hash}}}});
    config["listeners"][0]["clients"] = json!(["batch"]);
    config["listeners"][0]["socks5"] = json!(true);
}

impl Door {
    async fn new(name: &str) -> Self {
        let upstream = Server::upstream(&Run::new(&format!("{name}-upstream"))).await;
        let plain = upstream.text("/origin").to_owned();
        let address: std::net::SocketAddr = plain.trim_start_matches("http://").parse().expect("an address");
        let scene = Scene::with(name, address, &["localhost"], |config, _| {
            ask_who(config);
            let rule = json!({"name": "plain", "match": {"hosts": ["127.0.0.1"], "ports": [address.port()]},
                              "action": "forward", "credential": "it"});
            config["listeners"][0]["rules"].as_array_mut().expect("rules").push(rule);
            let allowed = &mut config["credentials"]["it"]["allowed_upstreams"];
            allowed.as_array_mut().expect("origins").push(json!(plain));
        })
        .await;
        scene.run.secret(PASSWORD);
        scene.run.secret(IN_URLS);
        scene.run.secret(basic("batch", PASSWORD).trim_start_matches("Basic "));
        Self { scene, plain, _upstream: upstream }
    }

    /// The proxy with this in front of its address.
    fn proxy(&self, scheme: &str, login: &str) -> String {
        format!("{scheme}://{login}{}", self.scene.proxy.proxy())
    }

    async fn denied(&self, reason: &str) -> u64 {
        let metrics = self.scene.proxy.admin("/metrics").await.to_string();
        let name = format!("bearward_client_denied_total{{listener=\"legacy\",reason=\"{reason}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
    }
}

fn right() -> String {
    format!("batch:{IN_URLS}@")
}

fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_and_git_log_in_and_say_what_is_wrong() {
    let door = Door::new("login-curl").await;
    let urls = [door.scene.url("/x"), format!("{}/x", door.plain)];
    let curl = async |arguments: &[&str], url: &str| {
        let own = ["-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}/%{http_connect}"];
        let output =
            door.scene.client("curl", &[&own[..], &["--noproxy", ""], arguments, &[url]].concat()).await;
        let (out, err) = printed(&output);
        (output.status.code(), out, err)
    };
    let user = format!("batch:{PASSWORD}");
    let with_login = door.proxy("http", &right());
    let bare = door.proxy("http", "");
    let socks = door.scene.proxy.proxy().to_string();
    for (url, codes) in urls.iter().zip(["200/200", "200/000"]) {
        for arguments in [
            &["-x", with_login.as_str()][..],
            &["-x", &bare, "--proxy-user", &user],
            // Asks first, and answers the challenge.
            &["-x", &bare, "--proxy-user", &user, "--proxy-anyauth"],
        ] {
            let (code, out, err) = curl(arguments, url).await;
            assert_eq!((code, out.as_str()), (Some(0), codes), "{arguments:?} {url} {err}");
        }
    }
    // SOCKS5 leads to the interception; plain requests have no rule for it.
    let (code, out, err) = curl(&["--socks5-hostname", &socks, "--proxy-user", &user], &urls[0]).await;
    assert_eq!((code, out.as_str()), (Some(0), "200/000"), "{err}");
    let (missing, wrong) = (door.denied("missing").await, door.denied("wrong").await);
    let (code, out, err) = curl(&["-x", &bare], &urls[0]).await;
    assert_eq!((code, out.as_str()), (Some(56), "000/407"), "{err}");
    assert!(err.contains("407"), "{err}");
    let (code, out, _) = curl(&["-x", &bare], &urls[1]).await;
    assert_eq!((code, out.as_str()), (Some(0), "407/000"));
    let (code, _, err) = curl(&["--socks5-hostname", &socks], &urls[0]).await;
    assert_eq!(code, Some(97), "{err}");
    assert!(err.contains("No authentication method was acceptable"), "{err}");
    let (code, out, err) = curl(&["-x", &bare, "--proxy-user", "batch:wrong"], &urls[0]).await;
    assert_eq!((code, out.as_str()), (Some(56), "000/407"), "{err}");
    let (code, _, err) = curl(&["--socks5-hostname", &socks, "--proxy-user", "batch:wrong"], &urls[0]).await;
    assert_eq!(code, Some(97), "{err}");
    assert!(err.contains("User was rejected by the SOCKS5 server"), "{err}");
    assert!(door.denied("missing").await >= missing + 3, "missing");
    assert_eq!(door.denied("wrong").await, wrong + 2);
    git().await;
}

/// Such a door, and a repository behind it.
async fn git() {
    let run = Run::new("login-git");
    repository(&run);
    let server = files(run.private());
    let scene = Scene::with("login-git", server.address, &["localhost"], |config, _| {
        ask_who(config);
        config["listeners"][0]["rules"][0] = json!({
            "name": "git", "match": {"hosts": ["localhost"]}, "action": "tunnel",
        });
    })
    .await;
    let url = scene.url("/repository.git");
    let roots = scene.run.private().join("upstream-ca.crt");
    let roots = roots.to_str().expect("text");
    let ask = async |login: &str| {
        let proxy = format!("http.proxy=http://{login}{}", scene.proxy.proxy());
        let variables = [
            ("GIT_SSL_CAINFO", roots),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("https_proxy", ""),
            ("HTTPS_PROXY", ""),
        ];
        scene.client_with("git", &["-c", &proxy, "ls-remote", &url], &variables).await
    };
    let good = ask(&right()).await;
    let (out, err) = printed(&good);
    assert!(good.status.success() && out.contains("refs/heads/main"), "{out} {err}");
    // A tunnel for a program in Go: it verifies the upstream itself.
    let file = scene.url("/repository.git/HEAD").replace("localhost:", "localhost.:");
    let proxy = format!("http://{}{}", right(), scene.proxy.proxy());
    let variables = [("HTTPS_PROXY", proxy.as_str()), ("https_proxy", &proxy), ("SSL_CERT_FILE", roots)];
    let (out, err) = printed(&scene.client_with("rclone", &[RCLONE, &[&file]].concat(), &variables).await);
    assert_eq!(out, "ref: refs/heads/main\n", "{err}");
    for login in ["", "batch:wrong@"] {
        let (out, err) = printed(&ask(login).await);
        assert!(out.is_empty() && err.contains("fatal"), "{out} {err}");
        assert!(err.contains("407") || err.contains("terminal prompts disabled"), "{err}");
    }
    count(
        "curl (HTTP, anyauth, SOCKS5) and git log in at the proxy; without or with a wrong password they say 407 or rejected",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_requests_log_in_over_http_and_socks5() {
    let door = Door::new("login-python").await;
    let ask = async |scheme: &str, login: &str, url: &str| {
        let output = door.scene.client(python(), &["proxied.py", &door.proxy(scheme, login), url]).await;
        let (out, err) = printed(&output);
        assert!(output.status.success(), "{err}");
        out.trim().to_owned()
    };
    let (secure, plain) = (door.scene.url("/x"), format!("{}/x", door.plain));
    for (scheme, url) in [("http", &secure), ("http", &plain), ("socks5h", &secure)] {
        assert_eq!(ask(scheme, &right(), url).await, "200", "{scheme} {url}");
    }
    for login in ["", "batch:wrong@"] {
        let told = ask("http", login, &secure).await;
        assert!(
            told.starts_with("ProxyError") && told.contains("407 Proxy Authentication Required"),
            "{told}"
        );
        assert_eq!(ask("http", login, &plain).await, "407");
        let told = ask("socks5h", login, &secure).await;
        assert!(
            told.contains("SOCKS5 authentication failed") || told.contains("authentication methods"),
            "{told}"
        );
    }
    count(
        "Python requests with PySocks: logs in over HTTP and SOCKS5; a refusal is a ProxyError with 407, or of SOCKS5",
    );
}

/// A program in Go that shows what a URL leads to, asked once.
const RCLONE: &[&str] = &["copyurl", "--stdout", "--retries", "1", "--low-level-retries", "1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_takes_proxy_login_and_trust_from_its_environment() {
    let door = Door::new("login-go").await;
    // Go never asks a proxy for `localhost`; with a dot at its end it is a name like any other.
    let url = door.scene.url("/go").replace("localhost:", "localhost.:");
    let ask = async |scheme: &str, login: &str| {
        let proxy = door.proxy(scheme, login);
        let variables = [("HTTPS_PROXY", proxy.as_str()), ("https_proxy", &proxy)];
        let output = door.scene.client_with("rclone", &[RCLONE, &[&url]].concat(), &variables).await;
        let (out, err) = printed(&output);
        (output.status.success(), out, err)
    };
    for scheme in ["http", "socks5"] {
        let (good, out, err) = ask(scheme, &right()).await;
        assert!(good, "{scheme} {err}");
        let seen: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((&seen["target"], &seen["method"]), (&json!("/go"), &json!("GET")), "{seen}");
    }
    for login in ["", "batch:wrong@"] {
        let (good, _, err) = ask("http", login).await;
        assert!(!good && err.contains("Proxy Authentication Required"), "{err}");
    }
    count(
        "Go (rclone): tunnel and interception by HTTPS_PROXY and SSL_CERT_FILE, SOCKS5, login; a refusal is told",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_logs_in_by_its_own_variable_by_undici_and_by_agents() {
    let door = Door::new("login-node").await;
    let ask = async |login: &str| {
        let (proxy, socks) = (door.proxy("http", login), door.proxy("socks5h", login));
        let variables =
            [("NODE_USE_ENV_PROXY", "1"), ("HTTPS_PROXY", proxy.as_str()), ("https_proxy", proxy.as_str())];
        let arguments = ["login.mjs", &proxy, &socks, &door.scene.url("/x")];
        let output = door.scene.client_with(node(), &arguments, &variables).await;
        let (out, err) = printed(&output);
        assert!(output.status.success(), "{out} {err}");
        serde_json::from_str::<Value>(&out).expect("JSON")
    };
    let all = json!({"fetch": 200, "https": 200, "undici": 200, "https-proxy-agent": 200, "socks-proxy-agent": 200});
    assert_eq!(ask(&right()).await, all);
    for login in ["", "batch:wrong@"] {
        let told = ask(login).await;
        for client in ["fetch", "https", "undici", "https-proxy-agent"] {
            assert!(told[client].to_string().contains("407"), "{client}: {told}");
        }
        assert!(
            told["socks-proxy-agent"].as_str().is_some_and(|text| text.contains("uthentication")),
            "{told}"
        );
    }
    count(
        "Node.js: NODE_USE_ENV_PROXY (fetch, https), undici, https-proxy-agent and socks-proxy-agent log in; a refusal is 407",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_logs_in_with_an_authenticator() {
    let door = Door::new("login-java").await;
    let store = door.scene.run.private().join("trust.p12");
    let (store, ca) = (store.to_str().expect("text"), door.scene.ca.to_str().expect("text"));
    let import = ["-importcert", "-noprompt", "-alias", "bearward", "-file", ca, "-keystore", store];
    let kind = ["-storetype", "PKCS12", "-storepass", "changeit"];
    door.scene.succeeds("keytool", &[&import[..], &kind].concat()).await;
    let proxy = door.scene.proxy.proxy();
    let arguments = [
        &format!("-Djavax.net.ssl.trustStore={store}"),
        "-Djavax.net.ssl.trustStorePassword=changeit",
        "-Dhttp.nonProxyHosts=",
        // Else Java answers no challenge of Basic to CONNECT.
        "-Djdk.http.auth.tunneling.disabledSchemes=",
        &format!("-Dhttps.proxyHost={}", proxy.ip()),
        &format!("-Dhttps.proxyPort={}", proxy.port()),
        "Login.java",
        &door.scene.url("/java"),
        "batch",
    ];
    let output = door.scene.client_with("java", &arguments, &[("PASSWORD", PASSWORD)]).await;
    let (out, err) = printed(&output);
    assert!(output.status.success(), "{out} {err}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..2], ["java.net.http 200", "HttpURLConnection 200"], "{out}");
    for (line, client) in lines[2..].iter().zip(["java.net.http", "HttpURLConnection"]) {
        assert!(line.starts_with(client), "{out}");
        // Each tries three times: then guesses are slowed down.
        let told = ["407", "429", "too many authentication attempts"];
        assert!(told.iter().any(|words| line.contains(words)), "{out}");
    }
    assert_eq!(lines.len(), 4, "{out}");
    count("Java: java.net.http and HttpURLConnection log in with an Authenticator; a wrong password is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_logs_in_when_it_is_asked() {
    let door = Door::new("login-chromium").await;
    chromium_trusts(&door.scene, "bearward", &door.scene.ca).await;
    let ask = async |password: &str| {
        let arguments = ["surf.mjs", &door.proxy("http", ""), &door.scene.url("/page"), "batch", password];
        let printed = door.scene.succeeds(node(), &arguments).await;
        serde_json::from_str::<Value>(&printed).expect("JSON")
    };
    let seen = json!({"status": 200, "protocol": "h2", "target": "/page", "message": "hello"});
    assert_eq!(ask(PASSWORD).await, seen);
    let refused = ask("wrong").await;
    assert!(
        refused["status"] == 407 || refused["status"].as_str().is_some_and(|text| text.contains("ERR_")),
        "{refused}"
    );
    count(
        "Chromium: logs in at the proxy when it is asked (407), page and WebSocket inside; not with a wrong password",
    );
}
