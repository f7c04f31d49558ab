//! The cell: the one place where control plane and data plane meet.
//!
//! Owns: the published token and its wait-free reading. The control plane swaps a whole [`Published`]; a
//! worker reads it through a [`TokenReader`] of its own, which keeps a deep copy of the header value
//! for each generation, so that no reference count is shared between cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use http::HeaderValue;
use tokio::sync::watch;

use super::State;
use super::injection::{self, Extras, Injection};
use super::proof::{Nonces, Prover};
use crate::clock::{BootTime, UnixTime};
use crate::names::Name;
use crate::secret::Secret;

/// An access token, ready to be sent.
#[derive(Debug, Clone)]
pub struct Token {
    header: HeaderValue,
    /// What is sent beside `Authorization`, or instead; for a plain bearer there is nothing.
    extras: Option<Box<Extras>>,
    /// After this it is never sent.
    pub hard_stop: BootTime,
    /// Which access token of this credential this is.
    pub generation: u64,
    /// When the provider says that it dies.
    pub expires_at: UnixTime,
}

/// The token cannot stand in a header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the access token holds a character that no header field may hold")]
pub struct UnfitToken;

impl Token {
    /// Makes `Bearer <token>` once, for all requests of this generation.
    pub fn try_new(
        access_token: &Secret,
        hard_stop: BootTime,
        generation: u64,
        expires_at: UnixTime,
    ) -> Result<Self, UnfitToken> {
        let (injection, nothing) = (Injection::default(), &[]);
        Self::injected(access_token, &injection, nothing, (hard_stop, generation, expires_at))
    }

    /// The same for any place of a request. `came_with_it`: header fields that the token's answer asks for. `life`:
    /// hard stop, generation, and when the provider says that it dies.
    pub fn injected(
        access_token: &Secret,
        injection: &Injection,
        came_with_it: &[(String, Secret)],
        (hard_stop, generation, expires_at): (BootTime, u64, UnixTime),
    ) -> Result<Self, UnfitToken> {
        let text = access_token.expose();
        if text.is_empty() || !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err(UnfitToken);
        }
        let authorization = injection.authorization.as_deref().unwrap_or(injection::TOKEN);
        let header = injection::sensitive(&injection::filled(authorization, text))?;
        let extras = Extras::of(injection, text, came_with_it)?;
        Ok(Self { header, extras, hard_stop, generation, expires_at })
    }

    /// The same, proved with each request.
    #[must_use]
    pub fn proved(mut self, prover: Prover) -> Self {
        let extras =
            self.extras.get_or_insert_with(|| Box::new(Extras { authorization: true, ..Extras::default() }));
        extras.prover = Some(prover);
        self
    }

    /// A copy that shares no memory with this one.
    fn deep_copy(&self) -> Self {
        let extras = self.extras.as_ref().map(|extras| Box::new(extras.deep_copy()));
        Self { header: injection::own(&self.header), extras, ..*self }
    }
}

/// What the control plane says of a credential.
#[derive(Debug, Clone)]
pub struct Published {
    /// For messages.
    pub state: State,
    /// The token to send, if there is one. Its hard stop still decides.
    pub token: Option<Token>,
    /// When a client may try again, where that can be told.
    pub retry_at: Option<BootTime>,
}

/// A publication with its number: a worker's copy is good for this number only. (An address would not
/// do: a freed one may come back.)
#[derive(Debug)]
struct View {
    sequence: u64,
    published: Arc<Published>,
}

/// The cell of one credential.
#[derive(Debug)]
pub struct TokenCell {
    name: Name,
    current: Arc<ArcSwap<View>>,
    changed: watch::Sender<u64>,
    rejected: watch::Sender<u64>,
    kept_by_others: AtomicBool,
}

impl TokenCell {
    /// An empty cell in state `starting`.
    pub fn new(name: Name) -> Arc<Self> {
        let nothing = Published { state: State::Starting, token: None, retry_at: None };
        Arc::new(Self {
            name,
            current: Arc::new(ArcSwap::from_pointee(View { sequence: 0, published: Arc::new(nothing) })),
            changed: watch::channel(0).0,
            rejected: watch::channel(0).0,
            kept_by_others: AtomicBool::new(false),
        })
    }

    /// Somebody else keeps the token fresh: after a refusal it is read again at once, and there is nothing else to wait for.
    pub(super) fn leave_to_others(&self) {
        self.kept_by_others.store(true, Relaxed);
    }

    /// How long a successor may take after a refusal.
    pub fn patience(&self) -> Duration {
        if self.kept_by_others.load(Relaxed) { Duration::from_millis(500) } else { Duration::from_secs(5) }
    }

    /// The credential's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Swaps in a new view and wakes whoever waits for a token.
    pub fn publish(&self, published: Published) {
        let published = Arc::new(published);
        self.changed.send_modify(|count| {
            *count += 1;
            self.current.store(Arc::new(View { sequence: *count, published: Arc::clone(&published) }));
        });
    }

    /// The view now, for the control plane.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.current.load().published)
    }

    /// Counts publications; waits for the next one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The data plane says that the upstream refused the token of this generation. Never awaited.
    pub fn reject(&self, generation: u64) {
        self.rejected.send_if_modified(|last| {
            let news = generation > *last;
            *last = generation.max(*last);
            news
        });
    }

    /// The highest generation that an upstream refused, for the refresher.
    pub fn rejections(&self) -> watch::Receiver<u64> {
        self.rejected.subscribe()
    }

    /// A reader for one worker.
    pub fn reader(self: &Arc<Self>) -> TokenReader {
        TokenReader {
            cache: Cache::new(Arc::clone(&self.current)),
            own: None,
            cell: Arc::clone(self),
            nonces: Nonces::of(1),
        }
    }
}

/// One worker's way to the cell. Not shared between threads.
#[derive(Debug)]
pub struct TokenReader {
    cache: Cache<Arc<ArcSwap<View>>, Arc<View>>,
    own: Option<(u64, Token)>,
    cell: Arc<TokenCell>,
    nonces: Arc<Nonces>,
}

/// No token may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable {
    /// The state to name in the answer.
    pub state: State,
    /// When to try again, where that can be told.
    pub retry_at: Option<BootTime>,
}

impl TokenReader {
    /// The token to send at `now`: one atomic load, one clone of a header value that only this worker uses.
    pub fn authorize(&mut self, now: BootTime) -> Result<(HeaderValue, u64), Unavailable> {
        let view = self.cache.load();
        match &self.own {
            Some((of, token)) if *of == view.sequence && now < token.hard_stop => {
                return Ok((token.header.clone(), token.generation));
            }
            _ => {}
        }
        let published = &view.published;
        match &published.token {
            Some(token) if now < token.hard_stop => {
                let own = token.deep_copy();
                let answer = (own.header.clone(), own.generation);
                self.own = Some((view.sequence, own));
                Ok(answer)
            }
            Some(_) => {
                let state = match published.state {
                    State::Fresh | State::Stale => State::Expired,
                    state => state,
                };
                Err(Unavailable { state, retry_at: published.retry_at })
            }
            None => Err(Unavailable { state: published.state, retry_at: published.retry_at }),
        }
    }

    /// The upstream refused the token that was sent last.
    pub fn reject_current(&self) {
        if let Some((_, token)) = &self.own {
            self.cell.reject(token.generation);
        }
    }

    /// What the token that [`TokenReader::authorize`] gave last asks for beside `Authorization`.
    pub fn extras(&self) -> Option<&Extras> {
        self.own.as_ref().and_then(|(_, token)| token.extras.as_deref())
    }

    /// The nonces of the origin that it reads for.
    pub fn nonces(&self) -> &Nonces {
        &self.nonces
    }

    /// The same reader, with the nonces that all readers for an origin share.
    pub(super) fn with_nonces(self, nonces: Arc<Nonces>) -> Self {
        Self { nonces, ..self }
    }

    /// The cell, for `reject`, `name` and waiting.
    pub fn cell(&self) -> &Arc<TokenCell> {
        &self.cell
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    fn token(text: &str, hard_stop: u64, generation: u64) -> Token {
        Token::try_new(&Secret::from(text), at(hard_stop), generation, UnixTime::from_millis(0)).expect(text)
    }

    fn cell() -> Arc<TokenCell> {
        TokenCell::new(Name::try_new("primavera").expect("a name"))
    }

    fn publish(cell: &TokenCell, state: State, token: Option<Token>) {
        cell.publish(Published { state, token, retry_at: Some(at(99)) });
    }

    #[test]
    fn case_71_what_no_header_may_hold_is_no_token() {
        let check = |text: &str, expected: bool| {
            let made = Token::try_new(&Secret::from(text), at(1), 1, UnixTime::from_millis(0));
            assert_eq!(made.is_ok(), expected, "{text:?}");
        };
        check("abc.DEF-_~+/=", true);
        check("", false);
        check("a b", false);
        check("a\r\nX-Evil: 1", false);
        check("a\tb", false);
        check("tökén", false);
        check("a\u{7f}", false);
    }

    #[test]
    fn case_63_the_header_is_sensitive_and_debug_shows_no_token() {
        let token = token("canary-4711", 10, 1);
        let cell = cell();
        publish(&cell, State::Fresh, Some(token.clone()));
        let mut reader = cell.reader();
        let (header, _) = reader.authorize(at(1)).expect("a token");
        assert!(header.is_sensitive());
        assert_eq!(header.as_bytes(), b"Bearer canary-4711");
        for shown in [format!("{token:?}"), format!("{cell:?}"), format!("{reader:?}"), format!("{header:?}")]
        {
            assert!(!shown.contains("4711"), "{shown}");
        }
    }

    #[test]
    fn nothing_is_sent_at_or_after_the_hard_stop() {
        let cell = cell();
        publish(&cell, State::Fresh, Some(token("one", 10, 1)));
        let mut reader = cell.reader();
        assert!(reader.authorize(at(9)).is_ok());
        let expired = Unavailable { state: State::Expired, retry_at: Some(at(99)) };
        assert_eq!(reader.authorize(at(10)), Err(expired), "a worker's own copy stops too");
        assert_eq!(cell.reader().authorize(at(11)), Err(expired));
        publish(&cell, State::Dead, Some(token("one", 10, 1)));
        assert_eq!(reader.authorize(at(11)).map_err(|none| none.state), Err(State::Dead));
    }

    #[test]
    fn a_reader_sees_each_publication_at_its_next_request() {
        let cell = cell();
        let mut reader = cell.reader();
        assert_eq!(reader.authorize(at(1)).map_err(|none| none.state), Err(State::Starting));
        for generation in 1..100 {
            publish(&cell, State::Fresh, Some(token(&format!("t{generation}"), 10, generation)));
            let (header, got) = reader.authorize(at(1)).expect("a token");
            assert_eq!((header.as_bytes(), got), (format!("Bearer t{generation}").as_bytes(), generation));
        }
        publish(&cell, State::AwaitingLogin, None);
        assert_eq!(reader.authorize(at(1)).map_err(|none| none.state), Err(State::AwaitingLogin));
    }

    #[test]
    fn each_reader_keeps_a_copy_of_its_own() {
        let cell = cell();
        publish(&cell, State::Fresh, Some(token("shared-by-nobody", 10, 1)));
        let (mut one, mut other) = (cell.reader(), cell.reader());
        let address = |reader: &mut TokenReader| {
            reader.authorize(at(1)).expect("a token").0.as_bytes().as_ptr() as usize
        };
        let first = address(&mut one);
        assert_eq!(first, address(&mut one), "one copy a generation");
        assert_ne!(first, address(&mut other), "no reference count is shared");
    }

    #[tokio::test]
    async fn rejections_only_grow_and_changes_wake() {
        let cell = cell();
        let mut rejections = cell.rejections();
        cell.reject(3);
        cell.reject(2);
        assert!(rejections.has_changed().expect("open"));
        assert_eq!(*rejections.borrow_and_update(), 3);
        cell.reject(3);
        assert!(!rejections.has_changed().expect("open"));
        let mut changes = cell.changes();
        publish(&cell, State::Fresh, None);
        changes.changed().await.expect("open");
        assert_eq!(*changes.borrow(), 1);
    }
}
