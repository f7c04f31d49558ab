//! Client certificates of credentials (RFC 8705): shown to the provider, and to the upstreams where tokens are bound to them.

use super::RouteUse;
use super::secret;
use crate::config::blocks::File;
use crate::config::blocks::credential::{AuthName, Credential};
use crate::config::context::Cx;
use crate::credential::CredentialConfig;
use crate::listener::ListenerConfig;
use crate::names::Name;
use crate::oauth::ClientAuth;
use crate::origin::Scheme;
use crate::route::RouteConfig;
use crate::tls::{TlsClientConfig, TlsIdentity};

/// The TLS settings of a credential with the certificate of its client.
pub(super) fn client(block: &Credential, tls: TlsClientConfig, cx: &mut Cx<'_>) -> Option<TlsClientConfig> {
    let Some(client) = &block.client else { return Some(tls) };
    let Some(auth) = &client.value.auth else { return Some(tls) };
    if !matches!(auth.value, AuthName::TlsClient | AuthName::SelfSignedTlsClient) {
        return Some(tls);
    }
    match (&client.value.certificate, &client.value.key, &tls.identity) {
        (None, None, Some(_)) => Some(tls),
        (Some(certificate), Some(_), Some(_)) => {
            cx.error(
                certificate.span,
                "the client has two certificates: here and in `tls` of the credential",
            )
            .hint("keep `certificate` and `key` of `client`, or `cert` and `key` of `tls`");
            None
        }
        (Some(certificate), Some(key), None) => {
            if !secret::check(key, "the private key", cx) {
                return None;
            }
            let identity = TlsIdentity { cert: certificate.value.0.clone(), key: key.value.clone() };
            Some(TlsClientConfig { identity: Some(identity), ..tls })
        }
        _ => {
            if !cx.reported_in(block.place) {
                cx.error(auth.span, "this method needs `certificate` and `key`")
                    .hint("write `certificate: {file: client.crt}` and `key: {file: client.key}`");
            }
            None
        }
    }
}

/// What the tokens of a credential are bound to.
struct Bound {
    identity: TlsIdentity,
    /// The configuration says so, and not only the method of the client's authentication.
    said: bool,
}

/// A token that is bound to a certificate is good only on a connection that shows it (RFC 8705 3).
pub(super) fn show_upstream(
    file: &File,
    listeners: &mut [Option<ListenerConfig>],
    credentials: &[CredentialConfig],
    uses: &[RouteUse],
    cx: &mut Cx<'_>,
) {
    for credential in credentials {
        let Some(bound) = bound_to(file, credential, cx) else { continue };
        check_encrypted(&credential.name, &bound, uses, cx);
        for listener in listeners.iter_mut().flatten() {
            let rules = listener.egress.iter_mut().flat_map(|egress| &mut egress.rules);
            let all = listener.routes.iter_mut().chain(rules.map(|rule| &mut rule.route));
            for route in all.filter(|route| may_send(route, &credential.name)) {
                show(route, &credential.name, &bound.identity, uses, cx);
            }
        }
    }
}

fn may_send(route: &RouteConfig, credential: &Name) -> bool {
    route.credentials().chain(&route.users).any(|name| name == credential)
}

/// Shows the certificate to the upstream of one route.
fn show(
    route: &mut RouteConfig,
    credential: &Name,
    identity: &TlsIdentity,
    uses: &[RouteUse],
    cx: &mut Cx<'_>,
) {
    let upstream = &mut route.upstream;
    match &upstream.tls.identity {
        _ if upstream.origin.scheme() == Scheme::Http => {}
        None => upstream.tls.identity = Some(identity.clone()),
        Some(own) if own == identity => {}
        Some(_) => {
            let of_credential = || uses.iter().filter(|used| used.credential.value == *credential);
            let leads_there =
                |used: &&RouteUse| used.origins.iter().any(|origin| origin.value == upstream.origin);
            let Some(used) = of_credential().find(leads_there).or_else(|| of_credential().next()) else {
                return;
            };
            cx.error(
                used.credential.span,
                format!(
                    "the tokens of `{credential}` are bound to its certificate, and `{}` shows another one to the upstream",
                    route.name
                ),
            )
            .hint(
                "remove `cert` and `key` from the upstream's `tls`, give credentials with certificates of their own routes \
                 of their own, or say `certificate_bound: false` on the credential if its provider does not bind tokens",
            );
        }
    }
}

/// Over plain http no certificate is shown.
fn check_encrypted(credential: &Name, bound: &Bound, uses: &[RouteUse], cx: &mut Cx<'_>) {
    for used in uses.iter().filter(|used| used.credential.value == *credential) {
        let plain = used.origins.iter().find(|origin| origin.value.scheme() == Scheme::Http);
        let Some(origin) = plain else { continue };
        let title = format!(
            "{} is plain http: no certificate is shown there, and the tokens of `{credential}` are bound to one",
            origin.value
        );
        if bound.said {
            cx.error(origin.span, title).hint("use https: the upstream compares the two (RFC 8705 3)");
        } else {
            cx.warning(origin.span, title).hint(
                "use https; or say `certificate_bound: false` on the credential if its provider does not bind tokens",
            );
        }
    }
}

fn bound_to(file: &File, credential: &CredentialConfig, cx: &mut Cx<'_>) -> Option<Bound> {
    let named = file.credentials.as_ref()?;
    let (_, block) = named.value.0.iter().find(|(key, _)| key.value == credential.name.as_str())?;
    let implied = matches!(credential.oauth.client_auth, ClientAuth::MutualTls { .. });
    let said = block.value.certificate_bound.as_ref();
    if !said.map_or(implied, |said| said.value) {
        return None;
    }
    if credential.oauth.tls.identity.is_none()
        && let Some(said) = said
    {
        cx.error(said.span, "there is no client certificate that tokens could be bound to")
            .hint("write `tls: {cert: {file: client.crt}, key: {file: client.key}}`");
    }
    Some(Bound { identity: credential.oauth.tls.identity.clone()?, said: said.is_some() })
}
