//! Policy: who may use a listener, from where a browser may call it, and where an egress listener leads.

pub mod browser;
pub mod clients;
pub mod egress;
pub mod network;
pub mod trusted;
