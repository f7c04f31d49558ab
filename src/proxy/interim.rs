//! Interim answers (1xx) of an upstream on their way to a client (RFC 9110, 15.2).
//!
//! Owns: which of them pass, what of them passes, and how many. Clients over HTTP/1.0 know of none.

use std::cell::{Cell, RefCell};

use http::{HeaderMap, Response, StatusCode, header};

use super::headers;

/// The most that are passed on of one exchange.
const MOST: usize = 16;

/// Interim answers of one exchange.
#[derive(Debug, Default)]
pub(super) struct Interims {
    /// The client waits for a 100.
    expects: Cell<bool>,
    queue: RefCell<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    heads: Vec<Response<()>>,
    told: usize,
}

impl Interims {
    /// Another exchange begins.
    pub(super) fn reset(&self) {
        self.expects.set(false);
        self.queue.take();
    }

    /// The client waits for a 100.
    pub(super) fn expect(&self) {
        self.expects.set(true);
    }

    /// The upstream sent one.
    pub(super) fn add(&self, status: StatusCode, fields: &HeaderMap) {
        let passes = match status {
            StatusCode::CONTINUE => self.expects.get(),
            // A switch is an answer.
            StatusCode::SWITCHING_PROTOCOLS => false,
            status => status.is_informational(),
        };
        let mut queue = self.queue.borrow_mut();
        if !passes || queue.told >= MOST {
            return;
        }
        let mut head = Response::new(());
        *head.status_mut() = status;
        if status != StatusCode::CONTINUE {
            let Some(fields) = cleaned(fields) else { return };
            *head.headers_mut() = fields;
        }
        queue.told += 1;
        queue.heads.push(head);
    }

    /// Those that came since they were last taken.
    #[inline]
    pub(super) fn take(&self) -> Vec<Response<()>> {
        std::mem::take(&mut self.queue.borrow_mut().heads)
    }
}

/// Without what is meant for one hop, and without what no interim answer has.
fn cleaned(fields: &HeaderMap) -> Option<HeaderMap> {
    let mut remove = vec![header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    headers::judge_answer(fields, &mut remove).ok()?;
    let mut fields = fields.clone();
    for name in remove {
        fields.remove(name);
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_no_interim_answer_to_the_client_stays() {
        let check = |expects: bool, status: u16, passes: bool| {
            let interims = Interims::default();
            interims.expects.set(expects);
            interims.add(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new());
            let told: Vec<_> = interims.take().iter().map(|head| head.status().as_u16()).collect();
            assert_eq!(told, if passes { vec![status] } else { Vec::new() }, "{expects} {status}");
            assert!(interims.take().is_empty());
        };
        check(true, 100, true);
        check(false, 100, false);
        check(true, 101, false);
        check(false, 102, true);
        check(false, 103, true);
        check(false, 199, true);
        check(false, 200, false);
    }

    #[test]
    fn only_so_many_pass_and_nothing_of_one_hop() {
        let interims = Interims::default();
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("link", "</a>; rel=preload"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("content-length", "0"),
        ] {
            fields.append(name, HeaderValue::from_static(value));
        }
        for _ in 0..100 {
            interims.add(StatusCode::EARLY_HINTS, &fields);
        }
        let told = interims.take();
        assert_eq!(told.len(), MOST);
        let names: Vec<_> = told[0].headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["link"]);
        fields.insert("content-length", HeaderValue::from_static("x"));
        let interims = Interims::default();
        interims.add(StatusCode::EARLY_HINTS, &fields);
        assert!(interims.take().is_empty());
    }
}
