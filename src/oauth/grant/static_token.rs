//! `grant: static`: a token that somebody else keeps fresh, read from its source. Asks nobody.

use super::super::token::{TokenResponse, fits_a_header};
use super::super::{Failure, FailureClass};
use crate::secret::SecretSource;

pub(in super::super) async fn read(token: &SecretSource) -> Result<TokenResponse, Failure> {
    let access_token = token.read().await.map_err(|error| {
        Failure::new(FailureClass::Configuration, "secret", format!("static token: {error}"))
    })?;
    if !fits_a_header(&access_token) {
        let message =
            "static token: it holds spaces, control or non-ASCII characters and never becomes a header";
        return Err(Failure::new(FailureClass::Configuration, "unusable", message.into()));
    }
    Ok(TokenResponse {
        access_token,
        expires_in: None,
        refresh_token: None,
        refresh_token_expires_in: None,
        refresh_in: None,
        scope: None,
        headers: Vec::new(),
        date: None,
    })
}
