//! Names that the configuration gives to things, as types of their own.
//!
//! Owns: what a name may look like. A name appears in metric labels, file names and log lines, so it
//! is short and holds nothing that any of those would have to escape.

use std::fmt;
use std::sync::Arc;

/// The name of a credential, route, listener or client: 1 to 64 of `A-Z a-z 0-9 _ . -`, beginning
/// with a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text was empty.
    #[error("a name cannot be empty")]
    Empty,
    /// More than 64 bytes.
    #[error("a name has at most 64 characters")]
    TooLong,
    /// The first offending character.
    #[error(
        "`{0}` cannot stand in a name: use letters, digits, `_`, `.` and `-`, beginning with a letter or digit"
    )]
    BadCharacter(char),
}

impl Name {
    /// Parses a name.
    pub fn try_new(text: &str) -> Result<Self, NameError> {
        let Some(first) = text.chars().next() else {
            return Err(NameError::Empty);
        };
        if text.len() > 64 {
            return Err(NameError::TooLong);
        }
        if !first.is_ascii_alphanumeric() {
            return Err(NameError::BadCharacter(first));
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
            Some(bad) => Err(NameError::BadCharacter(bad)),
            None => Ok(Self(text.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let check = |text: &str, expected: Result<(), NameError>| {
            assert_eq!(Name::try_new(text).map(|_| ()), expected, "{text:?}");
        };
        check("primavera", Ok(()));
        check("a.b-c_9", Ok(()));
        check("", Err(NameError::Empty));
        check("../x", Err(NameError::BadCharacter('.')));
        check("a/b", Err(NameError::BadCharacter('/')));
        check(&"a".repeat(65), Err(NameError::TooLong));
    }
}
