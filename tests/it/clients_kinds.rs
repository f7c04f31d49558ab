//! Every kind of client on every kind of listener: who is let in, what others are told, and that nothing of a proof goes on.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bearward::secret::Fingerprint;
use rustls::ClientConfig;
use rustls::version::TLS13;
use serde_json::{Value, json};

use crate::clients_proofs::{Issuer, claims, hash};
use crate::clients_rig::{basic, write};
use crate::egress_intercept::{make_ca, tls_front};
use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::{count, eventually};
use crate::proxy_rig::{OriginServer, field_of, fields_of, status};
use crate::tls_rig::{Authority, Files, Pair, TlsWire};

const KEY: &str = "the-key-of-a-client";
const PASSWORD: &str = "the-password-of-a-client";

/// What a client speaks over.
trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// How a listener is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Reverse,
    Forward,
    Connect,
    Intercept,
    Socks,
}

const FORMS: [Form; 5] = [Form::Reverse, Form::Forward, Form::Connect, Form::Intercept, Form::Socks];

/// What a client shows.
#[derive(Clone, Default)]
struct Shown<'s> {
    /// `Basic …` or `Bearer …`.
    authorization: Option<String>,
    key: Option<&'s str>,
    certificate: Option<&'s Pair>,
}

struct Stage {
    run: Arc<Run>,
    bearward: Bearward,
    origin: OriginServer,
    addresses: HashMap<String, String>,
    server: Authority,
    _files: Files,
    tls_port: u16,
    inside: Arc<ClientConfig>,
    asked: std::cell::Cell<usize>,
}

impl Stage {
    async fn start(clients: &Value, lists: &[(&str, &str, &[&str])], own: &Authority) -> Self {
        let run = Arc::new(Run::new("clients-kinds"));
        [KEY, PASSWORD].iter().for_each(|secret| run.secret(secret));
        let (origin, server, upstream) = (OriginServer::ok(), Authority::new(), Authority::new());
        let tls_port = tls_front(&upstream.issue(&["localhost"]), origin.address).await;
        let roots = write(&run.private().join("upstream.crt"), &upstream.certificate.pem());
        let files = Files::of(&server.issue(&["localhost"]));
        files.write("clients.crt", &own.certificate.pem());
        let tls = json!({"cert": {"file": files.at("tls.crt")}, "key": {"file": files.at("tls.key")},
                         "client_ca": {"file": files.at("clients.crt")}});
        let ca = make_ca(&run, &["localhost"]);
        let rules = json!([
            {"name": "plain", "match": {"hosts": ["127.0.0.1"]}, "action": "forward"},
            {"name": "way", "match": {"hosts": ["127.0.0.1"]}, "action": "tunnel"},
            {"name": "inside", "match": {"hosts": ["localhost"]}, "action": "intercept", "tls": {"ca": {"file": roots}}},
        ]);
        let route = json!([{"name": "api", "upstream": origin.url()}]);
        let mut listeners =
            vec![json!({"name": "legacy", "kind": "reverse", "bind": "127.0.0.1:0", "routes": route})];
        for (name, over, list) in lists {
            let bind = |kind: &str| match *over {
                "unix" => format!("unix:{}", run.private().join(format!("{kind}-{name}")).display()),
                _ => "127.0.0.1:0".to_owned(),
            };
            let mut reverse = json!({"name": format!("reverse-{name}"), "kind": "reverse", "bind": bind("reverse"),
                                     "clients": list, "routes": route});
            let mut egress = json!({"name": format!("egress-{name}"), "kind": "egress", "bind": bind("egress"),
                                    "clients": list, "rules": rules, "intercept": ca, "socks5": true,
                                    "egress_network": {"allow_private": ["127.0.0.0/8", "::1"]}});
            if *over == "tls" {
                reverse["tls"] = tls.clone();
                egress["tls"] = tls.clone();
            }
            listeners.extend([reverse, egress]);
        }
        let config = json!({
            "listeners": listeners, "clients": clients, "store": {"kind": "memory"}, "outbound_proxy": null,
            "admin": {"bind": "127.0.0.1:0"}, "limits": {"workers": 1},
            "log": {"access": {"file": run.private().join("access.log")}},
        });
        let bearward = Bearward::start(&run, &config).await;
        let status: Value =
            serde_json::from_slice(&bearward.admin("/api/v1/status").await.body).expect("JSON");
        let of = |one: &Value, key: &str| one[key].as_str().expect("text").to_owned();
        let all = status["listeners"].as_array().expect("a list").iter();
        let addresses = all.map(|one| (of(one, "name"), of(one, "address"))).collect();
        let roots = bearward::tls::pem::read_trust_anchors(&run.private().join("ca.crt")).expect("roots");
        let inside = ClientConfig::builder_with_provider(bearward::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            run,
            bearward,
            origin,
            addresses,
            server,
            _files: files,
            tls_port,
            inside: Arc::new(inside),
            asked: 0.into(),
        }
    }

    fn dial(
        &self,
        (listener, over): (&str, &str),
        form: Form,
        shown: &Shown<'_>,
    ) -> std::io::Result<Box<dyn Duplex>> {
        let address = &self.addresses[listener];
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(Box::new(UnixStream::connect(path)?));
        }
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        if over != "tls" {
            return Ok(Box::new(stream));
        }
        let mut config = ClientConfig::clone(&self.server.client(&[&TLS13], shown.certificate));
        if form == Form::Socks {
            // It has no name for ALPN.
            config.alpn_protocols.clear();
        }
        Ok(Box::new(TlsWire::over(stream, &Arc::new(config))?.0))
    }

    /// The status and the answer; 0 where there was no answer at all, and as it is for SOCKS.
    fn ask(&self, (name, over): (&str, &str), form: Form, shown: &Shown<'_>) -> (u16, String) {
        let listener = format!("{}-{name}", if form == Form::Reverse { "reverse" } else { "egress" });
        let answer =
            self.dial((&listener, over), form, shown).and_then(|stream| self.talk(stream, form, shown));
        let answer = answer.unwrap_or_default();
        let code = if answer.is_empty() { 0 } else { status(&answer) };
        if code == 200 {
            self.asked.set(self.asked.get() + 1);
        }
        (code, answer)
    }

    fn talk(&self, mut stream: Box<dyn Duplex>, form: Form, shown: &Shown<'_>) -> std::io::Result<String> {
        let field = if form == Form::Reverse { "Authorization" } else { "Proxy-Authorization" };
        let mut fields = String::new();
        if let Some(value) = &shown.authorization {
            fields.push_str(&format!("{field}: {value}\r\n"));
        }
        if let Some(key) = shown.key {
            fields.push_str(&format!("X-Api-Key: {key}\r\n"));
        }
        let plain = self.origin.address;
        let secure = format!("localhost:{}", self.tls_port);
        let get =
            |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        match form {
            Form::Reverse => exchange(&mut stream, &get("/x", &fields)),
            Form::Forward => exchange(&mut stream, &get(&format!("http://{plain}/x"), &fields)),
            Form::Connect => {
                let answer =
                    exchange(&mut stream, &format!("CONNECT {plain} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))?;
                if status(&answer) != 200 { Ok(answer) } else { exchange(&mut stream, &get("/x", "")) }
            }
            Form::Intercept => {
                let answer =
                    exchange(&mut stream, &format!("CONNECT {secure} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))?;
                if status(&answer) != 200 {
                    return Ok(answer);
                }
                TlsWire::over(stream, &self.inside)?.exchange(&get("/x", "").replace("localhost", &secure))
            }
            Form::Socks => socks(stream, plain.port(), shown),
        }
    }
}

fn exchange(stream: &mut dyn Duplex, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&answer).into_owned();
    let length = field_of(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(head + &String::from_utf8_lossy(&body))
}

/// `SOCKS 200` for a way, else what was refused: the method (407), or the way.
fn socks(mut stream: Box<dyn Duplex>, port: u16, shown: &Shown<'_>) -> std::io::Result<String> {
    use base64::Engine;
    let pair = shown.authorization.as_ref().and_then(|value| value.strip_prefix("Basic "));
    let method = if pair.is_some() { 2 } else { 0 };
    stream.write_all(&[5, 1, method])?;
    stream.flush()?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply)?;
    if reply[1] != method {
        return Ok(format!("SOCKS 407 {reply:?}"));
    }
    if let Some(pair) = pair {
        let pair = base64::engine::general_purpose::STANDARD.decode(pair).expect("base64");
        let pair = String::from_utf8(pair).expect("text");
        let (user, password) = pair.split_once(':').expect("a colon");
        let length = |text: &str| u8::try_from(text.len()).expect("short");
        let bytes = [&[1, length(user)], user.as_bytes(), &[length(password)], password.as_bytes()].concat();
        stream.write_all(&bytes)?;
        stream.flush()?;
        stream.read_exact(&mut reply)?;
        if reply != [1, 0] {
            return Ok(format!("SOCKS 407 {reply:?}"));
        }
    }
    stream.write_all(&[&[5, 1, 0, 1, 127, 0, 0, 1][..], &port.to_be_bytes()].concat())?;
    stream.flush()?;
    let mut reply = [0; 10];
    stream.read_exact(&mut reply)?;
    if reply[1] != 0 {
        return Ok(format!("SOCKS 403 {reply:?}"));
    }
    exchange(&mut *stream, "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_known_on_every_listener_and_nobody_else_is() {
    let (own, foreign, issuer) = (Authority::new(), Authority::new(), Issuer::new("one"));
    let keys = tempfile::tempdir().expect("tempdir");
    let jwks = write(&keys.path().join("jwks.json"), &json!({"keys": [issuer.jwk()]}).to_string());
    let uid = rustix::process::getuid().as_raw();
    let clients = json!({
        "by-key": {"api_key": {"sha256": [Fingerprint::of(KEY.as_bytes()).to_hex()]}},
        "by-password": {"basic": {"username": "batch", "password_hash": {"value": hash(PASSWORD)}}},
        "by-token": {"jwt": {"issuer": "https://id.example.com", "audience": "bearward", "jwks": {"file": jwks}}},
        "by-certificate": {"mtls": {"san": ["*.batch.internal"]}},
        "by-address": {"cidr": ["127.0.0.0/8"]},
        "from-afar": {"cidr": ["192.0.2.0/24"]},
        "by-user": {"unix_peer": {"uid": [uid]}},
        "another-user": {"unix_peer": {"uid": [uid + 1]}},
    });
    let lists: &[(&str, &str, &[&str])] = &[
        ("key", "tcp", &["by-key"]),
        ("password", "tcp", &["by-password"]),
        ("token", "tcp", &["by-token"]),
        ("certificate", "tls", &["by-certificate"]),
        ("address", "tcp", &["by-address"]),
        ("afar", "tcp", &["from-afar"]),
        ("user", "unix", &["by-user"]),
        ("other", "unix", &["another-user"]),
        ("mixed", "tls", &["by-certificate", "by-password", "by-key"]),
    ];
    let stage = Stage::start(&clients, lists, &own).await;
    let authorization = |value: String| Shown { authorization: Some(value), ..Shown::default() };
    let token = issuer.sign(&claims(json!({})));
    stage.run.secret(&token);
    let (good_pair, other_pair, foreign_pair) = (
        own.issue(&["a.batch.internal"]),
        own.issue(&["a.erp.internal"]),
        foreign.issue(&["a.batch.internal"]),
    );
    let certificate = |pair| Shown { certificate: Some(pair), ..Shown::default() };
    let nothing = Shown::default();
    let key = |key| Shown { key: Some(key), ..Shown::default() };
    let (good_password, bad_password) = (basic("batch", PASSWORD), basic("batch", "another"));
    // Listener, what is shown, its status on a reverse listener, on an egress listener, with SOCKS; the challenge.
    let cases: Vec<(&str, &str, Shown<'_>, [u16; 3], &str)> = vec![
        ("key", "tcp", key(KEY), [200, 200, 407], ""),
        ("key", "tcp", key("a-wrong-key"), [401, 407, 407], "ApiKey "),
        ("key", "tcp", nothing.clone(), [401, 407, 407], "ApiKey "),
        ("password", "tcp", authorization(good_password.clone()), [200, 200, 200], ""),
        ("password", "tcp", nothing.clone(), [401, 407, 407], "Basic "),
        ("token", "tcp", authorization(format!("Bearer {token}")), [200, 200, 407], ""),
        ("token", "tcp", authorization("Bearer a.b.c".to_owned()), [401, 407, 407], "Bearer "),
        ("token", "tcp", nothing.clone(), [401, 407, 407], "Bearer "),
        ("certificate", "tls", certificate(&good_pair), [200, 200, 200], ""),
        ("certificate", "tls", certificate(&other_pair), [403, 403, 407], ""),
        ("certificate", "tls", nothing.clone(), [0, 0, 0], ""),
        ("address", "tcp", nothing.clone(), [200, 200, 200], ""),
        ("afar", "tcp", nothing.clone(), [403, 403, 407], ""),
        ("user", "unix", nothing.clone(), [200, 200, 200], ""),
        ("other", "unix", nothing.clone(), [403, 403, 407], ""),
        // A certificate is one way among others.
        ("mixed", "tls", certificate(&good_pair), [200, 200, 200], ""),
        ("mixed", "tls", authorization(good_password.clone()), [200, 200, 200], ""),
        ("mixed", "tls", key(KEY), [200, 200, 407], ""),
        (
            "mixed",
            "tls",
            Shown { authorization: Some(good_password.clone()), ..certificate(&other_pair) },
            [200, 200, 200],
            "",
        ),
        ("mixed", "tls", nothing.clone(), [401, 407, 407], "Basic "),
        ("mixed", "tls", certificate(&other_pair), [401, 407, 407], "Basic "),
        // One that nobody here trusts is no handshake, whatever else is shown.
        (
            "mixed",
            "tls",
            Shown { authorization: Some(good_password.clone()), ..certificate(&foreign_pair) },
            [0, 0, 0],
            "",
        ),
        // Last: who guesses has to wait.
        ("password", "tcp", authorization(bad_password.clone()), [401, 407, 407], "Basic "),
    ];
    for (name, over, shown, expected, challenge) in &cases {
        for form in FORMS {
            let expected = match form {
                Form::Reverse => expected[0],
                Form::Socks => expected[2],
                _ => expected[1],
            };
            let (code, answer) = stage.ask((name, over), form, shown);
            let (by, certified) = (&shown.authorization, shown.certificate.is_some());
            assert_eq!(code, expected, "{name} {form:?} {by:?} {:?} {certified}: {answer}", shown.key);
            if form == Form::Socks || expected < 400 {
                continue;
            }
            let field = if form == Form::Reverse { "www-authenticate" } else { "proxy-authenticate" };
            let told = fields_of(&answer, field);
            match challenge.is_empty() {
                true => assert_eq!(told, Vec::<String>::new(), "{name} {form:?}: {answer}"),
                false => assert!(told[0].starts_with(challenge), "{name} {form:?}: {answer}"),
            }
        }
    }
    let passed = stage.asked.get();
    assert_eq!(stage.origin.requests().len(), passed);
    let secrets = [KEY, PASSWORD, token.as_str(), good_password.as_str(), bad_password.as_str()];
    for request in stage.origin.requests() {
        for field in ["authorization", "proxy-authorization", "x-api-key"] {
            assert_eq!(fields_of(&request, field), Vec::<String>::new(), "{request}");
        }
        assert!(!secrets.iter().any(|secret| request.contains(secret)), "{request}");
    }
    // Who guesses is slowed down on either kind of listener.
    for (name, wrong) in [("key", key("a-wrong-key")), ("token", authorization("Bearer a.b.c".to_owned()))] {
        for form in [Form::Reverse, Form::Forward] {
            let told: Vec<u16> = (0..8).map(|_| stage.ask((name, "tcp"), form, &wrong).0).collect();
            assert!(told.contains(&429), "{name} {form:?}: {told:?}");
        }
    }
    judge_telling(&stage, &secrets).await;
    count(&format!("client kinds: {} cases of proof x {} forms of listener", cases.len(), FORMS.len()));
}

/// Names in the access log and metrics; no secret in either.
async fn judge_telling(stage: &Stage, secrets: &[&str]) {
    let path = stage.run.private().join("access.log");
    let times = [("by-key", 8), ("by-password", 15), ("by-token", 4), ("by-certificate", 10), ("by-user", 5)];
    let count_of = |lines: &[Value], name: &str| {
        // CONNECT to what is intercepted is a line of its own.
        let begins = |line: &Value| line["method"] == "CONNECT" && line["action"] == "intercept";
        lines.iter().filter(|line| line["client_name"] == name && !begins(line)).count()
    };
    let (text, lines) = eventually("the lines are written", Duration::from_secs(10), async || {
        let text = std::fs::read_to_string(&path).expect("a log");
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let whole = times.iter().all(|(name, times)| count_of(&lines, name) >= *times);
        whole.then_some((text, lines))
    })
    .await;
    for line in &lines {
        let known = line["client_name"].as_str().is_some();
        assert_eq!(known, line["status"] == 200, "{line}");
    }
    let metrics = stage.bearward.admin("/metrics").await.to_string();
    for (name, times) in times {
        assert_eq!(count_of(&lines, name), times, "{name}");
        let line = format!("bearward_client_requests_total{{client=\"{name}\",code_class=\"2xx\"}} 0\n");
        assert!(!metrics.contains(&line), "{line}");
    }
    for (listener, reason) in [
        ("reverse-key", "wrong"),
        ("egress-key", "missing"),
        ("egress-password", "wrong"),
        ("egress-mixed", "missing"),
        ("reverse-afar", "forbidden"),
        ("egress-other", "forbidden"),
        ("egress-key", "throttled"),
    ] {
        let line = format!("bearward_client_denied_total{{listener=\"{listener}\",reason=\"{reason}\"}} 0\n");
        assert!(!metrics.contains(&line), "{line}");
    }
    for told in [&text, &metrics, &stage.run.everything()] {
        assert!(!secrets.iter().any(|secret| told.contains(secret)));
    }
}
