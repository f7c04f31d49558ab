//! What goes wrong in an exchange over HTTP/1.1.
//!
//! Owns: whose fault it is.

use std::io;

/// What breaks an exchange off.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    /// It was closed before a byte of the answer.
    #[error("the upstream closed the connection without an answer")]
    Closed,
    /// It was closed in the middle of an answer.
    #[error("the upstream closed the connection in the middle of its answer")]
    Truncated,
    /// Reading or writing failed.
    #[error("the connection to the upstream failed: {0}")]
    Io(#[from] io::Error),
    /// What came is not HTTP/1.1.
    #[error("the upstream's answer is not HTTP/1.1")]
    Malformed,
    /// A head, an extension or trailers beyond the limit.
    #[error("the upstream's answer is beyond the limits of HTTP/1.1 fields")]
    TooLarge,
    /// The request's own body does not have the length that its head tells, or broke off.
    #[error("the body of the request broke off")]
    Request,
}

impl Http1Error {
    /// Whether the upstream sent what is not HTTP.
    pub(in crate::upstream) fn is_protocol(&self) -> bool {
        matches!(self, Self::Malformed | Self::TooLarge)
    }
}
