//! A worker: one thread, one runtime, its connections, pools and counters.
//!
//! Owns: the tasks of its connections. Never waits for the control plane.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::Limits;
use super::entry::{Entered, Entry, Refused};
use super::serve::{End, Stop, Wish, serve};
use super::stream::{ClientStream, Protocol, Socket};
use crate::policy::clients::UnixPeer;
use crate::proxy::{Link, Peer, RequestBody, Site};
use crate::telemetry::access::WorkerLog;
use crate::telemetry::counters::{ClientCounters, Counter, DenialCounters};
use crate::upstream::{self, HealthCheck, Upstream};

/// How often idle upstream connections are looked through and log lines handed on.
const SWEEP: Duration = Duration::from_secs(1);

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Serve this connection of the listener of this index.
    Tcp(usize, TcpStream),
    /// The same for a Unix socket.
    Unix(usize, UnixStream),
    /// Finish what is being served and close.
    Finish,
    /// Close all and end.
    Cut,
}

/// What a worker tells. Written by it alone, but for `open`, which the acceptor raises.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct WorkerCounters {
    /// Connections, handed over and not ended.
    pub(super) open: AtomicUsize,
    /// By listener.
    pub(super) open_by_listener: Vec<Counter>,
    /// Heads that were refused before they were a request (400, 414, 431), by listener.
    pub(super) refused_heads: Vec<Counter>,
    /// TLS handshakes that failed, by listener.
    pub(super) refused_handshakes: Vec<Counter>,
    /// Connections whose PROXY header was missing, broken or of an untrusted peer, by listener.
    pub(super) refused_proxy_headers: Vec<Counter>,
    /// By client.
    pub(super) clients: Vec<Arc<ClientCounters>>,
    /// Requests that were refused for who sent them, by listener.
    pub(super) denials: Vec<Arc<DenialCounters>>,
    pub(super) upstream_idle: Counter,
    pub(super) upstream_active: Counter,
    /// Connections that were cut.
    pub(super) cut: Counter,
}

/// What a worker's thread begins with.
pub(super) struct Worker {
    pub(super) sites: Vec<Rc<Site>>,
    /// By listener.
    pub(super) entries: Vec<Rc<Entry>>,
    pub(super) upstreams: Vec<Rc<Upstream<RequestBody>>>,
    /// Which of them this worker checks, for all workers.
    pub(super) checks: Vec<(Rc<Upstream<RequestBody>>, HealthCheck)>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) limits: Limits,
    pub(super) log: Option<Rc<WorkerLog>>,
}

struct Connections {
    next: Cell<u64>,
    stops: RefCell<HashMap<u64, Rc<Stop>>>,
    ended: Notify,
}

/// Runs a worker until it is told to end. Blocks its thread.
pub(super) fn run(
    runtime: &tokio::runtime::Runtime,
    worker: Worker,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let local = LocalSet::new();
    let worker = Rc::new(worker);
    let connections =
        Rc::new(Connections { next: Cell::new(0), stops: RefCell::default(), ended: Notify::new() });
    local.spawn_local(sweep(Rc::clone(&worker)));
    for (upstream, rules) in &worker.checks {
        local.spawn_local(upstream::check_addresses(Rc::clone(upstream), rules.clone()));
    }
    local.block_on(runtime, async {
        let mut finishing = false;
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Finish) => {
                        finishing = true;
                        connections.ask(Wish::Finish);
                    }
                    Some(Order::Cut) | None => {
                        worker.counters.cut.add(connections.stops.borrow().len() as u64);
                        connections.ask(Wish::Cut);
                        break;
                    }
                    Some(Order::Tcp(listener, stream)) => accept_tcp(&worker, &connections, listener, stream),
                    Some(Order::Unix(listener, stream)) => accept_unix(&worker, &connections, listener, stream),
                },
                () = connections.ended.notified() => {}
            }
            if finishing && connections.stops.borrow().is_empty() {
                break;
            }
        }
        while !connections.stops.borrow().is_empty() {
            connections.ended.notified().await;
        }
    });
}

impl Connections {
    fn ask(&self, wish: Wish) {
        for stop in self.stops.borrow().values() {
            stop.ask(wish);
        }
    }
}

fn accept_tcp(worker: &Rc<Worker>, connections: &Rc<Connections>, listener: usize, stream: TcpStream) {
    let (peer, local) = (stream.peer_addr(), stream.local_addr());
    let _ = stream.set_nodelay(true);
    match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => {
            let peer = Peer {
                address: peer.ok().map(|address| address.ip()),
                local: local.ok().map(|address| address.ip()),
                ..Peer::default()
            };
            begin(worker, connections, listener, Socket::Tcp(stream), peer);
        }
        Err(error) => refuse(worker, &error),
    }
}

fn accept_unix(worker: &Rc<Worker>, connections: &Rc<Connections>, listener: usize, stream: UnixStream) {
    match tokio::net::UnixStream::from_std(stream) {
        Ok(stream) => {
            let unix = stream.peer_cred().ok().map(|peer| UnixPeer { uid: peer.uid(), gid: peer.gid() });
            begin(worker, connections, listener, Socket::Unix(stream), Peer { unix, ..Peer::default() });
        }
        Err(error) => refuse(worker, &error),
    }
}

fn refuse(worker: &Worker, error: &std::io::Error) {
    tracing::debug!(%error, "an accepted connection could not be served");
    worker.counters.open.fetch_sub(1, Ordering::Relaxed);
}

fn begin(worker: &Rc<Worker>, connections: &Rc<Connections>, listener: usize, socket: Socket, peer: Peer) {
    let stop = Rc::new(Stop::default());
    let number = connections.next.get();
    connections.next.set(number + 1);
    connections.stops.borrow_mut().insert(number, Rc::clone(&stop));
    worker.counters.open_by_listener[listener].increment();
    let open = Open { worker: Rc::clone(worker), connections: Rc::clone(connections), listener, number };
    let entry = &worker.entries[listener];
    if entry.is_open() {
        let peer = entry.judge(peer);
        tokio::task::spawn_local(async move {
            let stream = ClientStream::Plain(socket);
            open.serve(Entered { stream, protocol: Protocol::Auto, peer }, stop).await;
        });
    } else {
        let (entry, from) = (Rc::clone(entry), peer.address);
        tokio::task::spawn_local(async move {
            // Boxed: what only the beginning needs is not kept for the whole connection.
            match Box::pin(entry.admit(socket, peer, &stop)).await {
                Ok(entered) => open.serve(entered, stop).await,
                Err(refused) => open.refused(from, &refused),
            }
        });
    }
}

/// An open connection. Its end is counted however it comes.
struct Open {
    worker: Rc<Worker>,
    connections: Rc<Connections>,
    listener: usize,
    number: u64,
}

impl Open {
    async fn serve(self, entered: Entered, stop: Rc<Stop>) {
        let link = Rc::new(Link::new(entered.peer, self.worker.entries[self.listener].limits));
        let site = Rc::clone(&self.worker.sites[self.listener]);
        let limits = &self.worker.limits;
        if serve(entered.stream, entered.protocol, link, site, limits, stop).await == End::RefusedHead {
            self.worker.counters.refused_heads[self.listener].increment();
        }
    }

    fn refused(&self, peer: Option<IpAddr>, reason: &Refused) {
        let peer = peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
        tracing::debug!(%reason, peer, "a connection ended before HTTP");
        match reason {
            Refused::Tls(_) | Refused::TlsLate | Refused::Cleartext => {
                self.worker.counters.refused_handshakes[self.listener].increment();
            }
            Refused::Header(_) => self.worker.counters.refused_proxy_headers[self.listener].increment(),
            Refused::Silent | Refused::Stopped => {}
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.counters.open_by_listener[self.listener].decrement();
        self.worker.counters.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.stops.borrow_mut().remove(&self.number);
        self.connections.ended.notify_one();
    }
}

async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let now = Instant::now();
        let (mut idle, mut active) = (0, 0);
        for upstream in &worker.upstreams {
            upstream.sweep(now);
            idle += upstream.idle();
            active += upstream.active();
        }
        for egress in worker.sites.iter().filter_map(|site| site.egress.as_ref()) {
            let (of_idle, of_active) = egress.sweep(now);
            idle += of_idle;
            active += of_active;
        }
        if let Some(log) = &worker.log {
            log.flush();
        }
        worker.counters.upstream_idle.set(idle as u64);
        worker.counters.upstream_active.set(active as u64);
    }
}
