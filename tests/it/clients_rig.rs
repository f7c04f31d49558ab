//! What the tests of clients share: the real binary in front of a recording origin, and requests with chosen fields.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::bearward::Bearward;
use crate::harness::run::Run;
use crate::proxy_rig::{OriginServer, read_message};

/// The token of the credential `of NAME`.
pub(crate) fn token_of(credential: &str) -> String {
    format!("upstream-token-of-{credential}")
}

/// A credential with a token that never changes.
pub(crate) fn credential(name: &str) -> Value {
    json!({"grant": "static", "token": {"value": token_of(name)}})
}

/// A route for everything, with the credential `it`.
pub(crate) fn route(origin: &OriginServer) -> Value {
    json!({"name": "api", "upstream": origin.url(), "credential": "it"})
}

/// A configuration with one listener whose clients are these, and one route.
pub(crate) fn config(origin: &OriginServer, clients: &Value) -> Value {
    let names: Vec<_> = clients.as_object().expect("a mapping").keys().cloned().collect();
    json!({
        "version": 1,
        "listeners": [{"name": "legacy", "kind": "reverse", "bind": "127.0.0.1:0", "clients": names,
                       "routes": [route(origin)]}],
        "credentials": {"it": credential("it")},
        "clients": clients,
        "store": {"kind": "memory"},
        "admin": {"bind": "127.0.0.1:0"},
        "outbound_proxy": null,
        "limits": {"workers": 2},
    })
}

/// The binary with that configuration.
pub(crate) async fn start(run: &Arc<Run>, config: &Value) -> Bearward {
    run.secret(&token_of("it"));
    Bearward::start(run, config).await
}

/// A connection of a client.
pub(crate) struct Wire<S = TcpStream>(pub(crate) S);

impl Wire {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        Self(stream)
    }

    /// A GET with these fields; the head of the answer with its body.
    pub(crate) fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> String {
        self.send(path, fields);
        read_message(&mut self.0).unwrap_or_default()
    }
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn send(&mut self, path: &str, fields: &[(&str, &str)]) {
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.0.write_all(format!("{head}\r\n").as_bytes()).expect("written");
    }
}

/// The status of one GET on a connection of its own.
pub(crate) fn ask(address: SocketAddr, fields: &[(&str, &str)]) -> (u16, String) {
    let answer = Wire::to(address).get("/", fields);
    (crate::proxy_rig::status(&answer), answer)
}

/// Writes a file of a test.
pub(crate) fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).expect("written");
    path.display().to_string()
}
/// `Basic` for a user and password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}
