//! TLS towards upstreams against OpenSSL: keys that it renews, many tickets, padded and split records, TLS 1.2 and 1.3.

use std::process::Stdio;
use std::sync::Arc;

use bearward::tls::{TlsClientConfig, TlsStream, client_config, connect};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::tls_rig::Authority;

/// `openssl s_server`: what is typed is sent, what comes is printed.
struct Server {
    child: Child,
    typed: ChildStdin,
    printed: Lines<BufReader<ChildStdout>>,
    tls: TlsStream<TcpStream>,
}

impl Server {
    async fn meet(options: &[&str]) -> Self {
        let authority = Authority::new();
        let own = authority.issue(&["localhost"]);
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let ca = write("ca.pem", &authority.certificate.pem());
        let (cert, key) = (write("cert.pem", &own.cert), write("key.pem", &own.key));
        // What it prints of commands would else come at its end.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1"])
            .arg("-cert")
            .arg(cert)
            .arg("-key")
            .arg(key)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl (Debian: openssl)");
        let typed = child.stdin.take().expect("piped");
        let mut printed = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = loop {
            let line = printed.next_line().await.expect("read").expect("it listens");
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.to_owned();
            }
        };
        let mut config =
            client_config(&TlsClientConfig { ca: Some(ca), ..TlsClientConfig::default() }).expect("a client");
        config.enable_secret_extraction = true;
        let tcp = TcpStream::connect(address).await.expect("connected");
        let name = "localhost".try_into().expect("a name");
        let (tls, _) = connect(Arc::new(config), name, tcp).await.expect("a handshake");
        Self { child, typed, printed, tls }
    }

    async fn typed(&mut self, line: &str) {
        self.typed.write_all(line.as_bytes()).await.expect("typed");
        self.typed.flush().await.expect("typed");
    }

    /// Sends a line each way.
    async fn exchange(&mut self, what: &str) {
        let line = format!("{}\n", what.repeat(200));
        self.typed(&line).await;
        let mut got = vec![0; line.len()];
        self.tls.read_exact(&mut got).await.expect("a line");
        assert!(got == line.as_bytes(), "{what}: {}", String::from_utf8_lossy(&got));
        self.tls.write_all(line.as_bytes()).await.expect("written");
        self.tls.flush().await.expect("flushed");
        while self.printed.next_line().await.expect("read").expect("it still runs") != line.trim_end() {}
    }
}

#[tokio::test]
async fn bytes_pass_whatever_openssl_makes_of_them() {
    for options in [
        &["-tls1_3"][..],
        &["-tls1_3", "-num_tickets", "20", "-record_padding", "512"],
        &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", "-split_send_frag", "512"],
        &["-tls1_3", "-max_send_frag", "512"],
        &["-tls1_2"],
        &["-tls1_2", "-no_ticket", "-max_send_frag", "512"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    ] {
        let mut server = Server::meet(options).await;
        for what in ["ping", "gateway", "x"] {
            server.exchange(what).await;
        }
    }
}

#[tokio::test]
async fn keys_that_openssl_renews_are_followed() {
    let mut server = Server::meet(&["-tls1_3"]).await;
    for (command, what) in
        [("", "before"), ("k\n", "its own"), ("K\n", "both"), ("K\nK\nk\n", "often"), ("", "after")]
    {
        // A command stands at the beginning of what is read at once.
        for command in command.split_inclusive('\n') {
            server.typed(command).await;
            while !server
                .printed
                .next_line()
                .await
                .expect("read")
                .expect("it runs")
                .starts_with("SSL_do_handshake")
            {}
        }
        server.exchange(what).await;
        server.exchange(what).await;
    }
}

#[tokio::test]
async fn an_end_that_openssl_announces_is_clean_and_a_kill_is_none() {
    for version in ["-tls1_2", "-tls1_3"] {
        let mut server = Server::meet(&[version, "-www"]).await;
        server.tls.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("written");
        let mut page = String::new();
        server.tls.read_to_string(&mut page).await.expect("a close_notify");
        assert!(page.starts_with("HTTP/1.0 200") && page.contains("Ciphers supported"), "{page}");
    }

    let mut server = Server::meet(&["-tls1_3"]).await;
    server.exchange("good").await;
    server.child.start_kill().expect("killed");
    let ended = server.tls.read(&mut [0; 16]).await.expect_err("no close_notify");
    assert_eq!(ended.kind(), std::io::ErrorKind::UnexpectedEof, "{ended}");
}
