//! What happens while the demonstration runs: readiness, then one line for each rotation.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::page::Style;
use super::{CREDENTIAL, READY_DEADLINE, Running, TryError};
use crate::app::App;
use crate::cli::print_bytes;
use crate::credential::State;
use crate::credential::snapshot::Snapshot;
use crate::idp::{LogEntry, Outcome};

/// Resolves when the first token is there and the example answers 200.
pub(super) async fn until_ready(app: &App, url: &str) -> Result<(), TryError> {
    let mut last = "none".to_owned();
    let answers = async {
        if let Some(credential) = app.running().credential(CREDENTIAL) {
            let mut changes = credential.cell().changes();
            while credential.cell().published().token.is_none() && changes.changed().await.is_ok() {}
        }
        loop {
            match probe(url).await {
                Ok(StatusCode::OK) => return,
                Ok(status) => last = status.to_string(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(READY_DEADLINE, answers).await;
    in_time.map_err(|_| TryError::NotReady(last))
}

/// One GET on a connection of its own.
#[allow(clippy::disallowed_methods, reason = "the connection's task ends with this function")]
async fn probe(url: &str) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().ok_or("no authority")?.as_str();
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request =
        Request::get(path).header(header::HOST, authority).body(http_body_util::Empty::<Bytes>::new())?;
    tokio::pin!(connection);
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status()),
        ended = &mut connection => Err(ended.err().map_or_else(|| "closed".into(), Into::into)),
    }
}

/// Prints a line for each new token and each change of state. Never resolves.
pub(super) async fn rotations(running: &Running, quiet: bool) {
    let admin = running.app.running();
    let Some(credential) = admin.credential(CREDENTIAL) else {
        return std::future::pending().await;
    };
    let mut changes = credential.cell().changes();
    let mut shown = credential.snapshot();
    loop {
        // The cell lives as long as the proxy.
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
        let now = credential.snapshot();
        if quiet {
            continue;
        }
        let time = admin.clock.wall().rfc3339();
        let time = time.get(11..19).unwrap_or_default();
        if let Some(line) = line(&shown, &now, running.idp.latest(), Style::of_stdout()) {
            print_bytes(format!("{time}  {line}\n").as_bytes());
        }
        shown = now;
    }
}

/// What to say of a change; `None`: nothing that a person would want to read.
fn line(before: &Snapshot, now: &Snapshot, request: Option<LogEntry>, style: Style) -> Option<String> {
    if now.generation != before.generation {
        let left = now.expires_in_seconds.unwrap_or(0);
        let generation = style.good(&format!("generation {}", now.generation));
        return Some(match request.map(|request| (request.refresh_token, request.outcome)) {
            Some((spent, Outcome::Issued { access_token, refresh_token, .. })) => {
                let spent = spent.map_or_else(|| "none".into(), |token| token.to_string());
                let next = refresh_token.map_or_else(|| "none".into(), |token| token.to_string());
                format!(
                    "{generation}  access token {access_token}, {left} s left; refresh token {spent} spent, next {next}"
                )
            }
            _ => format!("{generation}  {left} s left"),
        });
    }
    if now.state == before.state && now.refreshes_failed == before.refreshes_failed {
        return None;
    }
    let left = match now.expires_in_seconds {
        Some(left) if left > 0 => format!("the token at hand has {left} s left"),
        _ => "no token to send: requests are answered with 503".to_owned(),
    };
    let state = match now.state {
        State::Fresh => style.good(now.state.as_str()),
        State::Dead | State::Expired | State::Misconfigured | State::AwaitingLogin => {
            style.bad(now.state.as_str())
        }
        _ => style.warn(now.state.as_str()),
    };
    let error = now.last_error.as_ref();
    let why = error.map(|error| format!(": {} ({})", error.error, error.class)).unwrap_or_default();
    // A stale token without a failure is a refresh about to happen.
    (now.state != State::Stale || error.is_some()).then(|| format!("{state}{why}; {left}"))
}
