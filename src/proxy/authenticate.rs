//! Who sends a request: asked once, before anything of it is forwarded.
//!
//! Owns: bringing together what the connection, the trusted proxies and the fields say, and keeping the answer for the
//! access log and the counters. A caller is of one request, never of a connection.

use std::rc::Rc;

use http::HeaderMap;

use super::{Client, Refusal};
use crate::policy::clients::{Asked, Caller, Gate, Judged};

/// Asks `gate` who sends a request with these fields, and notes it on `client`. `proxy`: the request is for a forward
/// proxy, which reads `Proxy-Authorization` and answers 407.
pub async fn authenticate(
    gate: &Gate,
    client: &Client,
    headers: &HeaderMap,
    proxy: bool,
) -> Result<Rc<Caller>, Refusal> {
    let address = client.address(headers);
    let asked = Asked { connection: &client.link.connection, address, headers, proxy };
    let caller = match gate.judge(&asked) {
        Judged::Known(caller) => caller,
        Judged::Denied(denied) => return Err(Refusal::Denied(denied)),
        // Boxed: what only a first request needs is not kept for all.
        Judged::Ask(question) => Box::pin(gate.answer(&asked, question)).await.map_err(Refusal::Denied)?,
    };
    client.set_caller(Rc::clone(&caller));
    Ok(caller)
}
