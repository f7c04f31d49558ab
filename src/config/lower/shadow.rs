//! Rules of an egress listener that are never reached.
//!
//! Warns only where it is certain: an earlier rule takes everything that the later one could.

use crate::config::blocks::egress::RuleBlock;
use crate::config::context::Cx;
use crate::config::read::At;
use crate::policy::egress::{Action, HostPattern, Rule, RuleMatch};

/// Warns of each rule that an earlier one stands before. `rules`: in the place of a rule that cannot be read, `None`.
pub(super) fn check(blocks: &[At<RuleBlock>], rules: &[Option<&Rule>], cx: &mut Cx<'_>) {
    for (place, later) in rules.iter().enumerate() {
        let Some(later) = later else { continue };
        let earlier =
            rules[..place].iter().position(|earlier| earlier.is_some_and(|rule| covers(rule, later)));
        if let Some(first) = earlier {
            let place_of =
                |at: usize| blocks[at].value.action.as_ref().map_or(blocks[at].span, |action| action.span);
            cx.warning(place_of(place), format!("the rule {} is never reached", place + 1))
                .also(place_of(first), format!("rule {} takes all of its requests", first + 1))
                .hint("the first rule that matches decides: put the narrower one before the wider one");
        }
    }
}

fn covers(earlier: &Rule, later: &Rule) -> bool {
    let (wide, narrow) = (&earlier.condition, &later.condition);
    forms(later).iter().all(|form| forms(earlier).contains(form))
        && hosts(wide, narrow)
        && (wide.ports.is_empty()
            || !narrow.ports.is_empty()
                && narrow
                    .ports
                    .iter()
                    .all(|(from, to)| wide.ports.iter().any(|(first, last)| first <= from && to <= last)))
        && subset(&wide.clients, &narrow.clients)
        && subset(&wide.methods, &narrow.methods)
        && (wide.path_prefix.is_none() || wide.path_prefix == narrow.path_prefix)
}

/// Which kinds of request its action is for: ways, plain requests, https in absolute-form, requests inside.
fn forms(rule: &Rule) -> &'static [u8] {
    let by_request = !rule.condition.methods.is_empty() || rule.condition.path_prefix.is_some();
    match rule.action {
        Action::Tunnel => b"c",
        Action::Intercept => b"ci",
        Action::Forward => b"r",
        Action::Upgrade => b"rs",
        Action::StubTokenEndpoint => b"rsi",
        Action::Deny if by_request => b"rsi",
        Action::Deny => b"crsi",
    }
}

/// Without an entry a list holds everything.
fn subset<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || !narrow.is_empty() && narrow.iter().all(|one| wide.contains(one))
}

fn hosts(wide: &RuleMatch, narrow: &RuleMatch) -> bool {
    let holds = |pattern: &HostPattern| wide.hosts.iter().any(|one| one.covers(pattern));
    let everything = |pattern: &HostPattern| pattern.to_string() == "**";
    wide.hosts.is_empty()
        || !narrow.hosts.is_empty() && narrow.hosts.iter().all(holds)
        || wide.hosts.iter().any(everything)
}
