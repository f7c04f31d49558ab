//! A request's form parameters, decoded; and what must hold of them (RFC 6749 3.2).

use super::refusal::Refusal;
use crate::secret::Secret;

/// Decoded form parameters in the order they came.
#[derive(Debug, Clone)]
pub(super) struct Form(Vec<(String, Secret)>);

impl Form {
    /// Decodes a body.
    pub(super) fn decode(body: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(body);
        Self(pairs.map(|(key, value)| (key.into_owned(), Secret::new(value.into_owned()))).collect())
    }

    /// A parameter; one without a value counts as omitted (RFC 6749 3.2).
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.expose()).filter(|value| !value.is_empty())
    }

    /// A parameter that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.value(name).ok_or_else(|| Refusal::invalid_request(&format!("{name} is missing.")))
    }

    /// RFC 6749 3.2: parameters must not be repeated.
    pub(super) fn refuse_repeated(&self) -> Result<(), Refusal> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            let repeatable = matches!(name.as_str(), "resource" | "audience");
            if !repeatable && self.0[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Refusal::invalid_request("A parameter was repeated."));
            }
        }
        Ok(())
    }

    /// All pairs.
    pub(super) fn pairs(&self) -> &[(String, Secret)] {
        &self.0
    }
}
