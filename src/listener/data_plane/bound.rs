//! Listeners that are bound and checked: from there to a running data plane.
//!
//! Owns: trying everything that can fail before the first thread starts. Serves nothing.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::credential::{BoundCredential, BoundUsers};
use crate::listener::bind::{self, Bound, Passed};
use crate::listener::egress::{self, BinderOf};
use crate::listener::entry::Entry;
use crate::listener::upstreams::{checks, connectors, shared_by};
use crate::listener::worker::Worker;
use crate::listener::{Limits, ListenerConfig, ListenerError};
use crate::policy::clients::{self, Clients};
use crate::proxy::Identity;
use crate::route::RouteConfig;
use crate::telemetry::access::AccessLog;
use crate::tls::server::TlsServer;
use crate::upstream::TlsClient;

use super::sites::{Doors, Ground, gates, prepare, sites};
use super::{DataPlane, WorkerTraffic};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Name;

    #[test]
    fn a_socket_that_others_reach_needs_a_word() {
        let socket = Bound::Tcp(std::net::TcpListener::bind("0.0.0.0:0").expect("bound"));
        let mut listener = ListenerConfig {
            name: Name::try_new("passed").expect("a name"),
            bind: crate::listener::BindAddress::Systemd("passed".into()),
            tls: None,
            trusted_proxies: crate::policy::trusted::TrustedProxies::default(),
            proxy_protocol: crate::listener::ProxyProtocol::Off,
            underscores: crate::proxy::Underscores::Reject,
            interim_responses: false,
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
            client_optional: false,
        };
        listener.tls = Some(tls(None));
        assert!(refuse_open_to_others(&listener, &socket).is_err());
        listener.tls = Some(tls(Some("clients.crt")));
        assert!(refuse_open_to_others(&listener, &socket).is_ok());
    }
}
