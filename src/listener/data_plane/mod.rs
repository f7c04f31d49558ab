//! The data plane as the control plane holds it: start, look, stop.
//!
//! Owns: the threads. Everything that can fail is tried before the first of them starts.

mod bound;
mod sites;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::acceptor::{self, Desk};
use super::bind::Bound;
use super::egress::{self};
use super::upstreams::addresses_of;
use super::worker::{self, Order, Worker, WorkerCounters};
use super::{
    ClientSnapshot, DataSnapshot, Limits, ListenerConfig, ListenerError, ListenerSnapshot, RouteSnapshot,
    Traffic, UpstreamConnections,
};
use crate::clock::Clock;
use crate::credential::BoundCredential;
use crate::names::Name;
use crate::policy::clients::Clients;
use crate::route::RouteConfig;
use crate::telemetry::access::AccessLog;
use crate::telemetry::counters::{Counter, RouteCounters};
use crate::tls::mint::Mint;
use crate::tls::server::TlsServer;
use crate::tls::source::TlsSource;
use crate::upstream::Shared;

pub use self::bound::BoundListeners;

/// The running data plane. Dropped, it closes all connections at once.
#[derive(Debug)]
pub struct DataPlane {
    listeners: Vec<ListenerConfig>,
    addresses: Vec<String>,
    own_tls: Vec<Option<Arc<TlsServer>>>,
    mints: Vec<(Name, Arc<Mint>)>,
    /// By listener, then by route: upstreams whose TLS files may change.
    tls_sources: Vec<Vec<Option<Arc<TlsSource>>>>,
    clients: Arc<Clients>,
    desks: Vec<Desk>,
    traffic: Vec<WorkerTraffic>,
    /// By listener, then by route.
    shared: Vec<Vec<Shared>>,
    stop_accepting: CancellationToken,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// Ends with the workers.
    log: Mutex<Option<AccessLog>>,
}

/// One worker's counters of routes: by listener, then by route; the last of each listener is for what no route took.
#[derive(Debug, Clone)]
struct WorkerTraffic(Vec<Vec<Arc<RouteCounters>>>);

impl DataPlane {
    /// Binds all listeners, then starts the workers. `credential` gives the bound credential of a route.
    pub fn start(
        listeners: &[ListenerConfig],
        limits: Limits,
        credential: &dyn Fn(&RouteConfig) -> Option<BoundCredential>,
        clock: Clock,
    ) -> Result<Self, ListenerError> {
        let clients = Clients::try_new(&[]).expect("nothing is read for no client");
        BoundListeners::bind(listeners, clients)?.start(limits, credential, clock)
    }

    fn start_worker(
        &mut self,
        number: usize,
        traffic: &WorkerTraffic,
        build: impl FnOnce(Arc<WorkerCounters>) -> Worker + Send + 'static,
    ) -> Result<Desk, ListenerError> {
        let by_listener = || traffic.0.iter().map(|_| Counter::default()).collect();
        let counters = Arc::new(WorkerCounters {
            open_by_listener: by_listener(),
            refused_heads: by_listener(),
            refused_handshakes: by_listener(),
            refused_proxy_headers: by_listener(),
            clients: self.clients.names().map(|_| Arc::default()).collect(),
            denials: traffic.0.iter().map(|_| Arc::default()).collect(),
            ..WorkerCounters::default()
        });
        let (orders, receiver) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let own = Arc::clone(&counters);
        let thread = std::thread::Builder::new().name(format!("bw-worker-{number}")).spawn(move || {
            let worker = build(own);
            worker::run(&runtime, worker, receiver);
        })?;
        self.threads().push(thread);
        Ok(Desk { orders, counters })
    }

    fn start_acceptor(&mut self, sockets: Vec<Bound>, limit: usize) -> Result<(), ListenerError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (desks, stop) = (self.desks.clone(), self.stop_accepting.clone());
        let thread = std::thread::Builder::new().name("bw-accept".into()).spawn(move || {
            acceptor::run(&runtime, sockets, &desks, limit, &stop);
        })?;
        self.threads().push(thread);
        Ok(())
    }

    /// Where each listener listens: `127.0.0.1:8080` or `unix:/path`, in the order of the configuration.
    pub fn addresses(&self) -> Vec<(Name, String)> {
        let names = self.listeners.iter().map(|listener| listener.name.clone());
        names.zip(self.addresses.iter().cloned()).collect()
    }

    /// The certificates of listeners that speak TLS, to be kept current.
    pub fn tls_servers(&self) -> Vec<(Name, Arc<TlsServer>)> {
        let named = self.listeners.iter().zip(&self.own_tls);
        named.filter_map(|(listener, tls)| Some((listener.name.clone(), Arc::clone(tls.as_ref()?)))).collect()
    }

    /// The authorities of listeners that intercept, to be kept current.
    pub fn mints(&self) -> Vec<(Name, Arc<Mint>)> {
        self.mints.clone()
    }

    /// What upstreams are shown and believed by, with listener and route, to be kept current.
    pub fn tls_sources(&self) -> Vec<(Name, Name, Arc<TlsSource>)> {
        let of_listener = |(listener, sources): (&ListenerConfig, &Vec<Option<Arc<TlsSource>>>)| {
            let named = listener.all_routes().zip(sources.clone());
            let of = |(route, source): (&RouteConfig, Option<_>)| {
                Some((listener.name.clone(), route.name.clone(), source?))
            };
            named.filter_map(of).collect::<Vec<_>>()
        };
        self.listeners.iter().zip(&self.tls_sources).flat_map(of_listener).collect()
    }

    /// Sums of all workers now.
    pub fn snapshot(&self) -> DataSnapshot {
        let mut snapshot = DataSnapshot::default();
        for (index, (listener, address)) in self.listeners.iter().zip(&self.addresses).enumerate() {
            snapshot.listeners.push(ListenerSnapshot {
                name: listener.name.clone(),
                kind: listener.kind(),
                address: address.clone(),
                connections: self.sum(|counters| counters.open_by_listener[index].get()),
                unrouted: self.traffic_of(index, listener.all_routes().count()),
                refused_heads: self.sum(|counters| counters.refused_heads[index].get()),
                certificate: self.own_tls[index].as_ref().map(|tls| tls.certificate()),
                refused_handshakes: self.sum(|counters| counters.refused_handshakes[index].get()),
                refused_proxy_headers: self.sum(|counters| counters.refused_proxy_headers[index].get()),
                denied: std::array::from_fn(|reason| {
                    self.sum(|counters| counters.denials[index].reasons[reason].get())
                }),
            });
            for (place, route) in listener.all_routes().enumerate() {
                let shared = self.shared[index].get(place);
                snapshot.routes.push(RouteSnapshot {
                    listener: listener.name.clone(),
                    name: route.name.clone(),
                    upstream: egress::hosts_of(listener, place)
                        .unwrap_or_else(|| route.upstream.origin.to_string()),
                    credential: route.credential.clone(),
                    traffic: self.traffic_of(index, place),
                    addresses: shared.map_or_else(Vec::new, |shared| addresses_of(route, shared)),
                    ejections: shared.map_or(0, |shared| shared.board.ejected()),
                    refused_tls_files: self.tls_sources[index]
                        .get(place)
                        .and_then(Option::as_ref)
                        .map_or(0, |source| source.refused()),
                });
            }
        }
        let client = |(index, name): (usize, &Name)| ClientSnapshot {
            name: name.clone(),
            code_classes: std::array::from_fn(|class| {
                self.sum(|counters| counters.clients[index].code_classes[class].get())
            }),
            throttled: self.sum(|counters| counters.clients[index].throttled.get()),
        };
        snapshot.clients = self.clients.names().enumerate().map(client).collect();
        snapshot.log_lines_dropped = self.log().as_ref().map_or(0, AccessLog::dropped);
        snapshot.upstream_connections = UpstreamConnections {
            idle: self.sum(|counters| counters.upstream_idle.get()),
            active: self.sum(|counters| counters.upstream_active.get()),
        };
        snapshot
    }

    fn sum(&self, of: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.desks.iter().map(|desk| of(&desk.counters)).sum()
    }

    fn traffic_of(&self, listener: usize, place: usize) -> Traffic {
        let mut traffic = Traffic::default();
        for worker in &self.traffic {
            traffic.add(&worker.0[listener][place]);
        }
        traffic
    }

    /// Closes the listening sockets. Open connections go on.
    pub fn stop_accepting(&self) {
        self.stop_accepting.cancel();
    }

    /// Lets requests under way finish for at most `grace`; then cuts the rest. Returns how many connections were cut.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.stop_accepting();
        self.order(|| Order::Finish);
        let deadline = tokio::time::Instant::now() + grace;
        while self.open() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.order(|| Order::Cut);
        for thread in std::mem::take(&mut *self.threads()) {
            // A worker ends as soon as its connections are dropped.
            let _ = thread.join();
        }
        let log = self.log().take();
        if let Some(log) = log {
            log.finish();
        }
        usize::try_from(self.sum(|counters| counters.cut.get())).unwrap_or(usize::MAX)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<std::thread::JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Option<AccessLog>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> usize {
        self.desks.iter().map(|desk| desk.counters.open.load(Ordering::Relaxed)).sum()
    }

    fn order(&self, order: impl Fn() -> Order) {
        for desk in &self.desks {
            // A worker that has ended needs no order.
            let _ = desk.orders.send(order());
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop_accepting();
        self.order(|| Order::Cut);
    }
}

impl WorkerTraffic {
    fn new(listeners: &[ListenerConfig]) -> Self {
        let counters =
            |listener: &ListenerConfig| (0..=listener.all_routes().count()).map(|_| Arc::default()).collect();
        Self(listeners.iter().map(counters).collect())
    }
}
