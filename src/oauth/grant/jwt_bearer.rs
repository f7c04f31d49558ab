//! The JWT bearer grant (RFC 7523 2.1): a user assertion for a token.

use super::super::assertion::Mint;
use super::super::draft::{Draft, Facts};
use super::super::jws::KeyCache;
use super::super::{OAuthConfig, SetupError, UserAssertion};
use crate::secret::SecretSource;

pub(super) async fn apply(
    config: &OAuthConfig,
    assertion: &UserAssertion,
    key: &KeyCache,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let signed = match assertion {
        UserAssertion::File(path) => SecretSource::File(path.clone()).read().await?,
        UserAssertion::Minted { subject, assertion } => {
            let signer = key.read(&assertion.key).await?;
            Mint { issuer: facts.client_id, subject, claims: &assertion.claims, facts }
                .sign(&signer.header, &signer.key)?
        }
    };
    draft.form.set("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    draft.set_secret("assertion", &signed);
    super::ask(config, draft);
    Ok(())
}
