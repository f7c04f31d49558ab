//! The cell: the one place where control plane and data plane meet.
//!
//! Owns: the published token and its wait-free reading. The control plane swaps a whole [`Published`]; a
//! worker reads it through a [`TokenReader`] of its own, which keeps a deep copy of the header value
//! for each generation, so that no reference count is shared between cores.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use http::HeaderValue;
use tokio::sync::watch;

use super::State;
use crate::clock::{BootTime, UnixTime};
use crate::names::Name;
use crate::secret::Secret;

/// An access token, ready to be sent.
#[derive(Debug, Clone)]
pub struct Token {
    header: HeaderValue,
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
        let text = access_token.expose();
        if text.is_empty() || !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err(UnfitToken);
        }
        let mut bytes = zeroize::Zeroizing::new(String::with_capacity(7 + text.len()));
        bytes.push_str("Bearer ");
        bytes.push_str(text);
        let mut header = HeaderValue::from_str(&bytes).map_err(|_| UnfitToken)?;
        header.set_sensitive(true);
        Ok(Self { header, hard_stop, generation, expires_at })
    }

    /// A copy that shares no memory with this one.
    fn deep_copy(&self) -> Self {
        let mut header =
            HeaderValue::from_bytes(self.header.as_bytes()).expect("it was a header value already");
        header.set_sensitive(true);
        Self { header, ..*self }
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
        })
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
        TokenReader { cache: Cache::new(Arc::clone(&self.current)), own: None, cell: Arc::clone(self) }
    }
}

/// One worker's way to the cell. Not shared between threads.
#[derive(Debug)]
pub struct TokenReader {
    cache: Cache<Arc<ArcSwap<View>>, Arc<View>>,
    own: Option<(u64, Token)>,
    cell: Arc<TokenCell>,
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

    /// The cell, for `reject`, `name` and waiting.
    pub fn cell(&self) -> &Arc<TokenCell> {
        &self.cell
    }
}
