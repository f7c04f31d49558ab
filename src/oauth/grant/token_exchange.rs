//! The token exchange grant (RFC 8693 2.1): a token of elsewhere, often a workload's, for one of this provider.

use super::super::draft::Draft;
use super::super::{OAuthConfig, SetupError, TokenExchange};

/// Both tokens are read for every request: whoever writes their files replaces them before they expire.
pub(super) async fn apply(
    config: &OAuthConfig,
    exchange: &TokenExchange,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let subject = exchange.subject.token.read().await?;
    draft.form.set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    draft.set_secret("subject_token", &subject);
    draft.form.set("subject_token_type", &exchange.subject.kind);
    if let Some(actor) = &exchange.actor {
        let token = actor.token.read().await?;
        draft.set_secret("actor_token", &token);
        draft.form.set("actor_token_type", &actor.kind);
    }
    if let Some(kind) = &exchange.requested_token_type {
        draft.form.set("requested_token_type", kind);
    }
    super::ask(config, draft);
    Ok(())
}
