//! What was decided on a request, for the log.
//!
//! Owns: the log target `bearward::egress`, and what the access log says of it. Lines of the former are limited: whoever is
//! refused can cause as many as it likes.

use std::io;

use super::{Egress, Inside};
use crate::names::Name;
use crate::policy::egress::{Action, Ask, Rule, Target, decide};
use crate::proxy::Client;
use crate::route::path;
use crate::telemetry::access::Record;
use crate::telemetry::throttle::Throttle;

/// The log of one listener in one worker.
#[derive(Debug, Default)]
pub(super) struct DecisionLog(Throttle);

/// Which rule a request goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// This one.
    Rule(usize),
    /// This one denies it; `None`: no rule takes it.
    Denied(Option<usize>),
    /// It would be denied, but for `dry_run`.
    Spared,
}

const ALLOWED: &str = "allowed";

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rule(_) => ALLOWED,
            Self::Denied(_) => "denied",
            Self::Spared => "would_be_denied",
        }
    }
}

/// A decision as the line of its request tells it.
#[derive(Debug)]
pub(in crate::proxy) struct Verdict {
    target: Target,
    decision: &'static str,
    /// What the rule does; none where no rule decided.
    action: Option<Action>,
}

impl Verdict {
    /// Whether it is denied, or would be.
    pub(in crate::proxy) fn denies(&self) -> bool {
        self.decision != ALLOWED
    }

    /// Tells the line.
    pub(in crate::proxy) fn note(&self, record: &mut Record) {
        record.egress(&self.target, self.decision, self.action.map(Action::as_str), self.denies());
    }
}

/// Whether the rule of this index, which decides, decides as well for servers that read the path otherwise.
pub fn reads_alike<'r, R>(rules: &impl Fn() -> R, ask: &Ask<'_>, rule: usize) -> bool
where
    R: Iterator<Item = &'r Rule>,
{
    let Some(path) = ask.form.path() else { return true };
    let prefix = rules().nth(rule).and_then(|rule| rule.condition.path_prefix.as_deref());
    let decides = |read: &str| {
        let ask = Ask { form: ask.form.with_path(read), ..*ask };
        decide(rules(), &ask) == Some(rule)
    };
    prefix.is_some_and(path::is_odd) || path::is_read_alike(path, decides)
}

impl Egress {
    /// Decides and tells the logs.
    pub(super) fn decide(&self, client: &Client, ask: &Ask<'_>) -> Decision {
        // The last rule is not asked.
        let rules = self.rules.iter().take(self.rules.len() - 1);
        let found = decide(rules.map(|site| &site.config.rule), ask);
        let denies = |index: usize| self.rules[index].config.rule.action == Action::Deny;
        let decision = match found {
            Some(index) if !denies(index) => Decision::Rule(index),
            _ if self.dry_run || found.is_some_and(|index| self.rules[index].config.dry_run) => {
                Decision::Spared
            }
            found => Decision::Denied(found),
        };
        self.tell(ask.target, ask.client, found, decision);
        if self.notes {
            client.decided(Verdict {
                target: ask.target.clone(),
                decision: decision.as_str(),
                action: found.map(|index| self.rules[index].config.rule.action),
            });
        }
        decision
    }

    pub(super) fn reads_alike(&self, ask: &Ask<'_>, rule: usize) -> bool {
        let rules = self.rules.iter().take(self.rules.len() - 1);
        reads_alike(&|| rules.clone().map(|site| &site.config.rule), ask, rule)
    }

    /// A client broke off the handshake of an interception. Most often it does not trust the authority.
    pub fn tell_broken_off(&self, inside: &Inside, error: &io::Error) {
        let Some(suppressed) = self.log.0.admit() else { return };
        let (listener, authority) = (&self.listener, inside.authority());
        tracing::info!(
            target: "bearward::egress", %listener, authority, %error, suppressed,
            "a client broke off the handshake of an interception: does it trust the CA of `intercept`?"
        );
    }

    fn tell(&self, target: &Target, client: Option<&Name>, found: Option<usize>, decision: Decision) {
        let rule = found.map_or("none", |index| self.rules[index].name().as_str());
        let client = client.map_or("-", Name::as_str);
        let listener = &self.listener;
        if let Decision::Rule(index) = decision {
            let action = self.rules[index].config.rule.action.as_str();
            tracing::debug!(target: "bearward::egress", %listener, decision = "allowed", rule, action, authority = %target, client);
            return;
        }
        let Some(suppressed) = self.log.0.admit() else { return };
        let reason = if found.is_some() { "the rule denies it" } else { "no rule allows it" };
        match decision {
            Decision::Spared => {
                tracing::warn!(target: "bearward::egress", %listener, decision = "would_be_denied", rule, authority = %target, client, reason, suppressed);
            }
            _ => {
                tracing::info!(target: "bearward::egress", %listener, decision = "denied", rule, authority = %target, client, reason, suppressed);
            }
        }
    }
}
