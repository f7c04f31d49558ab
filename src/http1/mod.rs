//! Messages of HTTP/1.1 as they are on the wire (RFC 9112).
//!
//! Owns: where a body ends, both ways; reading into memory that goes on as it was read; writing heads, frames and pieces
//! with few system calls. Knows nothing of requests and answers: `upstream` and `listener` do.

mod error;
mod fields;
mod framing;
mod outgoing;
mod reader;
mod spare;

pub use error::Http1Error;
pub use fields::{has_bare_line_feed, may_be_whole, parse_digits, persists, read_trailers};
pub use framing::{Reading, Writing};
pub use outgoing::Outgoing;
pub use reader::Reader;
pub use spare::{keep_fields, take_fields};
