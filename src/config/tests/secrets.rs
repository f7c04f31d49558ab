//! Secrets are shown in no message.

use super::*;

const SECRETS: [&str; 2] = ["hunter2", "hunter3"];

fn assert_hidden(text: &str) {
    let (errors, warnings) = match parse_plain(text) {
        Ok(config) => (Vec::new(), config.warnings),
        Err(problems) => (problems.rendered, problems.warnings),
    };
    for shown in errors.iter().chain(&warnings).flat_map(|shown| [&shown.plain, &shown.coloured]) {
        for secret in SECRETS {
            assert!(!shown.contains(secret), "{text}\n\nshows it:\n{shown}");
        }
    }
}

#[test]
fn a_secret_is_never_shown_whatever_is_broken_around_it() {
    let protected = |at: usize| {
        SECRETS.iter().any(|secret| {
            GOOD.match_indices(secret).any(|(start, _)| (start..start + secret.len()).contains(&at))
        })
    };
    for (at, _) in GOOD.char_indices().filter(|(at, _)| !protected(*at)) {
        let rest = &GOOD[at + GOOD[at..].chars().next().map_or(1, char::len_utf8)..];
        assert_hidden(&format!("{}{rest}", &GOOD[..at]));
        for inserted in
            ["x", ":", " ", "\"", "{", "}", "\n", "\t", "#", "- ", "|", "&a ", "*a", "!x ", "${", ", "]
        {
            assert_hidden(&format!("{}{inserted}{}", &GOOD[..at], &GOOD[at..]));
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ \n\ta-z0-9:,{}&*!|>'\"%@`#?$.\\[\\]\\-/ü\u{feff}\u{2028}]{0,200}") {
        let _ = parse_plain(&text);
    }

    #[test]
    fn no_edit_of_a_configuration_makes_it_panic(at in 0..GOOD.len(), cut in 0..40_usize, put in ".{0,8}") {
        if GOOD.is_char_boundary(at) {
            let end = (at + cut).min(GOOD.len());
            let _ = parse_plain(&format!("{}{put}{}", &GOOD[..at], &GOOD[end..]));
        }
    }
}
