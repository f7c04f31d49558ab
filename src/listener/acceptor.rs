//! The acceptor: one thread that hands each connection to the least loaded worker.
//!
//! Owns: the listening sockets, the limit of connections, and the order of closing. A few long connections must not
//! gather on one worker, so connections are counted, not hashed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::bind::Bound;
use super::worker::{Order, WorkerCounters};

/// How long accepting rests when descriptors run out or the limit is reached.
const REST: Duration = Duration::from_millis(20);

/// A worker as the acceptor sees it.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) orders: UnboundedSender<Order>,
    pub(super) counters: Arc<WorkerCounters>,
}

/// Accepts on all sockets until `stop`; then closes them and removes the files of Unix sockets. Blocks its thread.
pub(super) fn run(
    runtime: &tokio::runtime::Runtime,
    sockets: Vec<Bound>,
    desks: &[Desk],
    limit: usize,
    stop: &CancellationToken,
) {
    let local = tokio::task::LocalSet::new();
    for (listener, socket) in sockets.into_iter().enumerate() {
        let (desks, stop) = (desks.to_vec(), stop.clone());
        local.spawn_local(async move {
            let outcome = stop.run_until_cancelled(accept_all(listener, &socket, &desks, limit)).await;
            if let Some(Err(error)) = outcome {
                tracing::error!(%error, address = socket.address(), "a listener stopped accepting");
            }
            if let Bound::Unix(_, Some(path)) = &socket {
                let _ = std::fs::remove_file(path);
            }
        });
    }
    runtime.block_on(local);
}

async fn accept_all(listener: usize, socket: &Bound, desks: &[Desk], limit: usize) -> io::Result<()> {
    match socket {
        Bound::Tcp(socket) => {
            let socket = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
            accept(desks, limit, async || Ok(Order::Tcp(listener, socket.accept().await?.0.into_std()?)))
                .await
        }
        Bound::Unix(socket, _) => {
            let socket = tokio::net::UnixListener::from_std(socket.try_clone()?)?;
            accept(desks, limit, async || Ok(Order::Unix(listener, socket.accept().await?.0.into_std()?)))
                .await
        }
    }
}

async fn accept(desks: &[Desk], limit: usize, next: impl AsyncFn() -> io::Result<Order>) -> io::Result<()> {
    loop {
        while open(desks) >= limit {
            tokio::time::sleep(REST).await;
        }
        match next().await {
            Ok(order) => hand_over(desks, order),
            // A client that left while it queued is no reason to rest.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn open(desks: &[Desk]) -> usize {
    desks.iter().map(|desk| desk.counters.open.load(Ordering::Relaxed)).sum()
}

fn hand_over(desks: &[Desk], order: Order) {
    let least = desks.iter().min_by_key(|desk| desk.counters.open.load(Ordering::Relaxed));
    if let Some(desk) = least {
        desk.counters.open.fetch_add(1, Ordering::Relaxed);
        if desk.orders.send(order).is_err() {
            desk.counters.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
