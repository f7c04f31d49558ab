//! The data plane as the control plane holds it: start, look, stop.
//!
//! Owns: the threads. Everything that can fail is tried before the first of them starts.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::acceptor::{self, Desk};
use super::bind::{self, Bound, Passed};
use super::egress::{self, BinderOf};
use super::entry::Entry;
use super::upstreams::{UpstreamKey, Upstreams, addresses_of, checks, connectors, key_of, shared_by};
use super::worker::{self, Order, Worker, WorkerCounters};
use super::{
    ClientSnapshot, DataSnapshot, Limits, ListenerConfig, ListenerError, ListenerSnapshot, RouteSnapshot,
    Traffic, UpstreamConnections,
};
use crate::clock::Clock;
use crate::credential::{BoundCredential, BoundUsers};
use crate::names::Name;
use crate::policy::clients::{self, Clients, Gate, Throttle};
use crate::policy::network::{DialGuard, NetworkGuard};
use crate::proxy::{Identity, Refusals, Route, Site};
use crate::route::RouteConfig;
use crate::route::rate::Allowance;
use crate::route::table::RouteTable;
use crate::telemetry::access::{AccessLog, Labels};
use crate::telemetry::counters::{Counter, DenialCounters, RouteCounters};
use crate::tls::mint::Mint;
use crate::tls::server::TlsServer;
use crate::tls::source::TlsSource;
use crate::upstream::{AddressGuard, Shared, TlsClient, Upstream};

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

/// Listeners that are bound and checked and do not accept yet. Nothing but sockets was touched.
#[derive(Debug)]
pub struct BoundListeners {
    clients: Arc<Clients>,
    users: Vec<BoundUsers>,
    listeners: Vec<ListenerConfig>,
    sockets: Vec<Bound>,
    tls: Vec<Vec<Option<TlsClient>>>,
    own_tls: Vec<Option<Arc<TlsServer>>>,
    egress: Vec<Option<egress::Prepared>>,
    /// Where this process listens: no guarded connection is led there.
    own_ports: Vec<u16>,
    log: Option<AccessLog>,
}

/// One worker's counters of routes: by listener, then by route; the last of each listener is for what no route took.
#[derive(Debug, Clone)]
struct WorkerTraffic(Vec<Vec<Arc<RouteCounters>>>);

/// A route with what was checked before the threads start.
#[derive(Clone)]
struct Prepared {
    config: RouteConfig,
    tls: Option<TlsClient>,
    credential: Option<BoundCredential>,
    refusals: Arc<Refusals>,
    /// The same for all routes to the same upstream.
    shared: Shared,
    /// The same with other credentials, by the value that tells for whom.
    picks: Vec<(String, Prepared)>,
    limits: Option<Arc<Allowance>>,
    /// Which addresses may be dialled, where that is asked for.
    guard: Option<Arc<dyn AddressGuard>>,
}

/// Where routes are prepared for: the listener, and the ports that no guarded connection is led to.
#[derive(Clone, Copy)]
struct Ground<'p> {
    listener: &'p Name,
    own_ports: &'p [u16],
}

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

impl BoundListeners {
    /// Reads what TLS needs on both sides, then binds all sockets.
    pub fn bind(listeners: &[ListenerConfig], clients: Arc<Clients>) -> Result<Self, ListenerError> {
        let tls = listeners.iter().map(upstream_tls).collect::<Result<Vec<_>, _>>()?;
        let own_tls = listeners.iter().map(own_tls).collect::<Result<Vec<_>, _>>()?;
        let prepared = listeners.iter().map(egress::Prepared::of_listener);
        let egress = prepared.collect::<Result<Vec<_>, _>>()?;
        let mut passed = Passed::from_env();
        let sockets =
            listeners.iter().map(|listener| bind::bind(&listener.name, &listener.bind, &mut passed));
        let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
        for (listener, socket) in listeners.iter().zip(&sockets) {
            refuse_open_to_others(listener, socket)?;
        }
        Ok(Self {
            clients,
            users: Vec::new(),
            listeners: listeners.to_vec(),
            own_ports: sockets.iter().filter_map(Bound::port).collect(),
            sockets,
            tls,
            own_tls,
            egress,
            log: None,
        })
    }

    /// With the users of routes that translate passwords.
    #[must_use]
    pub fn with_users(self, users: Vec<BoundUsers>) -> Self {
        Self { users, ..self }
    }

    /// Gives egress listeners the credentials of their rules. `other_ports`: where else this process listens; no request of
    /// them or of a guarded route is led there, nor to the listeners themselves.
    pub fn complete_egress(
        &mut self,
        binder_of: &BinderOf<'_>,
        other_ports: &[u16],
    ) -> Result<(), ListenerError> {
        self.own_ports.extend_from_slice(other_ports);
        let own = &self.own_ports;
        self.egress.iter_mut().flatten().try_for_each(|egress| egress.complete(binder_of, own))
    }

    /// Writes a line of each exchange to `log`.
    #[must_use]
    pub fn logging_to(self, log: Option<AccessLog>) -> Self {
        Self { log, ..self }
    }

    /// Starts the workers, then accepts. `credential` gives the bound credential of a route.
    pub fn start(
        self,
        limits: Limits,
        credential: &dyn Fn(&RouteConfig) -> Option<BoundCredential>,
        clock: Clock,
    ) -> Result<DataPlane, ListenerError> {
        let Self { clients, users, listeners, sockets, tls, own_tls, egress, own_ports, log } = self;
        let listeners = &listeners[..];
        let workers = limits.workers.unwrap_or_else(default_workers).max(1);
        let tls_sources = tls.iter().zip(&egress).map(|(tls, egress)| {
            let all = tls.iter().chain(egress.iter().flat_map(egress::Prepared::tls));
            all.map(|tls| tls.as_ref().and_then(TlsClient::source).cloned()).collect()
        });
        let tls_sources = tls_sources.collect();
        let mut known = Vec::new();
        let mut shared = |route: &RouteConfig| shared_by(&mut known, route, workers);
        let prepared = listeners.iter().zip(tls).map(|(listener, tls)| {
            let ground = Ground { listener: &listener.name, own_ports: &own_ports };
            prepare(listener, (ground, tls), credential, &mut shared)
        });
        let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        let addresses = sockets.iter().map(Bound::address).collect();
        let mut plane = DataPlane {
            listeners: listeners.to_vec(),
            addresses,
            own_tls: own_tls.clone(),
            mints: listeners
                .iter()
                .zip(&egress)
                .filter_map(|(listener, egress)| {
                    Some((listener.name.clone(), Arc::clone(egress.as_ref()?.mint()?)))
                })
                .collect(),
            tls_sources,
            clients: Arc::clone(&clients),
            desks: Vec::new(),
            traffic: Vec::new(),
            shared: prepared
                .iter()
                .map(|routes| routes.iter().map(|route| route.shared.clone()).collect())
                .collect(),
            stop_accepting: CancellationToken::new(),
            threads: Mutex::default(),
            log: Mutex::default(),
        };
        let pseudonym = ["bearward-", &format!("{:08x}", fastrand::u32(..))].concat();
        let ips: Vec<_> = sockets.iter().map(Bound::ip).collect();
        for number in 0..workers {
            let traffic = WorkerTraffic::new(listeners);
            let desk = plane.start_worker(number, &traffic, {
                let (listeners, prepared, ips) = (listeners.to_vec(), prepared.clone(), ips.clone());
                let (traffic, clock, pseudonym) = (traffic.clone(), clock.clone(), pseudonym.clone());
                let clock_of_clients = clock.clone();
                let (own_tls, clients, egress) = (own_tls.clone(), Arc::clone(&clients), egress.clone());
                let (users, log) = (users.clone(), log.as_ref().map(AccessLog::seed));
                move |counters| {
                    let log = log.map(|seed| Rc::new(seed.grow(clock.clone())));
                    let identity = Rc::new(Identity::new(clock, &pseudonym, log.clone()));
                    let throttle = Arc::clone(clients.throttle());
                    let desk = clients::Desk::new(clients, clock_of_clients, &counters.clients);
                    let gates = gates(&desk, &listeners, &counters.denials);
                    let doors = Doors { gates, users, throttle, workers };
                    let (sites, upstreams) =
                        sites(&listeners, (prepared, &egress), &ips, &traffic, &identity, &doors);
                    let checks = if number == 0 { checks(&upstreams) } else { Vec::new() };
                    let upstreams = upstreams.into_iter().map(|(_, upstream)| upstream).collect();
                    let entry = |(listener, tls)| Rc::new(Entry::new(listener, tls, &limits));
                    let entries = listeners.iter().zip(own_tls).map(entry).collect();
                    Worker { sites, entries, upstreams, checks, counters, limits, log }
                }
            })?;
            plane.desks.push(desk);
            plane.traffic.push(traffic);
        }
        *plane.log() = log;
        plane.start_acceptor(sockets, limits.connections)?;
        Ok(plane)
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

/// min(cores that the process may use, 8).
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8)
}

/// A listener's own certificate.
fn own_tls(listener: &ListenerConfig) -> Result<Option<Arc<TlsServer>>, ListenerError> {
    let Some(config) = &listener.tls else { return Ok(None) };
    let server = TlsServer::try_new(config)
        .map_err(|error| ListenerError::OwnTls { listener: listener.name.clone(), error })?;
    Ok(Some(Arc::new(server)))
}

/// What can be wrong with a listener's upstreams, tried before anything is bound.
fn upstream_tls(listener: &ListenerConfig) -> Result<Vec<Option<TlsClient>>, ListenerError> {
    let one = |route: &RouteConfig| {
        let tls = TlsClient::try_new(&route.upstream).map_err(|error| ListenerError::Tls {
            listener: listener.name.clone(),
            route: route.name.clone(),
            error,
        })?;
        // Tried here, so that a worker cannot fail on it.
        let connectors = connectors(&route.upstream, tls.as_ref(), route.timeouts.connect);
        connectors.map_err(|reason| ListenerError::OutboundProxy {
            listener: listener.name.clone(),
            route: route.name.clone(),
            reason,
        })?;
        Ok(tls)
    };
    listener.routes.iter().map(one).collect()
}

/// A socket that systemd passes shows only here where it listens; the configuration checked the others.
fn refuse_open_to_others(listener: &ListenerConfig, socket: &Bound) -> Result<(), ListenerError> {
    let open = socket.ip().is_some_and(|ip| !ip.to_canonical().is_loopback());
    let asks =
        listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) || listener.knows_its_clients();
    if !open || listener.allow_unauthenticated || asks {
        return Ok(());
    }
    Err(ListenerError::Bind {
        listener: listener.name.clone(),
        address: socket.address(),
        reason:
            "other machines reach this address and could use the credentials; listen on 127.0.0.1, or say \
                 `allow_unauthenticated: true`"
                .into(),
    })
}

fn prepare(
    listener: &ListenerConfig,
    (ground, tls): (Ground<'_>, Vec<Option<TlsClient>>),
    credential: &dyn Fn(&RouteConfig) -> Option<BoundCredential>,
    shared: &mut dyn FnMut(&RouteConfig) -> Shared,
) -> Result<Vec<Prepared>, ListenerError> {
    let one = |(route, tls)| prepare_route(route, (ground, tls), credential, shared);
    listener.routes.iter().zip(tls).map(one).collect()
}

fn prepare_route(
    route: &RouteConfig,
    (ground, tls): (Ground<'_>, Option<TlsClient>),
    credential: &dyn Fn(&RouteConfig) -> Option<BoundCredential>,
    shared: &mut dyn FnMut(&RouteConfig) -> Shared,
) -> Result<Prepared, ListenerError> {
    let bound = credential(route);
    if let Some(bound) = &bound
        && !route.upstream.origins().all(|origin| bound.covers(origin))
    {
        let (credential, route) = (bound.name().clone(), route.name.clone());
        return Err(ListenerError::Binding { credential, route });
    }
    let own = shared(route);
    let guard = route.network_guard.clone().map(|rules| {
        let guard = NetworkGuard::new(rules.allow, rules.deny);
        let guard = DialGuard::new(ground.listener.clone(), guard.with_own_ports(ground.own_ports));
        Arc::new(guard.of_route(route.name.clone())) as Arc<dyn AddressGuard>
    });
    let mut pick = |(value, name): &(String, Name)| {
        let own = prepare_route(&route.with_credential(name), (ground, tls.clone()), credential, shared)?;
        Ok::<_, ListenerError>((value.clone(), own))
    };
    let picks = route.picks.iter().flat_map(|picks| &picks.of).map(&mut pick).collect::<Result<_, _>>()?;
    Ok(Prepared {
        config: route.clone(),
        tls,
        credential: bound,
        refusals: Arc::default(),
        shared: own,
        picks,
        limits: Allowance::of(route.throttle),
        guard,
    })
}

/// Who is let in, and how, in one worker.
struct Doors {
    gates: Vec<Vec<Option<Rc<Gate>>>>,
    users: Vec<BoundUsers>,
    throttle: Arc<Throttle>,
    workers: usize,
}

/// The gate of each route of each listener: its own list, or the listener's; of an egress listener only its own.
fn gates(
    desk: &Rc<clients::Desk>,
    listeners: &[ListenerConfig],
    denials: &[Arc<DenialCounters>],
) -> Vec<Vec<Option<Rc<Gate>>>> {
    let of_listener = |(listener, denials): (&ListenerConfig, &Arc<DenialCounters>)| {
        let gate = |names: &[Name]| Rc::new(Gate::new(desk, names, &listener.clients, Arc::clone(denials)));
        let wide = (!listener.clients.is_empty()).then(|| gate(&listener.clients));
        let of_route = |route: &RouteConfig| route.clients.as_deref().map(gate).or_else(|| wide.clone());
        match &listener.egress {
            Some(_) => vec![wide],
            None => listener.routes.iter().map(of_route).collect(),
        }
    };
    listeners.iter().zip(denials).map(of_listener).collect()
}

/// Builds what one worker serves. Routes with one upstream, credential and deadline share its connections.
fn sites(
    listeners: &[ListenerConfig],
    (prepared, egress): (Vec<Vec<Prepared>>, &[Option<egress::Prepared>]),
    ips: &[Option<std::net::IpAddr>],
    traffic: &WorkerTraffic,
    identity: &Rc<Identity>,
    doors: &Doors,
) -> (Vec<Rc<Site>>, Upstreams) {
    let mut keys: Vec<(UpstreamKey, Option<Name>, Duration)> = Vec::new();
    let mut upstreams: Upstreams = Vec::new();
    let mut upstream_of = |route: &Prepared| {
        let credential = route.credential.as_ref().map(|bound| bound.name().clone());
        let key = (key_of(&route.config), credential, route.config.timeouts.connect);
        let at = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
            let connectors = connectors(&route.config.upstream, route.tls.as_ref(), key.2)
                .expect("it was tried before the workers started");
            let guarded = connectors.into_iter().map(|connector| connector.guarded(route.guard.clone()));
            let options = &route.config.upstream.options;
            let upstream = Upstream::new(guarded.collect(), options, &route.shared);
            upstreams.push((key.0.clone(), upstream));
            keys.push(key);
            upstreams.len() - 1
        });
        Rc::clone(&upstreams[at].1)
    };
    let mut sites = Vec::new();
    for (index, (listener, routes)) in listeners.iter().zip(prepared).enumerate() {
        let counters = &traffic.0[index];
        let route = |(place, route): (usize, &Prepared)| {
            let mut build = |one: &Prepared| {
                let token = one.credential.as_ref().map(BoundCredential::reader);
                let credential = one.config.credential.as_ref().or(one.config.users.as_ref());
                let labels = Labels::new(&listener.name, Some(&one.config.name), credential);
                let counted = (Arc::clone(&counters[place]), labels);
                let refusals = Arc::clone(&one.refusals);
                let gate = (doors.gates[index][place].clone(), route.limits.clone());
                Route::new(&one.config, upstream_of(one), token, counted, refusals, gate)
            };
            let built = build(route);
            let picks = route.picks.iter().map(|(value, one)| (value.clone(), build(one))).collect();
            let of_users = |name: &Name| {
                let covers =
                    |users: &&BoundUsers| route.config.upstream.origins().all(|origin| users.covers(origin));
                doors.users.iter().filter(|users| users.name() == name).find(covers).cloned()
            };
            let built = match route.config.users.as_ref().and_then(of_users) {
                Some(users) => built.of_users(users, Arc::clone(&doors.throttle)),
                None => built,
            };
            Rc::new(match &route.config.picks {
                None => built,
                Some(config) => built.picking(config.by.clone(), picks),
            })
        };
        sites.push(Rc::new(Site {
            table: RouteTable::new(&listener.routes, ips[index]),
            routes: routes.iter().enumerate().map(route).collect(),
            allowed_origins: listener.allowed_origins.clone(),
            egress: egress[index].as_ref().map(|egress| {
                let gate = doors.gates[index].first().cloned().flatten();
                Box::new(egress.site(counters, gate, doors.workers))
            }),
            unrouted: Arc::clone(&counters[listener.all_routes().count()]),
            labels: Rc::new(Labels::new(&listener.name, None, None)),
            identity: Rc::clone(identity),
        }));
    }
    (sites, upstreams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_others_reach_needs_a_word() {
        let socket = Bound::Tcp(std::net::TcpListener::bind("0.0.0.0:0").expect("bound"));
        let mut listener = ListenerConfig {
            name: Name::try_new("passed").expect("a name"),
            bind: super::super::BindAddress::Systemd("passed".into()),
            tls: None,
            trusted_proxies: crate::policy::trusted::TrustedProxies::default(),
            proxy_protocol: crate::listener::ProxyProtocol::Off,
            underscores: crate::proxy::Underscores::Reject,
            allow_unauthenticated: false,
            allowed_origins: Vec::new(),
            clients: Vec::new(),
            routes: Vec::new(),
            egress: None,
        };
        let error = refuse_open_to_others(&listener, &socket).expect_err("refused").to_string();
        assert!(error.contains("allow_unauthenticated: true"), "{error}");
        listener.allow_unauthenticated = true;
        assert!(refuse_open_to_others(&listener, &socket).is_ok());
        listener.allow_unauthenticated = false;
        let tls = |client_ca: Option<&str>| crate::tls::server::TlsServerConfig {
            cert: "tls.crt".into(),
            key: crate::secret::SecretSource::File("tls.key".into()),
            client_ca: client_ca.map(Into::into),
        };
        listener.tls = Some(tls(None));
        assert!(refuse_open_to_others(&listener, &socket).is_err());
        listener.tls = Some(tls(Some("clients.crt")));
        assert!(refuse_open_to_others(&listener, &socket).is_ok());
    }
}
