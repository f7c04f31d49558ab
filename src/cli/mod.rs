//! The commands.

pub mod check;
mod live;
pub mod schema;
