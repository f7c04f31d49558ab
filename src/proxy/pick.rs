//! Which credential a request gets, where that depends on who asks.
//!
//! Owns: the choice between routes that differ in their credential alone, each with a pool of its own. Only what was
//! proven decides: the client, or a field of a trusted proxy.

use std::collections::HashMap;
use std::rc::Rc;

use http::HeaderMap;

use super::{Client, Refusal, Route};
use crate::route::PickBy;

/// The routes to choose from.
#[derive(Debug)]
pub(super) struct Picks {
    pub(super) by: PickBy,
    pub(super) routes: HashMap<String, Rc<Route>>,
}

/// The route for a request with these fields, once it is known who sends it.
pub(super) fn pick<'r>(
    route: &'r Rc<Route>,
    picks: &'r Picks,
    client: &Client,
    headers: &HeaderMap,
) -> Result<&'r Rc<Route>, Refusal> {
    let default = || if route.token.is_some() { Ok(route) } else { Err(Refusal::NoCredential) };
    match &picks.by {
        PickBy::Client => {
            let caller = client.caller();
            match caller.and_then(|caller| picks.routes.get(caller.name.as_str())) {
                Some(own) => Ok(own),
                None => default(),
            }
        }
        PickBy::Header(name) => {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (Some(value), None) if client.link.forwarded.peer_is_trusted() => {
                    let own = value.to_str().ok().and_then(|value| picks.routes.get(value));
                    own.ok_or(Refusal::NoCredential)
                }
                (Some(_), Some(_)) => Err(Refusal::NoCredential),
                // What anybody else says decides nothing.
                _ => default(),
            }
        }
    }
}
