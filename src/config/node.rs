//! The tree that a file is read into: values that know their places.
//!
//! Knows YAML's types and nothing of what the keys mean.

use super::source::Span;

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it stands.
    pub(super) span: Span,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Text, number, boolean or null.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// Where the key stands.
    pub(super) key_span: Span,
    /// The value.
    pub(super) value: Node,
}

/// A scalar, its type not yet decided.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    /// The text after interpolation.
    pub(super) text: String,
    /// Whether it stands without quotes, so that it may be a number, boolean or null.
    pub(super) plain: bool,
    /// Whether a variable was put in.
    pub(super) interpolated: bool,
}

/// What a scalar is by the core schema of YAML 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Anything that is written as a number.
    Number,
    /// Everything else.
    Text,
}

impl Scalar {
    /// The type.
    pub(super) fn resolve(&self) -> Resolved {
        if !self.plain {
            return Resolved::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" => Resolved::Bool(true),
            "false" | "False" | "FALSE" => Resolved::Bool(false),
            text if is_number(text) => Resolved::Number,
            _ => Resolved::Text,
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && (digits.parse::<f64>().is_ok()
            || digits.strip_prefix("0x").is_some_and(|hex| u64::from_str_radix(hex, 16).is_ok())
            || digits.strip_prefix("0o").is_some_and(|octal| u64::from_str_radix(octal, 8).is_ok()))
}

impl Node {
    /// A plain scalar, as if it stood at `span`.
    pub(super) fn scalar(text: &str, span: Span) -> Self {
        let scalar = Scalar { text: text.to_owned(), plain: true, interpolated: false };
        Self { span, kind: Kind::Scalar(scalar) }
    }

    /// Whether it is null.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.resolve() == Resolved::Null)
    }

    /// The entries of a mapping; none for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        if let Kind::Map(entries) = &self.kind { entries } else { &[] }
    }

    /// The value of a key of a mapping.
    pub(super) fn find(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The same, to be changed.
    pub(super) fn find_mut(&mut self, key: &str) -> Option<&mut Node> {
        let Kind::Map(entries) = &mut self.kind else { return None };
        entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    /// How many nodes it is made of.
    pub(super) fn count(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar(_) => 0,
            Kind::List(items) => items.iter().map(Self::count).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        let check = |text: &str, plain: bool, expected: Resolved| {
            let scalar = Scalar { text: text.to_owned(), plain, interpolated: false };
            assert_eq!(scalar.resolve(), expected, "{text}");
        };
        check("", true, Resolved::Null);
        check("~", true, Resolved::Null);
        check("null", false, Resolved::Text);
        check("true", true, Resolved::Bool(true));
        check("yes", true, Resolved::Text);
        check("12", true, Resolved::Number);
        check("-1.5e3", true, Resolved::Number);
        check("0x1F", true, Resolved::Number);
        check("0123abcd", true, Resolved::Text);
        check("1.2.3", true, Resolved::Text);
        check("12", false, Resolved::Text);
    }
}
