//! The refresh_token grant (RFC 6749 6).

use super::super::OAuthConfig;
use super::super::draft::Draft;
use crate::secret::Secret;

/// Without `refresh.scope` no scope is sent: the answer then has the scope of the first request, and a provider that
/// compares has nothing to compare.
pub(super) fn apply(config: &OAuthConfig, token: &Secret, draft: &mut Draft) {
    draft.form.set("grant_type", "refresh_token");
    draft.set_secret("refresh_token", token);
    if let Some(scope) = &config.refresh_scope {
        draft.form.set("scope", scope);
    }
}
