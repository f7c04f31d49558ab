//! Token requests against real sockets: a scripted provider that answers, cuts, drips and stalls.

mod answers;
mod assertions;
mod discovery;
mod dpop;
mod failures;
mod grants;
mod requests;
mod transport;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client_auth::AssertionClaims;
use super::*;
use crate::clock::UnixTime;

/// What the provider does with one connection.
#[derive(Clone)]
enum Reply {
    /// Reads the request, writes this and closes.
    Write(Vec<u8>),
    /// Reads the request, writes this and keeps silent.
    Stall(Vec<u8>),
    /// Reads the request, writes this and then a byte every 20 ms for ever.
    Drip(Vec<u8>),
    /// Closes without reading.
    CloseAtOnce,
}

/// A request as the provider saw it.
#[derive(Clone, Debug, Default)]
struct Seen {
    head: String,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }

    fn param(&self, name: &str) -> Option<String> {
        self.form().into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// A provider on a loopback port.
struct Provider {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// Answers each connection by the script; the last reply repeats.
    async fn start(script: Vec<Reply>) -> Self {
        Self::start_with(None, move |number, _| script[number.min(script.len() - 1)].clone()).await
    }

    /// Answers each connection as `reply` says, over TLS if a configuration is given.
    #[allow(clippy::disallowed_methods, reason = "a test server")]
    async fn start_with(
        tls: Option<Arc<rustls::ServerConfig>>,
        reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let reply = Arc::new(reply);
            loop {
                let (tcp, _) = listener.accept().await.expect("accept");
                let (tls, log, reply) = (tls.clone(), Arc::clone(&log), Arc::clone(&reply));
                tokio::spawn(async move {
                    match tls {
                        None => converse(tcp, &log, &*reply).await,
                        Some(config) => {
                            match tokio_rustls::TlsAcceptor::from(config).accept(tcp).into_fallible().await {
                                Ok(stream) => converse(stream, &log, &*reply).await,
                                // Closing with unread bytes would reset the connection and lose the alert.
                                Err((_, mut tcp)) => {
                                    drop(tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await)
                                }
                            }
                        }
                    }
                });
            }
        });
        Self { port, seen, task }
    }

    fn url(&self, path: &str) -> url::Url {
        url::Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).expect("url")
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("lock").clone()
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    log: &Mutex<Vec<Seen>>,
    reply: &(dyn Fn(usize, &Seen) -> Reply + Send + Sync),
) {
    let number = log.lock().expect("lock").len();
    if matches!(reply(number, &Seen::default()), Reply::CloseAtOnce) {
        log.lock().expect("lock").push(Seen::default());
        return;
    }
    let Some(seen) = read_request(&mut stream).await else { return };
    let number = {
        let mut log = log.lock().expect("lock");
        log.push(seen.clone());
        log.len() - 1
    };
    match reply(number, &seen) {
        Reply::CloseAtOnce => {}
        Reply::Write(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Stall(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            std::future::pending::<()>().await;
        }
        Reply::Drip(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while stream.write_all(b" ").await.is_ok() && stream.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
        let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") else { continue };
        let seen = Seen {
            head: String::from_utf8(bytes[..end].to_vec()).expect("head"),
            body: String::from_utf8(bytes[end + 4..].to_vec()).expect("body"),
        };
        let length: usize = seen.header("content-length").map_or(0, |text| text.parse().expect("length"));
        if seen.body.len() >= length {
            return Some(seen);
        }
    }
}

/// A whole answer.
fn answer(status: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// 200 with JSON.
fn json(body: &str) -> Reply {
    Reply::Write(answer("200 OK", "content-type: application/json\r\n", body))
}

/// Any status with JSON.
fn error(status: &str, body: &str) -> Reply {
    Reply::Write(answer(status, "content-type: application/json\r\n", body))
}

const TOKEN: &str = r#"{"access_token":"at-1","token_type":"Bearer","expires_in":3600}"#;

/// A refresh_token credential with Basic authentication, short deadlines.
fn config(token_endpoint: url::Url) -> OAuthConfig {
    OAuthConfig {
        endpoint: EndpointSource::Url(token_endpoint),
        preset: &preset::GENERIC,
        client_id: "client-1".into(),
        client_auth: ClientAuth::Basic { secret: value("s3cret"), encoding: BasicEncoding::Form },
        grant: Grant::RefreshToken { seed: None },
        scope: None,
        refresh_scope: None,
        audience: None,
        resource: Vec::new(),
        parameters: BTreeMap::new(),
        dpop: false,
        carried: Vec::new(),
        tls: TlsClientConfig::default(),
        login: Box::default(),
        outbound_proxy: None,
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(5),
    }
}

fn value(text: &str) -> SecretSource {
    SecretSource::Value(Secret::from(text))
}

fn claims() -> AssertionClaims {
    AssertionClaims {
        audience: Vec::new(),
        audience_as_list: false,
        lifetime: Duration::from_secs(60),
        extra: BTreeMap::new(),
    }
}

const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

async fn refresh(config: OAuthConfig) -> Result<TokenResponse, Failure> {
    let client = OAuthClient::try_new(config).expect("client");
    refresh_with(&client).await
}

async fn refresh_with(client: &OAuthClient) -> Result<TokenResponse, Failure> {
    let token = Secret::from("rt-0-the-old-one");
    let request = TokenRequest::Refresh { token: &token, single_use: true };
    let result = client.request(request, NOW).await;
    if let Err(failure) = &result {
        let shown = format!("{failure} {failure:?}");
        assert!(!shown.contains("rt-0-the-old-one"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    result
}

/// Sends one refresh to a provider that answers so.
async fn refresh_answered(reply: Reply) -> Result<TokenResponse, Failure> {
    let provider = Provider::start(vec![reply]).await;
    refresh(config(provider.url("/token"))).await
}
