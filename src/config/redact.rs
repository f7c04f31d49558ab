//! Redaction: which parts of a file are never shown in a message.
//!
//! Owns the rules for text whose meaning is not known (yet): by the names of keys, and by lines where not
//! even the structure is known. What the configuration's types know to be a secret is masked by them.

use super::context::Cx;
use super::node::{Kind, Node};
use super::source::Span;

/// Keys of which a scalar value is taken for a secret wherever they stand.
const SECRET_KEYS: &[&str] = &[
    "value",
    "secret",
    "password",
    "passphrase",
    "token",
    "refresh_token",
    "access_token",
    "id_token",
    "subject_token",
    "actor_token",
    "assertion",
    "client_assertion",
    "client_secret",
    "key",
    "keys",
    "api_key",
    "private_key",
    "authorization",
    "cookie",
];

/// How a key is named in a message. A key that is more than a word is most often `key:value` without the space,
/// or another slip that made a value part of it.
pub(super) fn shown_key(key: &str) -> String {
    match value_in_key(key) {
        Some(at) => format!("`{}…`", shorten(&key[..at])),
        None => format!("`{}`", shorten(key)),
    }
}

/// Where in a key a value may have slipped in.
fn value_in_key(key: &str) -> Option<usize> {
    let word = key.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))?;
    let slipped = key.contains([':', '"', '\'', '=']) || looks_secret(&key[..word]);
    slipped.then_some(word)
}

/// The part of a key's span that is never shown.
fn mask_key(key: &str, span: Span, cx: &mut Cx<'_>) {
    if let Some(at) = value_in_key(key) {
        cx.masks.push(Span::new(span.file, (span.start + at).min(span.end), span.end));
    }
}

/// How a value is named in a message. What a variable put in is not shown: it may be a secret in the wrong
/// place; neither is a URL with a user name.
pub(super) fn shown_value(node: &Node, text: &str) -> String {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.interpolated => "the text that the variable gives".to_owned(),
        _ if text.contains("://") && text.contains('@') => "this".to_owned(),
        _ => format!("`{}`", shorten(text)),
    }
}

/// At most 60 characters of a text.
pub(super) fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    text.chars().take(57).chain("…".chars()).collect()
}

/// Whether a key looks as if its value were a secret: one of the names above, or nearly.
pub(super) fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    SECRET_KEYS.iter().any(|secret| {
        let near = if secret.len() > 4 { 2 } else { 1 };
        key == *secret || strsim::osa_distance(&key, secret) <= near
    }) || ["secret", "passw", "apikey", "api_key", "private"].iter().any(|part| key.contains(part))
}

/// Masks every scalar below `node`.
pub(super) fn mask_all(node: &Node, cx: &mut Cx<'_>) {
    match &node.kind {
        Kind::Scalar(_) => cx.masks.push(node.span),
        Kind::List(items) => items.iter().for_each(|item| mask_all(item, cx)),
        Kind::Map(entries) => {
            for entry in entries {
                mask_key(&entry.key, entry.key_span, cx);
                mask_all(&entry.value, cx);
            }
        }
    }
}

/// Masks what the names of keys say is a secret, and user names and passwords in URLs.
pub(super) fn mask_by_name(node: &Node, cx: &mut Cx<'_>) {
    match &node.kind {
        Kind::Scalar(scalar) => {
            if scalar.text.contains("://") && scalar.text.contains('@') {
                cx.masks.push(node.span);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| mask_by_name(item, cx)),
        Kind::Map(entries) => {
            for entry in entries {
                mask_key(&entry.key, entry.key_span, cx);
                let is_secret = looks_secret(&entry.key);
                match &entry.value.kind {
                    Kind::Scalar(scalar) if is_secret && !is_duration(&scalar.text) => {
                        cx.masks.push(entry.value.span);
                    }
                    Kind::List(items) if is_secret => {
                        for item in items {
                            if matches!(item.kind, Kind::Scalar(_)) {
                                cx.masks.push(item.span);
                            } else {
                                mask_by_name(item, cx);
                            }
                        }
                    }
                    _ => mask_by_name(&entry.value, cx),
                }
            }
        }
    }
}

/// `lifetime: {refresh_token: 7d}` is no secret.
fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    text.len() <= 8 && unit.len() < text.len() && matches!(unit, "ms" | "s" | "m" | "h" | "d")
}

/// Masks by lines where the structure is not known: quoted text, what follows a key that looks secret, every
/// deeper line below it, and the values in braces that it opened and that were not closed.
pub(super) fn mask_lexically(text: &str, file: usize) -> Vec<Span> {
    let mut masks = Vec::new();
    let mut hidden_below: Option<usize> = None;
    let mut open = 0_usize;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let indent = content.len() - content.trim_start_matches([' ', '\t', '-']).len();
        if hidden_below.is_some_and(|depth| indent <= depth && !content.trim().is_empty()) {
            hidden_below = None;
        }
        let secret = secret_begins(content);
        let quoted = content.find(['"', '\'']);
        let in_braces = if open > 0 { Some(content.find(':').map_or(0, |colon| colon + 1)) } else { None };
        let url = if content.contains("://") && content.contains('@') { Some(0) } else { None };
        let below = if hidden_below.is_some() { Some(0) } else { None };
        if let Some(from) = [secret, quoted, in_braces, url, below].into_iter().flatten().min() {
            masks.push(Span::new(file, at + from, at + content.len()));
        }
        if secret.is_some() && hidden_below.is_none() {
            hidden_below = Some(indent);
        }
        if open > 0 || secret.is_some() {
            let counted = &content[if open > 0 { 0 } else { secret.unwrap_or(0) }..];
            open = (open + counted.matches(['{', '[']).count())
                .saturating_sub(counted.matches(['}', ']']).count());
        }
        at += line.len();
    }
    masks
}

/// Where a line's secret begins: behind the first key that looks secret and has something behind it.
fn secret_begins(line: &str) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut at = 0;
    for word in line.split_inclusive(|c: char| !is_word(c)) {
        let name = word.trim_end_matches(|c: char| !is_word(c));
        if !name.is_empty() && looks_secret(name) {
            return Some(at + name.len());
        }
        at += word.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_look_secret_are_known() {
        let check = |key: &str, expected: bool| assert_eq!(looks_secret(key), expected, "{key}");
        check("value", true);
        check("valeu", true);
        check("client-secret", true);
        check("refresh_tokn", true);
        check("sexret", true);
        check("token_endpoint", false);
        check("bind", false);
        check("scope", false);
        check("issuer", false);
    }

    #[test]
    fn a_key_without_its_space_is_shown_without_the_value() {
        assert_eq!(shown_key("value:hunter2"), "`value…`");
        assert_eq!(shown_key("value hunter2"), "`value…`");
        assert_eq!(shown_key("bad name"), "`bad name`");
        assert_eq!(shown_key("bnid"), "`bnid`");
        assert_eq!(shown_key(&"x".repeat(100)).chars().count(), 60);
    }

    #[test]
    fn unparsed_lines_are_masked_behind_secret_keys_and_below_them() {
        let text = "a: 1\n  secret: {value: hunter2\n    more\n  b: 2\n";
        let shown: Vec<&str> = mask_lexically(text, 0).iter().map(|s| &text[s.start..s.end]).collect();
        assert_eq!(shown, [": {value: hunter2", "    more", " 2"]);
    }
}
