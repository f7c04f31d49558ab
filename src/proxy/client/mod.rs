//! The client's side of an exchange: who it is, and where it stands.
//!
//! Owns: what is known of the exchange at hand, and where it stands. Over HTTP/1.1 one [`Client`] serves all exchanges of a
//! connection in turn; over HTTP/2 each stream has its own.

mod deadlines;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use http::{HeaderMap, Response};
use tokio::time::Instant;

pub use self::deadlines::Due;
use super::RequestBody;
use super::bound::Binding;
use super::egress::{Intercept, Tunnel, Verdict};
use super::interim::Interims;
use super::link::Link;
use super::throttle::Held;
use super::watch::Watch;
use crate::policy::clients::Caller;
use crate::telemetry::access::{Noted, Record};
use crate::upstream::Upgraded;

/// What a connection is joined with once HTTP has ended on it.
#[derive(Debug)]
pub enum Switched {
    /// An upstream connection that switched protocols too.
    Upgraded(Upgraded<RequestBody>),
    /// A way that CONNECT opened.
    Tunnel(Tunnel),
    /// The client is told that there is such a way, and meets this proxy on it.
    Intercept(Intercept),
}

/// One exchange at a time.
#[derive(Debug)]
pub struct Client {
    pub(in crate::proxy) link: Rc<Link>,
    /// For a stream: tells the connection of a nearer deadline.
    watch: Option<Rc<Watch>>,
    phase: Cell<Phase>,
    /// When the current request began to arrive.
    began: Cell<Instant>,
    deadline: Cell<Option<Instant>>,
    upstream_late: Cell<bool>,
    body_deadline: Cell<Option<Instant>>,
    body_late: Cell<bool>,
    /// Who polls the request body, where that is not the connection's task.
    body_waker: RefCell<Option<Waker>>,
    /// Who polls the stream.
    task: RefCell<Option<Waker>>,
    /// The stream is to end now.
    cut: Cell<bool>,
    /// Whether interim answers can be sent to it.
    takes_interims: Cell<bool>,
    /// Those on their way to it.
    interims: OnceCell<Rc<Interims>>,
    /// It was not asked for a body: nobody knows whether that comes.
    unasked: Cell<bool>,
    /// Upstream connections that it shares with nobody.
    pub(in crate::proxy) binding: Binding,
    /// The other side, once both have switched protocols.
    switched: RefCell<Option<Box<Switched>>>,
    /// Heads of requests that were served or refused here.
    heads: Cell<u32>,
    malformed: Cell<Option<Malformed>>,
    /// Who sends the current request, where the route asks.
    caller: RefCell<Option<Rc<Caller>>>,
    /// What is noted of the exchange, where a line of it is wanted.
    noted: RefCell<Option<Noted>>,
    /// What an egress listener decided on it, for that line.
    verdict: RefCell<Option<Box<Verdict>>>,
    /// Bytes of the bodies of the exchange.
    received: Cell<u64>,
    sent: Cell<u64>,
    /// Since when a body is waited for, and for how long that was so before.
    waits_since: Cell<Option<Instant>>,
    waited: Cell<Duration>,
    /// The body may come as slowly as it likes.
    unhurried: Cell<bool>,
    /// The request's places, where its client or the route has only so many.
    held: RefCell<Held>,
}

/// A way of writing a head that the parser does not mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A line that ends with a bare line feed.
    LineFeed,
    /// A target with a fragment.
    Fragment,
    /// More than one length or coding.
    Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// Some of a head is there.
    Head,
    /// A request is being served.
    Serving,
}

impl Client {
    /// A connection on which HTTP begins now.
    pub fn new(link: Rc<Link>) -> Self {
        let now = Instant::now();
        let deadline = Cell::new(Some(now + link.limits.header_timeout));
        Self { deadline, ..Self::at(now, link, None, Phase::Idle) }
    }

    /// A stream whose head is there.
    pub fn stream(link: Rc<Link>, watch: Rc<Watch>) -> Self {
        let stream = Self::at(Instant::now(), link, Some(watch), Phase::Head);
        stream.takes_interims.set(true);
        stream
    }

    fn at(now: Instant, link: Rc<Link>, watch: Option<Rc<Watch>>, phase: Phase) -> Self {
        Self {
            link,
            watch,
            phase: Cell::new(phase),
            began: Cell::new(now),
            deadline: Cell::new(None),
            upstream_late: Cell::new(false),
            body_deadline: Cell::new(None),
            body_late: Cell::new(false),
            body_waker: RefCell::new(None),
            task: RefCell::new(None),
            cut: Cell::new(false),
            takes_interims: Cell::new(false),
            interims: OnceCell::new(),
            unasked: Cell::new(false),
            binding: Binding::default(),
            switched: RefCell::new(None),
            heads: Cell::new(0),
            malformed: Cell::new(None),
            caller: RefCell::new(None),
            noted: RefCell::new(None),
            verdict: RefCell::new(None),
            received: Cell::new(0),
            sent: Cell::new(0),
            waits_since: Cell::new(None),
            waited: Cell::new(Duration::ZERO),
            unhurried: Cell::new(false),
            held: RefCell::default(),
        }
    }

    /// Who sent a request: the peer, or whom trusted proxies name. Asked of the fields as they came.
    pub fn address(&self, headers: &HeaderMap) -> Option<IpAddr> {
        self.link.forwarded.client_address(headers)
    }

    /// Its connection.
    pub fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// The client that sends the current request; `None` where nobody asked, or nobody knows. Good until the answer has
    /// left: the next request of the connection may come from another.
    pub fn caller(&self) -> Option<Rc<Caller>> {
        self.caller.borrow().clone()
    }

    /// It is known who sends the current request.
    pub(in crate::proxy) fn set_caller(&self, caller: Rc<Caller>) {
        self.record(|record| record.client_name(&caller.name));
        self.caller.replace(Some(caller));
    }

    /// Whether the client, or a trusted proxy before it, may use the scheme `https`.
    pub(in crate::proxy) fn may_say_https(&self) -> bool {
        self.link.secure || self.link.forwarded.peer_is_trusted()
    }

    /// The request that begins now is not to be served.
    #[cold]
    pub fn malformed(&self, malformed: Malformed) {
        self.malformed.set(Some(malformed));
    }

    /// What is wrong with the head of the request that begins now. To be asked once a request.
    #[inline]
    pub fn take_malformed(&self) -> Option<Malformed> {
        self.heads.set(self.heads.get().saturating_add(1));
        self.malformed.take()
    }

    /// Bytes came in.
    #[inline]
    pub fn bytes_arrived(&self) {
        if self.phase.get() == Phase::Idle {
            let now = Instant::now();
            self.phase.set(Phase::Head);
            self.began.set(now);
            self.deadline.set(Some(now + self.link.limits.header_timeout));
        }
    }

    /// The head of a request is whole; returns when it began to arrive.
    #[inline]
    pub(in crate::proxy) fn request_begun(&self) -> Instant {
        if self.phase.get() == Phase::Idle {
            // It lay in the buffer behind the one before.
            self.began.set(Instant::now());
        }
        self.phase.set(Phase::Serving);
        self.deadline.set(None);
        self.upstream_late.set(false);
        self.body_deadline.set(None);
        self.body_late.set(false);
        self.received.set(0);
        self.sent.set(0);
        self.waits_since.set(None);
        self.waited.set(Duration::ZERO);
        self.unhurried.set(false);
        if let Some(interims) = self.interims.get() {
            interims.reset();
        }
        self.began.get()
    }

    /// A line of this exchange is wanted.
    pub(in crate::proxy) fn keep_record(&self, noted: Noted) {
        self.noted.replace(Some(noted));
    }

    /// An egress listener has decided on the current request.
    pub(super) fn decided(&self, verdict: Verdict) {
        self.verdict.replace(Some(Box::new(verdict)));
    }

    /// What was decided on the current request. To be asked once a request.
    pub(super) fn take_verdict(&self) -> Option<Box<Verdict>> {
        self.verdict.take()
    }

    /// Adds to what is noted of the exchange.
    #[inline]
    pub(in crate::proxy) fn record(&self, note: impl FnOnce(&mut Record)) {
        if let Some(noted) = &mut *self.noted.borrow_mut() {
            noted.note(note);
        }
    }

    /// The exchange ended with this status: its line is written.
    #[inline]
    pub(in crate::proxy) fn end_record(&self, status: u16, now: Instant) {
        if let Some(mut noted) = self.noted.take() {
            let bytes = (self.received.get(), self.sent.get());
            noted.note(|record| record.answered(status, bytes, now));
        }
    }

    /// A piece of the answer was handed on.
    #[inline]
    pub(in crate::proxy) fn piece_sent(&self, length: usize) {
        self.sent.set(self.sent.get() + length as u64);
    }

    /// The answer has left.
    #[inline]
    pub(in crate::proxy) fn answered(&self, now: Instant) {
        self.phase.set(Phase::Idle);
        if self.held.borrow().iter().any(Option::is_some) {
            self.held.take();
        }
        self.deadline.set(Some(now + self.link.limits.idle_timeout));
        self.body_deadline.set(None);
        self.caller.take();
    }

    /// Holds places until the exchange ends.
    pub(in crate::proxy) fn hold(&self, held: Held) {
        self.held.replace(held);
    }

    /// Whether the client that sends the current request has limits of its own.
    #[inline]
    pub(in crate::proxy) fn is_limited(&self) -> bool {
        self.caller.borrow().as_ref().is_some_and(|caller| caller.allowance.is_some())
    }

    /// When the head that is being read began to arrive.
    pub(in crate::proxy) fn head_begun(&self) -> Instant {
        self.began.get()
    }

    /// The request that begins now came over HTTP/1.1. `knows`: its client may know interim answers.
    #[inline]
    pub fn over_http1(&self, knows: bool) {
        self.takes_interims.set(knows && self.link.limits.interim_responses);
    }

    /// Where interim answers go, if they can be sent.
    pub(in crate::proxy) fn interims(&self) -> Option<Rc<Interims>> {
        self.takes_interims.get().then(|| Rc::clone(self.interims.get_or_init(Rc::default)))
    }

    /// Interim answers that came since they were last taken.
    #[inline]
    pub fn take_interims(&self) -> Vec<Response<()>> {
        self.interims.get().map(|interims| interims.take()).unwrap_or_default()
    }

    /// The client is not asked for its body.
    pub(in crate::proxy) fn unasked(&self) {
        self.unasked.set(true);
    }

    /// Whether the connection has to end with this answer.
    pub(in crate::proxy) fn is_unasked(&self) -> bool {
        self.unasked.get()
    }

    /// Whether the first head of the connection is not whole: nothing was sent to it yet.
    pub fn is_in_first_head(&self) -> bool {
        self.heads.get() == 0 && self.phase.get() == Phase::Head
    }

    /// Who polls the stream.
    pub fn keep(&self, waker: &Waker) {
        let mut kept = self.task.borrow_mut();
        if kept.is_none() {
            *kept = Some(waker.clone());
        }
    }

    /// Whether the stream is to end now.
    #[inline]
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// After this answer the connection belongs to `other`.
    pub(in crate::proxy) fn switch_to(&self, other: Switched) {
        self.switched.replace(Some(Box::new(other)));
    }

    /// What this connection is to be joined with, if the last answer was a 101, or a 2xx to CONNECT.
    pub fn take_switched(&self) -> Option<Box<Switched>> {
        self.switched.take()
    }

    /// The exchange has become a tunnel, whose time is another's matter.
    pub fn joined(&self) {
        self.phase.set(Phase::Serving);
        self.deadline.set(None);
        self.body_deadline.set(None);
    }

    /// Whether no request is being read or served.
    pub fn is_idle(&self) -> bool {
        self.phase.get() == Phase::Idle
    }
}
