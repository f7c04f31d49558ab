//! What is carried along while a configuration is read: the sources, the variables, the problems so far.

use super::interpolate::Vars;
use super::problem::{Problem, Severity};
use super::source::{Source, Span};

/// The state of one load.
pub(super) struct Cx<'v> {
    /// The files, the main one first.
    pub(super) sources: Vec<Source>,
    /// All problems so far.
    pub(super) problems: Vec<Problem>,
    /// What is never shown.
    pub(super) masks: Vec<Span>,
    /// Values that could not be interpolated: reported already, not to be judged again.
    pub(super) failed: Vec<Span>,
    /// Whether blocks are read as defaults, where nothing is required.
    pub(super) partial: bool,
    /// Where variables come from.
    pub(super) vars: Vars<'v>,
}

impl<'v> Cx<'v> {
    /// Nothing read yet.
    pub(super) fn new(vars: Vars<'v>) -> Self {
        Self {
            sources: Vec::new(),
            problems: Vec::new(),
            masks: Vec::new(),
            failed: Vec::new(),
            partial: false,
            vars,
        }
    }

    /// Adds a source.
    pub(super) fn add_source(&mut self, source: Source) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// Reports an error.
    pub(super) fn error(&mut self, span: Span, title: impl Into<String>) -> &mut Problem {
        self.push(Problem::new(Severity::Error, Some(span), title.into()))
    }

    /// Reports a warning.
    pub(super) fn warning(&mut self, span: Span, title: impl Into<String>) -> &mut Problem {
        self.push(Problem::new(Severity::Warning, Some(span), title.into()))
    }

    /// Reports a problem that has no place in any file.
    pub(super) fn nowhere(&mut self, severity: Severity, title: impl Into<String>) -> &mut Problem {
        self.push(Problem::new(severity, None, title.into()))
    }

    fn push(&mut self, problem: Problem) -> &mut Problem {
        self.problems.push(problem);
        self.problems.last_mut().expect("one was just pushed")
    }

    /// Whether an error stands inside `block`: then what seems missing there may only be unreadable.
    pub(super) fn reported_in(&self, block: Span) -> bool {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).any(|problem| {
            problem.span.is_some_and(|span| {
                span.file == block.file && span.start >= block.start && span.end <= block.end
            })
        })
    }

    /// Whether there is an error.
    pub(super) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}
