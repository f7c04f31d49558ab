//! `bearward refresh`: a new token now.

use std::time::Duration;

use http::{Method, StatusCode};

use super::admin_client::{self, Target};
use super::{exit, fail, print_bytes};
use crate::names::Name;

/// `bearward refresh`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The credential's name
    credential: String,
    #[command(flatten)]
    target: Target,
}

/// A token request may take 30 s, and another process may be at one.
const DEADLINE: Duration = Duration::from_secs(90);

/// Asks the running proxy and waits for the outcome.
pub fn refresh(arguments: &Arguments) -> u8 {
    let name = match Name::try_new(&arguments.credential) {
        Ok(name) => name,
        Err(error) => {
            return fail(exit::INVALID, &format!("`{}` is no credential: {error}", arguments.credential));
        }
    };
    let path = format!("/api/v1/credentials/{name}/refresh");
    let answer = match admin_client::call(&arguments.target, Method::POST, &path, DEADLINE) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    if answer.status.is_success() {
        let generation = serde_json::from_slice::<serde_json::Value>(&answer.body)
            .ok()
            .and_then(|body| body.get("generation").and_then(serde_json::Value::as_u64));
        let text = match generation {
            Some(generation) => format!("{name}: refreshed, generation {generation}\n"),
            None => format!("{name}: refreshed\n"),
        };
        return print_bytes(text.as_bytes());
    }
    let detail = admin_client::detail(&answer);
    let code = match answer.status {
        StatusCode::NOT_FOUND => exit::INVALID,
        StatusCode::CONFLICT if detail.contains("bearward login") => exit::NEEDS_LOGIN,
        _ => exit::FAILED,
    };
    fail(code, &format!("{name}: {detail}"))
}
