//! The client_credentials grant (RFC 6749 4.4).

use super::super::OAuthConfig;
use super::super::draft::Draft;

pub(super) fn apply(config: &OAuthConfig, draft: &mut Draft) {
    draft.form.set("grant_type", "client_credentials");
    super::ask(config, draft);
}
