//! Secrets are readable now, or the problem says why not.

use crate::config::context::Cx;
use crate::config::problem::Problem;
use crate::config::read::At;
use crate::config::secrets::FileRef;
use crate::secret::{SecretError, SecretSource};

/// Reports a secret that cannot be read. Commands are not run here.
pub(super) fn check(source: &At<SecretSource>, what: &str, cx: &mut Cx<'_>) -> bool {
    let Some(error) = unreadable(&source.value) else { return true };
    remedy(cx.error(source.span, format!("{what} cannot be read: {error}")), &error);
    false
}

/// The same for a seed: one that is gone was most likely spent, and the store has what followed it.
pub(super) fn check_seed(source: &At<SecretSource>, name: &str, cx: &mut Cx<'_>) {
    let Some(error) = unreadable(&source.value) else { return };
    let gone = match &error {
        SecretError::EnvMissing(_) | SecretError::Empty(_) => true,
        SecretError::File { reason, .. } => reason == "no such file",
        _ => false,
    };
    if gone {
        cx.warning(source.span, format!("the seed of `{name}` cannot be read: {error}"))
            .hint("if the store has no token of this credential either, it waits until the seed is there");
    } else {
        remedy(cx.error(source.span, format!("the seed of `{name}` cannot be read: {error}")), &error);
    }
}

fn unreadable(source: &SecretSource) -> Option<SecretError> {
    match source {
        SecretSource::Exec(_) | SecretSource::Value(_) => None,
        _ => source.read_blocking().err(),
    }
}

fn remedy(problem: &mut Problem, error: &SecretError) {
    match error {
        SecretError::EnvMissing(name) => {
            problem.hint(format!("set {name} where the program is started, or use `{{file: PATH}}`"))
        }
        SecretError::File { reason, .. } if reason == "no such file" => {
            problem.hint("relative paths are relative to the file that names them")
        }
        SecretError::File { reason, .. } if reason == "permission denied" => {
            problem.hint("make it readable for the user that runs this program")
        }
        _ => problem,
    };
}

/// Whether a file that is no secret can be opened; reports why not, at its own place: one that is missing hides no other.
pub(super) fn file(at: &At<FileRef>, what: &str, cx: &mut Cx<'_>) -> bool {
    let path = &at.value.0;
    let Err(error) = std::fs::File::open(path) else { return true };
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    let error = SecretError::File { path: path.display().to_string(), reason };
    remedy(cx.error(at.span, format!("{what} cannot be read: {error}")), &error);
    false
}

/// The same for one that may be left out.
pub(super) fn file_if_given(at: Option<&At<FileRef>>, what: &str, cx: &mut Cx<'_>) -> bool {
    at.is_none_or(|at| file(at, what, cx))
}
