//! Basic translation: a request with a user's password goes on with the user's own token.
//!
//! Owns: which user a request is of, and the users that this worker knows. A password that is not known waits, within
//! bounds, for the control plane; afterwards its token is read like any other.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::{Client, Identity, Refusal, Route};
use crate::credential::{BoundUsers, UserAsk, UserKey, UserRefused};
use crate::policy::clients::{Denied, Throttle, basic};
use crate::secret::Secret;

/// How long a request waits for a user's first token.
const WAIT: Duration = Duration::from_secs(30);
/// Users that a worker knows.
const CAPACITY: usize = 10_000;
/// How long an idle one is known.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// The users of one route in one worker.
#[derive(Debug)]
pub(super) struct Translation {
    users: BoundUsers,
    throttle: Arc<Throttle>,
    challenges: Arc<[HeaderValue]>,
    known: RefCell<HashMap<UserKey, Known>>,
    swept: Cell<Instant>,
}

/// A user: the route with its token.
#[derive(Debug)]
struct Known {
    route: Rc<Route>,
    used: Instant,
}

/// Whose request it is.
pub(super) struct Translated {
    pub(super) route: Rc<Route>,
    key: UserKey,
}

impl Translation {
    pub(super) fn new(users: BoundUsers, throttle: Arc<Throttle>) -> Self {
        let challenge = HeaderValue::from_static("Basic realm=\"bearward\", charset=\"UTF-8\"");
        let (challenges, known) = (Arc::new([challenge]), RefCell::default());
        Self { users, throttle, challenges, known, swept: Cell::new(Instant::now()) }
    }

    /// The route with the token of the user whose password the request brings.
    pub(super) async fn user(
        &self,
        identity: &Identity,
        route: &Route,
        client: &Client,
        headers: &HeaderMap,
    ) -> Result<Translated, Refusal> {
        let unknown = |wrong| {
            let challenges = Arc::clone(&self.challenges);
            Refusal::Denied(Denied::Unknown { challenges, proxy: false, wrong })
        };
        if !headers.contains_key(header::AUTHORIZATION) {
            return Err(unknown(false));
        }
        let pair = basic::pair_of(headers).ok_or_else(|| unknown(true))?;
        let key = self.users.key(0, pair);
        let (now, proven) = (identity.clock.boot(), &client.link.connection);
        let known = self.known(&key, identity);
        if let Some(route) = &known
            && proven.has_proven(&key)
        {
            return Ok(Translated { route: Rc::clone(route), key });
        }
        let (user, password) = basic::user_and_password(pair).ok_or_else(|| unknown(true))?;
        let address = client.address(headers);
        if let Some(retry_after) = self.throttle.wait(address, &user, now) {
            return Err(Refusal::Denied(Denied::Throttled { retry_after }));
        }
        if let Some(route) = known {
            proven.prove(key);
            return Ok(Translated { route, key });
        }
        let ask = UserAsk {
            key,
            name: self.users.key(1, &user),
            user: String::from_utf8(user.clone()).map_err(|_| unknown(true))?,
            password: Secret::from(std::str::from_utf8(&password).map_err(|_| unknown(true))?),
        };
        self.throttle.count(address, &user, now);
        let answer = tokio::time::timeout(WAIT, self.users.ask(ask)).await;
        let token = match answer.unwrap_or(Err(UserRefused::Unavailable)) {
            Ok(token) => token,
            Err(UserRefused::Wrong) => return Err(unknown(true)),
            Err(UserRefused::Guarded(retry_after)) => {
                return Err(Refusal::Denied(Denied::Throttled { retry_after }));
            }
            Err(UserRefused::Unavailable) => {
                self.throttle.clear(address, &user, now);
                return Err(Refusal::Denied(Denied::Busy));
            }
        };
        self.throttle.clear(address, &user, now);
        proven.prove(key);
        let route = Rc::new(route.of_user(token));
        self.remember(key, Rc::clone(&route));
        Ok(Translated { route, key })
    }

    /// The upstream's answer: a token that it refused is not sent again.
    pub(super) fn answered(&self, translated: &Translated, status: StatusCode) {
        if status == StatusCode::UNAUTHORIZED {
            self.known.borrow_mut().remove(&translated.key);
            if let Some(token) = &translated.route.token {
                token.borrow().reject_current();
            }
        }
    }

    fn known(&self, key: &UserKey, identity: &Identity) -> Option<Rc<Route>> {
        let mut all = self.known.borrow_mut();
        let known = all.get_mut(key)?;
        let usable = known
            .route
            .token
            .as_ref()
            .is_some_and(|token| token.borrow_mut().authorize(identity.clock.boot()).is_ok());
        if !usable {
            all.remove(key);
            return None;
        }
        known.used = Instant::now();
        Some(Rc::clone(&known.route))
    }

    fn remember(&self, key: UserKey, route: Rc<Route>) {
        let (mut all, now) = (self.known.borrow_mut(), Instant::now());
        if all.len() >= CAPACITY {
            all.clear();
        } else if now - self.swept.get() > IDLE / 10 {
            self.swept.set(now);
            all.retain(|_, known| now - known.used < IDLE);
        }
        all.insert(key, Known { route, used: now });
    }
}
