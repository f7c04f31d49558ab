//! Texts with variables: what a request to an endpoint that is not OAuth's is made from.
//!
//! Owns: the variables and where they may stand. A variable's value never becomes a variable itself, and each place
//! (URL, header field, form, JSON) encodes it in its own way.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// What may stand in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// `{client_id}`.
    ClientId,
    /// `{client_secret}`.
    ClientSecret,
    /// `{basic}`: base64 of `client_id:client_secret`.
    Basic,
    /// `{refresh_token}`.
    RefreshToken,
    /// `{scope}`.
    Scope,
    /// `{audience}`.
    Audience,
    /// `{username}`.
    Username,
    /// `{password}`.
    Password,
    /// `{subject_token}`.
    SubjectToken,
}

impl Variable {
    /// All, in the order in which messages list them.
    pub const ALL: [Self; 9] = [
        Self::ClientId,
        Self::ClientSecret,
        Self::Basic,
        Self::RefreshToken,
        Self::Scope,
        Self::Audience,
        Self::Username,
        Self::Password,
        Self::SubjectToken,
    ];

    /// The name in braces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientId => "client_id",
            Self::ClientSecret => "client_secret",
            Self::Basic => "basic",
            Self::RefreshToken => "refresh_token",
            Self::Scope => "scope",
            Self::Audience => "audience",
            Self::Username => "username",
            Self::Password => "password",
            Self::SubjectToken => "subject_token",
        }
    }

    /// Whether its value must never be shown.
    pub const fn is_secret(self) -> bool {
        matches!(
            self,
            Self::ClientSecret | Self::Basic | Self::RefreshToken | Self::Password | Self::SubjectToken
        )
    }
}

/// A text with variables.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// A word in braces that is no variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{{{0}}}` is no variable")]
pub struct UnknownVariable(pub String);

/// The values of one request.
pub(super) type Values = BTreeMap<Variable, Secret>;

impl Template {
    /// Reads a text. `{word}` is a variable; any other brace stands for itself.
    pub fn parse(text: &str) -> Result<Self, UnknownVariable> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let inner = &rest[open + 1..];
            let word = inner.find('}').map(|end| &inner[..end]);
            let Some(word) = word.filter(|word| is_word(word)) else {
                plain.push_str(&rest[..=open]);
                rest = inner;
                continue;
            };
            let known = Variable::ALL.into_iter().find(|known| known.as_str() == word);
            let variable = known.ok_or_else(|| UnknownVariable(word.to_owned()))?;
            plain.push_str(&rest[..open]);
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(variable));
            rest = &inner[word.len() + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = Variable> + '_ {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(*variable),
            Part::Text(_) => None,
        })
    }

    /// What stands before the first variable.
    pub fn begin(&self) -> &str {
        match self.0.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The text as it was written.
    pub fn source(&self) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Variable(variable) => text.extend(["{", variable.as_str(), "}"]),
            }
        }
        text
    }

    /// Puts the values in, each as `encode` has it; one that is missing is empty.
    pub(super) fn expand(&self, values: &Values, encode: impl Fn(&str) -> String) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Variable(variable) => {
                    let value = values.get(variable).map_or("", Secret::expose);
                    text.push_str(&Zeroizing::new(encode(value)));
                }
            }
        }
        text
    }
}

impl fmt::Debug for Template {
    /// Names the variables: what else is written there may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables()).finish()
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// JSON whose texts are templates.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonTemplate {
    /// A text.
    Text(Template),
    /// A number, a boolean or null.
    Plain(Value),
    /// A list.
    List(Vec<JsonTemplate>),
    /// An object, in the order of the text.
    Object(Vec<(String, JsonTemplate)>),
}

// A number of the configuration is never NaN: it comes from a text.
impl Eq for JsonTemplate {}

impl JsonTemplate {
    /// The variables in it.
    pub fn variables(&self) -> Vec<Variable> {
        match self {
            Self::Text(template) => template.variables().collect(),
            Self::Plain(_) => Vec::new(),
            Self::List(items) => items.iter().flat_map(Self::variables).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, value)| value.variables()).collect(),
        }
    }

    /// The text of it, with the variables as they are written.
    pub(super) fn source(&self) -> Value {
        self.map(&|template| template.source())
    }

    /// The JSON to send.
    pub(super) fn expand(&self, values: &Values) -> Zeroizing<String> {
        let mut value = self.map(&|template| template.expand(values, str::to_owned).to_string());
        let text = Zeroizing::new(value.to_string());
        super::answer::wipe(&mut value);
        text
    }

    fn map(&self, text: &dyn Fn(&Template) -> String) -> Value {
        match self {
            Self::Text(template) => Value::String(text(template)),
            Self::Plain(value) => value.clone(),
            Self::List(items) => items.iter().map(|item| item.map(text)).collect(),
            Self::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), value.map(text))).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_braces_are_variables_and_other_braces_are_text() {
        let values = Values::from([
            (Variable::ClientId, Secret::from("a b")),
            (Variable::ClientSecret, Secret::from("{scope}")),
        ]);
        let check = |text: &str, expected: &str| {
            let template = Template::parse(text).expect(text);
            assert_eq!(*template.expand(&values, str::to_owned), expected, "{text}");
            assert_eq!(template.source(), text);
        };
        check("plain", "plain");
        check("", "");
        check("{client_id}", "a b");
        check("x={client_id}&y={client_secret}", "x=a b&y={scope}");
        check("scope is empty:{scope}.", "scope is empty:.");
        check(r#"{"a": {"b": 1}}"#, r#"{"a": {"b": 1}}"#);
        check("{{client_id}}", "{a b}");
        check("open { and {", "open { and {");
        assert_eq!(Template::parse("{clientid}"), Err(UnknownVariable("clientid".into())));
        let shown = format!("{:?}", Template::parse("hunter2 {scope}").expect("a template"));
        assert_eq!(shown, "[Scope]");
    }

    #[test]
    fn json_keeps_its_types_and_quotes_values() {
        let text = |text: &str| JsonTemplate::Text(Template::parse(text).expect(text));
        let template = JsonTemplate::Object(vec![
            ("user".into(), text("{username}")),
            ("list".into(), JsonTemplate::List(vec![text("x{scope}"), JsonTemplate::Plain(1.into())])),
            ("flag".into(), JsonTemplate::Plain(true.into())),
        ]);
        let values = Values::from([(Variable::Username, Secret::from("a\"b\\"))]);
        let json = template.expand(&values);
        assert_eq!(*json, r#"{"user":"a\"b\\","list":["x",1],"flag":true}"#);
        assert_eq!(template.variables(), [Variable::Username, Variable::Scope]);
    }
}
