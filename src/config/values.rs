//! The values of the configuration that are written as one text.
//!
//! Owns: how durations, sizes, numbers, names and header fields are written, and what is said of one that is
//! none. Addresses, hosts and URLs have a page of their own.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::read::{Parse, ParseError};
use crate::names::Name;

/// Any text.
impl Parse for String {
    const WHAT: &'static str = "text";
    fn schema() -> Value {
        json!({"title": "text", "type": "string"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(text.to_owned())
    }
}

/// Text of at least one character.
#[derive(Debug, Clone)]
pub(super) struct NonEmpty(pub(super) String);

impl Parse for NonEmpty {
    const WHAT: &'static str = "text of at least one character";
    fn schema() -> Value {
        json!({"title": "text", "type": "string", "minLength": 1})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.trim().is_empty() { Err(ParseError::plain()) } else { Ok(Self(text.to_owned())) }
    }
}

/// Text, or a number or boolean as it is written.
#[derive(Debug, Clone)]
pub(super) struct Loose(pub(super) String);

impl Parse for Loose {
    const WHAT: &'static str = "text";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "text", "type": ["string", "number", "boolean"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self(text.to_owned()))
    }
}

impl Parse for Duration {
    const WHAT: &'static str = "a duration such as `30s`";
    fn schema() -> Value {
        json!({"title": "duration", "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$|\\$\\{",
               "examples": ["250ms", "30s", "5m", "12h", "7d"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let units =
            || ParseError::plain().hint("write a whole number and a unit: `250ms`, `30s`, `5m`, `12h`, `7d`");
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &text[..text.len() - unit.len()];
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(units()),
        };
        let count: u64 = digits.parse().map_err(|_| units())?;
        let total = count.checked_mul(millis).filter(|total| *total <= 36_500 * 86_400_000);
        total.map(Self::from_millis).ok_or_else(|| ParseError::because("longer than a hundred years"))
    }
}

/// A duration above zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Positive(pub(super) Duration);

impl Parse for Positive {
    const WHAT: &'static str = "a duration such as `30s`";
    fn schema() -> Value {
        Duration::schema()
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let duration = Duration::parse(text)?;
        if duration.is_zero() {
            return Err(ParseError::because("it must be longer than nothing"));
        }
        Ok(Self(duration))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u64);

impl Parse for Size {
    const WHAT: &'static str = "a size such as `64KiB`";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "size", "type": ["string", "integer"],
               "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB|kB|KB|MB|GB)?$|\\$\\{", "examples": ["64KiB", "1MiB"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let size = text.parse::<bytesize::ByteSize>();
        size.map(|size| Self(size.0))
            .map_err(|_| ParseError::plain().hint("write a number and a unit: `64KiB`, `1MiB`"))
    }
}

/// A whole number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count(pub(super) usize);

impl Parse for Count {
    const WHAT: &'static str = "a whole number above 0";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "number", "type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9]+$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text.parse() {
            Ok(0) | Err(_) => Err(ParseError::plain()),
            Ok(count) => Ok(Self(count)),
        }
    }
}

/// A whole number, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct WholeNumber(pub(super) usize);

impl Parse for WholeNumber {
    const WHAT: &'static str = "a whole number";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "number", "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        text.parse().map(Self).map_err(|_| ParseError::plain())
    }
}

/// The status of a final answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatusValue(pub(super) http::StatusCode);

impl Parse for StatusValue {
    const WHAT: &'static str = "a status from 200 to 599";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "status", "type": ["integer", "string"], "minimum": 200, "maximum": 599,
               "pattern": "^[2-5][0-9]{2}$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text.parse::<http::StatusCode>() {
            Ok(status) if (200..600).contains(&status.as_u16()) => Ok(Self(status)),
            _ => Err(ParseError::plain()),
        }
    }
}

/// A path, perhaps with a query.
#[derive(Debug, Clone)]
pub(super) struct UriPath(pub(super) http::Uri);

impl Parse for UriPath {
    const WHAT: &'static str = "a path such as `/healthz`";
    fn schema() -> Value {
        json!({"title": "path", "type": "string", "pattern": "^/|\\$\\{", "examples": ["/healthz"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text.parse::<http::Uri>() {
            Ok(uri) if text.starts_with('/') && uri.authority().is_none() && !text.contains('#') => {
                Ok(Self(uri))
            }
            _ => Err(ParseError::plain().hint("begin it with `/`")),
        }
    }
}

/// A number of workers, or `auto`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workers(pub(super) Option<usize>);

impl Parse for Workers {
    const WHAT: &'static str = "`auto` or a number from 1 to 1024";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "number or `auto`", "type": ["integer", "string"], "minimum": 1, "maximum": 1024,
               "pattern": "^(auto|[0-9]+)$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text == "auto" {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(count @ 1..=1024) => Ok(Self(Some(count))),
            _ => Err(ParseError::plain()),
        }
    }
}

/// The version of the configuration's language.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version;

impl Parse for Version {
    const WHAT: &'static str = "a version that this program knows";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "number", "enum": [1]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text == "1" { Ok(Self) } else { Err(ParseError::plain().hint("write `version: 1`")) }
    }
}

/// A part between 0 and 1, in parts per million.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fraction(pub(super) u32);

impl Parse for Fraction {
    const WHAT: &'static str = "a fraction between 0 and 1, such as 0.75";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "fraction", "type": ["number", "string"], "exclusiveMinimum": 0, "exclusiveMaximum": 1})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let fraction: f64 = text.parse().map_err(|_| ParseError::plain())?;
        let millionths = (fraction * 1e6).round();
        if !(1.0..1e6).contains(&millionths) {
            return Err(ParseError::plain());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and a million")]
        Ok(Self(millionths as u32))
    }
}

/// A share from 0 to 1, in parts per million.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share(pub(super) u32);

impl Parse for Share {
    const WHAT: &'static str = "a share from 0 to 1, such as 0.1";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "share", "type": ["number", "string"], "minimum": 0, "maximum": 1})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let share: f64 = text.parse().map_err(|_| ParseError::plain())?;
        if !(0.0..=1.0).contains(&share) {
            return Err(ParseError::plain());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
        Ok(Self((share * 1e6).round() as u32))
    }
}

impl Parse for Name {
    const WHAT: &'static str = "a name";
    fn schema() -> Value {
        json!({"title": "name", "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Self::try_new(text).map_err(ParseError::because)
    }
}

impl Parse for Method {
    const WHAT: &'static str = "a method such as `GET`";
    fn schema() -> Value {
        json!({"title": "method", "type": "string", "examples": ["GET", "POST"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.chars().any(|c| c.is_ascii_lowercase()) {
            let upper = text.to_ascii_uppercase();
            return Err(ParseError::because("methods are case-sensitive").hint(format!("write `{upper}`")));
        }
        if matches!(text, "CONNECT" | "TRACE" | "TRACK") {
            return Err(ParseError::because("this method is never forwarded"));
        }
        Self::from_bytes(text.as_bytes()).map_err(|_| ParseError::plain())
    }
}

impl Parse for HeaderName {
    const WHAT: &'static str = "a header name";
    fn schema() -> Value {
        json!({"title": "header name", "type": "string"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        Self::from_bytes(text.as_bytes())
            .map_err(|_| ParseError::because("letters, digits and `-` make a header name"))
    }
}

impl Parse for HeaderValue {
    const WHAT: &'static str = "a header value";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "text", "type": ["string", "number", "boolean"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.bytes().any(|byte| !(byte == b'\t' || (b' '..=b'~').contains(&byte))) {
            return Err(ParseError::because("only printable ASCII can stand in a header"));
        }
        Self::from_str(text).map_err(|_| ParseError::plain())
    }
}

impl Parse for tracing::Level {
    const WHAT: &'static str = "a log level";
    fn schema() -> Value {
        json!({"title": "log level", "enum": ["trace", "debug", "info", "warn", "error"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "trace" => Ok(Self::TRACE),
            "debug" => Ok(Self::DEBUG),
            "info" => Ok(Self::INFO),
            "warn" => Ok(Self::WARN),
            "error" => Ok(Self::ERROR),
            other => {
                Err(super::block::no_choice("log level", other, &["trace", "debug", "info", "warn", "error"]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(Duration::parse(text).ok(), expected.map(Duration::from_millis), "{text}");
        };
        check("250ms", Some(250));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("12h", Some(43_200_000));
        check("7d", Some(604_800_000));
        check("0s", Some(0));
        check("5", None);
        check("5 s", None);
        check("-5s", None);
        check("1.5s", None);
        check("s", None);
        check("99999999999999999999d", None);
        check("40000d", None);
    }

    #[test]
    fn sizes_are_powers_of_two_where_they_say_so() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(Size::parse(text).ok().map(|size| size.0), expected, "{text}");
        };
        check("64KiB", Some(65_536));
        check("1MiB", Some(1_048_576));
        check("1kB", Some(1_000));
        check("4096", Some(4_096));
        check("many", None);
        check("-1KiB", None);
    }

    #[test]
    fn fractions_are_between_nothing_and_all() {
        let check = |text: &str, expected: Option<u32>| {
            assert_eq!(Fraction::parse(text).ok().map(|part| part.0), expected, "{text}");
        };
        check("0.75", Some(750_000));
        check("0", None);
        check("1", None);
        check("NaN", None);
        check("1e-7", None);
        check("x", None);
    }

    #[test]
    fn shares_are_from_nothing_to_all() {
        let check = |text: &str, expected: Option<u32>| {
            assert_eq!(Share::parse(text).ok().map(|part| part.0), expected, "{text}");
        };
        check("0", Some(0));
        check("1.0", Some(1_000_000));
        check("0.25", Some(250_000));
        check("1.1", None);
        check("-0.1", None);
        check("NaN", None);
        check("10%", None);
    }

    #[test]
    fn header_values_hold_no_line_end() {
        let check =
            |text: &str, expected: bool| assert_eq!(HeaderValue::parse(text).is_ok(), expected, "{text:?}");
        check("acme", true);
        check("a\tb c", true);
        check("a\r\nb", false);
        check("ü", false);
    }
}
