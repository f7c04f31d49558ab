//! The certificates of the real binary's listeners: replaced under traffic, broken, ending; and what is said of them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::harness::{count, eventually};
use crate::proxy_rig::{OriginServer, field_of, status};
use crate::tls_rig::{Authority, Files, Pair, TlsWire};

/// Longer than two looks at the files, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// One TLS listener named `legacy`, one route without a credential.
fn config(origin: &OriginServer, files: &Files) -> Value {
    let mut tls = json!({"cert": {"file": files.at("tls.crt")}, "key": {"file": files.at("tls.key")}});
    if files.at("clients.crt").exists() {
        tls["client_ca"] = json!({"file": files.at("clients.crt")});
    }
    json!({
        "version": 1,
        "listeners": [{
            "name": "legacy", "kind": "reverse", "bind": "127.0.0.1:0", "tls": tls,
            "routes": [{"name": "api", "upstream": origin.url()}],
        }],
        "admin": {"bind": "127.0.0.1:0"},
        "log": {"level": "info", "format": "json"},
    })
}

fn leaf(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate")
}

/// The certificate that a new connection is shown.
fn shown(address: SocketAddr, authority: &Authority) -> CertificateDer<'static> {
    TlsWire::to(address, &authority.client(&[&TLS13], None)).expect("a handshake").shown()
}

async fn until_shown(bearward: &Bearward, authority: &Authority, pair: &Pair) {
    let wanted = leaf(pair);
    eventually("the new certificate is shown", SOON, async || {
        (shown(bearward.proxy(), authority) == wanted).then_some(())
    })
    .await;
}

/// How many warnings of the log speak of files that cannot be used.
fn warnings(run: &Run) -> Vec<String> {
    let everything = run.everything();
    let about = |line: &&str| line.contains("\"WARN\"") && line.contains("cannot be used");
    everything.lines().filter(about).map(str::to_owned).collect()
}

async fn metric(bearward: &Bearward, name: &str) -> f64 {
    let text = bearward.admin("/metrics").await.to_string();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_traffic_without_a_failed_request() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let run = Arc::new(Run::new("certificate-swap"));
    let first = authority.issue(&["localhost"]);
    let files = Files::of(&first);
    files.swap_data("..v0", &first);
    let bearward = Bearward::start(&run, &config(&origin, &files)).await;
    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let traffic: Vec<_> = [false, true]
        .into_iter()
        .map(|kept| {
            let (done, served) = (Arc::clone(&done), Arc::clone(&served));
            let (address, client) = (bearward.proxy(), authority.client(&[&TLS13], None));
            std::thread::spawn(move || {
                let mut wire = None;
                while !done.load(Ordering::Relaxed) {
                    if !kept || wire.is_none() {
                        wire = Some(TlsWire::to(address, &client).expect("a handshake"));
                    }
                    let answer = wire.as_mut().expect("a connection").get().expect("an answer");
                    assert_eq!(status(&answer), 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for turn in 1..=3 {
        let pair = authority.issue_until(&["localhost"], 4000 + turn);
        let begun = tokio::time::Instant::now();
        files.swap_data(&format!("..v{turn}"), &pair);
        until_shown(&bearward, &authority, &pair).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    done.store(true, Ordering::Relaxed);
    for thread in traffic {
        thread.join().expect("no request failed");
    }
    assert_eq!(metric(&bearward, "bearward_tls_handshake_failures_total").await, 0.0);
    let expiry = metric(&bearward, "bearward_tls_certificate_expiry_timestamp_seconds").await;
    assert_eq!(expiry, 64_160_380_800.0, "the first of March 4003");
    let status: Value = serde_json::from_slice(&bearward.admin("/api/v1/status").await.body).expect("JSON");
    let shown = json!({"names": ["localhost"], "expires_at": "4003-03-01T00:00:00Z"});
    assert_eq!(status["listeners"][0]["certificate"], shown);
    assert!(warnings(&run).is_empty());
    let served = served.load(Ordering::Relaxed);
    assert!(served > 50);
    count(&format!("certificate replaced three times under {served} requests: none failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_files_change_nothing_and_are_told_once() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let run = Arc::new(Run::new("certificate-broken"));
    let good = authority.issue(&["localhost"]);
    let files = Files::of(&good);
    let bearward = Bearward::start(&run, &config(&origin, &files)).await;
    let mut told = 0;
    let mut check = async |name: &str, text: &str, expected: &str| {
        files.write(name, text);
        told += 1;
        let said = eventually("a warning", SOON, async || {
            let all = warnings(&run);
            (all.len() >= told).then_some(all)
        })
        .await;
        let last = said.last().expect("a warning");
        assert!(last.contains(expected) && last.contains(name), "{last}");
        assert!(!last.contains("PRIVATE KEY-----\\n"), "{last}");
        assert_eq!(shown(bearward.proxy(), &authority), leaf(&good));
    };
    let other = authority.issue(&["localhost"]);
    check("tls.key", &other.key, "does not belong to the first certificate").await;
    check("tls.key", &other.key[..other.key.len() / 2], "a block has no END line").await;
    check("tls.crt", "", "no certificate in this file").await;
    // Some more looks at the same files say nothing new.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(warnings(&run).len(), 3);
    std::fs::remove_file(files.at("tls.key")).expect("removed");
    files.write("tls.crt", &other.cert);
    files.write("tls.key", &other.key);
    until_shown(&bearward, &authority, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_ended_is_spoken_of_until_a_new_one_is_there() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let run = Arc::new(Run::new("certificate-ended"));
    let files = Files::of(&authority.issue_until(&["localhost"], 2001));
    let bearward = Bearward::start(&run, &config(&origin, &files)).await;
    let said = async |words: &str| {
        eventually(words, SOON, async || run.everything().contains(words).then_some(())).await;
    };
    said("the certificate has expired and clients refuse it").await;
    assert!(TlsWire::to(bearward.proxy(), &authority.client(&[&TLS13], None)).is_err());
    let good = authority.issue(&["localhost"]);
    files.write("tls.crt", &good.cert);
    files.write("tls.key", &good.key);
    said("changed TLS files are in use").await;
    assert_eq!(shown(bearward.proxy(), &authority), leaf(&good));
    assert!(warnings(&run).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_ca_holds_for_clients_that_come_again() {
    let (authority, one, other) = (Authority::new(), Authority::new(), Authority::new());
    let origin = OriginServer::ok();
    let run = Arc::new(Run::new("client-ca-swap"));
    let files = Files::of(&authority.issue(&["localhost"]));
    files.write("clients.crt", &one.certificate.pem());
    let bearward = Bearward::start(&run, &config(&origin, &files)).await;
    let client = authority.client(&[&TLS13], Some(&one.issue(&["batch.internal"])));
    let get = || TlsWire::to(bearward.proxy(), &client).and_then(|mut wire| wire.get());
    for _ in 0..2 {
        assert_eq!(status(&get().expect("an answer")), 200);
    }
    files.write("clients.crt", &other.certificate.pem());
    eventually("the client is refused", SOON, async || get().is_err().then_some(())).await;
    assert!(get().is_err());
    let client = authority.client(&[&TLS13], Some(&other.issue(&["batch.internal"])));
    let answer = TlsWire::to(bearward.proxy(), &client).and_then(|mut wire| wire.get());
    assert_eq!(status(&answer.expect("an answer")), 200);
}

fn run_check(config: &Value, folder: &Files, command: &str) -> Output {
    folder.write("config.yaml", &config.to_string());
    let mut bearward = Command::new(env!("CARGO_BIN_EXE_bearward"));
    bearward.args([command, "-c"]).arg(folder.at("config.yaml")).stdin(Stdio::null());
    bearward.output().expect("the binary runs")
}

#[test]
fn check_tells_names_and_days_or_what_is_wrong() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let good = authority.issue(&["localhost", "api.example"]);
    let files = Files::of(&good);
    let output = run_check(&config(&origin, &files), &files, "check");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        printed.contains("listener `legacy`: certificate for localhost, api.example, until 4096-03-01"),
        "{printed}"
    );
    assert!(printed.contains(" days left)"), "{printed}");
    let check = |change: &dyn Fn(&Files), code: i32, parts: &[&str]| {
        let files = Files::of(&good);
        change(&files);
        for command in ["check", "run"] {
            if code == 0 && command == "run" {
                continue;
            }
            let output = run_check(&config(&origin, &files), &files, command);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{said}");
            for part in parts {
                assert!(said.contains(part), "`{part}` is not in: {said}");
            }
        }
    };
    check(&|files| drop(std::fs::remove_file(files.at("tls.crt"))), 2, &["tls.crt: no such file"]);
    check(&|files| drop(std::fs::remove_file(files.at("tls.key"))), 2, &["tls.key: no such file"]);
    let other = authority.issue(&["localhost"]);
    check(&|files| files.write("tls.key", &other.key), 2, &["tls.key", "does not belong", "tls.crt"]);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    check(&|files| files.write("tls.key", encrypted), 2, &["tls.key", "is encrypted", "openssl pkey"]);
    check(
        &|files| files.write("tls.crt", &good.key),
        2,
        &["tls.crt", "a private key here but no certificate"],
    );
    check(&|files| files.write("clients.crt", ""), 2, &["clients.crt", "no certificate in this file"]);
    check(&|files| files.write("clients.crt", "junk"), 2, &["clients.crt", "no certificate in this file"]);
    let expired = authority.issue_until(&["localhost"], 2001);
    check(
        &|files| {
            files.write("tls.crt", &expired.cert);
            files.write("tls.key", &expired.key);
        },
        0,
        &["warning", "has expired at 2001-03-01", "without a restart"],
    );
}

#[test]
fn a_socket_of_systemd_takes_a_proxy_header_and_then_tls() {
    let (authority, origin) = (Authority::new(), OriginServer::ok());
    let files = Files::of(&authority.issue(&["localhost"]));
    let mut config = config(&origin, &files);
    let listener = &mut config["listeners"][0];
    listener["bind"] = json!("systemd:web");
    listener["proxy_protocol"] = json!("required");
    listener["trusted_proxies"] = json!(["127.0.0.1"]);
    files.write("config.yaml", &config.to_string());
    let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = socket.local_addr().expect("address");
    // Descriptor 3, and the process id that systemd would set.
    let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" run --ready-json -c \"$1\"";
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_bearward")])
        .arg(files.at("config.yaml"))
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(ready["listeners"]["legacy"], address.to_string());
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n").expect("written");
    let mut wire = TlsWire::over(stream, &authority.client(&[&TLS13], None)).expect("a handshake");
    let answer = wire.get().expect("an answer");
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert_eq!(status(&answer), 200);
    let request = origin.requests().pop().expect("a request");
    assert_eq!(
        field_of(&request, "forwarded").as_deref(),
        Some("for=\"[2001:db8::7]\";proto=https;host=\"localhost\"")
    );
}
