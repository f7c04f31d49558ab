//! Scrubbing of what a provider says about an error before anybody sees it.
//!
//! Owns: the list of secrets that one request sent. Whatever of them an answer echoes is taken out, and so is
//! everything that looks like a token.

use crate::secret::Secret;

/// The longest description that is shown, in characters.
const MAX_DESCRIPTION: usize = 200;
/// The longest error code that is shown.
const MAX_CODE: usize = 64;
/// A run of token characters of this length with letters and digits in it is taken for a token.
const TOKEN_LIKE: usize = 24;
const REMOVED: &str = "[removed]";

/// The secrets of one request, in each form in which an answer could echo them.
#[derive(Debug, Default)]
pub(super) struct Scrubber {
    sent: Vec<Secret>,
}

impl Scrubber {
    /// Adds a secret that is about to be sent, as it is and as it stands in a form body.
    pub(super) fn add(&mut self, secret: &str) {
        for shape in [
            secret.to_owned(),
            plain(secret),
            form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string(),
        ] {
            let shape = Secret::new(shape);
            if !shape.is_empty() && !self.sent.contains(&shape) {
                self.sent.push(shape);
            }
        }
        // The longest first: a secret may be a part of another.
        self.sent.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    }

    /// A description fit to be shown; `None` if nothing is left.
    pub(super) fn description(&self, text: &str) -> Option<String> {
        let scrubbed = self.scrub(text);
        let trimmed = scrubbed.trim();
        if trimmed.is_empty() {
            return None;
        }
        let mut short: String = trimmed.chars().take(MAX_DESCRIPTION).collect();
        if short.len() < trimmed.len() {
            short.push('…');
        }
        Some(short)
    }

    /// An error code fit to be shown and to be compared.
    pub(super) fn code(&self, text: &str) -> String {
        let scrubbed = self.scrub(text);
        scrubbed.trim().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_CODE).collect()
    }

    fn scrub(&self, text: &str) -> String {
        let mut plain: String = text
            .chars()
            .map(|c| if c.is_whitespace() { ' ' } else { c })
            .filter(|c| !is_hidden(*c))
            .collect();
        for secret in &self.sent {
            if plain.contains(secret.expose()) {
                plain = plain.replace(secret.expose(), REMOVED);
            }
        }
        without_token_like_runs(&plain)
    }
}

/// One line without anything that is not seen.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_hidden(*c)).collect()
}

/// Controls, and the format characters that reorder or hide text on a terminal.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn without_token_like_runs(text: &str) -> String {
    let is_token_char =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '=' | '%');
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(|c| !is_token_char(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(run);
        let looks_like_one = token.len() >= TOKEN_LIKE
            && token.bytes().any(|b| b.is_ascii_digit())
            && token.bytes().any(|b| b.is_ascii_alphabetic());
        kept.push_str(if looks_like_one { REMOVED } else { token });
        let gap = after.find(is_token_char).unwrap_or(after.len());
        kept.push_str(&after[..gap]);
        rest = &after[gap..];
    }
    kept
}

/// How many secrets of earlier requests are kept.
const MAX_FORMER: usize = 8;

/// Client secrets and passwords that were sent before: a provider that compares may name one that was replaced.
#[derive(Debug, Default)]
pub(super) struct Former(std::sync::Mutex<std::collections::VecDeque<Secret>>);

impl Former {
    /// Adds what was sent before to a scrubber, and notes what is about to be sent.
    pub(super) fn join(&self, sending: &[Secret], scrubber: &mut Scrubber) {
        let mut former = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for secret in sending {
            if !former.contains(secret) {
                former.truncate(MAX_FORMER - 1);
                former.push_front(secret.clone());
            }
        }
        former.iter().for_each(|secret| scrubber.add(secret.expose()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_never_comes_back() {
        let mut scrubber = Scrubber::default();
        scrubber.add("s3cret with space");
        scrubber.add("rt-1");
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(scrubber.description(text).as_deref(), expected, "{text:?}");
        };
        check("token rt-1 is expired", Some("token [removed] is expired"));
        check("s3cret with space", Some("[removed]"));
        check("got s3cret+with+space, s3cret%20with%20space", Some("got [removed], [removed]"));
        check("rt\u{0}-1 hidden by a control", Some("[removed] hidden by a control"));
        check("line one\r\nline two\x1b[31m", Some("line one  line two[31m"));
        check("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UifQ.abc says no", Some("[removed] says no"));
        check(
            "a sentence-with-a-very-long-hyphenated-word stays",
            Some("a sentence-with-a-very-long-hyphenated-word stays"),
        );
        check(" \u{7} ", None);
        assert_eq!(scrubber.description(&"é".repeat(300)).expect("text").chars().count(), 201);
        assert_eq!(scrubber.code("invalid_grant\n"), "invalid_grant");
        assert_eq!(scrubber.code("rt-1"), "[removed]");
    }

    proptest::proptest! {
        #[test]
        fn no_secret_of_any_shape_survives_in_any_text(
            secret in "[a-zA-Z0-9 \t+/%&é\u{200b}-]{12,40}",
            before in "\\PC{0,60}",
            after in ".{0,300}",
        ) {
            let mut scrubber = Scrubber::default();
            scrubber.add(&secret);
            let text = format!("{before}{secret}{after}");
            for shown in [scrubber.description(&text).unwrap_or_default(), scrubber.code(&text)] {
                proptest::prop_assert!(!shown.contains(&secret) && !shown.contains(&plain(&secret)), "{shown:?}");
                proptest::prop_assert!(shown.chars().count() <= MAX_DESCRIPTION + 1);
                proptest::prop_assert!(!shown.chars().any(char::is_control));
            }
        }
    }
}
