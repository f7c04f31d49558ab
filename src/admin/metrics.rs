//! `/metrics`: OpenMetrics text, made anew from counters at each scrape.
//!
//! Owns: the metric names, which are a contract. Labels come from the configuration only, so their number is bounded.

mod family;
mod process;
mod upstream;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use self::family::{Buckets, family};
use self::process::Process;
use super::Running;
use crate::credential::{Snapshot, State};
use crate::listener::{DataSnapshot, ListenerSnapshot, RouteSnapshot, Traffic};
use crate::names::Name;
use crate::telemetry::counters::DENIAL_REASONS;

/// Prometheus and every OpenMetrics parser read it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes everything that is known now.
pub fn encode(running: &Running) -> Result<String, fmt::Error> {
    let scrape = Scrape {
        credentials: running.credentials.iter().map(|credential| credential.snapshot()).collect(),
        data: running.data.snapshot(),
        process: Process::read(),
        start_seconds: millis_as_seconds(running.started_at.millis()),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::with_capacity(8 * 1024);
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape {
    credentials: Vec<Snapshot>,
    data: DataSnapshot,
    process: Process,
    start_seconds: f64,
}

const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

fn labels_of(route: &RouteSnapshot) -> [(&'static str, &str); 2] {
    [("listener", route.listener.as_str()), ("route", route.name.as_str())]
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_clients(&mut encoder)?;
        self.encode_tunnels(&mut encoder)?;
        self.encode_connections(&mut encoder)?;
        self.encode_tokens(&mut encoder)?;
        self.encode_refreshes(&mut encoder)?;
        self.process.encode(self.start_seconds, &mut encoder)
    }
}

impl Scrape {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let routes = &self.data.routes;
        let unrouted =
            self.data.listeners.iter().map(|listener| (listener.name.as_str(), "", &listener.unrouted));
        let all = routes.iter().map(|route| (route.listener.as_str(), route.name.as_str(), &route.traffic));
        family(
            encoder,
            "bearward_requests",
            "Requests answered, by the class of the status sent to the client; those that no route took have an empty route.",
        )
        .counters(all.chain(unrouted).flat_map(|(listener, route, traffic)| {
            CODE_CLASSES.iter().zip(traffic.code_classes).map(move |(class, count)| {
                ([("listener", listener), ("route", route), ("code_class", *class)], count)
            })
        }))?;
        family(
            encoder,
            "bearward_request_errors",
            "Requests that could not be forwarded, or whose answer broke off.",
        )
        .counters(routes.iter().map(|route| (labels_of(route), route.traffic.errors)))?;
        family(
            encoder,
            "bearward_throttled",
            "Requests refused by `rate_limit` or `concurrency` of their route or egress rule.",
        )
        .counters(routes.iter().map(|route| (labels_of(route), route.traffic.throttled)))?;
        family(
            encoder,
            "bearward_unauthorized",
            "Answers 401 to requests with our token, by what was done: replayed with the next token, or passed on.",
        )
        .counters(self.unauthorized().iter().flat_map(|(credential, all, replayed)| {
            [("replayed", *replayed), ("passed", all.saturating_sub(*replayed))]
                .map(|(action, count)| ([("credential", credential.as_str()), ("action", action)], count))
        }))?;
        family(encoder, "bearward_refused_heads", "Request heads that were no HTTP, or too large.")
            .counters(
                self.data
                    .listeners
                    .iter()
                    .map(|listener| ([("listener", listener.name.as_str())], listener.refused_heads)),
            )?;
        family(
            encoder,
            "bearward_request_duration_seconds",
            "Seconds from the first byte of a request to the last of its answer.",
        )
        .histograms(routes.iter().map(|route| (labels_of(route), Buckets::from(&route.traffic.duration))))?;
        family(
            encoder,
            "bearward_upstream_duration_seconds",
            "Seconds from a request handed to an upstream connection to the head of the answer.",
        )
        .histograms(
            routes.iter().map(|route| (labels_of(route), Buckets::from(&route.traffic.upstream_duration))),
        )
    }

    fn encode_clients(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        family(
            encoder,
            "bearward_client_requests",
            "Requests of known clients, by the class of the status sent to them.",
        )
        .counters(self.data.clients.iter().flat_map(|client| {
            CODE_CLASSES
                .iter()
                .zip(client.code_classes)
                .map(|(class, count)| ([("client", client.name.as_str()), ("code_class", *class)], count))
        }))?;
        family(
            encoder,
            "bearward_client_throttled",
            "Requests refused by `rate_limit` or `concurrency` of their client.",
        )
        .counters(
            self.data.clients.iter().map(|client| ([("client", client.name.as_str())], client.throttled)),
        )?;
        family(
            encoder,
            "bearward_client_denied",
            "Requests refused for who sent them: no proof, a wrong one, a client that may not, too many attempts, or it could not be told.",
        )
        .counters(self.data.listeners.iter().flat_map(|listener| {
            DENIAL_REASONS.iter().zip(listener.denied).map(|(reason, count)| {
                ([("listener", listener.name.as_str()), ("reason", *reason)], count)
            })
        }))
    }

    /// By credential: answers 401 to requests with its token, and how many of those were sent again.
    fn unauthorized(&self) -> Vec<(&Name, u64, u64)> {
        let of = |credential: &Name, count: fn(&Traffic) -> u64| {
            let routes =
                self.data.routes.iter().filter(|route| route.credential.as_ref() == Some(credential));
            routes.map(|route| count(&route.traffic)).sum()
        };
        let names = self.credentials.iter().map(|credential| &credential.name);
        names
            .map(|name| {
                (name, of(name, |traffic| traffic.unauthorized), of(name, |traffic| traffic.replayed))
            })
            .collect()
    }

    /// Of the rules of egress listeners; no other route opens one.
    fn encode_tunnels(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let egress = |name: &Name| {
            self.data.listeners.iter().any(|listener| listener.kind == "egress" && listener.name == *name)
        };
        let rules: Vec<_> = self.data.routes.iter().filter(|route| egress(&route.listener)).collect();
        family(encoder, "bearward_tunnels", "Open tunnels (CONNECT, SOCKS5).")
            .gauges(rules.iter().map(|rule| (labels_of(rule), whole(rule.traffic.tunnels))))?;
        family(encoder, "bearward_tunnel_bytes", "Bytes through tunnels, by who sent them.").counters(
            rules.iter().flat_map(|rule| {
                let [listener, route] = labels_of(rule);
                ["client", "upstream"]
                    .into_iter()
                    .zip(rule.traffic.tunnel_bytes)
                    .map(move |(from, bytes)| ([listener, route, ("from", from)], bytes))
            }),
        )
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        family(encoder, "bearward_connections", "Open client connections.").gauges(
            self.data
                .listeners
                .iter()
                .map(|listener| ([("listener", listener.name.as_str())], whole(listener.connections))),
        )?;
        let refused = [
            (
                "bearward_tls_handshake_failures",
                "TLS handshakes that failed or took too long.",
                (|listener| listener.refused_handshakes) as fn(&ListenerSnapshot) -> u64,
            ),
            (
                "bearward_proxy_header_failures",
                "Connections refused because their PROXY header was missing, broken or of an untrusted peer.",
                |listener| listener.refused_proxy_headers,
            ),
        ];
        for (name, help, count) in refused {
            family(encoder, name, help).counters(
                self.data
                    .listeners
                    .iter()
                    .map(|listener| ([("listener", listener.name.as_str())], count(listener))),
            )?;
        }
        family(
            encoder,
            "bearward_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener expires, in Unix seconds.",
        )
        .gauges(self.data.listeners.iter().filter_map(|listener| {
            let at = listener.certificate.as_ref()?.not_after;
            Some(([("listener", listener.name.as_str())], millis_as_seconds(at.millis())))
        }))?;
        family(
            encoder,
            "bearward_access_log_dropped",
            "Lines of the access and audit log that were lost because they could not be written fast enough, or at all.",
        )
        .counters([([], self.data.log_lines_dropped)])?;
        let upstream = self.data.upstream_connections;
        family(encoder, "bearward_upstream_connections", "Open upstream connections.").gauges([
            ([("state", "active")], whole(upstream.active)),
            ([("state", "idle")], whole(upstream.idle)),
        ])?;
        upstream::encode(&self.data.routes, encoder)
    }

    fn encode_tokens(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let credentials = &self.credentials;
        family(
            encoder,
            "bearward_token_expiry_timestamp_seconds",
            "When the access token dies, in Unix seconds; 0 without one.",
        )
        .gauges(credentials.iter().map(|credential| {
            let at = credential.expires_at.map_or(0.0, |at| millis_as_seconds(at.millis()));
            ([("credential", credential.name.as_str())], at)
        }))?;
        family(
            encoder,
            "bearward_refresh_token_expiry_timestamp_seconds",
            "When the refresh token dies, in Unix seconds, where that is known.",
        )
        .gauges(credentials.iter().filter_map(|credential| {
            let at = credential.refresh_token_expires_at?;
            Some(([("credential", credential.name.as_str())], millis_as_seconds(at.millis())))
        }))?;
        family(encoder, "bearward_token_generation", "Counts the access tokens of a credential.").gauges(
            credentials
                .iter()
                .map(|credential| ([("credential", credential.name.as_str())], whole(credential.generation))),
        )?;
        family(encoder, "bearward_credential_state", "1 for the state that a credential is in, else 0.")
            .gauges(credentials.iter().flat_map(|credential| {
                State::ALL.iter().map(move |state| {
                    let here = f64::from(u8::from(*state == credential.state));
                    ([("credential", credential.name.as_str()), ("state", state.as_str())], here)
                })
            }))?;
        family(
            encoder,
            "bearward_token_unsaved",
            "1 while a rotated refresh token is in memory only, because the store cannot be written.",
        )
        .gauges(credentials.iter().map(|credential| {
            ([("credential", credential.name.as_str())], f64::from(u8::from(credential.unsaved)))
        }))
    }

    fn encode_refreshes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let credentials = &self.credentials;
        family(encoder, "bearward_refresh", "Token requests, by outcome.").counters(
            credentials.iter().flat_map(|credential| {
                credential.counts.outcomes().map(|(outcome, count)| {
                    ([("credential", credential.name.as_str()), ("outcome", outcome)], count)
                })
            }),
        )?;
        family(encoder, "bearward_refresh_duration_seconds", "Seconds that a token request took.")
            .histograms(credentials.iter().map(|credential| {
                ([("credential", credential.name.as_str())], Buckets::from(&credential.counts))
            }))?;
        family(
            encoder,
            "bearward_credential_file_errors",
            "How often a changed secret, key or certificate file could not be used; the last good one stays in use.",
        )
        .counters(self.credentials.iter().map(|credential| {
            ([("credential", credential.name.as_str())], credential.counts.file_errors)
        }))?;
        family(encoder, "bearward_store_errors", "Failures of the token store.").counters(
            credentials.iter().map(|credential| {
                ([("credential", credential.name.as_str())], credential.counts.store_errors)
            }),
        )
    }
}

#[allow(clippy::cast_precision_loss, reason = "a metric; 2^53 is enough")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of this century fit 2^53")]
fn millis_as_seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}
