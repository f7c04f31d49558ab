//! `via_proxy:` of egress listeners and their rules.

use crate::config::blocks::egress::{ViaProxy, ViaProxyBlock};
use crate::config::context::Cx;
use crate::config::read::At;

/// A proxy with its user and password, where they have fields of their own.
pub(super) fn proxy(via: &At<ViaProxy>, cx: &mut Cx<'_>) -> Option<url::Url> {
    match &via.value {
        ViaProxy::Url(url) => Some(url.0.clone()),
        ViaProxy::Full(block) => with_password(block, cx),
    }
}

fn with_password(block: &ViaProxyBlock, cx: &mut Cx<'_>) -> Option<url::Url> {
    let at = block.url.as_ref()?;
    let mut url = at.value.0.clone();
    match (&block.username, &block.password) {
        (None, None) => {}
        (Some(username), password) => {
            // Fails only for URLs that can have no user.
            url.set_username(&username.value.0).ok()?;
            if let Some(password) = password {
                if !super::secret::check(password, "the proxy's password", cx) {
                    return None;
                }
                let secret = password.value.read_blocking().ok()?;
                url.set_password(Some(secret.expose())).ok()?;
            }
        }
        (None, Some(password)) => {
            cx.error(password.span, "`password` needs `username`");
            return None;
        }
    }
    Some(url)
}
