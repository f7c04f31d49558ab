//! The resource owner password credentials grant (RFC 6749 4.3). RFC 9700 2.4 says that it must not be used any more;
//! it is here for providers that offer nothing else.

use super::super::draft::Draft;
use super::super::{OAuthConfig, SetupError};
use crate::secret::SecretSource;

pub(super) async fn apply(
    config: &OAuthConfig,
    username: &str,
    password: &SecretSource,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let password = password.read().await?;
    draft.form.set("grant_type", "password");
    draft.form.set("username", username);
    draft.add_lasting(&password);
    draft.set_secret("password", &password);
    super::ask(config, draft);
    Ok(())
}
