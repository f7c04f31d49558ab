//! An HTTP answer of a token endpoint, read but not judged.
//!
//! Owns: reading the body by its content (JSON, form), whatever its label says, and the header fields that matter.

use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use crate::clock::UnixTime;
use crate::secret::Secret;

/// The longest wait that a provider can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
static X_RETRY_AFTER: HeaderName = HeaderName::from_static("x-retry-after");

/// Head and whole body of an answer.
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The header fields.
    pub(super) headers: HeaderMap,
    /// The decoded body, at most 1 MiB.
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// `Date`.
    pub(super) fn date(&self) -> Option<UnixTime> {
        http_date(self.headers.get(DATE)?).map(UnixTime::from)
    }

    /// `Retry-After` in either form (RFC 9110 10.2.3), or `X-Retry-After`; at most 1 h.
    pub(super) fn retry_after(&self, now: UnixTime) -> Option<Duration> {
        [&RETRY_AFTER, &X_RETRY_AFTER]
            .into_iter()
            .find_map(|name| self.wait_of(self.headers.get(name)?, now))
            .map(|wait| wait.min(MAX_RETRY_AFTER))
    }

    fn wait_of(&self, value: &HeaderValue, now: UnixTime) -> Option<Duration> {
        let text = value.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse::<f64>() {
            return (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        }
        // Both dates are the provider's: its clock need not agree with ours.
        let until = UnixTime::from(http_date(value)?);
        Some(until.checked_since(self.date().unwrap_or(now)).unwrap_or(Duration::ZERO))
    }

    /// Where a redirect points, without query and fragment.
    pub(super) fn location(&self) -> Option<String> {
        let text = self.headers.get(LOCATION)?.to_str().ok()?;
        let plain = text.split(['?', '#']).next().unwrap_or_default();
        let plain = match plain.split_once("://") {
            Some((scheme, rest)) => {
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
            }
            None => plain.to_owned(),
        };
        (!plain.is_empty()).then(|| plain.chars().take(200).collect())
    }

    /// The body by its content; consumes it.
    pub(super) fn read_body(&mut self) -> Body {
        let bytes = Zeroizing::new(std::mem::take(&mut *self.body));
        let content = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii();
        match content.first() {
            None => Body::Empty,
            Some(b'{') => match serde_json::from_slice::<Map<String, Value>>(content) {
                Ok(map) => Body::Fields(Fields(map)),
                Err(_) => Body::Other,
            },
            Some(b'<') => Body::Html,
            Some(_) if looks_like_form(content, self.headers.get(CONTENT_TYPE)) => {
                Body::Fields(Fields::from_form(content))
            }
            Some(_) => Body::Other,
        }
    }
}

fn http_date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

fn looks_like_form(content: &[u8], label: Option<&HeaderValue>) -> bool {
    let labelled = label
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"));
    let named = [&b"access_token="[..], b"error=", b"refresh_token=", b"token_type="].iter().any(|name| {
        content.starts_with(name) || memchr::memmem::find(content, &[b"&", *name].concat()).is_some()
    });
    let plain = content.iter().all(|byte| byte.is_ascii_graphic());
    plain && (named || labelled && content.contains(&b'='))
}

/// What a body turned out to be.
pub(super) enum Body {
    /// Nothing.
    Empty,
    /// Something that begins with `<`.
    Html,
    /// Named values.
    Fields(Fields),
    /// Anything else, also JSON that is not an object.
    Other,
}

/// The named values of an answer. What is not taken is zeroed.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    fn from_form(content: &[u8]) -> Self {
        Self(
            form_urlencoded::parse(content)
                .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
                .collect(),
        )
    }

    /// The values at the given places under the names that OAuth has for them.
    pub(super) fn found_at(mut self, places: &[(&'static str, &str)]) -> Self {
        let mut whole = Value::Object(std::mem::take(&mut self.0));
        let found = places.iter().filter_map(|(name, pointer)| {
            Some(((*name).to_owned(), std::mem::take(whole.pointer_mut(pointer)?)))
        });
        let found = found.collect();
        wipe(&mut whole);
        Self(found)
    }

    /// Takes a text out; an empty one counts as none.
    pub(super) fn take_secret(&mut self, name: &str) -> Option<Secret> {
        match self.0.get_mut(name)? {
            Value::String(text) if !text.is_empty() => Some(Secret::new(std::mem::take(text))),
            _ => None,
        }
    }

    /// Takes the texts and numbers of an object out, by their names.
    pub(super) fn take_texts(&mut self, name: &str) -> Vec<(String, Secret)> {
        let Some(Value::Object(map)) = self.0.get_mut(name) else { return Vec::new() };
        map.iter_mut()
            .filter_map(|(name, value)| {
                let text = match value {
                    Value::String(text) => std::mem::take(text),
                    Value::Number(number) => number.to_string(),
                    _ => return None,
                };
                Some((name.clone(), Secret::new(text)))
            })
            .collect()
    }

    /// Whether there is anything at this place.
    pub(super) fn has(&self, pointer: &str) -> bool {
        self.at(pointer).is_some_and(|value| !value.is_null())
    }

    /// A copy of the text or number at this place; an empty text counts as none.
    pub(super) fn copy_at(&self, pointer: &str) -> Option<Secret> {
        match self.at(pointer)? {
            Value::String(text) if !text.is_empty() => Some(Secret::from(text.as_str())),
            Value::Number(number) => Some(Secret::new(number.to_string())),
            _ => None,
        }
    }

    fn at(&self, pointer: &str) -> Option<&Value> {
        let mut rest = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
        let first = rest.next().and_then(|step| self.0.get(&step));
        let found = rest.try_fold(first, |value, step| match value? {
            Value::Object(map) => Some(map.get(&step)),
            Value::Array(list) => Some(step.parse::<usize>().ok().and_then(|index| list.get(index))),
            _ => None,
        });
        found.flatten()
    }

    /// A text; an empty one counts as none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// A text, or a list of texts joined with spaces.
    pub(super) fn words(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::Array(list) => {
                let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                (!words.is_empty()).then(|| words.join(" "))
            }
            _ => self.text(name).map(str::to_owned),
        }
    }

    /// A number, or a text that is one; seconds everywhere here.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match self.0.get(name)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok().filter(|number: &f64| !number.is_nan()),
            _ => None,
        }
    }

    /// The fields as a type of their own.
    pub(super) fn deserialize<T: serde::de::DeserializeOwned>(mut self) -> Option<T> {
        serde_json::from_value(Value::Object(std::mem::take(&mut self.0))).ok()
    }

    /// The OAuth `error`, also where it stands beside `"ok": false` or is an object with a code.
    pub(super) fn error_code(&self) -> Option<&str> {
        match self.0.get("error") {
            Some(Value::String(code)) if !code.is_empty() => Some(code),
            Some(Value::Object(nested)) => Some(
                ["code", "status", "type"]
                    .iter()
                    .find_map(|name| nested.get(*name)?.as_str())
                    .unwrap_or("error"),
            ),
            _ if self.0.get("ok") == Some(&Value::Bool(false)) => Some("not_ok"),
            _ => None,
        }
    }

    /// `error_description`, or what some providers call it.
    pub(super) fn error_description(&self) -> Option<&str> {
        ["error_description", "error_message", "message", "detail"].iter().find_map(|name| self.text(name))
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

/// Zeroes every text in it.
pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
