//! What must hold of any answer of a token endpoint, for the fuzz targets.
//!
//! Owns: the properties of `token`. Compiled with the feature `fuzzing` only.

use std::time::Duration;

use zeroize::Zeroizing;

use super::answer::Answer;
use super::error::{FailureClass, Judge, Stake};
use super::{Grant, preset, scrub, token};
use crate::clock::UnixTime;

/// A token that is taken fits a header and has a lifetime that a timer can hold; a failure is told in one line.
pub fn answer(status: u16, headers: http::HeaderMap, body: &[u8], which: usize) {
    let Ok(status) = http::StatusCode::from_u16(status) else { return };
    let answer = Answer { status, headers, body: Zeroizing::new(body.to_vec()) };
    let scrubber = scrub::Scrubber::default();
    let judge = Judge {
        stake: Stake::OneTimeToken,
        preset: preset::ALL[which % preset::ALL.len()],
        endpoint: "https://idp.example/token",
        scrubber: &scrubber,
        grant: &Grant::ClientCredentials,
        response: None,
        carried: &[],
        dpop: false,
        now: UnixTime::from_millis(1_800_000_000_000),
    };
    match token::read(answer, &judge) {
        Ok(token) => {
            assert!(status.is_success());
            assert!(http::HeaderValue::from_str(token.access_token.expose()).is_ok());
            assert!(!token.access_token.expose().contains(' '));
            for life in
                [token.expires_in, token.refresh_token_expires_in, token.refresh_in].into_iter().flatten()
            {
                assert!(!life.is_zero() && life <= token::MAX_LIFETIME, "{life:?}");
            }
            assert!(token.refresh_token.is_none_or(|token| !token.expose().is_empty()));
        }
        Err(failure) => {
            assert!(!failure.message.chars().any(char::is_control), "{}", failure.message);
            assert!(failure.class != FailureClass::Clean);
            assert!(failure.retry_after.is_none_or(|wait| wait <= Duration::from_secs(3600)));
        }
    }
}
