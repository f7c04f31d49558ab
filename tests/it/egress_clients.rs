//! Programs that only know how to use a proxy, through an egress listener: git, Chromium.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::egress;
use crate::egress_intercept::tls_front;
use crate::harness::bearward::Bearward;
use crate::harness::count;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, TOKEN, field_of};
use crate::tls_rig::Authority;

/// Serves the files of a directory.
pub(crate) fn files(directory: &Path) -> OriginServer {
    let directory = directory.to_owned();
    OriginServer::scripted(move |stream, request| {
        let target = request.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default().trim_start_matches('/');
        let body = if path.contains("..") { None } else { std::fs::read(directory.join(path)).ok() };
        let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
        let body = body.unwrap_or_default();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_ok()
    })
}

fn git(arguments: &[&str], directory: &Path) {
    let mut command = Command::new("git");
    command.args([
        "-c",
        "user.name=tester",
        "-c",
        "user.email=tester@example.com",
        "-c",
        "init.defaultBranch=main",
    ]);
    let output = command.args(arguments).current_dir(directory).output().expect("git is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `repository.git` in the private directory of the run.
pub(crate) fn repository(run: &Run) {
    let work = run.private().join("work");
    std::fs::create_dir(&work).expect("made");
    git(&["init", "-q", "."], &work);
    for number in 0..20 {
        std::fs::write(work.join("file"), vec![b'a' + number; 10_000]).expect("written");
        git(&["add", "file"], &work);
        git(&["commit", "-q", "-m", "one more"], &work);
    }
    git(&["clone", "-q", "--bare", ".", "../repository.git"], &work);
    git(&["update-server-info"], &run.private().join("repository.git"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_clones_through_a_tunnel_and_from_nowhere_else() {
    let run = Arc::new(Run::new("egress-git"));
    repository(&run);
    let server = files(run.private());
    let authority = Authority::new();
    let port = tls_front(&authority.issue(&["localhost"]), server.address).await;
    let roots = run.private().join("server-ca.crt");
    std::fs::write(&roots, authority.certificate.pem()).expect("written");
    let rules =
        json!([{"name": "git", "match": {"hosts": ["localhost"], "ports": [port]}, "action": "tunnel"}]);
    let proxy = Bearward::start(&run, &egress::config(&run, &rules, &[])).await;
    let clone = async |host: &str, to: &str| {
        let mut command = tokio::process::Command::new("git");
        command
            .args(["-c", &format!("http.proxy=http://{}", proxy.proxy())])
            .args(["clone", "-q", &format!("https://{host}:{port}/repository.git"), to])
            .current_dir(run.private())
            .env("GIT_SSL_CAINFO", &roots)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("NO_PROXY", "none.example")
            .kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
        output.expect("it ends").expect("git is installed")
    };
    let output = clone("localhost", "cloned").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(run.private().join("cloned/file")).expect("cloned"), vec![b'a' + 19; 10_000]);
    assert!(
        server
            .requests()
            .iter()
            .all(|request| !request.contains("via:") && field_of(request, "authorization").is_none())
    );
    let before = server.requests().len();
    let refused = clone("127.0.0.1", "not-cloned").await;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("403"), "{refused:?}");
    assert_eq!(server.requests().len(), before);
    count(&format!("git clone through a tunnel: {before} requests inside, refused elsewhere with 403"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_shows_a_page_that_only_the_token_opens() {
    let run = Arc::new(Run::new("egress-chromium"));
    let page = OriginServer::scripted(|stream, request| {
        let opened = field_of(request, "authorization") == Some(format!("Bearer {TOKEN}"));
        let (status, body) =
            if opened { ("200 OK", "<p id=x>opened</p>") } else { ("401 Unauthorized", "<p>closed</p>") };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).is_ok()
    });
    let rules = json!([
        {"name": "page", "match": {"hosts": ["127.0.0.1"], "ports": [page.address.port()]}, "action": "forward", "credential": "it"},
    ]);
    let proxy = Bearward::start(&run, &egress::config(&run, &rules, &[page.url()])).await;
    let chromium = ["chromium", "google-chrome"]
        .into_iter()
        .find(|name| {
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        })
        .expect("Chromium is installed (Debian package chromium)");
    let mut command = tokio::process::Command::new(chromium);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", run.private().join("chromium").display()))
        .arg(format!("--proxy-server=http://{}", proxy.proxy()))
        .args(["--proxy-bypass-list=<-loopback>", "--dump-dom", &format!("{}/page", page.url())])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(90), command.output())
        .await
        .expect("it ends")
        .expect("it starts");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("opened"), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!shown.contains(TOKEN));
}
