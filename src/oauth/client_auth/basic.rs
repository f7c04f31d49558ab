//! `client_secret_basic`: id and secret in the `Authorization` field (RFC 6749 2.3.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::super::SetupError;
use super::super::draft::{Draft, Facts};
use super::{BasicEncoding, ClientKeys};
use crate::secret::SecretSource;

pub(super) async fn apply(
    secret: &SecretSource,
    keys: &ClientKeys,
    encoding: BasicEncoding,
    facts: &Facts<'_>,
    draft: &mut Draft,
) -> Result<(), SetupError> {
    let secret = keys.secret(secret).await?;
    let pair = match encoding {
        BasicEncoding::Raw => Zeroizing::new(format!("{}:{}", facts.client_id, secret.expose())),
        BasicEncoding::Form => {
            Zeroizing::new(format!("{}:{}", *encoded(facts.client_id), *encoded(secret.expose())))
        }
    };
    let credentials = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    draft.add_lasting(&secret);
    draft.scrubber.add(&credentials);
    let mut value =
        HeaderValue::try_from(format!("Basic {}", *credentials)).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    draft.authorization = Some(value);
    Ok(())
}

/// Form-urlencoded, a space as `%20`: servers that decode at all read that, some do not read `+`.
fn encoded(text: &str) -> Zeroizing<String> {
    let plus = Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
    Zeroizing::new(plus.replace('+', "%20"))
}
