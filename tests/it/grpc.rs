//! gRPC with its own client and server: every kind of call passes, with our token, status and deadline.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use bearward::listener::Limits;
use bearward::upstream::HttpVersion;

use crate::h2_origin::{h2c, over_tls};
use crate::proxy_rig::{Rig, TOKEN};
use crate::tls_rig::{Authority, Files};

fn python() -> Command {
    let servers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
    let mut command = Command::new(servers.join("venv/bin/python"));
    command.arg(servers.join("grpc_peer.py")).env("GRPC_VERBOSITY", "ERROR").env_remove("http_proxy");
    command
}

/// A gRPC server. It ends when its input does.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    pub(crate) port: u16,
}

impl Server {
    /// With TLS where certificate and key are given.
    pub(crate) fn start(files: &[&Path]) -> Self {
        let mut child = python()
            .arg("serve")
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("./test installs grpcio");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("output")).read_line(&mut line).expect("a port");
        let port = line.trim().parse().expect("a port: ./test installs grpcio");
        let input = child.stdin.take();
        Self { child, input, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Makes all calls.
fn calls(address: &str, files: &[&Path]) -> Vec<String> {
    calls_with(python().arg("call").arg(address).args(files))
}

/// Makes all calls through an HTTP proxy; `ca` is what the client trusts.
pub(crate) fn calls_through(proxy: &str, address: &str, ca: &Path) -> Vec<String> {
    let mut command = python();
    for name in ["no_grpc_proxy", "no_proxy", "NO_PROXY", "grpc_proxy"] {
        command.env_remove(name);
    }
    calls_with(command.arg("call").arg(address).arg(ca).env("https_proxy", proxy))
}

fn calls_with(command: &mut Command) -> Vec<String> {
    let output = command.output().expect("run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(str::to_owned).collect()
}

/// What they print.
pub(crate) fn expected() -> Vec<String> {
    let token = format!("token Bearer {TOKEN}");
    let lines = [
        "unary cba OK t",
        &token,
        "failure FAILED_PRECONDITION told so: 100 % é",
        "unknown UNIMPLEMENTED",
        // 10 numbers of one digit, 90 of two, 100 of three.
        "server 490000 OK",
        "client 3000000",
        "both ONE TWO THREE",
        "deadline DEADLINE_EXCEEDED",
        "cancelled yes",
        "many 50",
    ];
    lines.map(str::to_owned).to_vec()
}

#[test]
fn every_kind_of_call_passes_in_cleartext() {
    let server = Server::start(&[]);
    let rig = Rig::start(vec![h2c(([127, 0, 0, 1], server.port).into())]);
    assert_eq!(calls(&format!("localhost:{}", rig.address.port()), &[]), expected());
}

#[test]
fn every_kind_of_call_passes_over_tls() {
    let authority = Authority::new();
    let files = Files::of(&authority.issue(&["localhost"]));
    files.write("ca.crt", &authority.certificate.pem());
    let server = Server::start(&[&files.at("tls.crt"), &files.at("tls.key")]);
    let route = over_tls(([127, 0, 0, 1], server.port).into(), &files.at("ca.crt"), HttpVersion::Auto);
    let limits = Limits { workers: Some(1), ..Limits::default() };
    let rig = Rig::start_changed(vec![route], limits, |listener| listener.tls = Some(files.config()));
    assert_eq!(calls(&format!("localhost:{}", rig.address.port()), &[&files.at("ca.crt")]), expected());
}
