//! The proxy: one request in, one request out, one answer back.
//!
//! Owns: the order of work on a request, header rules, framing rules, error answers. Sees only the read
//! half of `credential`.

mod admit;
mod again;
mod answer;
mod answer_body;
mod asked;
mod authenticate;
mod backward;
mod bad_head;
#[doc(hidden)]
pub mod bench;
mod body;
mod bound;
mod chain;
mod challenge;
mod client;
mod client_body;
mod edit;
pub mod egress;
mod error;
mod exchange;
pub mod extended;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod headers;
mod inject;
mod interim;
mod limits;
mod link;
mod no_token;
mod note;
mod pick;
mod proof;
mod request_id;
mod site;
mod stream;
mod target;
mod throttle;
mod unauthorized;
mod users;
mod watch;

pub use answer_body::ResponseBody;
pub use authenticate::authenticate;
pub use bad_head::{BadHead, refuse_head};
pub use body::{BodyError, RequestBody};
pub use client::{Client, Due, Malformed, Switched};
pub use client_body::{Arriving, Carrier, ClientBody};
pub use error::Refusal;
pub use handle::handle;
pub use limits::{ClientLimits, Underscores};
pub use link::{Link, Peer};
pub use site::{Identity, Route, Site};
pub use throttle::Whose;
pub use unauthorized::Refusals;
pub use watch::Watch;
