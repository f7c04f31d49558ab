//! A login on another device (RFC 8628).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Failed, Login};
use crate::oauth::login::{DeviceAnswer, DeviceAuthorization, device_answer};
use crate::oauth::{TokenRequest, TokenResponse};

impl Login<'_> {
    /// Shows the code and asks until somebody has decided.
    pub(super) async fn by_device(&self) -> Result<TokenResponse, Failed> {
        let Some(endpoint) = &self.endpoints.device else {
            return Err(Failed::invalid(
                "it is not known where a device asks for its code: add `login: {device_authorization_endpoint: https://…}` \
                 to the credential, or `issuer:` in place of `token_endpoint`"
                    .into(),
            ));
        };
        let asked = self.client.authorize_device(endpoint, self.clock.wall()).await;
        let device = asked.map_err(|failure| Failed::of(&failure))?;
        let until = self.deadline.min(Instant::now() + device.expires_in);
        show(&device, until.saturating_duration_since(Instant::now()));
        let mut interval = device.interval;
        loop {
            if Instant::now() + interval >= until {
                return Err(Failed::run_time(
                    "nobody entered the code in time; run the command again for a new one".into(),
                ));
            }
            sleep(interval).await;
            let request = TokenRequest::Device { device_code: &device.device_code };
            match self.client.request(request, self.clock.wall()).await {
                Ok(response) => return Ok(response),
                Err(failure) => match device_answer(failure, interval) {
                    DeviceAnswer::Wait(next) => interval = next,
                    DeviceAnswer::Failed(failure) => return Err(refused(&failure)),
                },
            }
        }
    }
}

fn refused(failure: &crate::oauth::Failure) -> Failed {
    match failure.error.as_str() {
        "access_denied" => {
            Failed::run_time("the person, or the provider, refused the login (access_denied)".into())
        }
        "expired_token" => Failed::run_time(
            "the code has expired; run the command again for a new one (expired_token)".into(),
        ),
        _ => Failed::of(failure),
    }
}

fn show(device: &DeviceAuthorization, left: Duration) {
    let address = device.verification_uri_complete.as_deref().unwrap_or(&device.verification_uri);
    if let Some(code) = qr_code(address) {
        anstream::eprintln!("{code}");
    }
    let left = humantime::format_duration(super::rounded(left));
    anstream::eprintln!(
        "On any device, open\n\n  {}\n\nand enter the code\n\n  {}\n\nWaiting for the login, for up to {left}.",
        device.verification_uri,
        device.user_code
    );
}

/// Two modules a character, dark on light whatever the terminal's colours are.
fn qr_code(text: &str) -> Option<String> {
    use qrcode::render::unicode::Dense1x2;
    let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L).ok()?;
    // On a dark terminal the light modules are the ones that are drawn.
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_square_of_half_blocks() {
        let code = qr_code("https://idp.example/device?user_code=ABCD-EFGH").expect("it fits");
        let widths: std::collections::BTreeSet<_> = code.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 1, "{code}");
        assert!(code.lines().count() * 2 >= 29);
    }
}
