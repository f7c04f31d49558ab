//! Secrets and files as the configuration names them.
//!
//! Owns: the one-key mappings `{env: …}`, `{file: …}` and so on. A secret that stands in the file is masked
//! in every message from the moment it is met.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::block::field;
use super::block::{Need, nearest};
use super::context::Cx;
use super::node::{Kind, Node, Resolved};
use super::read::{At, Definitions, Read, at, wrong_type};
use super::redact;
use super::values::NonEmpty;
use crate::secret::{Secret, SecretSource};

const SOURCES: &[&str] = &["env", "file", "systemd", "exec", "value"];
const SECRET: &str = "a secret such as `{env: NAME}` or `{file: PATH}`";

impl Read for SecretSource {
    fn schema(definitions: &mut Definitions) -> Value {
        let text = |about: &str| json!({"type": "string", "description": about});
        let properties = json!({
            "env": text("The environment variable of this name."),
            "file": text("A file, relative to this one; read again when it changes; one trailing newline is cut."),
            "systemd": text("A file of this name in `$CREDENTIALS_DIRECTORY`."),
            "exec": {"type": "array", "items": {"type": "string"}, "minItems": 1,
                     "description": "The standard output of a command; one trailing newline is cut."},
            "value": text("The secret itself. A warning says that it stands in the file."),
        });
        let schema = json!({"title": "secret", "type": "object", "minProperties": 1, "maxProperties": 1,
            "description": "Where a secret is read from: exactly one of the keys.",
            "additionalProperties": false, "properties": properties});
        definitions.entry("secret").or_insert(schema);
        json!({"$ref": "#/$defs/secret"})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            redact::mask_all(node, cx);
            if let Some(problem) = wrong_type(node, SECRET, cx) {
                problem.hint("a secret in the file itself is written `{value: \"…\"}`, and warned about");
            }
            return None;
        };
        for entry in
            entries.iter().filter(|entry| !matches!(&*entry.key, "env" | "file" | "systemd" | "exec"))
        {
            redact::mask_all(&entry.value, cx);
            if !is_word(&entry.key) {
                cx.masks.push(entry.key_span);
            }
        }
        let [entry] = entries.as_slice() else {
            let found = if entries.is_empty() { "nothing" } else { "several of them" };
            cx.error(node.span, format!("a secret has exactly one source, found {found}"))
                .hint("write one of `env`, `file`, `systemd`, `exec`, `value`");
            return None;
        };
        match entry.key.as_str() {
            "env" => at::<NonEmpty>(&entry.value, cx).map(|name| Self::Env(name.value.0)),
            "file" => read_path(&entry.value, cx).map(Self::File),
            "systemd" => at::<NonEmpty>(&entry.value, cx).map(|name| Self::Systemd(name.value.0)),
            "exec" => read_command(&entry.value, cx).map(Self::Exec),
            "value" => read_value(&entry.value, cx),
            other => {
                unknown_source(other, entry.key_span, cx);
                None
            }
        }
    }
}

/// Whether a key may be shown: one that is no short word may be the secret itself.
fn is_word(key: &str) -> bool {
    key.len() <= 12 && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

fn unknown_source(key: &str, span: super::source::Span, cx: &mut Cx<'_>) {
    let shown = if is_word(key) { redact::shown_key(key) } else { "this key".to_owned() };
    let problem = cx.error(span, format!("{shown} is not a source of secrets"));
    let known = key.split(':').next().unwrap_or_default();
    if key.contains(':') && SOURCES.contains(&known) {
        problem.hint(format!("a space is missing after `{known}:`"));
    } else if let Some(near) = nearest(key, SOURCES) {
        problem.hint(format!("did you mean `{near}`?"));
    } else {
        problem.hint("write one of `env`, `file`, `systemd`, `exec`, `value`");
    }
}

fn read_command(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<String>> {
    let words: Vec<At<String>> = at(node, cx)?.value;
    if words.is_empty() {
        cx.error(node.span, "the command is missing").hint("write `{exec: [PROGRAM, ARGUMENT]}`");
        return None;
    }
    Some(words.into_iter().map(|word| word.value).collect())
}

fn read_value(node: &Node, cx: &mut Cx<'_>) -> Option<SecretSource> {
    let Kind::Scalar(scalar) = &node.kind else {
        wrong_type(node, "the secret as text", cx);
        return None;
    };
    if cx.failed.contains(&node.span) {
        return None;
    }
    if scalar.text.trim().is_empty() {
        cx.error(node.span, "the secret is empty");
        return None;
    }
    if matches!(scalar.resolve(), Resolved::Number | Resolved::Bool(_) | Resolved::Null)
        && !scalar.interpolated
    {
        cx.error(node.span, "the secret must be text").hint("put it in quotes");
        return None;
    }
    if !scalar.interpolated {
        cx.warning(node.span, "a secret stands in the configuration itself")
            .hint("whoever reads this file has it: use `{file: PATH}`, `{env: NAME}` or `{systemd: NAME}`");
    }
    Some(SecretSource::Value(Secret::new(scalar.text.clone())))
}

/// A path, relative to the file that names it.
pub(super) fn read_path(node: &Node, cx: &mut Cx<'_>) -> Option<PathBuf> {
    let text: At<NonEmpty> = at(node, cx)?;
    Some(absolute(&cx.sources[node.span.file].directory, Path::new(&text.value.0)))
}

/// A path as seen from a directory.
pub(super) fn absolute(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path)
}

/// A path that stands alone.
#[derive(Debug, Clone)]
pub(super) struct LocalPath(pub(super) PathBuf);

impl Read for LocalPath {
    fn schema(_: &mut Definitions) -> Value {
        json!({"title": "path", "type": "string"})
    }
    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        read_path(node, cx).map(Self)
    }
}

/// `{file: PATH}` where only a file is possible.
#[derive(Debug, Clone)]
pub(super) struct FileRef(pub(super) PathBuf);

impl Read for FileRef {
    fn schema(definitions: &mut Definitions) -> Value {
        let path = json!({"type": "string", "description": "The path, relative to this file."});
        let schema = json!({"title": "file", "type": "object", "additionalProperties": false,
            "description": "A file.", "properties": {"file": path}, "required": ["file"]});
        definitions.entry("file").or_insert(schema);
        json!({"$ref": "#/$defs/file"})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let only_file = node.entries().iter().all(|entry| entry.key == "file") && !node.entries().is_empty();
        if !only_file {
            wrong_type(node, "a file, written `{file: PATH}`", cx);
            return None;
        }
        field::<LocalPath>(node, "file", "file", Need::Required, cx).map(|path| Self(path.value.0))
    }
}
