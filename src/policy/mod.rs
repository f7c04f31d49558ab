//! Policy: who may use a listener, and from where a browser may call it.

pub mod browser;
pub mod trusted;
