//! Tests that drive the real binary against real servers, and tests of the sources as a whole.

mod layering;
mod store;
mod store_faults;
