//! A run of the real binary.
//!
//! Owns: the process from start to end (it is killed when dropped), and what it prints.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::oneshot;

use super::eventually;
use super::http::{self, Response};
use super::run::Run;

/// A running proxy.
pub(crate) struct Bearward {
    child: Child,
    run: Arc<Run>,
    proxy: SocketAddr,
    admin: SocketAddr,
}

/// A proxy that ended before it was ready.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) status: ExitStatus,
    pub(crate) printed: String,
}

impl Bearward {
    /// Starts one and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready, with what it printed.
    pub(crate) async fn start(run: &Arc<Run>, config: &Value) -> Self {
        Self::start_with(run, config, |_| ()).await
    }

    /// The same with changes to the command.
    pub(crate) async fn start_with(
        run: &Arc<Run>,
        config: &Value,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        match Self::try_start(run, config, change).await {
            Ok(started) => started,
            Err(failed) => panic!("bearward ended with {}: {}", failed.status, failed.printed),
        }
    }

    /// Starts one that may end at once.
    pub(crate) async fn try_start(
        run: &Arc<Run>,
        config: &Value,
        change: impl FnOnce(&mut Command),
    ) -> Result<Self, NotStarted> {
        let config_path = write_config(run, config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearward"));
        command.args(["run", "--ready-json", "-c"]).arg(config_path);
        command.env("NO_PROXY", "*").env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().expect("the binary can be started");
        let stderr = child.stderr.take().expect("it is piped");
        let (none, _) = oneshot::channel();
        let errors = follow(stderr, run, none);
        let (ready, is_ready) = oneshot::channel();
        let output = follow(child.stdout.take().expect("it is piped"), run, ready);
        match tokio::time::timeout(Duration::from_secs(60), is_ready)
            .await
            .expect("it is ready or ends in time")
        {
            Ok(line) => {
                let line: Value = serde_json::from_str(&line).expect("the line is JSON");
                assert_eq!(line["pid"], child.id(), "{line}");
                let address =
                    |value: &Value| value.as_str().and_then(|text| text.parse().ok()).expect("an address");
                let (proxy, admin) = (address(&line["listeners"]["legacy"]), address(&line["admin"]));
                Ok(Self { child, run: run.clone(), proxy, admin })
            }
            Err(_) => {
                let status = child.wait().expect("it is our child");
                let printed = output.join().expect("it only reads") + &errors.join().expect("it only reads");
                Err(NotStarted { status, printed })
            }
        }
    }

    /// Where its reverse listener is.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.proxy
    }

    /// Where its admin listener is.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One request to the reverse listener on a connection of its own. An answer that is not 200 is kept.
    pub(crate) async fn get(&self, path: &str) -> Response {
        let response = http::get(self.proxy, path).await.expect("the proxy answers");
        if response.status != 200 {
            self.run.keep("answers.log", &response.to_string());
        }
        response
    }

    /// One request to the admin listener. The answer is kept.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        let response = http::get(self.admin, path).await.expect("the admin listener answers");
        self.run.keep("answers.log", &response.to_string());
        response
    }

    /// `/api/v1/status` of the credential `it`.
    pub(crate) async fn credential(&self) -> Value {
        let response = self.admin("/api/v1/status").await;
        let status: Value = serde_json::from_slice(&response.body).expect("status is JSON");
        let found =
            status["credentials"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "it"));
        found.unwrap_or_else(|| panic!("no credential in {status}")).clone()
    }

    /// Waits until the credential `it` is as told.
    pub(crate) async fn until(&self, what: &str, within: Duration, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, within, async || {
            let credential = self.credential().await;
            is(&credential).then_some(credential)
        })
        .await
    }

    /// Waits until the credential `it` is in a state.
    pub(crate) async fn until_state(&self, state: &str, within: Duration) -> Value {
        self.until(state, within, |credential| credential["state"] == state).await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("it is a process id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        eventually("bearward stops", Duration::from_secs(40), async || {
            self.child.try_wait().expect("it is our child")
        })
        .await
    }
}

impl Drop for Bearward {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// JSON is YAML. Several proxies of one run have a file each.
fn write_config(run: &Run, config: &Value) -> PathBuf {
    let file = tempfile::Builder::new().prefix("config-").suffix(".yaml").tempfile_in(run.private());
    let (mut file, path) = file.expect("a file can be made").keep().expect("it can stay");
    file.write_all(config.to_string().as_bytes()).expect("it can be written");
    path
}

/// Keeps what is printed; hands on the line that says ready. Ends when the process does.
fn follow(
    from: impl std::io::Read + Send + 'static,
    run: &Run,
    ready: oneshot::Sender<String>,
) -> std::thread::JoinHandle<String> {
    let mut log = run.log("output.log");
    let mut ready = Some(ready);
    std::thread::spawn(move || {
        let mut all = String::new();
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            writeln!(log, "{line}").expect("the log can be written");
            if line.starts_with("{\"listeners\"") {
                ready.take().map(|ready| ready.send(line.clone()));
            }
            if ready.is_some() {
                all.push_str(&line);
                all.push('\n');
            }
        }
        all
    })
}
