//! From nodes to values: how a type is read from a node, and how it is described.
//!
//! Owns: the traits that every type of the configuration implements, and what is read from lists and names of
//! the user's choice. Reading never stops at a problem: it reports it and goes on.

use serde_json::{Map, Value, json};

use super::context::Cx;
use super::node::{Kind, Node, Resolved, Scalar};
use super::problem::Problem;
use super::redact;
use super::source::Span;

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    /// The value.
    pub(super) value: T,
    /// Where it stands.
    pub(super) span: Span,
}

/// The definitions of blocks that a schema refers to, in the order in which they were met.
pub(super) type Definitions = Map<String, Value>;

/// Something that can stand in a configuration.
pub(super) trait Read: Sized {
    /// Its JSON Schema; `title` names the type in a word or two.
    fn schema(definitions: &mut Definitions) -> Value;
    /// Reads it; reports what is wrong. `None` only where something was reported.
    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self>;
}

/// Something that is written as one text.
pub(super) trait Parse: Sized {
    /// What it is, as `a duration such as `30s``.
    const WHAT: &'static str;
    /// Whether a plain number is accepted as its text.
    const NUMBERS: bool = false;
    /// Its JSON Schema.
    fn schema() -> Value;
    /// Parses it; on failure says why, in words that follow "`text` is not WHAT".
    fn parse(text: &str) -> Result<Self, ParseError>;
}

/// Why a text is not what was expected.
#[derive(Debug)]
pub(super) struct ParseError {
    /// The reason, empty where `WHAT` says it all.
    pub(super) reason: String,
    /// How to mend it.
    pub(super) hint: Option<String>,
}

impl ParseError {
    /// Only `WHAT` is said.
    pub(super) fn plain() -> Self {
        Self { reason: String::new(), hint: None }
    }

    /// With a reason.
    pub(super) fn because(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), hint: None }
    }

    /// With a remedy.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<T: Parse> Read for T {
    fn schema(_: &mut Definitions) -> Value {
        <T as Parse>::schema()
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let text = text_of(node, T::WHAT, T::NUMBERS, cx)?;
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let shown = redact::shown_value(node, text);
                let problem = cx.error(node.span, format!("{shown} is not {}", T::WHAT));
                if !error.reason.is_empty() {
                    problem.label(error.reason);
                }
                if let Some(hint) = error.hint {
                    problem.hint(hint);
                }
                None
            }
        }
    }
}

/// The text of a scalar; reports anything else.
pub(super) fn text_of<'n>(node: &'n Node, what: &str, numbers: bool, cx: &mut Cx<'_>) -> Option<&'n str> {
    let Kind::Scalar(scalar) = &node.kind else {
        wrong_type(node, what, cx);
        return None;
    };
    let resolved = scalar.resolve();
    let fits = resolved == Resolved::Text
        || scalar.interpolated
        || (numbers && matches!(resolved, Resolved::Number | Resolved::Bool(_)));
    if fits {
        return Some(&scalar.text);
    }
    let place = node.span;
    let text = redact::shorten(&scalar.text);
    let problem = cx.error(place, format!("expected {what}, found {}", found(node)));
    if resolved == Resolved::Number && what.contains("duration") {
        problem.hint(format!("add a unit: `{text}s`, `{text}ms`, `{text}m`, `{text}h`"));
    } else if matches!(resolved, Resolved::Number | Resolved::Bool(_)) && what.starts_with("text") {
        problem.hint(format!("put it in quotes: \"{text}\""));
    }
    None
}

/// Reports that a node is of another type than expected.
pub(super) fn wrong_type<'c>(node: &Node, what: &str, cx: &'c mut Cx<'_>) -> Option<&'c mut Problem> {
    if cx.failed.contains(&node.span) {
        return None;
    }
    Some(cx.error(node.span, format!("expected {what}, found {}", found(node))))
}

/// What a node is, in words, without its text.
pub(super) fn found(node: &Node) -> &'static str {
    match &node.kind {
        Kind::List(_) => "a list",
        Kind::Map(_) => "a mapping",
        Kind::Scalar(scalar) => match scalar.resolve() {
            Resolved::Null => "nothing",
            Resolved::Bool(_) => "a boolean",
            Resolved::Number => "a number",
            Resolved::Text => "text",
        },
    }
}

impl Read for bool {
    fn schema(_: &mut Definitions) -> Value {
        json!({"title": "boolean", "anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "\\$\\{"}]})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let Kind::Scalar(scalar) = &node.kind else {
            wrong_type(node, "`true` or `false`", cx);
            return None;
        };
        match (scalar.resolve(), scalar) {
            (Resolved::Bool(value), _) => Some(value),
            (_, Scalar { text, interpolated: true, .. }) if text == "true" => Some(true),
            (_, Scalar { text, interpolated: true, .. }) if text == "false" => Some(false),
            _ => {
                wrong_type(node, "`true` or `false`", cx);
                None
            }
        }
    }
}

/// Reads each item of a list; the good ones are kept, the others reported.
impl<T: Read> Read for Vec<At<T>> {
    fn schema(definitions: &mut Definitions) -> Value {
        json!({"type": "array", "items": T::schema(definitions)})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let Kind::List(items) = &node.kind else {
            if let Some(problem) = wrong_type(node, "a list", cx) {
                problem.hint(match node.kind {
                    Kind::Map(_) => "begin each item with `- `",
                    _ => "put it in brackets: `[…]`",
                });
            }
            return None;
        };
        Some(items.iter().filter_map(|item| at(item, cx)).collect())
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub(super) struct OneOrMany<T> {
    /// The values.
    pub(super) items: Vec<At<T>>,
    /// Whether they were written as a list.
    pub(super) is_list: bool,
}

impl<T: Read> Read for OneOrMany<T> {
    fn schema(definitions: &mut Definitions) -> Value {
        let one = T::schema(definitions);
        json!({"anyOf": [one, {"type": "array", "items": one}]})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.kind {
            Kind::List(_) => Some(Self { items: Read::read(node, cx)?, is_list: true }),
            _ => Some(Self { items: vec![at(node, cx)?], is_list: false }),
        }
    }
}

/// A mapping from names of the user's choice, in the order of the text; and the names whose values could not
/// be read.
#[derive(Debug, Clone)]
pub(super) struct Named<T>(pub(super) Vec<(At<String>, At<T>)>, pub(super) Vec<String>);

impl<T: Read> Read for Named<T> {
    fn schema(definitions: &mut Definitions) -> Value {
        json!({"type": "object", "additionalProperties": T::schema(definitions)})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            wrong_type(node, "a mapping of names", cx);
            return None;
        };
        let mut named = Self(Vec::new(), Vec::new());
        for entry in entries {
            match at(&entry.value, cx) {
                Some(value) => named.0.push((At { value: entry.key.clone(), span: entry.key_span }, value)),
                None => named.1.push(entry.key.clone()),
            }
        }
        Some(named)
    }
}

/// Reads a value together with its place.
pub(super) fn at<T: Read>(node: &Node, cx: &mut Cx<'_>) -> Option<At<T>> {
    if cx.failed.contains(&node.span) {
        return None;
    }
    T::read(node, cx).map(|value| At { value, span: node.span })
}
