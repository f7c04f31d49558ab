//! The record of token requests: what came, how it ended, how often each refresh token was sent.
//!
//! Secrets are kept as [`Secret`], so that a test in the same process can compare them; `Debug` and the
//! control API show fingerprints.

use std::collections::VecDeque;

use serde::Serialize;

use super::ledger::RefusedToken;
use crate::clock::UnixTime;
use crate::secret::{Fingerprint, Secret};

/// How many requests are kept; older ones are forgotten, the counts are not.
const KEPT: usize = 20_000;

/// One token request.
#[derive(Debug, Clone, Serialize)]
pub struct LogEntry {
    /// From 1, in the order of arrival.
    pub number: u64,
    /// When its body was read.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: UnixTime,
    /// `grant_type`; empty where none came.
    pub grant: String,
    /// The client that it says it is.
    pub client: Option<String>,
    /// How it authenticates.
    pub client_auth: AuthMethod,
    /// The refresh token that it spends.
    #[serde(serialize_with = "as_optional_text")]
    pub refresh_token: Option<Fingerprint>,
    /// How it ended.
    pub outcome: Outcome,
    /// The form as it came, decoded; a parameter that came twice is here twice.
    #[serde(skip)]
    pub form: Vec<(String, Secret)>,
    /// The Authorization header as it came.
    #[serde(skip)]
    pub authorization: Option<Secret>,
}

impl LogEntry {
    /// The first value of a form parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(key, _)| key == name).map(|(_, value)| value.expose())
    }
}

/// How a client authenticates (names of RFC 7591 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// `client_id` alone, or nothing.
    None,
    /// Authorization: Basic.
    ClientSecretBasic,
    /// `client_secret`.
    ClientSecretPost,
    /// An assertion signed with the secret.
    ClientSecretJwt,
    /// An assertion signed with a key.
    PrivateKeyJwt,
    /// More than one at once: refused (RFC 6749 2.3).
    Several,
}

/// How a token request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not yet: delayed, hanging, or the client went away first.
    Pending,
    /// Tokens were issued (whether or not a fault let the answer through).
    Issued {
        /// The family.
        family: u64,
        /// Its pairs so far.
        generation: u64,
        /// The access token.
        #[serde(serialize_with = "as_text")]
        access_token: Fingerprint,
        /// The new refresh token.
        #[serde(serialize_with = "as_optional_text")]
        refresh_token: Option<Fingerprint>,
    },
    /// The refresh token was refused: `invalid_grant`.
    RefusedToken(RefusedToken),
    /// Refused for another reason: the OAuth `error`.
    Refused(&'static str),
    /// A fault ended it before it was processed.
    NotProcessed,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct RequestLog {
    entries: VecDeque<LogEntry>,
    arrived: u64,
}

impl RequestLog {
    /// Adds a request and says its number.
    pub(super) fn add(&mut self, mut entry: LogEntry) -> u64 {
        self.arrived += 1;
        entry.number = self.arrived;
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.arrived
    }

    /// Says how a request ended.
    pub(super) fn end(&mut self, number: u64, outcome: Outcome) {
        if let Some(entry) = self.entries.iter_mut().rev().find(|entry| entry.number == number) {
            entry.outcome = outcome;
        }
    }

    /// The last one that came.
    pub(super) fn latest(&self) -> Option<&LogEntry> {
        self.entries.back()
    }

    /// Those that are kept, oldest first.
    pub(super) fn entries(&self) -> Vec<LogEntry> {
        self.entries.iter().cloned().collect()
    }
}

pub(super) fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_optional_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn as_rfc3339<S: serde::Serializer>(at: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.rfc3339())
}
