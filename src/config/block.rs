//! Blocks and choices: one declaration gives fields, documentation, defaults, JSON Schema and reference.
//!
//! Owns: the macros that declare them, and what is said of an unknown or missing key.

use serde_json::{Map, Value, json};

use super::context::Cx;
use super::later;
use super::node::{Kind, Node};
use super::read::{At, Definitions, ParseError, Read, at, wrong_type};
use super::redact;
use super::source::Span;

/// Whether a field must be given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// It must.
    Required,
    /// It may be left out.
    Optional,
    /// This stands where it is left out.
    Default(&'static str),
}

/// One field of a block.
pub(super) struct Field {
    /// Its key.
    pub(super) key: &'static str,
    /// Its documentation, a line each.
    pub(super) docs: &'static [&'static str],
    /// Whether it must be given.
    pub(super) need: Need,
    /// The schema of its type.
    pub(super) schema: fn(&mut Definitions) -> Value,
}

/// A mapping with fixed keys.
pub(super) trait Block: Read {
    /// Its name in the schema and the reference.
    const NAME: &'static str;
    /// Its documentation.
    const ABOUT: &'static [&'static str];
    /// Its fields.
    fn fields() -> Vec<Field>;
}

/// Opens a block: checks that the node is a mapping and that its keys are known.
pub(super) fn open<B: Block>(node: &Node, cx: &mut Cx<'_>) -> Option<()> {
    let Kind::Map(entries) = &node.kind else {
        let mut fields = B::fields();
        fields.sort_by_key(|field| !matches!(field.need, Need::Required));
        let names: Vec<_> = fields.iter().map(|field| format!("`{}`", field.key)).collect();
        if let Kind::Scalar(_) = node.kind {
            redact::mask_all(node, cx);
        }
        wrong_type(
            node,
            &format!("a mapping with keys such as {}", names[..names.len().min(3)].join(", ")),
            cx,
        );
        return None;
    };
    let keys: Vec<&str> = B::fields().iter().map(|field| field.key).collect();
    for entry in entries {
        if keys.contains(&entry.key.as_str()) {
            continue;
        }
        if redact::looks_secret(&entry.key) {
            redact::mask_all(&entry.value, cx);
        }
        unknown_key(B::NAME, &keys, &entry.key, entry.key_span, cx);
    }
    Some(())
}

/// Reports a key that the block does not have.
pub(super) fn unknown_key(block: &str, keys: &[&str], key: &str, span: Span, cx: &mut Cx<'_>) {
    let shown = redact::shown_key(key);
    if later::is_known_key(block, key) {
        cx.error(span, format!("unknown key {shown} in `{block}`"))
            .label("not supported by this version")
            .hint("remove it");
        return;
    }
    let problem = cx.error(span, format!("unknown key {shown} in `{block}`"));
    if let Some((name, _)) = key.split_once(':')
        && keys.contains(&name)
    {
        problem.hint(format!("a space is missing after `{name}:`"));
    } else if let Some(near) = nearest(key, keys) {
        problem.hint(format!("did you mean `{near}`?"));
    } else {
        let list: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
        problem.hint(format!("known here: {}", list.join(", ")));
    }
}

/// The candidate that was probably meant.
pub(super) fn nearest<'c>(text: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let text = plain(text);
    candidates
        .iter()
        .map(|candidate| (strsim::osa_distance(&text, &plain(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(text.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| {
            let joined = |text: &str| text.replace('_', "");
            let begins = |candidate: &str| text.len() >= 3 && plain(candidate).starts_with(&text);
            candidates
                .iter()
                .copied()
                .find(|candidate| joined(candidate) == joined(&text) || begins(candidate))
        })
}

/// Reads one field of an opened block.
pub(super) fn field<T: Read>(
    node: &Node,
    block: &'static str,
    key: &'static str,
    need: Need,
    cx: &mut Cx<'_>,
) -> Option<At<T>> {
    if let Some(entry) = node.find(key)
        && !entry.value.is_null()
    {
        return at(&entry.value, cx);
    }
    if node.find(key).is_some_and(|entry| cx.failed.contains(&entry.value.span)) {
        return None;
    }
    match need {
        Need::Default(text) => at(&Node::scalar(text, node.span), cx),
        Need::Required if !cx.partial => {
            let empty = node.find(key).map(|entry| entry.key_span);
            let span = empty.unwrap_or(Span::new(node.span.file, node.span.start, node.span.start + 1));
            let what = if empty.is_some() { "has no value" } else { "is missing" };
            let problem = cx.error(span, format!("the key `{key}` of `{block}` {what}"));
            if let Some(hint) = wanted(key, &T::schema(&mut Definitions::new())) {
                problem.hint(hint);
            }
            None
        }
        Need::Required | Need::Optional => None,
    }
}

/// How a key is written whose schema lists its values, or shows some.
fn wanted(key: &str, schema: &Value) -> Option<String> {
    let values = |list: &str| {
        let texts = schema.get(list)?.as_array()?.iter();
        let texts: Vec<_> =
            texts.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        (!texts.is_empty()).then_some(texts)
    };
    if let Some(choices) = values("enum") {
        let choices: Vec<_> = choices.iter().map(|choice| format!("`{choice}`")).collect();
        return Some(format!("`{key}:` takes one of {}", choices.join(", ")));
    }
    values("examples").map(|examples| format!("such as `{key}: {}`", examples[0]))
}

/// The schema of a block, put among the definitions once; a reference to it is given back.
pub(super) fn block_schema<B: Block>(definitions: &mut Definitions, partial: bool) -> Value {
    let name = if partial { format!("default {}", B::NAME) } else { B::NAME.to_owned() };
    let reference = json!({"$ref": format!("#/$defs/{name}").replace(' ', "_")});
    let name = name.replace(' ', "_");
    if definitions.contains_key(&name) {
        return reference;
    }
    definitions.insert(name.clone(), Value::Null);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in B::fields() {
        let mut schema = (field.schema)(definitions);
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".into(), prose(field.docs).into());
            if let Need::Default(text) = field.need {
                schema.insert("default".into(), default_value(text));
            }
        }
        if matches!(field.need, Need::Required) && !partial {
            required.push(Value::from(field.key));
        }
        properties.insert(field.key.into(), schema);
    }
    let mut schema = json!({
        "title": B::NAME,
        "description": prose(B::ABOUT),
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    definitions.insert(name, schema);
    reference
}

fn default_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Documentation lines as one text.
pub(super) fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// The defaults of a block: the same fields, none of them required.
#[derive(Debug, Clone)]
pub(super) struct Partial<B>(std::marker::PhantomData<B>);

impl<B: Block> Read for Partial<B> {
    fn schema(definitions: &mut Definitions) -> Value {
        block_schema::<B>(definitions, true)
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let before = std::mem::replace(&mut cx.partial, true);
        let read = B::read(node, cx);
        cx.partial = before;
        read.map(|_| Self(std::marker::PhantomData))
    }
}

/// Declares a block: `required`, `optional` or `default("text")`, then key and type.
macro_rules! block {
    (
        $(#[doc = $about:literal])+
        struct $name:ident = $title:literal {
            $( $(#[doc = $doc:literal])+ $need:ident $(($default:literal))? $field:ident : $type:ty; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone)]
        #[allow(dead_code, reason = "every block knows its place, not every one is asked")]
        pub(in crate::config) struct $name {
            /// Where the block stands.
            pub(in crate::config) place: $crate::config::source::Span,
            $( $(#[doc = $doc])+ pub(in crate::config) $field: Option<$crate::config::read::At<$type>>, )+
        }

        impl $crate::config::block::Block for $name {
            const NAME: &'static str = $title;
            const ABOUT: &'static [&'static str] = &[$($about),+];
            fn fields() -> Vec<$crate::config::block::Field> {
                vec![$( $crate::config::block::Field {
                    key: $crate::config::block::key(stringify!($field)),
                    docs: &[$($doc),+],
                    need: $crate::config::block::block!(@need $need $(($default))?),
                    schema: <$type as $crate::config::read::Read>::schema,
                } ),+]
            }
        }

        impl $crate::config::read::Read for $name {
            fn schema(definitions: &mut $crate::config::read::Definitions) -> serde_json::Value {
                $crate::config::block::block_schema::<Self>(definitions, false)
            }

            fn read(
                node: &$crate::config::node::Node,
                cx: &mut $crate::config::context::Cx<'_>,
            ) -> Option<Self> {
                $crate::config::block::open::<Self>(node, cx)?;
                Some(Self {
                    place: node.span,
                    $( $field: $crate::config::block::field(
                        node,
                        $title,
                        $crate::config::block::key(stringify!($field)),
                        $crate::config::block::block!(@need $need $(($default))?),
                        cx,
                    ), )+
                })
            }
        }
    };
    (@need required) => { $crate::config::block::Need::Required };
    (@need optional) => { $crate::config::block::Need::Optional };
    (@need default($default:literal)) => { $crate::config::block::Need::Default($default) };
}

/// Declares how the values of an enum are written.
macro_rules! choice {
    ($type:ty = $what:literal { $( $variant:expr => $text:literal ),+ $(,)? }) => {
        impl $crate::config::read::Parse for $type {
            const WHAT: &'static str = concat!("a known ", $what);
            fn schema() -> serde_json::Value {
                serde_json::json!({"title": $what, "enum": [$($text),+]})
            }
            fn parse(text: &str) -> Result<Self, $crate::config::read::ParseError> {
                match text {
                    $( $text => Ok($variant), )+
                    other => Err($crate::config::block::no_choice($what, other, &[$($text),+])),
                }
            }
        }
    };
}

pub(super) use {block, choice};

/// A field's key: its name, without the marks of a raw identifier.
pub(super) fn key(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// What is said of a value that is none of a choice's.
pub(super) fn no_choice(what: &str, text: &str, known: &[&str]) -> ParseError {
    let list = known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    if later::is_known_value(what, text) {
        return ParseError::because("not supported by this version").hint(format!("use one of {list}"));
    }
    match nearest(text, known) {
        Some(near) => ParseError::plain().hint(format!("did you mean `{near}`? known are {list}")),
        None => ParseError::plain().hint(format!("use one of {list}")),
    }
}
