//! How templates and JSON pointers are written (`custom:`).

use serde_json::{Value, json};

use super::block::nearest;
use super::context::Cx;
use super::node::{Kind, Node, Resolved};
use super::read::{Definitions, Parse, ParseError, Read};
use super::redact;
use crate::oauth::template::{JsonTemplate, Template, Variable};

impl Parse for Template {
    const WHAT: &'static str = "text with variables";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "text with variables", "type": ["string", "number", "boolean"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse(text).map_err(|error| {
            let known = Variable::ALL.map(Variable::as_str);
            let list = known.iter().map(|name| format!("`{{{name}}}`")).collect::<Vec<_>>().join(", ");
            let hint = match nearest(&error.0, &known) {
                Some(near) => format!("did you mean `{{{near}}}`? known are {list}"),
                None => format!("known are {list}"),
            };
            ParseError::because(error).hint(hint)
        })
    }
}

impl Read for JsonTemplate {
    fn schema(_: &mut Definitions) -> Value {
        json!({"title": "JSON with variables in its texts"})
    }

    fn read(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.kind {
            Kind::List(items) => {
                let read: Vec<_> = items.iter().map(|item| Self::read(item, cx)).collect();
                read.into_iter().collect::<Option<_>>().map(Self::List)
            }
            Kind::Map(entries) => {
                let read: Vec<_> = entries
                    .iter()
                    .map(|entry| {
                        // A literal under such a name is the secret itself.
                        if redact::looks_secret(&entry.key) {
                            redact::mask_all(&entry.value, cx);
                        }
                        Some((entry.key.clone(), Self::read(&entry.value, cx)?))
                    })
                    .collect();
                read.into_iter().collect::<Option<_>>().map(Self::Object)
            }
            Kind::Scalar(scalar) => match scalar.resolve() {
                _ if scalar.interpolated => text(node, cx),
                Resolved::Text => text(node, cx),
                Resolved::Null => Some(Self::Plain(Value::Null)),
                Resolved::Bool(value) => Some(Self::Plain(value.into())),
                Resolved::Number => match serde_json::from_str(&scalar.text) {
                    Ok(number) => Some(Self::Plain(number)),
                    Err(_) => {
                        cx.error(node.span, "this number is none of JSON's").hint("put it in quotes");
                        None
                    }
                },
            },
        }
    }
}

fn text(node: &Node, cx: &mut Cx<'_>) -> Option<JsonTemplate> {
    <Template as Read>::read(node, cx).map(JsonTemplate::Text)
}

/// A JSON pointer (RFC 6901) to something inside an object.
#[derive(Debug, Clone)]
pub(super) struct Pointer(pub(super) String);

impl Parse for Pointer {
    const WHAT: &'static str = "a JSON pointer such as `/data/accessToken`";
    fn schema() -> Value {
        json!({"title": "JSON pointer", "type": "string", "pattern": "^/|\\$\\{", "examples": ["/data/accessToken"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.starts_with('/') {
            return Ok(Self(text.to_owned()));
        }
        let path = text.trim_start_matches('$').trim_start_matches('.').replace('.', "/");
        Err(ParseError::plain().hint(format!("write `/{path}`")))
    }
}
