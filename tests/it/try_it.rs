//! `bearward try`, as the README has it: one command, everything answers, tokens rotate, nothing is left.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::eventually;
use crate::harness::http;

const BEARWARD: &str = env!("CARGO_BIN_EXE_bearward");

/// A running demonstration whose temporary folder is its own. Killed when dropped.
struct Demonstration {
    child: Child,
    stdout: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Demonstration {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(BEARWARD)
            .arg("try")
            .args(arguments)
            .env("TMPDIR", folder.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, stdout, folder }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("UTF-8");
        assert!(!line.is_empty(), "it ended: {:?}", self.child.wait());
        line
    }

    /// Reads up to a line that contains `part`, and that line.
    fn lines_up_to(&mut self, part: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains(part)) {
            lines.push(self.line());
        }
        lines
    }

    /// The state folder of the run.
    fn state(&self) -> PathBuf {
        let mut entries = std::fs::read_dir(self.folder.path()).expect("readable");
        entries.next().expect("a folder was made").expect("readable").path()
    }

    /// Sends a signal and waits; what was printed since, and how it ended.
    fn end(mut self, signal: Signal) -> (String, ExitStatus, TempDir) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("UTF-8");
        let status = self.child.wait().expect("it ends");
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        (rest, status, folder)
    }
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn split(url: &str) -> (SocketAddr, String) {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (address, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    (address.parse().expect("an address"), path.to_owned())
}

async fn get(url: &str) -> http::Response {
    let (address, path) = split(url);
    http::get(address, &path).await.expect("it answers")
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("readable").next().is_none()
}

#[tokio::test]
async fn one_line_of_json_and_then_everything_answers_while_tokens_rotate() {
    let mut demonstration = Demonstration::start(&["--json", "--port", "0", "--token-lifetime", "2s"]);
    let line: Value = serde_json::from_str(&demonstration.line()).expect("JSON");
    let url = |name: &str| line[name].as_str().expect(name).to_owned();
    assert_eq!(line.as_object().expect("an object").len(), 5);
    assert!(url("token_endpoint").ends_with("/oauth2/v1/token"));
    assert!(url("example").starts_with(&url("proxy")));
    assert_eq!(get(&format!("{}/livez", url("admin"))).await.status, 200);
    assert_eq!(get(&format!("{}/hello", url("api"))).await.status, 401);

    let mut tokens: Vec<String> = Vec::new();
    eventually("three tokens", Duration::from_secs(20), async || {
        let answer = get(&url("example")).await;
        assert_eq!(answer.status, 200, "{answer}");
        let echo: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let token = echo["headers"]["authorization"].as_str().expect("a bearer").to_owned();
        assert!(token.starts_with("Bearer <token ") && echo["path"] == "/hello", "{echo}");
        if tokens.last() != Some(&token) {
            tokens.push(token);
        }
        (tokens.len() == 3).then_some(())
    })
    .await;

    let (rest, status, folder) = demonstration.end(Signal::TERM);
    assert!(status.success(), "{status}");
    assert_eq!(rest, "");
    assert!(is_empty(folder.path()), "the state is left behind");
}

#[tokio::test]
async fn what_the_page_says_to_type_works_and_each_rotation_is_one_line() {
    let mut demonstration = Demonstration::start(&["--port", "0", "--token-lifetime", "20s"]);
    let page = demonstration.lines_up_to("one line for each new token").concat();
    let command = |part: &str| {
        let line = page.lines().map(str::trim).find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("no {part} in {page}")).to_owned()
    };
    assert_eq!(get(command("/api/hello").trim_start_matches("curl ")).await.status, 200);
    assert_eq!(get(command("curl -i").trim_start_matches("curl -i ")).await.status, 401);
    let run = |part: &str| {
        let command = command(part);
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some(BEARWARD));
        Command::new(BEARWARD).args(words).output().expect("it runs")
    };
    let status = run("bearward status");
    assert!(String::from_utf8_lossy(&status.stdout).contains("example"), "{status:?}");
    let refreshed = run("bearward refresh example");
    assert!(refreshed.status.success(), "{}", String::from_utf8_lossy(&refreshed.stderr));
    let rotation = demonstration.lines_up_to("generation 2").pop().expect("a line");
    assert!(rotation.contains(" spent, next ") && rotation.contains("access token "), "{rotation}");

    let second = std::fs::read_to_string(demonstration.state().join("second.yaml")).expect("it is there");
    let secrets: Vec<String> = second
        .lines()
        .filter_map(|line| line.split_once("{value: \"").and_then(|(_, rest)| rest.split_once('"')))
        .map(|(secret, _)| secret.to_owned())
        .collect();
    assert_eq!(secrets.len(), 2, "{second}");
    let (rest, status, _) = demonstration.end(Signal::INT);
    assert!(status.success());
    for secret in secrets {
        assert!(!format!("{page}{rest}").contains(&secret));
    }
}

#[tokio::test]
async fn a_second_proxy_on_the_store_can_be_killed_at_any_moment() {
    let mut demonstration = Demonstration::start(&["--json", "--port", "0", "--token-lifetime", "2s"]);
    let line: Value = serde_json::from_str(&demonstration.line()).expect("JSON");
    let example = line["example"].as_str().expect("a URL").to_owned();
    for _ in 0..2 {
        let mut second = Command::new(BEARWARD)
            .args(["run", "--ready-json", "-c"])
            .arg(demonstration.state().join("second.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut ready = String::new();
        BufReader::new(second.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        let address = ready["listeners"]["legacy"].as_str().expect("an address").to_owned();
        eventually("the second proxy answers", Duration::from_secs(10), async || {
            (get(&format!("http://{address}/api/x")).await.status == 200).then_some(())
        })
        .await;
        second.kill().expect("it runs");
        second.wait().expect("it ends");
    }
    let before = token_of(&example).await;
    eventually("another token", Duration::from_secs(10), async || {
        (token_of(&example).await != before).then_some(())
    })
    .await;
}

async fn token_of(example: &str) -> String {
    let answer = get(example).await;
    assert_eq!(answer.status, 200, "{answer}");
    let echo: Value = serde_json::from_slice(&answer.body).expect("JSON");
    echo["headers"]["authorization"].as_str().expect("a bearer").to_owned()
}

#[test]
fn a_port_in_use_and_bad_arguments_are_said_clearly() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("bound").port().to_string();
    let check = |arguments: &[&str], code: i32, part: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let output = Command::new(BEARWARD)
            .arg("try")
            .args(arguments)
            .env("TMPDIR", folder.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(part), "{said}");
        assert!(output.stdout.is_empty() && is_empty(folder.path()));
    };
    check(&["--json", "--port", &port], 1, "(the proxy)");
    check(&["--port", &port], 1, "--port 0");
    check(&["--token-lifetime", "10ms"], 2, "at least 1s");
    check(&["--token-lifetime", "soon"], 2, "60s");
    check(&["--port", "65534"], 1, "65532");
}

#[tokio::test]
async fn trouble_made_as_the_page_says_is_told_and_heals_by_itself() {
    let mut demonstration = Demonstration::start(&["--port", "0", "--token-lifetime", "2s"]);
    let page = demonstration.lines_up_to("one line for each new token").concat();
    let line = page.lines().find(|line| line.contains("503")).expect("a line makes it answer 503");
    let mut quoted = line.split('\'').skip(1);
    let (body, url) = (quoted.next().expect("a body"), quoted.next().expect("a URL").trim());
    let control = async |method: &str, body: &str| crate::idp::send(url, method, &[], body).await;
    control("POST", body).await;
    let told = demonstration.lines_up_to("http_503").pop().expect("a line");
    assert!(told.contains("in_doubt") || told.contains("stale"), "{told}");
    control("DELETE", "").await;
    assert!(demonstration.lines_up_to("generation ").pop().expect("a line").contains(" spent, next "));
}
