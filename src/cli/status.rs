//! `bearward status`: what the running proxy knows, for a person or (`--json`) for a machine.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use http::Method;
use serde::Deserialize;

use super::admin_client::{self, Target};
use super::{exit, fail, print_bytes};

/// `bearward status`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Prints the answer of the API as it is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    started_at: String,
    credentials: Vec<Credential>,
    listeners: Vec<Listener>,
    routes: Vec<Route>,
}

#[derive(Debug, Deserialize)]
struct Credential {
    name: String,
    state: String,
    generation: u64,
    expires_in_seconds: Option<u64>,
    refresh_at: Option<String>,
    last_error: Option<LastError>,
    remedy: Option<String>,
    #[serde(default)]
    unsaved: bool,
}

#[derive(Debug, Deserialize)]
struct LastError {
    class: String,
    error: String,
    description: Option<String>,
    at: String,
    retry_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Listener {
    name: String,
    kind: String,
    address: String,
    connections: u64,
}

#[derive(Debug, Deserialize)]
struct Route {
    listener: String,
    name: String,
    upstream: String,
    credential: Option<String>,
    requests: u64,
    errors: u64,
}

/// Asks the running proxy.
pub fn status(arguments: &Arguments) -> u8 {
    let answer =
        match admin_client::call(&arguments.target, Method::GET, "/api/v1/status", Duration::from_secs(10)) {
            Ok(answer) => answer,
            Err(code) => return code,
        };
    if !answer.status.is_success() {
        return fail(exit::FAILED, &admin_client::detail(&answer));
    }
    let status: Status = match serde_json::from_slice(&answer.body) {
        Ok(status) => status,
        Err(error) => return fail(exit::FAILED, &format!("the answer is no status of bearward: {error}")),
    };
    if arguments.json {
        let mut text = answer.body.to_vec();
        text.push(b'\n');
        return print_bytes(&text);
    }
    let colour =
        std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    print_bytes(render(&status, colour).as_bytes())
}

fn render(status: &Status, colour: bool) -> String {
    let mut text = format!("bearward {}, up since {}\n", status.version, status.started_at);
    if !status.credentials.is_empty() {
        let rows = status.credentials.iter().map(|credential| {
            vec![
                credential.name.clone(),
                credential.state.clone(),
                credential.expires_in_seconds.map_or_else(|| "-".into(), life),
                credential.refresh_at.clone().unwrap_or_else(|| "-".into()),
                credential.generation.to_string(),
            ]
        });
        table(
            &mut text,
            &["CREDENTIAL", "STATE", "TIME LEFT", "NEXT REFRESH", "GENERATION"],
            rows,
            colour.then_some(1),
        );
        for credential in &status.credentials {
            explain(&mut text, credential);
        }
    }
    let rows = status.listeners.iter().map(|listener| {
        vec![
            listener.name.clone(),
            listener.kind.clone(),
            listener.address.clone(),
            listener.connections.to_string(),
        ]
    });
    table(&mut text, &["LISTENER", "KIND", "ADDRESS", "CONNECTIONS"], rows, None);
    let rows = status.routes.iter().map(|route| {
        vec![
            format!("{}/{}", route.listener, route.name),
            route.upstream.clone(),
            route.credential.clone().unwrap_or_else(|| "-".into()),
            route.requests.to_string(),
            route.errors.to_string(),
        ]
    });
    table(&mut text, &["ROUTE", "UPSTREAM", "CREDENTIAL", "REQUESTS", "ERRORS"], rows, None);
    text
}

fn explain(text: &mut String, credential: &Credential) {
    let name = &credential.name;
    if let Some(error) = &credential.last_error {
        let description = error.description.as_deref().map(|words| format!(": {words}")).unwrap_or_default();
        let retry = error.retry_at.as_deref().map(|at| format!("; next try {at}")).unwrap_or_default();
        let _ =
            writeln!(text, "  {name}: {} at {}: {}{description}{retry}", error.class, error.at, error.error);
    }
    if credential.unsaved {
        let _ = writeln!(
            text,
            "  {name}: the newest refresh token is not on disk yet: mend the store before you stop the proxy"
        );
    }
    if let Some(remedy) = &credential.remedy {
        let _ = writeln!(text, "  {name}: {remedy}");
    }
}

fn life(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Left-aligned columns; `state` names the column that is coloured by what it says.
fn table(text: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>, state: Option<usize>) {
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0)
        })
        .collect();
    text.push('\n');
    let mut line = |cells: &mut dyn Iterator<Item = &str>, state: Option<usize>| {
        let mut whole = String::new();
        for (column, cell) in cells.enumerate() {
            let padded = format!("{cell:<width$}  ", width = widths[column]);
            if state == Some(column) {
                let _ = write!(whole, "\x1b[{}m{padded}\x1b[0m", state_colour(cell));
            } else {
                whole.push_str(&padded);
            }
        }
        let _ = writeln!(text, "{}", whole.trim_end());
    };
    line(&mut head.iter().copied(), None);
    for row in &rows {
        line(&mut row.iter().map(String::as_str), state);
    }
}

fn state_colour(state: &str) -> &'static str {
    match state {
        "fresh" => "32",
        "stale" | "starting" | "in_doubt" => "33",
        _ => "31",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_state_time_left_and_what_to_do() {
        let status = Status {
            version: "0.1.0".into(),
            started_at: "2026-01-01T00:00:00Z".into(),
            credentials: vec![Credential {
                name: "primavera".into(),
                state: "dead".into(),
                generation: 7,
                expires_in_seconds: Some(130),
                refresh_at: None,
                last_error: Some(LastError {
                    class: "grant_dead".into(),
                    error: "invalid_grant".into(),
                    description: Some("revoked".into()),
                    at: "2026-01-01T00:00:00Z".into(),
                    retry_at: None,
                }),
                remedy: Some("run `bearward login primavera`".into()),
                unsaved: false,
            }],
            listeners: vec![],
            routes: vec![],
        };
        let text = render(&status, false);
        for part in ["primavera", "dead", "2 min", "invalid_grant: revoked", "bearward login primavera"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains('\x1b'));
        assert!(render(&status, true).contains("\x1b[31mdead"));
    }
}
