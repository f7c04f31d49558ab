//! `include:`: further files whose listeners and credentials are added to the main one's.
//!
//! Owns: reading files, and the patterns that name them. Includes do not nest.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::block::open;
use super::blocks::Included;
use super::context::Cx;
use super::node::{Entry, Kind, Node};
use super::read::{OneOrMany, Read, at, wrong_type};
use super::source::{Source, Span};
use super::tree;
use super::values::NonEmpty;

/// The largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file; says in words why it cannot be.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| plain(&error))?;
    if metadata.is_dir() {
        return Err("it is a directory".into());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| plain(&error))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| plain(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("it is larger than 4 MiB".into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("line {} is not UTF-8", line + 1)
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Adds the included files to `root`; gives their paths.
pub(super) fn apply(root: &mut Node, cx: &mut Cx<'_>) -> Vec<PathBuf> {
    let Some(entry) = root.find("include") else { return Vec::new() };
    if entry.value.is_null() {
        return Vec::new();
    }
    let mut quiet = Cx::new(cx.vars);
    quiet.sources.clone_from(&cx.sources);
    quiet.failed.clone_from(&cx.failed);
    let Some(patterns) = OneOrMany::<NonEmpty>::read(&entry.value, &mut quiet) else { return Vec::new() };
    let mut paths = Vec::new();
    for pattern in patterns.items {
        for path in expand(&pattern.value.0, pattern.span, cx) {
            if !paths.contains(&path) {
                add(root, &path, pattern.span, cx);
                paths.push(path);
            }
        }
    }
    paths
}

fn expand(pattern: &str, span: Span, cx: &mut Cx<'_>) -> Vec<PathBuf> {
    let whole = cx.sources[span.file].directory.join(pattern);
    let is_pattern = |text: &str| text.contains(['*', '?']);
    let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let parent = whole.parent().map(Path::to_path_buf).unwrap_or_default();
    if is_pattern(&parent.to_string_lossy()) {
        cx.error(span, "`*` and `?` can stand in the last part of a path only");
        return Vec::new();
    }
    if !is_pattern(&name) {
        return vec![whole];
    }
    let Ok(listing) = std::fs::read_dir(&parent) else {
        cx.error(span, format!("cannot list the directory {}", parent.display()));
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = listing
        .filter_map(Result::ok)
        .filter(|file| {
            let file = file.file_name();
            let file = file.to_string_lossy();
            !file.starts_with('.') && matches(name.as_bytes(), file.as_bytes())
        })
        .map(|file| file.path())
        .collect();
    found.sort();
    if found.is_empty() {
        cx.warning(span, "no file matches this");
    }
    found
}

/// Whether a name matches a pattern of `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

fn add(root: &mut Node, path: &Path, span: Span, cx: &mut Cx<'_>) {
    let text = match read_file(path) {
        Ok(text) => text,
        Err(reason) => {
            cx.error(span, format!("cannot read {}: {reason}", path.display()));
            return;
        }
    };
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let file = cx.add_source(Source { name: path.display().to_string(), directory, text });
    let Some(node) = tree::parse(file, cx) else { return };
    if open::<Included>(&node, cx).is_none() {
        return;
    }
    let _version = node.find("version").and_then(|entry| at::<super::values::Version>(&entry.value, cx));
    for key in ["listeners", "credentials", "clients"] {
        if let Some(entry) = node.find(key)
            && !entry.value.is_null()
        {
            merge(root, entry, cx);
        }
    }
}

fn merge(root: &mut Node, from: &Entry, cx: &mut Cx<'_>) {
    let Kind::Map(entries) = &mut root.kind else { return };
    let Some(into) = entries.iter_mut().find(|entry| entry.key == from.key && !entry.value.is_null()) else {
        entries.retain(|entry| entry.key != from.key);
        entries.push(from.clone());
        return;
    };
    match (&mut into.value.kind, &from.value.kind) {
        (Kind::List(into), Kind::List(from)) => into.extend(from.iter().cloned()),
        (Kind::Map(into), Kind::Map(from)) => {
            for entry in from {
                if let Some(first) = into.iter().find(|first| first.key == entry.key) {
                    let title = format!("the name {} is given twice", super::redact::shown_key(&entry.key));
                    cx.error(entry.key_span, title).label("again here").also(first.key_span, "first here");
                } else {
                    into.push(entry.clone());
                }
            }
        }
        (_, Kind::Scalar(_) | Kind::Map(_)) if from.key == "listeners" => {
            wrong_type(&from.value, "a list", cx);
        }
        (_, Kind::Scalar(_) | Kind::List(_)) if matches!(from.key.as_str(), "credentials" | "clients") => {
            wrong_type(&from.value, "a mapping of names", cx);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        };
        check("*.yaml", "a.yaml", true);
        check("*.yaml", "a.yaml~", false);
        check("a?c*", "abcd", true);
        check("*a*b*", "xxaxxbxx", true);
        check("*a*b*", "xxbxxaxx", false);
        check("*", "", true);
    }
}
