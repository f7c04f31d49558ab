//! A request whose credential has no token now.
//!
//! Owns: waiting for one, where the route says so. Never waits longer than that.

use std::sync::Arc;

use http::HeaderValue;
use tokio::time::Instant;

use super::{Identity, Refusal, Route};
use crate::credential::{TokenReader, Unavailable};

/// No token now: waits where the route says so, else tells the client.
#[cold]
pub(super) async fn wait_for_token(
    identity: &Identity,
    route: &Route,
    token: &std::cell::RefCell<TokenReader>,
    mut unavailable: Unavailable,
) -> Result<(HeaderValue, u64), Refusal> {
    let deadline = Instant::now() + route.wait_for_token;
    let cell = Arc::clone(token.borrow().cell());
    let mut changes = cell.changes();
    while !route.wait_for_token.is_zero() {
        changes.mark_unchanged();
        match token.borrow_mut().authorize(identity.clock.boot()) {
            Ok(token) => return Ok(token),
            Err(still) => unavailable = still,
        }
        if !matches!(tokio::time::timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
            break;
        }
    }
    let now = identity.clock.boot();
    Err(Refusal::NoToken {
        credential: cell.name().clone(),
        state: unavailable.state,
        retry_after: unavailable.retry_at.map(|at| at.since(now)),
    })
}
