//! The admin listener: liveness, readiness, metrics, status and actions.
