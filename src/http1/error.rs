//! What goes wrong with messages of HTTP/1.1.
//!
//! Owns: whose fault it is.

use std::io;

/// What breaks an exchange off.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    /// It was closed before a byte of the answer.
    #[error("the connection was closed without an answer")]
    Closed,
    /// It was closed in the middle of a message.
    #[error("the connection was closed in the middle of a message")]
    Truncated,
    /// Reading or writing failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is not HTTP/1.1.
    #[error("what came is not HTTP/1.1")]
    Malformed,
    /// A head, an extension or trailers beyond the limit.
    #[error("what came is beyond the limits of HTTP/1.1 fields")]
    TooLarge,
    /// The body that is written does not have the length that its head tells, or broke off.
    #[error("the body that is passed on broke off")]
    Body,
}

impl Http1Error {
    /// Whether the other side sent what is not HTTP.
    pub fn is_protocol(&self) -> bool {
        matches!(self, Self::Malformed | Self::TooLarge)
    }
}
