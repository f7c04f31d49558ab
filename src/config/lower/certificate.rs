//! Client certificates of credentials (RFC 8705): shown to the provider, and to the upstreams where tokens are bound to them.

use super::RouteUse;
use super::secret;
use crate::config::blocks::File;
use crate::config::blocks::credential::{AuthName, Credential};
use crate::config::context::Cx;
use crate::credential::CredentialConfig;
use crate::listener::ListenerConfig;
use crate::oauth::ClientAuth;
use crate::origin::Scheme;
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

/// A token that is bound to a certificate is good only on a connection that shows it (RFC 8705 3).
pub(super) fn show_upstream(
    file: &File,
    listeners: &mut [Option<ListenerConfig>],
    credentials: &[CredentialConfig],
    uses: &[RouteUse],
    cx: &mut Cx<'_>,
) {
    for credential in credentials {
        let Some(identity) = bound_to(file, credential, cx) else { continue };
        let routes = listeners.iter_mut().flatten().flat_map(|listener| &mut listener.routes);
        for route in routes.filter(|route| route.credential.as_ref() == Some(&credential.name)) {
            let upstream = &mut route.upstream;
            match &upstream.tls.identity {
                _ if upstream.origin.scheme() == Scheme::Http => {}
                None => upstream.tls.identity = Some(identity.clone()),
                Some(own) if *own == identity => {}
                Some(_) => {
                    let used = uses.iter().find(|used| {
                        used.credential.value == credential.name
                            && used.origins.iter().any(|origin| origin.value == upstream.origin)
                    });
                    let Some(used) = used else { continue };
                    cx.error(
                        used.credential.span,
                        format!(
                            "the tokens of `{}` are bound to its certificate, and this route shows {} another one",
                            credential.name, upstream.origin
                        ),
                    )
                    .hint(
                        "remove `cert` and `key` from the upstream's `tls`, or say `certificate_bound: false` on the \
                         credential if its provider does not bind tokens",
                    );
                }
            }
        }
    }
}

fn bound_to(file: &File, credential: &CredentialConfig, cx: &mut Cx<'_>) -> Option<TlsIdentity> {
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
    credential.oauth.tls.identity.clone()
}
