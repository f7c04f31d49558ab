//! `defaults:`: values for every credential and route that does not have them itself.
//!
//! Works on nodes, so that a problem in a default is shown where the default stands.

use super::node::{Entry, Kind, Node};

/// Keys whose mapping is one value and is never merged with another: the sources of a secret or file.
const ATOMS: &[&str] = &["env", "file", "systemd", "exec", "value"];

/// Puts the defaults of `root` below each of its credentials and routes.
pub(super) fn apply(root: &mut Node) {
    let Some(defaults) = root.find("defaults").map(|entry| entry.value.clone()) else { return };
    if let Some(credential) = defaults.find("credential")
        && let Some(Kind::Map(entries)) = root.find_mut("credentials").map(|node| &mut node.kind)
    {
        entries.iter_mut().for_each(|entry| below(&mut entry.value, &credential.value));
    }
    if let Some(route) = defaults.find("route")
        && let Some(Kind::List(listeners)) = root.find_mut("listeners").map(|node| &mut node.kind)
    {
        for listener in listeners {
            if let Some(Kind::List(routes)) = listener.find_mut("routes").map(|node| &mut node.kind) {
                routes.iter_mut().for_each(|item| below(item, &route.value));
            }
        }
    }
}

/// Adds what `node` does not have. An explicit null keeps a default away.
fn below(node: &mut Node, defaults: &Node) {
    let Kind::Map(entries) = &mut node.kind else { return };
    for default in defaults.entries() {
        match entries.iter_mut().find(|entry| entry.key == default.key) {
            Some(entry) if is_atom(&entry.value) || is_atom(&default.value) => {}
            Some(entry) => below(&mut entry.value, &default.value),
            None => entries.push(Entry::clone(default)),
        }
    }
}

fn is_atom(node: &Node) -> bool {
    !matches!(node.kind, Kind::Map(_))
        || node.entries().iter().any(|entry| ATOMS.contains(&entry.key.as_str()))
}
