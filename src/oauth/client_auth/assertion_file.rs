//! `private_key_jwt` with an assertion that somebody else signed: read from its file on every attempt, since
//! projected tokens are replaced under way. None is sent twice because the next one cannot be read.

use std::path::Path;

use super::super::SetupError;
use super::super::draft::{Draft, Facts};
use super::{ClientKeys, Named, send_assertion};
use crate::secret::SecretSource;

pub(super) async fn apply(
    path: &Path,
    keys: &ClientKeys,
    named: Named<'_>,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let assertion = SecretSource::File(path.to_owned()).read().await?;
    send_assertion(&assertion, named, keys, facts, draft).await
}
