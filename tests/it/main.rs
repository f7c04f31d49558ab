//! Tests that drive the real binary against real servers, and tests of the sources as a whole.

mod campaign;
mod config;
mod faults;
mod harness;
mod idp;
mod layering;
mod leaks;
mod lifecycle;
mod lifecycle_answers;
mod lifecycle_doubt;
mod lifecycle_failures;
mod lifecycle_seeds;
mod lifecycle_store;
mod lifecycle_time;
mod oauth;
mod proxy_messages;
mod proxy_reverse;
mod proxy_rig;
mod proxy_theft;
mod proxy_unauthorized;
mod proxy_upstream;
mod real_servers;
mod store;
mod store_faults;
mod store_life;
mod try_it;
