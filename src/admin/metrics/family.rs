//! One metric family and its samples.
//!
//! Owns: how counters, gauges and histograms are written. Knows no metric.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::whole;
use crate::credential::snapshot::{Counts, DURATION_BOUNDS};
use crate::telemetry::counters::{BUCKET_BOUNDS_MICROS, HistogramSnapshot};

type Labels<'a> = [(&'static str, &'a str)];

/// Writes one metric family, whose samples `each` hands out.
pub(super) struct Family<'e, 'a> {
    encoder: &'e mut DescriptorEncoder<'a>,
    name: &'static str,
    help: &'static str,
}

impl Family<'_, '_> {
    /// A counter with each of these labels.
    pub(super) fn counters<'l, const N: usize>(
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

    /// A gauge with each of these labels.
    pub(super) fn gauges<'l, const N: usize>(
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

    /// A histogram with each of these labels.
    pub(super) fn histograms<'l, const N: usize>(
        self,
        samples: impl IntoIterator<Item = ([(&'static str, &'l str); N], Buckets)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Histogram)?;
        for (labels, Buckets { sum, counts }) in samples {
            let labels: &Labels<'_> = &labels;
            let count = counts.iter().map(|(_, count)| count).sum();
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &counts, None)?;
        }
        Ok(())
    }
}

/// A histogram as the encoder wants it: upper bounds in seconds with their own counts.
pub(super) struct Buckets {
    sum: f64,
    counts: Vec<(f64, u64)>,
}

impl From<&HistogramSnapshot> for Buckets {
    fn from(histogram: &HistogramSnapshot) -> Self {
        let bounds = BUCKET_BOUNDS_MICROS.iter().map(|micros| whole(*micros) / 1e6).chain([f64::INFINITY]);
        Self { sum: whole(histogram.sum_micros) / 1e6, counts: bounds.zip(histogram.buckets).collect() }
    }
}

impl From<&Counts> for Buckets {
    fn from(counts: &Counts) -> Self {
        let bounds = DURATION_BOUNDS.into_iter().chain([f64::INFINITY]);
        Self { sum: counts.duration_sum, counts: bounds.zip(counts.durations).collect() }
    }
}

/// Begins a metric family.
pub(super) fn family<'e, 'a>(
    encoder: &'e mut DescriptorEncoder<'a>,
    name: &'static str,
    help: &'static str,
) -> Family<'e, 'a> {
    Family { encoder, name, help }
}
