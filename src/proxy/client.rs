//! The client's side of an exchange: who it is, and how long everything may take.
//!
//! Owns: the deadlines of exchanges. They are plain cells; the connection's task holds the one timer that watches the
//! nearest of them, so that a request arms no timer of its own. Over HTTP/1.1 one [`Client`] serves all exchanges of a
//! connection in turn; over HTTP/2 each stream has its own.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::RequestBody;
use super::bound::Binding;
use super::egress::Tunnel;
use super::forward::Forwarded;
use crate::policy::clients::{Caller, Connection, UnixPeer};
use crate::policy::trusted::TrustedProxies;
use crate::upstream::Upgraded;

/// How long a client may take for the head of a request, from its first byte (or from accepting).
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long an exchange has to notice that its deadline passed.
const NOTICE: Duration = Duration::from_secs(1);
/// How long a kept connection may be idle.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Who is at the other end of a connection.
#[derive(Debug, Default)]
pub struct Peer {
    /// Its address; `None` for a Unix socket.
    pub address: Option<IpAddr>,
    /// The address that it dialled.
    pub local: Option<IpAddr>,
    /// Whether it speaks TLS.
    pub secure: bool,
    /// Whom the listener trusts, if this peer is one of them.
    pub trusted: Option<Rc<TrustedProxies>>,
    /// Its own certificate and those that came with it, verified against the listener's `client_ca`.
    pub chain: Option<Box<[CertificateDer<'static>]>>,
    /// Who holds the other end of a Unix socket.
    pub unix: Option<UnixPeer>,
}

/// What holds for a whole connection.
#[derive(Debug)]
pub struct Link {
    /// What it says of its client.
    pub(super) connection: Connection,
    /// The address that the client dialled.
    pub local_ip: Option<IpAddr>,
    /// Whether it speaks TLS.
    pub(super) secure: bool,
    pub(super) forwarded: Forwarded,
}

/// What a connection is joined with once HTTP has ended on it.
#[derive(Debug)]
pub enum Switched {
    /// An upstream connection that switched protocols too.
    Upgraded(Upgraded<RequestBody>),
    /// A way that CONNECT opened.
    Tunnel(Tunnel),
}

/// One exchange at a time.
#[derive(Debug)]
pub struct Client {
    pub(super) link: Rc<Link>,
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
    /// Upstream connections that it shares with nobody.
    pub(super) binding: Binding,
    /// The other side, once both have switched protocols.
    switched: RefCell<Option<Box<Switched>>>,
    /// Heads of requests that were served or refused here.
    heads: Cell<u32>,
    malformed: RefCell<Vec<(u32, Malformed)>>,
    /// Who sends the current request, where the route asks.
    caller: RefCell<Option<Rc<Caller>>>,
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

/// What to do when the nearest deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Close the connection.
    Close,
    /// Poll the connection again: the exchange looks at its deadlines.
    Poll,
}

/// The nearest deadline of the streams of a connection, and who sleeps until then.
#[derive(Debug, Default)]
pub struct Watch {
    nearest: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
}

impl Link {
    /// A connection of `peer`.
    pub fn new(peer: Peer) -> Self {
        Self {
            local_ip: peer.local,
            secure: peer.secure,
            forwarded: Forwarded::new(&peer),
            connection: Connection::new(peer.chain, peer.unix),
        }
    }
}

impl Watch {
    /// When to look at the streams again.
    pub fn nearest(&self) -> Option<Instant> {
        self.nearest.get()
    }

    /// The streams were looked at.
    pub fn set(&self, nearest: Option<Instant>) {
        self.nearest.set(nearest);
    }

    /// Who sleeps.
    pub fn keep(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if kept.is_none() {
            *kept = Some(waker.clone());
        }
    }

    fn note(&self, deadline: Instant) {
        if self.nearest.get().is_none_or(|nearest| deadline < nearest) {
            self.nearest.set(Some(deadline));
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl Client {
    /// A connection on which HTTP begins now.
    pub fn new(link: Rc<Link>) -> Self {
        let now = Instant::now();
        Self { deadline: Cell::new(Some(now + HEAD_LIMIT)), ..Self::at(now, link, None, Phase::Idle) }
    }

    /// A stream whose head is there.
    pub fn stream(link: Rc<Link>, watch: Rc<Watch>) -> Self {
        Self::at(Instant::now(), link, Some(watch), Phase::Head)
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
            binding: Binding::default(),
            switched: RefCell::new(None),
            heads: Cell::new(0),
            malformed: RefCell::new(Vec::new()),
            caller: RefCell::new(None),
        }
    }

    /// A deadline was set: the connection must not sleep beyond it.
    #[inline]
    fn note(&self, deadline: Option<Instant>) {
        if let (Some(watch), Some(deadline)) = (&self.watch, deadline) {
            watch.note(deadline);
        }
    }

    /// Who sent a request: the peer, or whom trusted proxies name. Asked of the fields as they came.
    pub fn address(&self, headers: &HeaderMap) -> Option<IpAddr> {
        self.link.forwarded.client_address(headers)
    }

    /// The client that sends the current request; `None` where nobody asked, or nobody knows. Good until the answer has
    /// left: the next request of the connection may come from another.
    pub fn caller(&self) -> Option<Rc<Caller>> {
        self.caller.borrow().clone()
    }

    /// It is known who sends the current request.
    pub(super) fn set_caller(&self, caller: Rc<Caller>) {
        self.caller.replace(Some(caller));
    }

    /// Whether the client, or a trusted proxy before it, may use the scheme `https`.
    pub(super) fn may_say_https(&self) -> bool {
        self.link.secure || self.link.forwarded.peer_is_trusted()
    }

    /// The head of this number, counted from 1, is not to be served. It may be one ahead of the request being served.
    #[cold]
    pub fn malformed(&self, number: u32, malformed: Malformed) {
        self.malformed.borrow_mut().push((number, malformed));
    }

    /// What is wrong with the head of the request that begins now. To be asked once a request.
    #[inline]
    pub fn take_malformed(&self) -> Option<Malformed> {
        let number = self.heads.get().wrapping_add(1);
        self.heads.set(number);
        if self.malformed.borrow().is_empty() { None } else { self.malformed_at(number) }
    }

    #[cold]
    fn malformed_at(&self, number: u32) -> Option<Malformed> {
        let mut all = self.malformed.borrow_mut();
        let at = all.iter().position(|(of, _)| *of == number)?;
        Some(all.remove(at).1)
    }

    /// Bytes came in.
    #[inline]
    pub fn bytes_arrived(&self) {
        if self.phase.get() == Phase::Idle {
            let now = Instant::now();
            self.phase.set(Phase::Head);
            self.began.set(now);
            self.deadline.set(Some(now + HEAD_LIMIT));
        }
    }

    /// The head of a request is whole; returns when it began to arrive.
    #[inline]
    pub(super) fn request_begun(&self) -> Instant {
        if self.phase.get() == Phase::Idle {
            // It lay in the buffer behind the one before.
            self.began.set(Instant::now());
        }
        self.phase.set(Phase::Serving);
        self.deadline.set(None);
        self.upstream_late.set(false);
        self.body_deadline.set(None);
        self.body_late.set(false);
        self.began.get()
    }

    /// The answer has left.
    #[inline]
    pub(super) fn answered(&self, now: Instant) {
        self.phase.set(Phase::Idle);
        self.deadline.set(Some(now + IDLE_LIMIT));
        self.body_deadline.set(None);
        self.caller.take();
    }

    /// The upstream has until `deadline`; `None`: it is not its turn.
    #[inline]
    pub(super) fn await_upstream(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
        self.upstream_late.set(false);
        self.note(deadline);
    }

    /// The upstream has `limit` from now on, unless its time runs already.
    pub(super) fn await_upstream_unless_set(&self, limit: Duration) {
        if self.deadline.get().is_none() {
            let deadline = Some(Instant::now() + limit);
            self.deadline.set(deadline);
            self.note(deadline);
        }
    }

    /// The client has to make room for an answer.
    pub fn await_room(&self) {
        self.await_upstream_unless_set(IDLE_LIMIT);
    }

    /// The client has made room.
    pub fn room_made(&self) {
        self.await_upstream(Some(Instant::now() + IDLE_LIMIT));
    }

    /// Whether the upstream let its deadline pass.
    #[inline]
    pub fn upstream_is_late(&self) -> bool {
        self.upstream_late.get()
    }

    /// The client owes the next piece of its body.
    pub(super) fn await_body(&self, limit: Duration, waker: &Waker) {
        if self.body_deadline.get().is_none() {
            let deadline = Some(Instant::now() + limit);
            self.body_deadline.set(deadline);
            self.note(deadline);
        }
        self.body_waker.replace(Some(waker.clone()));
    }

    /// A piece of the body came.
    #[inline]
    pub(super) fn body_arrived(&self) {
        self.body_deadline.set(None);
    }

    /// Whether the client let the deadline of its body pass.
    #[inline]
    pub(super) fn body_is_late(&self) -> bool {
        self.body_late.get()
    }

    /// The nearest deadline.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.deadline.get(), self.body_deadline.get()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// [`Client::next_deadline`] has passed at `now`.
    pub fn deadline_passed(&self, now: Instant) -> Due {
        if self.phase.get() != Phase::Serving {
            return Due::Close;
        }
        if self.deadline.get().is_some_and(|deadline| deadline <= now) {
            if self.upstream_late.replace(true) {
                // Nobody looked: the answer waits for a client that does not read.
                return Due::Close;
            }
            self.deadline.set(Some(now + NOTICE));
        }
        if self.body_deadline.get().is_some_and(|deadline| deadline <= now) {
            self.body_deadline.set(None);
            self.body_late.set(true);
            if let Some(waker) = self.body_waker.take() {
                waker.wake();
            }
        }
        Due::Poll
    }

    /// Who polls the stream.
    pub fn keep(&self, waker: &Waker) {
        let mut kept = self.task.borrow_mut();
        if kept.is_none() {
            *kept = Some(waker.clone());
        }
    }

    /// Looks at the deadlines of a stream at `now`; its task acts on what is found. Returns the next deadline.
    pub fn look(&self, now: Instant) -> Option<Instant> {
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            if self.deadline_passed(now) == Due::Close {
                self.cut.set(true);
                self.deadline.set(None);
                self.body_deadline.set(None);
            }
            if let Some(task) = &*self.task.borrow() {
                task.wake_by_ref();
            }
        }
        self.next_deadline()
    }

    /// Whether the stream is to end now.
    #[inline]
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// After this answer the connection belongs to `other`.
    pub(super) fn switch_to(&self, other: Switched) {
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
