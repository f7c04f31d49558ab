//! `client_secret_jwt`: an assertion under HS256 with the client secret (OpenID Connect Core 9).

use super::super::SetupError;
use super::super::assertion::Mint;
use super::super::draft::{Draft, Facts};
use super::super::jws::{self, PrivateKey};
use super::{AssertionClaims, ClientIdParam, ClientKeys, KeyId, Named, send_assertion};
use crate::secret::SecretSource;

pub(super) async fn apply(
    secret: &SecretSource,
    keys: &ClientKeys,
    claims: &AssertionClaims,
    param: ClientIdParam,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let value = keys.secret(secret).await?;
    draft.add_lasting(&value);
    let header = jws::header("HS256", &KeyId::default())?;
    let mint = Mint { issuer: facts.client_id, subject: facts.client_id, claims, facts };
    let assertion = mint.sign(&header, &PrivateKey::of_client_secret(&value))?;
    send_assertion(&assertion, Named { param, secret: Some(secret) }, keys, facts, draft).await
}
