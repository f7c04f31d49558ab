//! The order of the modules: imports go down only.
//!
//! Owns: the table of levels, and the reading of `use crate::…` lines that holds the sources to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the library and its level. A module imports from lower levels, and from its
/// own level in one direction.
const LEVELS: &[(&str, u8)] = &[
    ("clock", 0),
    ("file_watch", 0),
    ("http1", 0),
    ("names", 0),
    ("origin", 0),
    ("secret", 0),
    ("shutdown", 0),
    ("telemetry", 0),
    ("tls", 0),
    ("oauth", 1),
    ("store", 1),
    ("upstream", 1),
    ("credential", 2),
    ("policy", 3),
    ("route", 3),
    ("proxy", 4),
    ("admin", 5),
    ("idp", 5),
    ("listener", 5),
    ("config", 6),
    ("app", 7),
    ("cli", 7),
];

/// What `proxy` may name of `credential`: the half that reads.
const READ_HALF: &[&str] = &[
    "Binder",
    "BoundCredential",
    "BoundUsers",
    "Extras",
    "State",
    "Token",
    "TokenCell",
    "TokenReader",
    "Unavailable",
    "UserAsk",
    "UserKey",
    "UserRefused",
    "binding",
    "cell",
    "state",
];

#[test]
fn imports_go_down_only() {
    let problems: Vec<String> = imports().iter().filter_map(Import::problem).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn modules_of_one_level_do_not_import_each_other_both_ways() {
    let edges: BTreeSet<(String, String)> = imports()
        .into_iter()
        .filter_map(|import| Some((import.module, import.path.into_iter().next()?)))
        .filter(|(from, to)| from != to)
        .collect();
    let both: Vec<_> =
        edges.iter().filter(|(from, to)| edges.contains(&(to.clone(), from.clone()))).collect();
    let cycles: Vec<_> = both.iter().filter(|(from, _)| level(from) < Some(7)).collect();
    assert!(cycles.is_empty(), "{cycles:?}");
}

#[test]
fn every_module_has_a_level() {
    let found: BTreeSet<String> = fs::read_dir(sources())
        .expect("src is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter_map(|path| path.file_stem()?.to_str().map(str::to_owned))
        .filter(|name| name != "lib" && name != "main")
        .collect();
    let known: BTreeSet<String> = LEVELS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known);
}

#[test]
fn the_rule_catches_what_it_is_for() {
    let import = |module: &str, path: &[&str]| Import {
        place: "here".into(),
        module: module.into(),
        path: path.iter().map(|part| (*part).to_owned()).collect(),
    };
    assert!(import("store", &["credential", "State"]).problem().is_some());
    assert!(import("listener", &["config", "Config"]).problem().is_some());
    assert!(import("proxy", &["credential", "refresher", "Credential"]).problem().is_some());
    assert!(import("proxy", &["credential", "*"]).problem().is_some());
    assert!(import("proxy", &["credential", "cell", "TokenReader"]).problem().is_none());
    assert!(import("credential", &["store", "Store"]).problem().is_none());

    let parsed = paths("{clock::Clock, credential::{State, cell::{Token, TokenCell}}, names::Name as N}");
    let joined: Vec<String> = parsed.iter().map(|path| path.join("::")).collect();
    let expected = [
        "clock::Clock",
        "credential::State",
        "credential::cell::Token",
        "credential::cell::TokenCell",
        "names::Name",
    ];
    assert_eq!(joined, expected);
}

/// One name that a source file takes from the crate.
struct Import {
    place: String,
    module: String,
    path: Vec<String>,
}

impl Import {
    /// What is wrong with it.
    fn problem(&self) -> Option<String> {
        let target = self.path.first()?;
        if *target == self.module {
            return None;
        }
        let (from, to) = (level(&self.module)?, level(target)?);
        let named = self.path.join("::");
        if to > from {
            return Some(format!(
                "{}: {} (level {from}) imports {named} (level {to})",
                self.place, self.module
            ));
        }
        let reads = self.path.get(1).is_some_and(|name| READ_HALF.contains(&name.as_str()));
        if self.module == "proxy" && target == "credential" && !reads {
            return Some(format!("{}: proxy imports {named}, which is not of the read half", self.place));
        }
        None
    }
}

fn level(module: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == module).map(|(_, level)| *level)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn imports() -> Vec<Import> {
    let mut files = Vec::new();
    collect(&sources(), &mut files);
    assert!(files.len() > 20, "only {} source files were found", files.len());
    files.iter().flat_map(|file| imports_of(file)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// All names behind `crate::` in the code of one file, in `use` lines and elsewhere; tests in it may import all.
fn imports_of(file: &Path) -> Vec<Import> {
    let relative = file.strip_prefix(sources()).expect("it was found there");
    let first = relative.components().next().expect("it has a name").as_os_str();
    let module = Path::new(first).file_stem().expect("it has a name").to_string_lossy().into_owned();
    let text = fs::read_to_string(file).expect("it is text");
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    code.match_indices("crate::")
        .filter(|(at, _)| !code[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
        .flat_map(|(at, found)| {
            let line = code[..at].lines().count();
            let place = format!("src/{}:{line}", relative.display());
            paths(&code[at + found.len()..])
                .into_iter()
                .map(move |path| (place.clone(), path))
                .collect::<Vec<_>>()
        })
        .map(|(place, path)| Import { place, module: module.clone(), path })
        .collect()
}

/// The paths at the beginning of a text: `a::b`, `a::{b, c::d}`, `{a, b::c}`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    tree(text, &[], &mut found);
    found
}

/// Reads one use tree, adds its leaves and returns what follows it.
fn tree<'t>(text: &'t str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'t str {
    let mut path = prefix.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            return branches(group, &path, found);
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(next) => rest = next.trim_start(),
            None => break,
        }
    }
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if !path.is_empty() {
        found.push(path);
    }
    rest
}

/// Reads what stands between braces and returns what follows them.
fn branches<'t>(text: &'t str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'t str {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        if rest.is_empty() {
            return rest;
        }
        rest = tree(rest, prefix, found);
        // `as name` and the comma.
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        rest = rest[end..].strip_prefix(',').unwrap_or(&rest[end..]);
    }
}
