//! Interpolation: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, and `$${` for the characters themselves.
//!
//! Works on one scalar after parsing. What it puts in is never read as YAML again.

/// Where variables come from.
pub(super) type Vars<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a text could not be interpolated. Never holds a variable's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InterpolationError {
    /// Not set, and no default.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// `${NAME:?message}`.
    #[error("the environment variable {name} is not set: {message}")]
    Demanded {
        /// The variable.
        name: String,
        /// What the configuration says about it.
        message: String,
    },
    /// `${` without `}`.
    #[error("`${{` is never closed")]
    Unclosed,
    /// Something else than a name stands between the braces.
    #[error("`${{…}}` holds no variable name")]
    BadName,
}

impl InterpolationError {
    /// How to mend it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Unset(name) => format!("set it, or give a default: `${{{name}:-default}}`"),
            Self::Demanded { name, .. } => format!("set {name}"),
            Self::Unclosed | Self::BadName => {
                "write `${NAME}`, `${NAME:-default}` or `${NAME:?message}`; `$${` stands for the characters `${` themselves"
                    .into()
            }
        }
    }
}

/// The text with its variables replaced, and whether there was any.
pub(super) fn interpolate(text: &str, vars: Vars<'_>) -> Result<(String, bool), InterpolationError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut replaced = false;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let close = inside.find('}').ok_or(InterpolationError::Unclosed)?;
        out.push_str(&variable(&inside[..close], vars)?);
        replaced = true;
        rest = &inside[close + 1..];
    }
    out.push_str(rest);
    Ok((out, replaced))
}

fn variable(inside: &str, vars: Vars<'_>) -> Result<String, InterpolationError> {
    let split = inside.find(':').unwrap_or(inside.len());
    let (name, operator) = inside.split_at(split);
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() || !plain || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(InterpolationError::BadName);
    }
    let value = vars(name);
    let set = value.clone().filter(|value| !value.is_empty());
    if operator.is_empty() {
        value.ok_or_else(|| InterpolationError::Unset(name.to_owned()))
    } else if let Some(default) = operator.strip_prefix(":-") {
        Ok(set.unwrap_or_else(|| default.to_owned()))
    } else if let Some(message) = operator.strip_prefix(":?") {
        set.ok_or_else(|| InterpolationError::Demanded { name: name.to_owned(), message: message.to_owned() })
    } else {
        Err(InterpolationError::BadName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_dollars_escaped() {
        let vars = |name: &str| match name {
            "A" => Some("a: {b".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let check = |text: &str, expected: Result<(&str, bool), InterpolationError>| {
            let got = interpolate(text, &vars);
            assert_eq!(got, expected.map(|(t, r)| (t.to_owned(), r)), "{text}");
        };
        check("plain $ {x} $A", Ok(("plain $ {x} $A", false)));
        check("<${A}>", Ok(("<a: {b>", true)));
        check("${B:-x:y}${A}", Ok(("x:ya: {b", true)));
        check("${EMPTY}|${EMPTY:-d}|${B:-}", Ok(("|d|", true)));
        check("$${A}", Ok(("${A}", false)));
        check("$$${A}", Ok(("$${A}", false)));
        check("${B}", Err(InterpolationError::Unset("B".into())));
        let demanded = InterpolationError::Demanded { name: "EMPTY".into(), message: "why".into() };
        check("${EMPTY:?why}", Err(demanded));
        check("${A", Err(InterpolationError::Unclosed));
        check("${}", Err(InterpolationError::BadName));
        check("${A b}", Err(InterpolationError::BadName));
        check("${1A}", Err(InterpolationError::BadName));
        check("${A-x}", Err(InterpolationError::BadName));
    }
}
