//! `tls_client_auth` and `self_signed_tls_client_auth` (RFC 8705 2): the certificate of the connection says who asks.
//!
//! The certificate is `tls.identity` of the credential, read anew for every connection.

use super::super::draft::{Draft, Facts};

/// RFC 8705 2: the id names the client whose certificate it is.
pub(super) fn apply(facts: &Facts<'_>, draft: &mut Draft) {
    draft.form.set("client_id", facts.client_id);
}
