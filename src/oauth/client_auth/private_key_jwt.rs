//! `private_key_jwt`: an assertion under the client's own key (RFC 7523 2.2).

use super::super::SetupError;
use super::super::assertion::Mint;
use super::super::draft::{Draft, Facts};
use super::{Assertion, ClientKeys, Named, send_assertion};

pub(super) async fn apply(
    assertion: &Assertion,
    keys: &ClientKeys,
    named: Named<'_>,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let signer = keys.signer.read(&assertion.key).await?;
    let mint = Mint { issuer: facts.client_id, subject: facts.client_id, claims: &assertion.claims, facts };
    let signed = mint.sign(&signer.header, &signer.key)?;
    send_assertion(&signed, named, keys, facts, draft).await
}
