//! `bearward schema`: the JSON Schema of the configuration, for editors.

use std::io::Write as _;
use std::process::ExitCode;

/// Prints the schema.
pub fn schema() -> ExitCode {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The schema as it stands in `docs/`.
pub fn text() -> String {
    serde_json::to_string_pretty(&crate::config::schema()).expect("a schema is plain JSON")
}
