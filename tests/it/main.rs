//! Tests that drive the real binary against real servers, and tests of the sources as a whole.

mod campaign;
mod harness;
mod layering;
mod real_servers;
mod store;
mod store_faults;
