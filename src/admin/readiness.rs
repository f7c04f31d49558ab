//! Liveness and readiness.
//!
//! Owns: when a load balancer may send requests. Ready: listeners are bound, every credential was tried once, every
//! `required` one has a usable token, and nobody asked to stop. Liveness never depends on a credential.

use std::fmt::Write as _;

use super::Running;
use crate::credential::{Snapshot, State};

/// The answer to `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// 200 or 503.
    pub ready: bool,
    /// Reasons, one a line; with `verbose` a line for every check.
    pub text: String,
}

/// Judges now.
pub fn judge(running: &Running, verbose: bool) -> Readiness {
    let snapshots: Vec<Snapshot> =
        running.credentials.iter().map(|credential| credential.snapshot()).collect();
    judge_parts(running.draining.is_cancelled(), &snapshots, verbose)
}

fn judge_parts(stopping: bool, credentials: &[Snapshot], verbose: bool) -> Readiness {
    let mut reasons = String::new();
    let mut lines = String::new();
    if stopping {
        reasons.push_str("stopping: no new requests, please\n");
    } else {
        lines.push_str("[+] listeners: bound\n");
    }
    for credential in credentials {
        let name = &credential.name;
        let state = credential.state.as_str();
        match refusal(credential) {
            Some(reason) => {
                let _ = writeln!(reasons, "credential {name}: {state}: {reason}");
            }
            None => {
                let remedy = credential.remedy.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
                let mark = if is_usable(credential.state) { '+' } else { '!' };
                let _ = writeln!(lines, "[{mark}] credential {name}: {state}{remedy}");
            }
        }
    }
    let ready = reasons.is_empty();
    let text = match (ready, verbose) {
        (true, false) => "ok\n".to_owned(),
        (true, true) => format!("{lines}ready\n"),
        (false, false) => reasons,
        (false, true) => format!(
            "{}{lines}not ready\n",
            reasons.lines().map(|line| format!("[-] {line}\n")).collect::<String>()
        ),
    };
    Readiness { ready, text }
}

fn is_usable(state: State) -> bool {
    match state {
        State::Fresh | State::Stale | State::InDoubt => true,
        State::Starting | State::AwaitingLogin | State::Expired | State::Misconfigured | State::Dead => false,
    }
}

/// Why this credential keeps the program from being ready, if it does.
fn refusal(credential: &Snapshot) -> Option<String> {
    if !credential.tried {
        return Some("not tried yet".to_owned());
    }
    let served = is_usable(credential.state) || credential.expires_in_seconds.is_some_and(|left| left > 0);
    if credential.required && !served {
        let remedy = credential.remedy.clone();
        let error = credential.last_error.as_ref().map(|error| error.error.clone());
        return Some(remedy.or(error).unwrap_or_else(|| "it is required and has no usable token".to_owned()));
    }
    None
}
