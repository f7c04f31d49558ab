//! YAML text to a tree of nodes that know their places.
//!
//! Owns: duplicate keys, anchors, merge keys, tags, interpolation and the limits of all of them. Knows
//! nothing of what the keys mean.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::context::Cx;
use super::interpolate::interpolate;
use super::node::{Entry, Kind, Node, Scalar};
use super::redact;
use super::source::Span;

/// How deep mappings and lists may nest.
const MAX_DEPTH: usize = 64;
/// How many nodes a file may have once aliases are replaced.
const MAX_NODES: usize = 100_000;

/// Parses one file; problems go to `cx`. `None` where there is nothing to work on.
pub(super) fn parse(file: usize, cx: &mut Cx<'_>) -> Option<Node> {
    let text = cx.sources[file].text.clone();
    let mut offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    offsets.push(text.len());
    let parser = Parser::new_from_str(&text);
    let mut builder = Builder { parser, file, text: &text, offsets, anchors: HashMap::new(), nodes: 0, cx };
    match builder.document() {
        Ok(node) => {
            redact::mask_by_name(&node, cx);
            Some(node)
        }
        Err(Stop) => {
            cx.masks.extend(redact::mask_lexically(&text, file));
            None
        }
    }
}

/// The problem is reported; the file cannot be read further.
struct Stop;

struct Builder<'a, 'b, 'v> {
    parser: Parser<'a, StrInput<'a>>,
    file: usize,
    text: &'a str,
    offsets: Vec<usize>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    cx: &'b mut Cx<'v>,
}

impl<'a> Builder<'a, '_, '_> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        loop {
            match self.parser.next_event() {
                None => {
                    return Ok((Event::StreamEnd, Span::new(self.file, self.text.len(), self.text.len())));
                }
                Some(Ok((Event::Nothing, _))) => {}
                Some(Ok((event, span))) => {
                    let span = Span::new(self.file, self.offset(&span.start), self.offset(&span.end));
                    return Ok((event, span));
                }
                Some(Err(error)) => {
                    let at = self.offset(error.marker());
                    let line_end = self.text[at..].find('\n').map_or(self.text.len(), |n| at + n);
                    let line_start = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
                    let line = &self.text[line_start..line_end];
                    let hint = scan_hint(error.info(), line);
                    let problem = self.cx.error(
                        Span::new(self.file, at, at + 1),
                        format!("this cannot be read as YAML: {}", error.info()),
                    );
                    if let Some(hint) = hint {
                        problem.hint(hint);
                    }
                    return Err(Stop);
                }
            }
        }
    }

    fn offset(&self, marker: &Marker) -> usize {
        self.offsets.get(marker.index()).copied().unwrap_or(self.text.len())
    }

    fn document(&mut self) -> Result<Node, Stop> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::StreamEnd | Event::DocumentEnd, span) => {
                    self.cx.error(span, "the file is empty").hint(
                        "a configuration has at least `listeners:`; `config.example.yaml` shows a whole one",
                    );
                    return Err(Stop);
                }
                (event, span) => {
                    let node = self.node(event, span, 0)?;
                    self.end()?;
                    return Ok(node);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Stop> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentEnd, _) => {}
                (_, span) => {
                    self.cx
                        .error(span, "a second document begins here")
                        .hint("one file holds one document: remove the `---`, or use `include:`");
                    return Err(Stop);
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Stop> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            let what = if depth > MAX_DEPTH { "nested too deeply" } else { "too large" };
            self.cx.error(span, format!("the file is {what}"));
            return Err(Stop);
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(&text, style, tag.as_deref(), span), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", span);
                (self.list(span, depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", span);
                (self.map(span, depth)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => {
                self.cx.error(span, "a value is missing here");
                return Err(Stop);
            }
        };
        if anchor != 0 {
            self.nodes += node.count();
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Stop> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.cx.error(span, "this alias stands inside its own anchor");
            return Err(Stop);
        };
        self.nodes += node.count();
        if self.nodes > MAX_NODES {
            self.cx.error(span, "the file is too large once its aliases are replaced");
            return Err(Stop);
        }
        Ok(node.clone())
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, expected: &str, span: Span) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == expected)
            && !(tag.handle.is_empty() && tag.suffix == "!")
        {
            self.cx
                .error(span, "YAML tags have no meaning here")
                .hint("remove the `!…`; a secret is written as `{env: NAME}` or `{file: PATH}`");
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let as_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if !as_text {
            self.refuse_tag(tag, "", span);
        }
        let plain = style == ScalarStyle::Plain && !as_text;
        let replaces = matches!(style, ScalarStyle::Plain | ScalarStyle::DoubleQuoted);
        let (text, interpolated) = if replaces && text.contains("${") {
            match interpolate(text, self.cx.vars) {
                Ok(done) => done,
                Err(error) => {
                    self.cx.failed.push(span);
                    self.cx.error(span, error.to_string()).hint(error.hint());
                    (String::new(), true)
                }
            }
        } else {
            (text.to_owned(), false)
        };
        Node { span, kind: Kind::Scalar(Scalar { text, plain, interpolated }) }
    }

    fn list(&mut self, span: Span, depth: usize) -> Result<Node, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    let span = Span::new(self.file, span.start, end.end.max(span.end));
                    return Ok(Node { span, kind: Kind::List(items) });
                }
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, span: Span, depth: usize) -> Result<Node, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        let end = loop {
            let (key, key_span, is_merge) = match self.next()? {
                (Event::MappingEnd, end) => break end,
                (Event::Scalar(text, style, ..), span) => {
                    let is_merge = style == ScalarStyle::Plain && text == "<<";
                    (text.into_owned(), span, is_merge)
                }
                (_, span) => {
                    self.cx.error(span, "a key must be plain text");
                    return Err(Stop);
                }
            };
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            if is_merge {
                merged.push(value);
            } else {
                self.insert(&mut entries, Entry { key, key_span, value });
            }
        };
        for value in merged {
            self.merge(&mut entries, value)?;
        }
        let span = Span::new(self.file, span.start, end.end.max(span.end));
        Ok(Node { span, kind: Kind::Map(entries) })
    }

    fn insert(&mut self, entries: &mut Vec<Entry>, entry: Entry) {
        if let Some(first) = entries.iter().find(|first| first.key == entry.key) {
            let (first, title) =
                (first.key_span, format!("the key {} is given twice", redact::shown_key(&entry.key)));
            redact::mask_by_name(
                &Node { span: entry.key_span, kind: Kind::Map(vec![entry.clone()]) },
                self.cx,
            );
            self.cx.error(entry.key_span, title).label("again here").also(first, "first here");
        } else {
            entries.push(entry);
        }
    }

    /// `<<: *anchor` or `<<: [*a, *b]`: keys that the mapping does not have itself; the earlier wins.
    fn merge(&mut self, entries: &mut Vec<Entry>, value: Node) -> Result<(), Stop> {
        let parts = match value.kind {
            Kind::List(items) => items,
            _ => vec![value],
        };
        for part in parts {
            let Kind::Map(more) = part.kind else {
                self.cx.error(part.span, "`<<` merges a mapping or a list of mappings");
                return Err(Stop);
            };
            for entry in more {
                if entries.iter().all(|present| present.key != entry.key) {
                    entries.push(entry);
                }
            }
        }
        Ok(())
    }
}

fn scan_hint(info: &str, line: &str) -> Option<&'static str> {
    if line.contains("${") {
        Some("inside `{…}` and `[…]` a text with `${NAME}` needs double quotes: \"${NAME}\"")
    } else if line.starts_with('\t') || line.trim_start_matches(' ').starts_with('\t') {
        Some("indent with spaces: YAML allows no tabs here")
    } else if info.contains("mapping values") {
        Some(
            "a text with `: ` in it needs quotes; else look at the indentation of this line and the one above",
        )
    } else {
        None
    }
}
