//! `private_key_jwt` with an assertion that somebody else signed: read from its file on every attempt, since
//! projected tokens are replaced under way.

use std::path::Path;

use super::super::SetupError;
use super::super::draft::{Draft, Facts};
use super::{Named, send_assertion};
use crate::secret::SecretSource;

pub(super) async fn apply(
    path: &Path,
    named: Named<'_>,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let assertion = SecretSource::File(path.to_owned()).read().await?;
    send_assertion(&assertion, named, facts, draft).await
}
