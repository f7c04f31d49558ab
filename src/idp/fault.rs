//! What can go wrong between a token request and its answer, on demand.
//!
//! A plan is a queue: each token request takes the next step of it. Faults of one step act together.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::seconds;

/// One thing that goes wrong. As JSON: `{"delay_before": 0.5}`, `"hang_before"`, `{"remove": "expires_in"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Waits before the request is processed.
    DelayBefore(#[serde(with = "seconds")] Duration),
    /// Waits after the request was processed, before it is answered.
    DelayAfter(#[serde(with = "seconds")] Duration),
    /// Never processes, never answers.
    HangBefore,
    /// Processes, never answers.
    HangAfter,
    /// Closes the connection; nothing was processed.
    DropBefore,
    /// Closes the connection; the request was processed and the answer is lost.
    DropAfter,
    /// Closes the connection after this many bytes of the answer, status line and headers included.
    CutAfter(usize),
    /// Gives this answer instead.
    Answer(FixedAnswer),
    /// Puts a field into a successful answer, or alters it.
    Set {
        /// Its name.
        field: String,
        /// Any JSON.
        value: Value,
    },
    /// Takes a field out of a successful answer.
    Remove(String),
    /// Encodes a successful answer as a form.
    FormEncoded,
    /// Labels the answer with this content type.
    ContentType(String),
    /// Begins the body with a byte order mark.
    ByteOrderMark,
    /// Compresses the body, whatever the client accepts.
    Gzip,
    /// Sends the body in small pieces.
    Drip {
        /// Bytes at a time.
        bytes: usize,
        /// Seconds between two pieces.
        #[serde(with = "seconds")]
        every: Duration,
    },
}

/// A fixed answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedAnswer {
    /// The status; 500 where it is no status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// Whether the request is processed first: tokens rotate, and nobody hears of it.
    pub processed: bool,
}

impl Fault {
    /// A fixed answer without processing.
    pub fn status(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self::Answer(FixedAnswer { status, headers, body: body.into(), processed: false })
    }

    /// A fixed answer after the tokens were rotated.
    pub fn status_after(status: u16, body: &str) -> Self {
        Self::Answer(FixedAnswer { status, headers: Vec::new(), body: body.into(), processed: true })
    }

    /// An OAuth error without processing.
    pub fn error(status: u16, error: &str) -> Self {
        let body = serde_json::json!({"error": error, "error_description": "on demand", "ecid": "fault"});
        Self::status(status, &[("content-type", "application/json")], &body.to_string())
    }

    /// Puts a field into the answer, or alters it.
    pub fn set(field: &str, value: impl Into<Value>) -> Self {
        Self::Set { field: field.into(), value: value.into() }
    }

    /// Takes a field out of the answer.
    pub fn remove(field: &str) -> Self {
        Self::Remove(field.into())
    }
}

/// The plan of faults of a running server. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

/// What a plan still holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// One step for each of the next token requests.
    pub next: VecDeque<Vec<Fault>>,
    /// What every token request gets, besides.
    pub always: Vec<Fault>,
}

impl Faults {
    /// The next token request that has no step yet gets this fault.
    pub fn push(&self, fault: Fault) {
        self.push_together([fault]);
    }

    /// The next token request that has no step yet gets all of these.
    pub fn push_together(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().next.push_back(faults.into_iter().collect());
    }

    /// The next `times` token requests that have no step yet get this fault each.
    pub fn repeat(&self, times: usize, fault: &Fault) {
        self.lock().next.extend(std::iter::repeat_n(vec![fault.clone()], times));
    }

    /// Every token request gets this fault, until [`Faults::clear`].
    pub fn always(&self, fault: Fault) {
        self.lock().always.push(fault);
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        *self.lock() = Plan::default();
    }

    /// What is still to come.
    pub fn plan(&self) -> Plan {
        self.lock().clone()
    }

    /// The faults of the request that has come now.
    pub(super) fn take(&self) -> Vec<Fault> {
        let mut plan = self.lock();
        let mut faults = plan.always.clone();
        faults.extend(plan.next.pop_front().unwrap_or_default());
        faults
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_taken_step_by_step() {
        let faults = Faults::default();
        faults.always(Fault::ByteOrderMark);
        faults.repeat(2, &Fault::HangBefore);
        faults.push_together([Fault::Gzip, Fault::remove("scope")]);
        assert_eq!(faults.take(), [Fault::ByteOrderMark, Fault::HangBefore]);
        assert_eq!(faults.take(), [Fault::ByteOrderMark, Fault::HangBefore]);
        assert_eq!(faults.take(), [Fault::ByteOrderMark, Fault::Gzip, Fault::remove("scope")]);
        assert_eq!(faults.take(), [Fault::ByteOrderMark]);
        faults.clear();
        assert!(faults.take().is_empty());
    }

    #[test]
    fn faults_are_written_as_plain_json() {
        let check = |json: &str, expected: Fault| {
            assert_eq!(serde_json::from_str::<Fault>(json).expect(json), expected);
        };
        check(r#"{"delay_before": 0.5}"#, Fault::DelayBefore(Duration::from_millis(500)));
        check(r#""hang_after""#, Fault::HangAfter);
        check(r#"{"cut_after": 7}"#, Fault::CutAfter(7));
        check(r#"{"set": {"field": "expires_in", "value": "60"}}"#, Fault::set("expires_in", "60"));
        check(
            r#"{"answer": {"status": 503, "headers": [["Retry-After", "7"]]}}"#,
            Fault::status(503, &[("Retry-After", "7")], ""),
        );
        assert!(serde_json::from_str::<Fault>(r#"{"explode": 1}"#).is_err());
    }
}
