//! `private_key_jwt`: an assertion under the client's own key (RFC 7523 2.2).

use super::super::SetupError;
use super::super::assertion::Mint;
use super::super::draft::{Draft, Facts};
use super::super::jws::{self, KeyCache};
use super::{Assertion, Named, send_assertion};

pub(super) async fn apply(
    assertion: &Assertion,
    key: &KeyCache,
    named: Named<'_>,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let private = key.read(&assertion.key).await?;
    let header = jws::header(assertion.key.algorithm.as_str(), &assertion.key.key_id)?;
    let mint = Mint { issuer: facts.client_id, subject: facts.client_id, claims: &assertion.claims, facts };
    let signed = mint.sign(&header, &private)?;
    send_assertion(&signed, named, facts, draft).await
}
