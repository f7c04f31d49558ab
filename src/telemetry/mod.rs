//! Telemetry: logs and metrics. Bounded labels only; never a secret.

pub mod access;
pub mod counters;
pub mod logs;
pub mod throttle;
