//! `bearward schema`: the JSON Schema of the configuration, for editors.

use std::process::ExitCode;

/// Prints the schema.
pub fn schema() -> ExitCode {
    ExitCode::from(super::print_bytes(crate::config::schema_text().as_bytes()))
}
