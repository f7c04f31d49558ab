//! bearward: an authenticating reverse proxy and egress gateway.
//!
//! ```text
//!            control plane: one thread, one runtime                 data plane: one thread a core
//!  config ──▶ app ──▶ refresher (one task a credential) ──▶ TokenCell ──▶ listener ▶ proxy ▶ upstream pool
//!                       │  ▲                               (ArcSwap)      (own runtime, own pool,
//!                       ▼  │ watch                                         counters and log buffer)
//!                    oauth  store                    ◀── "rejected generation n" (never awaited)
//!            admin API, page, metrics scrape, reload, signals
//! ```
//!
//! The data plane never runs control work, takes no lock and shares nothing writable between threads
//! but the cells. The control plane never touches a request.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod file_watch;
pub mod http1;
pub mod idp;
pub mod listener;
pub mod names;
pub mod oauth;
pub mod origin;
pub mod policy;
pub mod proxy;
pub mod route;
pub mod secret;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod upstream;
