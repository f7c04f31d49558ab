//! The numbered cases of the token life cycle: each has a test of its number.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Cases without a test, and why. One that gets a test is taken out here.
const WITHOUT: &[(u8, &str)] = &[];

#[test]
fn every_numbered_case_has_a_test_that_is_named_after_it() {
    let mut numbers = BTreeSet::new();
    let mut tests = 0;
    for folder in ["src", "tests/it"] {
        for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            for name in names(&text) {
                let found = numbers_of(name);
                tests += usize::from(!found.is_empty());
                numbers.extend(found);
            }
        }
    }
    let excused = |number: &u8| WITHOUT.iter().any(|(known, _)| known == number);
    let missing: Vec<u8> = (1..=80).filter(|number| !numbers.contains(number) && !excused(number)).collect();
    assert!(missing.is_empty(), "cases without a test and without a reason in WITHOUT: {missing:?}");
    assert!(WITHOUT.iter().all(|(_, reason)| reason.len() > 10), "a reason says something");
    assert_eq!(numbers.last(), Some(&80), "there are eighty cases");
    assert!(tests > 100, "{tests} tests");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// The names of functions that follow `#[test]` or `#[tokio::test]`.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim_start();
        let rest = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "))?;
        rest.split('(').next()
    })
}

/// `case_07_…`, `cases_02_and_03_…`, `cases_04_05_07_and_09_…`.
fn numbers_of(name: &str) -> Vec<u8> {
    let Some(rest) = name.strip_prefix("case_").or_else(|| name.strip_prefix("cases_")) else {
        return Vec::new();
    };
    rest.split('_')
        .take_while(|word| {
            *word == "and" || word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_digit())
        })
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
fn numbers_are_read_from_names() {
    assert_eq!(numbers_of("case_07_endless"), [7]);
    assert_eq!(numbers_of("cases_04_05_07_and_09_expires_in_10_shapes"), [4, 5, 7, 9]);
    assert_eq!(numbers_of("case_27_and_79_swapped"), [27, 79]);
    assert!(numbers_of("the_case_07").is_empty());
}
