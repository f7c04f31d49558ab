//! Problems: what is wrong, where, and how to mend it.
//!
//! Owns: their order, their deduplication and their rendering. Never shows a secret: lines come masked.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::source::{ShownLine, Source, Span};

/// Whether the configuration can be used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// It cannot.
    Error,
    /// It can.
    Warning,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// How bad it is.
    pub(super) severity: Severity,
    /// Where; `None` where the file itself could not be read.
    pub(super) span: Option<Span>,
    title: String,
    label: String,
    related: Vec<(Span, String)>,
    hints: Vec<String>,
}

impl Problem {
    /// A problem at a place.
    pub(super) fn new(severity: Severity, span: Option<Span>, title: String) -> Self {
        Self { severity, span, title, label: String::new(), related: Vec::new(), hints: Vec::new() }
    }

    /// A few words under the marked text.
    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }

    /// How to mend it.
    pub(super) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hints.push(hint.into());
        self
    }

    /// Another place that has to do with it.
    pub(super) fn also(&mut self, span: Span, label: impl Into<String>) -> &mut Self {
        self.related.push((span, label.into()));
        self
    }

    /// The lines to show, the problem's own first.
    fn places<'p>(&'p self, sources: &'p [Source], masks: &[Span]) -> Vec<Place<'p>> {
        let mut places: Vec<Place<'p>> = Vec::new();
        let own = self.span.iter().map(|span| (*span, self.label.as_str(), AnnotationKind::Primary));
        let related =
            self.related.iter().map(|(span, label)| (*span, label.as_str(), AnnotationKind::Context));
        for (span, label, kind) in own.chain(related) {
            let Some(source) = sources.get(span.file) else { continue };
            let line = source.shown_line(span, masks);
            let mark = (line.range.clone(), label, kind);
            let same =
                places.iter_mut().find(|place| place.name == source.name && place.line.number == line.number);
            match same {
                Some(place) => place.marks.push(mark),
                None => places.push(Place { name: &source.name, line, marks: vec![mark] }),
            }
        }
        places
    }

    fn render(&self, sources: &[Source], masks: &[Span], renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let places = self.places(sources, masks);
        let mut group = Group::with_title(level.primary_title(clean(&self.title)));
        for place in &places {
            let annotations = place.marks.iter().map(|(range, label, kind)| {
                let annotation = kind.span(range.clone());
                if label.is_empty() { annotation } else { annotation.label(clean(label)) }
            });
            let line = &place.line;
            let snippet =
                Snippet::source(line.text.as_str()).line_start(line.number).annotations(annotations);
            // The renderer counts columns in the line that it shows, which a mask may have shortened.
            let is_exact = line.text[..line.range.start].chars().count() + 1 == line.column;
            group = if is_exact {
                group.element(snippet.path(place.name))
            } else {
                let origin = annotate_snippets::Origin::path(place.name);
                group.element(origin.line(line.number).char_column(line.column)).element(snippet)
            };
        }
        for hint in &self.hints {
            group = group.element(Level::HELP.message(clean(hint)));
        }
        renderer.render(&[group])
    }
}

/// A line with all that is marked on it.
struct Place<'p> {
    name: &'p str,
    line: ShownLine,
    marks: Vec<(Range<usize>, &'p str, AnnotationKind)>,
}

/// Control characters have no business on a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A problem ready to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Without colour.
    pub plain: String,
    /// With ANSI colours.
    pub coloured: String,
}

impl fmt::Display for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain)
    }
}

/// All problems of one severity in the order of the text, each once.
pub(super) fn render_all(
    problems: &[Problem],
    severity: Severity,
    sources: &[Source],
    masks: &[Span],
) -> Vec<Rendered> {
    let mut chosen: Vec<&Problem> = Vec::new();
    for problem in problems.iter().filter(|problem| problem.severity == severity) {
        if !chosen.contains(&problem) {
            chosen.push(problem);
        }
    }
    chosen.sort_by_key(|problem| problem.span);
    let plain = Renderer::plain();
    let styled = Renderer::styled();
    chosen
        .into_iter()
        .map(|problem| Rendered {
            plain: problem.render(sources, masks, &plain),
            coloured: problem.render(sources, masks, &styled),
        })
        .collect()
}
