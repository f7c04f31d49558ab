//! What was decided on a request, for the log.
//!
//! Owns: the log target `bearward::egress`. Lines are limited: whoever is refused can cause as many as it likes.

use super::Egress;
use crate::names::Name;
use crate::policy::egress::{Action, Ask, Target, decide};
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

impl Egress {
    /// Decides and tells the log.
    pub(super) fn decide(&self, ask: &Ask<'_>) -> Decision {
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
        decision
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
