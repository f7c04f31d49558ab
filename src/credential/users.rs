//! Tokens of users: a legacy client's user and password, exchanged for a token of its own (basic translation).
//!
//! Owns: who is asked for, and how often. One exchange a user at a time; a password that was refused is not sent again
//! for a while, and after three refused ones of a user no further one is, so that nobody locks a user out through us.
//! Passwords live as long as their exchange, refresh tokens in memory alone. RFC 9700 (2.4) forbids the password grant:
//! this is for clients that can do nothing else.

mod ask;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use self::ask::Reply;
pub use self::ask::{BoundUsers, UserAsk, UserKey, UserRefused};
use super::{BindingError, CredentialConfig, Published, State, Token, TokenCell, binding, schedule};
use crate::clock::{BootTime, Clock};
use crate::oauth::{Failure, OAuthClient, SetupError, TokenRequest, TokenResponse};
use crate::origin::Origin;
use crate::secret::Secret;

/// Users at a time.
const MAX_USERS: usize = 10_000;
/// Exchanges at a time.
const MAX_FLIGHTS: usize = 16;
/// Requests that wait for one.
const MAX_WAITING: usize = 1024;
/// How long a refused password is not sent again.
const WRONG_LIFE: Duration = Duration::from_secs(600);
/// Refused passwords that are remembered.
const MAX_WRONG: usize = 20_000;
/// User names that are watched for refused passwords.
const MAX_GUARDS: usize = 50_000;
/// Refused passwords of a user that reach the provider within a window: providers lock after five or more.
const MAX_FAILURES: u8 = 3;
/// The window.
const GUARD_LIFE: Duration = Duration::from_secs(30 * 60);
/// How long a user without a usable token is kept, for its refresh token.
const IDLE_LIFE: Duration = Duration::from_secs(15 * 60);
/// After this long the password is asked for again, whatever the refresh token does.
const PROOF_LIFE: Duration = Duration::from_secs(12 * 3600);
/// How often idle users are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// A token that the upstream refused is replaced no sooner.
const REPLACE_AFTER: Duration = Duration::from_secs(60);

/// The users of one credential, on the control plane.
pub struct Users {
    config: CredentialConfig,
    bound: BoundUsers,
    asks: mpsc::Receiver<(UserAsk, Reply)>,
    client: Arc<OAuthClient>,
    clock: Clock,
    users: HashMap<UserKey, User>,
    wrong: HashMap<UserKey, BootTime>,
    guards: HashMap<UserKey, Guard>,
    queue: VecDeque<(UserAsk, Reply)>,
    waiting: usize,
}

struct User {
    cell: Arc<TokenCell>,
    refresh_token: Option<Secret>,
    generation: u64,
    obtained: BootTime,
    until: BootTime,
    /// When the password was good last.
    proven: BootTime,
}

#[derive(Default)]
struct Guard {
    failures: u8,
    since: Option<BootTime>,
    flying: bool,
    waiting: Vec<(UserAsk, Reply)>,
}

struct Landed {
    ask: UserAsk,
    reply: Reply,
    by_password: bool,
    began: BootTime,
    outcome: Result<TokenResponse, Failure>,
}

impl Users {
    /// Reads what the provider wants to see of us, blocking; asks nobody.
    pub fn try_new(config: CredentialConfig, clock: Clock) -> Result<Self, SetupError> {
        let (sender, asks) = mpsc::channel(MAX_WAITING);
        let random = aws_lc_rs::rand::SystemRandom::new();
        let key = aws_lc_rs::hmac::Key::generate(aws_lc_rs::hmac::HMAC_SHA256, &random);
        let digest_key = Arc::new(key.expect("the system has random numbers"));
        let bound = BoundUsers { name: config.name.clone(), asks: sender, digest_key, origins: Vec::new() };
        Ok(Self {
            client: Arc::new(OAuthClient::try_new(config.oauth.clone())?),
            config,
            bound,
            asks,
            clock,
            users: HashMap::new(),
            wrong: HashMap::new(),
            guards: HashMap::new(),
            queue: VecDeque::new(),
            waiting: 0,
        })
    }

    /// Binds the users' tokens to the origins of an upstream.
    pub fn bind<'o>(
        &self,
        origins: impl Iterator<Item = &'o Origin>,
        allow_plaintext: bool,
    ) -> Result<BoundUsers, BindingError> {
        let origins: Vec<Origin> = origins.cloned().collect();
        for origin in &origins {
            binding::check(&self.config.name, &self.config.allowed_upstreams, origin, allow_plaintext)?;
        }
        Ok(BoundUsers { origins, ..self.bound.clone() })
    }

    /// Serves for ever.
    pub async fn run(mut self) {
        let mut flights: FuturesUnordered<BoxFuture<'static, Landed>> = FuturesUnordered::new();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let again = tokio::select! {
                Some(asked) = self.asks.recv() => vec![asked],
                Some(landed) = flights.next() => self.landed(landed),
                _ = sweep.tick() => {
                    self.sweep();
                    Vec::new()
                }
            };
            for (ask, reply) in again {
                let flying = flights.len();
                flights.extend(self.judge(ask, reply, flying));
            }
            while flights.len() < MAX_FLIGHTS
                && let Some((ask, reply)) = self.queue.pop_front()
            {
                self.waiting -= 1;
                let flying = flights.len();
                flights.extend(self.judge(ask, reply, flying));
            }
        }
    }

    /// Answers at once, lets wait, or begins an exchange.
    fn judge(&mut self, ask: UserAsk, reply: Reply, flying: usize) -> Option<BoxFuture<'static, Landed>> {
        if reply.is_closed() {
            return None;
        }
        let now = self.clock.boot();
        let known = self.users.get(&ask.key);
        if let Some(user) = known
            && now < user.until
            && !user.is_refused(now)
        {
            let _ = reply.send(Ok(Arc::clone(&user.cell)));
            return None;
        }
        let (is_known, is_full) = (known.is_some(), self.users.len() >= MAX_USERS);
        let refused = |reply: Reply, refused| {
            let _ = reply.send(Err(refused));
            None
        };
        if self.wrong.get(&ask.key).is_some_and(|until| now < *until) {
            return refused(reply, UserRefused::Wrong);
        }
        let is_flood = self.guards.len() >= MAX_GUARDS && !self.guards.contains_key(&ask.name);
        if (is_full || is_flood) && !is_known {
            return refused(reply, UserRefused::Unavailable);
        }
        let guard = self.guards.entry(ask.name).or_default();
        if let Some(wait) = guard.wait(now)
            && !is_known
        {
            return refused(reply, UserRefused::Guarded(wait));
        }
        if (guard.flying || flying >= MAX_FLIGHTS) && self.waiting >= MAX_WAITING {
            return refused(reply, UserRefused::Unavailable);
        }
        if guard.flying {
            guard.waiting.push((ask, reply));
            self.waiting += 1;
            return None;
        }
        if flying >= MAX_FLIGHTS {
            self.queue.push_back((ask, reply));
            self.waiting += 1;
            return None;
        }
        guard.flying = true;
        Some(self.exchange(ask, reply, now))
    }

    fn exchange(&self, ask: UserAsk, reply: Reply, now: BootTime) -> BoxFuture<'static, Landed> {
        let known = self.users.get(&ask.key).filter(|user| now.since(user.proven) < PROOF_LIFE);
        let refresh_token = known.and_then(|user| user.refresh_token.clone());
        let (client, wall) = (Arc::clone(&self.client), self.clock.wall());
        Box::pin(async move {
            let request = match &refresh_token {
                Some(token) => TokenRequest::Refresh { token, single_use: true },
                None => TokenRequest::User { username: &ask.user, password: &ask.password },
            };
            let outcome = client.request(request, wall).await;
            Landed { ask, reply, by_password: refresh_token.is_none(), began: now, outcome }
        })
    }

    /// Takes what an exchange brought; returns who may be judged again.
    fn landed(&mut self, landed: Landed) -> Vec<(UserAsk, Reply)> {
        let Landed { ask, reply, by_password, began, outcome } = landed;
        let now = self.clock.boot();
        let guard = self.guards.entry(ask.name).or_default();
        guard.flying = false;
        let mut again = std::mem::take(&mut guard.waiting);
        self.waiting -= again.len();
        match outcome {
            Ok(response) => {
                if by_password {
                    guard.failures = 0;
                }
                let answer = self.obtained(&ask, by_password, began, response);
                let _ = reply.send(answer);
            }
            // Its refresh token is spent or refused: the password is asked for, which is at hand.
            Err(_) if !by_password => {
                if let Some(user) = self.users.get_mut(&ask.key) {
                    user.refresh_token = None;
                }
                again.insert(0, (ask, reply));
            }
            Err(failure) if is_wrong(&failure) => {
                guard.failed(now);
                if let Some(user) = self.users.remove(&ask.key) {
                    user.end();
                }
                if self.wrong.len() >= MAX_WRONG {
                    self.wrong.clear();
                }
                self.wrong.insert(ask.key, now.plus(WRONG_LIFE));
                let _ = reply.send(Err(UserRefused::Wrong));
            }
            Err(failure) => {
                tracing::warn!(credential = %self.config.name, error = %failure, "a user's password could not be exchanged");
                let _ = reply.send(Err(UserRefused::Unavailable));
            }
        }
        again
    }

    fn obtained(
        &mut self,
        ask: &UserAsk,
        by_password: bool,
        began: BootTime,
        response: TokenResponse,
    ) -> Result<Arc<TokenCell>, UserRefused> {
        let lifetime = response.expires_in.unwrap_or(self.config.default_lifetime);
        let until = began.plus(schedule::hard_after(lifetime));
        let known = self.users.remove(&ask.key);
        let generation = known.as_ref().map_or(1, |user| user.generation + 1);
        let expires_at = self.clock.wall().plus(lifetime);
        let life = (until, generation, expires_at);
        let made = Token::injected(&response.access_token, &self.config.injection, &response.headers, life);
        let Ok(token) = made else {
            return Err(UserRefused::Unavailable);
        };
        let (cell, kept, proven) = match known {
            Some(user) => (user.cell, user.refresh_token, user.proven),
            None => (TokenCell::new(self.config.name.clone()), None, began),
        };
        cell.publish(Published { state: State::Fresh, token: Some(token), retry_at: None });
        let user = User {
            cell: Arc::clone(&cell),
            refresh_token: response.refresh_token.or(kept),
            generation,
            obtained: began,
            until,
            proven: if by_password { began } else { proven },
        };
        self.users.insert(ask.key, user);
        Ok(cell)
    }

    /// Forgets who is idle and what is over.
    fn sweep(&mut self) {
        let now = self.clock.boot();
        self.users.retain(|_, user| now < user.until.plus(IDLE_LIFE));
        self.wrong.retain(|_, until| now < *until);
        self.guards.retain(|_, guard| guard.flying || guard.is_remembered(now));
    }
}

impl User {
    /// Whether the upstream refused its token, and it is not too soon for another.
    fn is_refused(&self, now: BootTime) -> bool {
        *self.cell.rejections().borrow() >= self.generation && now.since(self.obtained) >= REPLACE_AFTER
    }

    /// What workers hold of it is sent no more.
    fn end(self) {
        self.cell.publish(Published { state: State::Dead, token: None, retry_at: None });
    }
}

impl Guard {
    fn is_remembered(&self, now: BootTime) -> bool {
        self.since.is_some_and(|since| now.since(since) < GUARD_LIFE)
    }

    /// How long no password that is not known to be good is tried.
    fn wait(&self, now: BootTime) -> Option<Duration> {
        let since = self.since.filter(|_| self.failures >= MAX_FAILURES && self.is_remembered(now))?;
        Some(GUARD_LIFE.saturating_sub(now.since(since)))
    }

    fn failed(&mut self, now: BootTime) {
        if !self.is_remembered(now) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.since = Some(now);
    }
}

/// RFC 6749, 5.2: the provider says that the user, or the password, is not good.
fn is_wrong(failure: &Failure) -> bool {
    failure.error == "invalid_grant"
}
