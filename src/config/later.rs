//! What the configuration's contract names and this version cannot do yet.
//!
//! One table: a key or value here is refused like an unknown one, in words that say so. A capability that
//! arrives takes its line out of here and adds its field to a block.

/// Keys by block.
const KEYS: &[(&str, &[&str])] = &[("configuration", &["telemetry"])];

/// Values by choice.
const VALUES: &[(&str, &[&str])] =
    &[("grant", &["authorization_code", "device_code"]), ("store kind", &["etcd", "kubernetes", "redis"])];

/// Whether the contract has this key in this block.
pub(super) fn is_known_key(block: &str, key: &str) -> bool {
    has(KEYS, block, key)
}

/// Whether the contract has this value of this choice.
pub(super) fn is_known_value(choice: &str, value: &str) -> bool {
    has(VALUES, choice, value)
}

fn has(table: &[(&str, &[&str])], group: &str, word: &str) -> bool {
    table.iter().any(|(name, words)| *name == group && words.contains(&word))
}
