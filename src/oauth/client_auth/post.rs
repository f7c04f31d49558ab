//! `client_secret_post`: id and secret in the body (RFC 6749 2.3.1).

use super::super::SetupError;
use super::super::draft::{Draft, Facts};
use super::ClientKeys;
use crate::secret::SecretSource;

pub(super) async fn apply(
    secret: &SecretSource,
    keys: &ClientKeys,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let secret = keys.secret(secret).await?;
    draft.form.set("client_id", facts.client_id);
    draft.add_lasting(&secret);
    draft.set_secret("client_secret", &secret);
    Ok(())
}
