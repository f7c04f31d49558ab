//! What a client may send, and how long it may take.
//!
//! Owns: the limits of requests and their defaults, and how fast a body must come. Watches no clock.

use std::time::Duration;

/// How long in all a body may be waited for before its rate counts.
const GRACE: Duration = Duration::from_secs(10);

/// The part of `limits:` that concerns requests, and `headers:` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// `uri_bytes`: path and query, 8 KiB.
    pub uri_bytes: usize,
    /// `header_count`: 100.
    pub header_count: usize,
    /// `header_timeout`: from the first byte of a head, or from accepting, to its end: 10 s.
    pub header_timeout: Duration,
    /// `idle_timeout`: how long a kept connection may be idle: 60 s.
    pub idle_timeout: Duration,
    /// `min_body_rate`: bytes a second of a request's body: 240; 0: any.
    pub min_body_rate: u64,
    /// `headers.underscores` of the listener.
    pub underscores: Underscores,
    /// `interim_responses` of the listener: they pass to clients over HTTP/1.1.
    pub interim_responses: bool,
}

/// `headers.underscores`: what becomes of a field that some servers take for one that the proxy sets, because they do not
/// tell `_` from `-`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Underscores {
    /// The request is refused.
    #[default]
    Reject,
    /// The field is removed.
    Drop,
    /// The field passes, unless it stands for a credential.
    Keep,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            uri_bytes: 8 * 1024,
            header_count: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            min_body_rate: 240,
            underscores: Underscores::Reject,
            interim_responses: false,
        }
    }
}

impl ClientLimits {
    /// How much longer a body may be waited for, of which `received` bytes came and for which was `waited` so far.
    pub(super) fn patience(&self, received: u64, waited: Duration) -> Duration {
        match received.saturating_mul(1000).checked_div(self.min_body_rate) {
            None => Duration::MAX,
            Some(millis) => GRACE.saturating_add(Duration::from_millis(millis)).saturating_sub(waited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_buys_time_by_coming() {
        let limits = ClientLimits { min_body_rate: 100, ..ClientLimits::default() };
        let check = |received: u64, waited: u64, left: u64| {
            let patience = limits.patience(received, Duration::from_secs(waited));
            assert_eq!(patience, Duration::from_secs(left), "{received} {waited}");
        };
        check(0, 0, 10);
        check(0, 10, 0);
        check(1_000, 5, 15);
        check(1_000, 30, 0);
        let any = ClientLimits { min_body_rate: 0, ..limits };
        assert_eq!(any.patience(0, Duration::from_secs(1_000)), Duration::MAX);
    }
}
