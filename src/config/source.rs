//! Source texts and places in them.
//!
//! Owns: byte spans, line and column, and the redaction of secrets in every line that is shown. Never
//! shows more than the line a problem stands on.

use std::ops::Range;
use std::path::PathBuf;

/// A place in one of the files that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Span {
    /// Index into the list of sources.
    pub(super) file: usize,
    /// First byte.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
}

impl Span {
    /// A place from `start` to `end`.
    pub(super) fn new(file: usize, start: usize, end: usize) -> Self {
        Self { file, start, end: end.max(start) }
    }

    fn overlaps(&self, other: &Range<usize>) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// One file.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// As messages name it.
    pub(super) name: String,
    /// What relative paths in it are relative to.
    pub(super) directory: PathBuf,
    /// Its text, without a byte order mark.
    pub(super) text: String,
}

/// A line as it may be shown: secrets are masked, the range is where the problem is in `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShownLine {
    /// The line without its end.
    pub(super) text: String,
    /// Its number from 1.
    pub(super) number: usize,
    /// The column of the problem in characters from 1, in the file as it is.
    pub(super) column: usize,
    /// Where the problem is in `text`.
    pub(super) range: Range<usize>,
}

/// What stands where a secret was.
const MASK: &str = "•••";

impl Source {
    /// The line on which `span` begins.
    pub(super) fn shown_line(&self, span: Span, masks: &[Span]) -> ShownLine {
        let start = floor(&self.text, span.start);
        let (line, number) = self.line_at(start);
        let end = floor(&self.text, span.end).clamp(start, line.end.max(start));
        let (text, range) = self.masked(&line, start..end, masks, span.file);
        let column = self.text[line.start..start].chars().count() + 1;
        ShownLine { text, number, column, range }
    }

    fn line_at(&self, at: usize) -> (Range<usize>, usize) {
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline);
        let end = if self.text[start..end].ends_with('\r') { (end - 1).max(at.min(end)) } else { end };
        (start..end.max(start), self.text[..start].matches('\n').count() + 1)
    }

    fn masked(
        &self,
        line: &Range<usize>,
        wanted: Range<usize>,
        masks: &[Span],
        file: usize,
    ) -> (String, Range<usize>) {
        let mut hidden: Vec<Range<usize>> = masks
            .iter()
            .filter(|mask| mask.file == file && mask.start < mask.end && mask.overlaps(line))
            .map(|mask| {
                floor(&self.text, mask.start.max(line.start))..floor(&self.text, mask.end.min(line.end))
            })
            .collect();
        hidden.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
        let mut text = String::new();
        let mut range = None::<Range<usize>>;
        let mut at = line.start;
        let mut begin = None;
        let mut note = |from: usize, to: usize, out_from: usize, out_to: usize, exact: bool| {
            let map = |offset: usize| if exact { out_from + (offset - from) } else { out_from };
            if begin.is_none() && (from..=to).contains(&wanted.start) && (wanted.start < to || to == line.end)
            {
                begin = Some(map(wanted.start));
            }
            if let Some(begin) = begin
                && wanted.end >= from
            {
                let end = if wanted.end >= to {
                    out_to
                } else if exact {
                    map(wanted.end)
                } else {
                    out_to
                };
                range = Some(begin..end.max(begin));
            }
        };
        for mask in hidden {
            if mask.end <= at {
                continue;
            }
            let open = mask.start.max(at);
            let out = text.len();
            text.push_str(&self.text[at..open]);
            note(at, open, out, text.len(), true);
            let out = text.len();
            text.push_str(MASK);
            note(open, mask.end, out, text.len(), false);
            at = mask.end;
        }
        let out = text.len();
        text.push_str(&self.text[at..line.end]);
        note(at, line.end, out, text.len(), true);
        let all = text.len();
        (text, range.unwrap_or(all..all))
    }
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, at: Range<usize>, masks: &[Range<usize>]) -> (String, String, usize, usize) {
        let source = Source { name: "x".into(), directory: PathBuf::new(), text: text.into() };
        let masks: Vec<_> = masks.iter().map(|m| Span::new(0, m.start, m.end)).collect();
        let line = source.shown_line(Span::new(0, at.start, at.end), &masks);
        let marked = line.text[line.range.clone()].to_owned();
        (line.text, marked, line.number, line.column)
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "one mask is a list of masks")]
    fn a_masked_line_keeps_its_place_and_column() {
        let check = |text: &str, at, masks: &[Range<usize>], expected: (&str, &str, usize, usize)| {
            let (line, marked, number, column) = shown(text, at, masks);
            assert_eq!((line.as_str(), marked.as_str(), number, column), expected, "{text:?}");
        };
        check("a: 1\nb: two\nc", 8..11, &[], ("b: two", "two", 2, 4));
        check("v: hunter2", 3..10, &[3..10], ("v: •••", "•••", 1, 4));
        check("{v: hunter2, x: y}", 13..14, &[4..11], ("{v: •••, x: y}", "x", 1, 14));
        check("{x: y, v: hunter2}", 1..2, &[10..17], ("{x: y, v: •••}", "x", 1, 2));
        check("v: hunter2\nw: 1", 0..1, &[3..10], ("v: •••", "v", 1, 1));
        check("a\r\nb\r\n", 3..4, &[], ("b", "b", 2, 1));
        check("", 0..0, &[], ("", "", 1, 1));
        check("a: ü", 9..12, &[], ("a: ü", "", 1, 5));
        check("v: |\n  hunter2\n", 7..14, &[5..15], ("•••", "•••", 2, 3));
    }
}
