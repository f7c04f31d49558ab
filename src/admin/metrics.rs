//! `/metrics`: OpenMetrics text, made anew from counters at each scrape.
//!
//! Owns: the metric names, which are a contract. Labels come from the configuration only, so their number is bounded.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Running;
use crate::credential::State;
use crate::credential::refresher::Snapshot;
use crate::listener::DataSnapshot;
use crate::telemetry::counters::Histogram;

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

type Labels<'a> = [(&'static str, &'a str)];

/// Writes one metric family, whose samples `each` hands out.
struct Family<'e, 'a> {
    encoder: &'e mut DescriptorEncoder<'a>,
    name: &'static str,
    help: &'static str,
}

impl Family<'_, '_> {
    fn counters<'l, const N: usize>(
        self,
        samples: impl IntoIterator<Item = ([(&'static str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            let labels: &Labels<'_> = &labels;
            if labels.is_empty() {
                metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges<'l, const N: usize>(
        self,
        samples: impl IntoIterator<Item = ([(&'static str, &'l str); N], f64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            let labels: &Labels<'_> = &labels;
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn histograms<'l, const N: usize>(
        self,
        samples: impl IntoIterator<Item = ([(&'static str, &'l str); N], &'l Histogram)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Histogram)?;
        for (labels, histogram) in samples {
            let labels: &Labels<'_> = &labels;
            let buckets = histogram.buckets();
            let count = buckets.iter().map(|(_, count)| count).sum();
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                histogram.sum_seconds(),
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_connections(&mut encoder)?;
        self.encode_tokens(&mut encoder)?;
        self.encode_refreshes(&mut encoder)?;
        self.encode_process(&mut encoder)
    }
}

fn family<'e, 'a>(
    encoder: &'e mut DescriptorEncoder<'a>,
    name: &'static str,
    help: &'static str,
) -> Family<'e, 'a> {
    Family { encoder, name, help }
}

impl Scrape {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let routes = &self.data.routes;
        family(
            encoder,
            "bearward_requests",
            "Requests answered, by the class of the status sent to the client.",
        )
        .counters(routes.iter().flat_map(|route| {
            route.by_class.iter().map(|(class, count)| {
                (
                    [
                        ("listener", route.listener.as_str()),
                        ("route", route.name.as_str()),
                        ("code_class", *class),
                    ],
                    *count,
                )
            })
        }))?;
        family(
            encoder,
            "bearward_request_duration_seconds",
            "Seconds from a request's head to the end of its answer.",
        )
        .histograms(routes.iter().map(|route| {
            ([("listener", route.listener.as_str()), ("route", route.name.as_str())], &route.request_duration)
        }))?;
        family(
            encoder,
            "bearward_upstream_duration_seconds",
            "Seconds from a request sent to the head of the upstream's answer.",
        )
        .histograms(routes.iter().map(|route| {
            (
                [("listener", route.listener.as_str()), ("route", route.name.as_str())],
                &route.upstream_duration,
            )
        }))
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        family(encoder, "bearward_connections", "Open client connections.").gauges(
            self.data
                .listeners
                .iter()
                .map(|listener| ([("listener", listener.name.as_str())], whole(listener.connections))),
        )?;
        family(encoder, "bearward_upstream_connections", "Open upstream connections.").gauges([
            ([("state", "active")], whole(self.data.upstream_active)),
            ([("state", "idle")], whole(self.data.upstream_idle)),
        ])
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
                credential.outcomes.iter().map(|(outcome, count)| {
                    ([("credential", credential.name.as_str()), ("outcome", *outcome)], *count)
                })
            }),
        )?;
        family(encoder, "bearward_refresh_duration_seconds", "Seconds that a token request took.")
            .histograms(credentials.iter().map(|credential| {
                ([("credential", credential.name.as_str())], &credential.refresh_duration)
            }))?;
        family(encoder, "bearward_store_errors", "Failures of the token store.").counters(
            credentials
                .iter()
                .map(|credential| ([("credential", credential.name.as_str())], credential.store_errors)),
        )
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        family(encoder, "bearward_build_info", "The version that runs.")
            .gauges([([("version", env!("CARGO_PKG_VERSION"))], 1.0)])?;
        family(encoder, "process_start_time_seconds", "When the process was ready, in Unix seconds.")
            .gauges([([], self.start_seconds)])?;
        family(encoder, "process_cpu_seconds", "User and system CPU time, in seconds.")
            .gauges([([("mode", "user")], self.process.user), ([("mode", "system")], self.process.system)])?;
        family(encoder, "process_resident_memory_bytes", "Resident memory.")
            .gauges([([], self.process.resident)])?;
        family(encoder, "process_open_fds", "Open file descriptors.").gauges([([], self.process.descriptors)])
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

/// What the kernel accounts to this process.
#[derive(Debug, Default)]
struct Process {
    user: f64,
    system: f64,
    resident: f64,
    descriptors: f64,
}

impl Process {
    fn read() -> Self {
        let ticks = whole(rustix::param::clock_ticks_per_second());
        let page = whole(rustix::param::page_size() as u64);
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The fields behind the command's closing parenthesis: state is the first, utime the 12th.
        let fields: Vec<f64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| {
                rest.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect()
            })
            .unwrap_or_default();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0.0);
        let descriptors =
            std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
        Self {
            user: field(11) / ticks,
            system: field(12) / ticks,
            resident: field(21) * page,
            descriptors: whole(descriptors as u64),
        }
    }
}
