//! Steady traffic: a few clients, each with one request at a time, and what became of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::http::{Connection, Response};
use super::run::Run;

/// Clients at work.
pub(crate) struct Traffic {
    clients: JoinSet<Vec<Outcome>>,
    stop: Arc<AtomicBool>,
}

/// What became of one request.
pub(crate) struct Outcome {
    /// 0: no answer.
    pub(crate) status: u16,
    /// From the first byte sent to the last received.
    pub(crate) took: Duration,
}

impl Traffic {
    /// Begins: each client sends, reads, pauses.
    pub(crate) fn begin(
        run: &Arc<Run>,
        to: SocketAddr,
        path: &'static str,
        clients: usize,
        pause: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let (run, stop) = (run.clone(), stop.clone());
            set.spawn(async move {
                let mut outcomes = Vec::new();
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let begun = tokio::time::Instant::now();
                    let answer = exchange(&mut connection, to, path).await;
                    let took = begun.elapsed();
                    let status = answer.as_ref().map_or(0, |response| response.status);
                    if status != 200 {
                        let text =
                            answer.map_or_else(|error| error.to_string(), |response| response.to_string());
                        run.keep("answers.log", &text);
                    }
                    outcomes.push(Outcome { status, took });
                    tokio::time::sleep(pause).await;
                }
                outcomes
            });
        }
        Self { clients: set, stop }
    }

    /// Ends: every outcome.
    pub(crate) async fn end(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

async fn exchange(open: &mut Option<Connection>, to: SocketAddr, path: &str) -> std::io::Result<Response> {
    let mut connection = match open.take() {
        Some(connection) => connection,
        None => Connection::open(to).await?,
    };
    let response = connection.get(path).await?;
    let closes = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if !closes {
        *open = Some(connection);
    }
    Ok(response)
}

/// How many outcomes had each status, as text.
pub(crate) fn tally(outcomes: &[Outcome]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome.status).or_insert(0) += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(status, count)| format!("{count} × {status}")).collect();
    parts.join(", ")
}
