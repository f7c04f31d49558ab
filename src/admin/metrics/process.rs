//! Metrics of the process as a whole.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::family::family;
use super::whole;

/// What the kernel accounts to this process.
#[derive(Debug, Default)]
pub(super) struct Process {
    cpu: f64,
    resident: f64,
    descriptors: f64,
}

impl Process {
    /// Asks the kernel.
    pub(super) fn read() -> Self {
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
            cpu: (field(11) + field(12)) / ticks,
            resident: field(21) * page,
            descriptors: whole(descriptors as u64),
        }
    }

    /// Writes its metrics. `start`: when it was ready, in Unix seconds.
    pub(super) fn encode(&self, start: f64, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        family(encoder, "bearward_build_info", "The version that runs.")
            .gauges([([("version", env!("CARGO_PKG_VERSION"))], 1.0)])?;
        family(encoder, "process_start_time_seconds", "When the process was ready, in Unix seconds.")
            .gauges([([], start)])?;
        let mut metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system CPU time, in seconds.",
            None,
            MetricType::Counter,
        )?;
        metric.encode_counter::<NoLabelSet, _, u64>(&self.cpu, None)?;
        family(encoder, "process_resident_memory_bytes", "Resident memory.").gauges([([], self.resident)])?;
        family(encoder, "process_open_fds", "Open file descriptors.").gauges([([], self.descriptors)])
    }
}
