//! A token endpoint that answers by a script, and a credential of a preset that asks it: what the replays share.
//!
//! The credential is built from a configuration as a user writes it; client, store and life cycle are the real ones.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearward::credential::CredentialConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::lifecycle::World;

/// What is done with one token request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// The documented success with new tokens.
    Tokens,
    /// This status, header lines and body.
    Fixed(&'static str, &'static str, &'static str),
    /// It is read and never answered.
    Lost,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// When it had come.
    pub(crate) at: tokio::time::Instant,
    head: String,
    form: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The one value of a parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut all = self.form.iter().filter(|(known, _)| known == name);
        let first = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "`{name}` twice: {:?}", self.head);
        first
    }
}

/// A provider on a loopback port.
pub(crate) struct Provider {
    port: u16,
    script: Arc<Mutex<Vec<Reply>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// `tokens` is the body of a success, in which AT and RT stand for new tokens.
    pub(crate) async fn start(tokens: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("an address").port();
        let script = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (plan, log) = (Arc::clone(&script), Arc::clone(&asked));
        #[allow(clippy::disallowed_methods, reason = "a test server")]
        let task = tokio::spawn(async move {
            let mut issued = 0;
            loop {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let Some(request) = read(&mut stream).await else { continue };
                log.lock().expect("lock").push(request);
                let reply = {
                    let mut plan: std::sync::MutexGuard<'_, Vec<Reply>> = plan.lock().expect("lock");
                    if plan.is_empty() { Reply::Tokens } else { plan.remove(0) }
                };
                let (status, fields, body) = match reply {
                    Reply::Lost => continue,
                    Reply::Fixed(status, fields, body) => (status, fields, body.to_owned()),
                    Reply::Tokens => {
                        issued += 1;
                        let body =
                            tokens.replace("AT", &access_token(issued)).replace("RT", &refresh_token(issued));
                        ("200 OK", "content-type: application/json\r\n", body)
                    }
                };
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, script, asked, task }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next token requests are treated so, and those after them as usual.
    pub(crate) fn next(&self, replies: &[Reply]) {
        self.script.lock().expect("lock").extend_from_slice(replies);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("lock").clone()
    }

    /// The refresh tokens that were sent, in order.
    pub(crate) fn spent(&self) -> Vec<String> {
        self.asked().iter().filter_map(|asked| asked.parameter("refresh_token").map(str::to_owned)).collect()
    }

    /// A credential of this preset as a configuration has it, whose provider this is.
    pub(crate) fn credential(&self, world: &World, preset: &str, path: &str, more: &str) -> CredentialConfig {
        let (port, seed) = (self.port, world.path("seed"));
        std::fs::write(&seed, refresh_token(0)).expect("write");
        let text = format!(
            "
listeners:
  - name: legacy
    kind: reverse
    bind: 127.0.0.1:8080
    routes: [{{name: api, match: {{path_prefix: /}}, upstream: \"https://api.example.com\", credential: primavera}}]
credentials:
  primavera:
    preset: {preset}
    token_endpoint: http://127.0.0.1:{port}{path}
    client: {{id: the-client, secret: {{value: \"{SECRET}\"}}}}
    grant: refresh_token
    refresh_token: {{file: {seed}}}
{more}
",
            seed = seed.display()
        );
        let config =
            bearward::config::parse(&text, "config.yaml").unwrap_or_else(|problems| panic!("{problems}"));
        config.credentials.into_iter().next().expect("one")
    }
}

pub(crate) const SECRET: &str = "client secret: 100%";

/// The n-th access token.
pub(crate) fn access_token(number: usize) -> String {
    format!("access-token-number-{number}")
}

/// The n-th refresh token; the seed is number 0.
pub(crate) fn refresh_token(number: usize) -> String {
    format!("refresh-token-number-{number}")
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count =
            tokio::time::timeout(Duration::from_secs(10), stream.read(&mut chunk)).await.ok()?.ok()?;
        if count == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..count]);
        let text = std::str::from_utf8(&bytes).expect("UTF-8");
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let form = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let asked = Asked { at: tokio::time::Instant::now(), head: head.to_owned(), form };
        let length: usize = asked.header("content-length").map_or(0, |text| text.parse().expect("a length"));
        if body.len() >= length {
            return Some(asked);
        }
    }
}
