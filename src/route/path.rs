//! The normal form of a request path: what is matched is what is sent.
//!
//! Owns: refusing paths that two parties could read differently, removing dot segments, and telling whether a
//! path could leave the prefix that it matched. Never decodes anything but unreserved characters, and those once.

use std::borrow::Cow;

/// How often escapes are decoded, for judging: beyond, a path is refused.
const MAX_DECODED: usize = 4;

/// Why a path is refused. All of them are 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `%` without two hexadecimal digits.
    #[error("the path holds a broken percent escape")]
    BadEscape,
    /// `%00`.
    #[error("the path holds a zero byte")]
    Nul,
    /// `\`, which some servers take for `/`.
    #[error("the path holds a backslash")]
    Backslash,
    /// A byte that no path may hold unescaped.
    #[error("the path holds a character that must be escaped")]
    BadCharacter,
    /// Not beginning with `/`.
    #[error("the path does not begin with a slash")]
    Relative,
    /// Encoded dots or slashes that lead out of the matched prefix once decoded.
    #[error("the path would leave its route once its escapes are decoded")]
    Escapes,
    /// Another route's or rule's for who decodes escapes, merges slashes or drops parameters.
    #[error(
        "the path is another route's for a server that decodes its escapes, merges its slashes or drops its parameters"
    )]
    Ambiguous,
}

/// Brings a path into normal form: escapes of unreserved characters decoded (RFC 3986, 6.2.2.2), dot segments
/// removed (RFC 3986, 5.2.4). An encoded dot segment (`%2e%2e`) and an encoded slash stay as they are.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::Relative);
    }
    let mut plain = true;
    let mut previous = 0;
    for &byte in bytes {
        match byte {
            b'%' => plain = false,
            b'.' if previous == b'/' => plain = false,
            b'\\' => return Err(PathError::Backslash),
            b'#' | b'?' | 0..=b' ' | 0x7f..=0xff => return Err(PathError::BadCharacter),
            _ => {}
        }
        previous = byte;
    }
    if plain {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    Ok(remove_dot_segments(decoded))
}

/// Whether `rest`, the part of a normal path after its matched prefix, stays below the prefix however often a
/// server decodes its escapes, merges slashes or drops `;parameters`.
pub fn stays_inside(rest: &str) -> bool {
    if !rest.contains("..") && !rest.contains('%') {
        return true;
    }
    holds_however_decoded(rest, |text| {
        let mut depth = 0_i32;
        text.split(['/', '\\']).all(|segment| {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => depth -= 1,
                _ => depth += 1,
            }
            depth >= 0
        })
    })
}

/// Whether servers could read a path in several ways.
pub fn is_odd(path: &str) -> bool {
    path.contains(['%', ';']) || path.contains("//")
}

/// Whether `is_alike` holds for each way in which a server may read a normal path: however often it decodes escapes, with
/// slashes merged, without `;parameters`.
pub fn is_read_alike(path: &str, mut is_alike: impl FnMut(&str) -> bool) -> bool {
    const MERGES_AND_DROPS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];
    !is_odd(path)
        || holds_however_decoded(path, |text| {
            MERGES_AND_DROPS.iter().all(|&(merges, drops)| is_alike(&read(text, merges, drops)))
        })
}

/// A path as a server reads it that merges slashes, or drops parameters.
fn read(text: &str, merges: bool, drops: bool) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in text.split(['/', '\\']).skip(1) {
        let segment = if drops { segment.split(';').next().unwrap_or_default() } else { segment };
        ends_open = segment == "." || segment == ".." || (segment.is_empty() && merges);
        match segment {
            "." => {}
            "" if merges => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let end = if ends_open || kept.is_empty() { "/" } else { "" };
    kept.iter().flat_map(|segment| ["/", segment]).chain([end]).collect()
}

/// Whether `holds` of a text and of what it is with all its escapes decoded once, twice, until nothing changes: for judging
/// only, never for sending. False where that takes more turns than anybody means.
fn holds_however_decoded(text: &str, mut holds: impl FnMut(&str) -> bool) -> bool {
    let mut text = Cow::Borrowed(text);
    for _ in 0..=MAX_DECODED {
        if !holds(&text) {
            return false;
        }
        let next = percent_encoding::percent_decode_str(&text).decode_utf8_lossy();
        if next == text {
            return true;
        }
        text = Cow::Owned(next.into_owned());
    }
    false
}

fn decode_unreserved(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut out = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        let begin = out.len();
        decode_segment(segment, &mut out)?;
        if matches!(&out[begin..], "." | "..") && segment.contains('%') {
            out.truncate(begin);
            out.push_str(segment);
        }
    }
    Ok(Cow::Owned(out))
}

fn decode_segment(segment: &str, out: &mut String) -> Result<(), PathError> {
    let mut rest = segment;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let digits = rest.as_bytes().get(at + 1..at + 3).ok_or(PathError::BadEscape)?;
        let byte = hex(digits[0]).zip(hex(digits[1])).map(|(high, low)| high << 4 | low);
        match byte.ok_or(PathError::BadEscape)? {
            0 => return Err(PathError::Nul),
            byte @ (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&rest[at..at + 3]),
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn remove_dot_segments(path: Cow<'_, str>) -> Cow<'_, str> {
    if !path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return path;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if ends_open || kept.is_empty() {
        out.push('/');
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_have_one_normal_form() {
        let check = |path: &str, expected: Result<&str, PathError>| {
            assert_eq!(
                normalize(path).as_deref().map_err(|e| *e),
                expected.as_ref().map(|s| *s).map_err(|e| *e),
                "{path}"
            );
        };
        check("/", Ok("/"));
        check("/a/b", Ok("/a/b"));
        check("/a//b", Ok("/a//b"));
        check("/a/./b", Ok("/a/b"));
        check("/a/../b", Ok("/b"));
        check("/a/..", Ok("/"));
        check("/a/b/..", Ok("/a/"));
        check("/a/.", Ok("/a/"));
        check("/../../a", Ok("/a"));
        check("/.", Ok("/"));
        check("/.well-known/x", Ok("/.well-known/x"));
        check("/..a/...", Ok("/..a/..."));
        check("/%61dmin", Ok("/admin"));
        check("/a%2Eb", Ok("/a.b"));
        check("/a/%2e%2e/b", Ok("/a/%2e%2e/b"));
        check("/a/.%2e/b", Ok("/a/.%2e/b"));
        check("/a/%2E", Ok("/a/%2E"));
        check("/group%2Fproject", Ok("/group%2Fproject"));
        check("/a%20b", Ok("/a%20b"));
        check("/%2561", Ok("/%2561"));
        check("/a%", Err(PathError::BadEscape));
        check("/a%2", Err(PathError::BadEscape));
        check("/a%zz", Err(PathError::BadEscape));
        check("/a%+1", Err(PathError::BadEscape));
        check("/a%00b", Err(PathError::Nul));
        check("/a\\b", Err(PathError::Backslash));
        check("/a#b", Err(PathError::BadCharacter));
        check("/a b", Err(PathError::BadCharacter));
        check("/ü", Err(PathError::BadCharacter));
        check("a", Err(PathError::Relative));
        check("", Err(PathError::Relative));
        check("*", Err(PathError::Relative));
    }

    #[test]
    fn encoded_ways_out_of_a_prefix_are_seen() {
        let check = |rest: &str, expected: bool| assert_eq!(stays_inside(rest), expected, "{rest}");
        check("a/b", true);
        check("group%2Fproject/issues", true);
        check("a/%2e%2e/b", true);
        check("%2e%2e/b", false);
        check("%2E./b", false);
        check("a/%2e%2e/%2e%2e/b", false);
        check("a%2f..%2f..%2fb", false);
        check("a%2F..%2Fb", true);
        check("..%2fb", false);
        check("..%5cb", false);
        check("%252e%252e/b", false);
        check("%25252e%25252e/b", false);
        check("a%252fb/%2e%2e/%2e%2e", false);
        check("%25252525", true);
        check("%2525252525", false);
        check("a%3b%2e%2e", true);
        check("..;/b", false);
        check("..;x=1/b", false);
        check("%2e%2e;x/b", false);
        check("a//%2e%2e/%2e%2e", false);
        check("..a/b", true);
        check("a..b", true);
    }

    #[test]
    fn each_reading_of_a_path_is_judged() {
        let check = |path: &str, expected: &[&str]| {
            let mut read = std::collections::BTreeSet::new();
            assert!(
                is_read_alike(path, |other| read.insert(other.to_owned()) || !other.is_empty()),
                "{path}"
            );
            assert_eq!(read.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{path}");
        };
        check("/plain/.well-known/x", &[]);
        check("/a;x/b", &["/a/b", "/a;x/b"]);
        check("//a/", &["//a/", "/a/"]);
        check("/a%2Fb", &["/a%2Fb", "/a/b"]);
        check("/x/%2e%2E/Api/y", &["/Api/y", "/x/%2e%2E/Api/y"]);
        check("/a%252fb", &["/a%252fb", "/a%2fb", "/a/b"]);
        check("/a%5Cb%20c", &["/a%5Cb%20c", "/a/b c"]);
        check("/%2561dmin", &["/%2561dmin", "/%61dmin", "/admin"]);
        check("/a%3bx/b", &["/a%3bx/b", "/a/b", "/a;x/b"]);
        check("/api%2f..;/y", &["/api%2f../y", "/api%2f..;/y", "/api/..;/y", "/y"]);
        check("/%", &["/%"]);
        check("/%2", &["/%2"]);
        assert!(!is_read_alike("/a%2Fb", |read| read == "/a%2Fb"));
        assert!(!is_read_alike(&["/", &"%25".repeat(2000)].concat(), |read| !read.starts_with("/%2")));
        assert!(
            !is_read_alike(&["/%", &"25".repeat(4000)].concat(), |_| true),
            "it is not opened to its end"
        );
    }

    proptest! {
        #[test]
        fn the_normal_form_is_normal(path in "/([a-c./]|%2[eEfF5]|%61|%7e|;){0,24}") {
            if let Ok(once) = normalize(&path) {
                let twice = normalize(&once).expect("a normal form is accepted").into_owned();
                prop_assert_eq!(&twice, once.as_ref());
                prop_assert!(once.starts_with('/'));
                prop_assert!(!once.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }

        #[test]
        fn any_text_is_judged_without_a_panic(path in "\\PC{0,40}") {
            let _ = normalize(&path);
            let _ = stays_inside(&path);
            let _ = is_read_alike(&path, |read| read.starts_with('/') || !path.starts_with('/'));
        }

        #[test]
        fn nothing_that_stays_inside_leaves_when_a_server_decodes_it(rest in "([a-b./]|%2[eEfF]|%5c|%252e){0,16}") {
            prop_assume!(stays_inside(&rest));
            let decoded = percent_encoding::percent_decode_str(&rest).decode_utf8_lossy().replace('\\', "/");
            let mut depth = 0;
            for segment in decoded.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
                depth += if segment == ".." { -1 } else { 1 };
                prop_assert!(depth >= 0, "{} -> {}", rest, decoded);
            }
        }
    }
}
