//! Who holds which token: families, refresh tokens, access tokens, and when each dies.
//!
//! A pure state machine: the time is handed in, nothing is awaited. Tokens are looked up by
//! fingerprint; the texts are kept only where the server must be able to say them again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::settings::{Behaviour, EXPIRY_SCOPE, EXPIRY_SCOPE_LIFETIME, GraceAnswer, Rotation};
use crate::clock::BootTime;
use crate::secret::{Fingerprint, Secret};

/// All tokens of one authorization server.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    families: BTreeMap<u64, Family>,
    refresh: HashMap<Fingerprint, RefreshEntry>,
    access: HashMap<Fingerprint, AccessEntry>,
    last_family: u64,
}

/// All tokens that descend from one authorization.
#[derive(Debug)]
struct Family {
    client: String,
    subject: String,
    scope: String,
    state: FamilyState,
    generation: u64,
}

/// Whether a family lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FamilyState {
    /// Its tokens are good.
    Alive,
    /// A spent refresh token came again.
    RevokedByReuse,
    /// Somebody revoked it.
    Revoked,
}

#[derive(Debug)]
struct RefreshEntry {
    family: u64,
    expires: BootTime,
    state: RefreshState,
    posts: u64,
    /// The access token that was issued beside it.
    sibling: Fingerprint,
}

#[derive(Debug)]
enum RefreshState {
    Current,
    Spent { at: BootTime, successor: Option<Box<Pair>> },
    Burnt,
}

#[derive(Debug, Clone)]
struct AccessEntry {
    family: u64,
    text: Secret,
    expires: BootTime,
    killed: bool,
}

/// What an answer hands out.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) family: u64,
    pub(super) generation: u64,
    pub(super) access_token: Secret,
    pub(super) lifetime: Duration,
    pub(super) refresh_token: Option<Secret>,
}

/// Why a refresh token is refused. Every one of them is `invalid_grant` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RefusedToken {
    /// Never issued here.
    #[error("The refresh token is unknown.")]
    Unknown,
    /// Issued to somebody else.
    #[error("The refresh token was issued to another client.")]
    OtherClient,
    /// Spent before, outside the grace: this revokes the family where the server is set so.
    #[error("The refresh token was used before.")]
    Reused,
    /// Its family was revoked earlier.
    #[error("The refresh token is revoked.")]
    FamilyRevoked,
    /// Too old, or its access token has expired and it dies with it.
    #[error("The refresh token has expired.")]
    Expired,
    /// Burnt by a request with a wrong secret.
    #[error("The refresh token is no longer valid.")]
    Burnt,
}

/// One family, as tests see it.
#[derive(Debug, Clone, Serialize)]
pub struct FamilyReport {
    /// Its number, from 1.
    pub id: u64,
    /// To whom it was issued.
    pub client: String,
    /// For whom.
    pub subject: String,
    /// Its scope.
    pub scope: String,
    /// Whether it lives.
    pub state: FamilyState,
    /// How many pairs it has issued.
    pub generation: u64,
    /// Its refresh tokens.
    pub refresh_tokens: Vec<RefreshTokenReport>,
}

impl FamilyReport {
    /// Whether its newest refresh token can still be spent.
    pub fn is_alive(&self) -> bool {
        self.state == FamilyState::Alive
    }

    /// The most often that one refresh token of it was sent.
    pub fn most_posts(&self) -> u64 {
        self.refresh_tokens.iter().map(|token| token.posts).max().unwrap_or(0)
    }
}

/// One refresh token, as tests see it.
#[derive(Debug, Clone, Serialize)]
pub struct RefreshTokenReport {
    /// SHA-256, eight hex digits.
    #[serde(serialize_with = "super::log::as_text")]
    pub fingerprint: Fingerprint,
    /// Whether it can be spent.
    pub current: bool,
    /// How many token requests named it.
    pub posts: u64,
}

impl Ledger {
    /// A new family with its first pair.
    pub(super) fn begin(
        &mut self,
        now: BootTime,
        behaviour: &Behaviour,
        (client, subject, scope): (&str, &str, &str),
        with_refresh_token: bool,
    ) -> Pair {
        self.last_family += 1;
        let family = Family {
            client: client.into(),
            subject: subject.into(),
            scope: scope.into(),
            state: FamilyState::Alive,
            generation: 0,
        };
        self.families.insert(self.last_family, family);
        self.issue(now, behaviour, self.last_family, with_refresh_token, None)
    }

    /// Counts a request that names this refresh token, whatever becomes of it.
    pub(super) fn count_post(&mut self, token: Fingerprint) {
        if let Some(entry) = self.refresh.get_mut(&token) {
            entry.posts += 1;
        }
    }

    /// Spends a refresh token (RFC 6749 6; RFC 9700 4.14.2 for the revocation on reuse).
    pub(super) fn refresh(
        &mut self,
        now: BootTime,
        behaviour: &Behaviour,
        client: &str,
        token: Fingerprint,
    ) -> Result<Pair, RefusedToken> {
        let entry = self.refresh.get(&token).ok_or(RefusedToken::Unknown)?;
        let id = entry.family;
        let family = self.families.get_mut(&id).ok_or(RefusedToken::Unknown)?;
        if family.client != client {
            return Err(RefusedToken::OtherClient);
        }
        if family.state != FamilyState::Alive {
            return Err(RefusedToken::FamilyRevoked);
        }
        match &entry.state {
            RefreshState::Burnt => return Err(RefusedToken::Burnt),
            RefreshState::Spent { at, successor } => {
                let within_grace = now.since(*at) < behaviour.grace;
                return match (within_grace, behaviour.grace_answer, successor) {
                    (false, _, _) => {
                        if behaviour.reuse_revokes_family {
                            family.state = FamilyState::RevokedByReuse;
                        }
                        Err(RefusedToken::Reused)
                    }
                    (true, GraceAnswer::SamePair, Some(pair)) => Ok((**pair).clone()),
                    (true, _, _) => Ok(self.issue(now, behaviour, id, true, None)),
                };
            }
            RefreshState::Current => {}
        }
        if self.has_expired(now, behaviour, entry) {
            return Err(RefusedToken::Expired);
        }
        Ok(self.rotate(now, behaviour, id, token))
    }

    fn has_expired(&self, now: BootTime, behaviour: &Behaviour, entry: &RefreshEntry) -> bool {
        let sibling_expired = || self.access.get(&entry.sibling).is_none_or(|access| access.expires <= now);
        entry.expires <= now || (behaviour.dies_with_access_token && sibling_expired())
    }

    fn rotate(&mut self, now: BootTime, behaviour: &Behaviour, family: u64, token: Fingerprint) -> Pair {
        let previous = self.refresh.get(&token).and_then(|entry| self.access.get(&entry.sibling)).cloned();
        if behaviour.refresh_kills_access_token {
            self.kill_access_tokens(Some(family));
        }
        let rotates = behaviour.rotation == Rotation::SingleUse;
        let repeated = previous.filter(|_| behaviour.same_access_token).map(|access| access.text);
        let pair = self.issue(now, behaviour, family, rotates, repeated);
        if let Some(entry) = self.refresh.get_mut(&token) {
            if rotates {
                entry.state = RefreshState::Spent { at: now, successor: Some(Box::new(pair.clone())) };
            } else {
                entry.sibling = pair.access_token.fingerprint();
            }
        }
        pair
    }

    fn issue(
        &mut self,
        now: BootTime,
        behaviour: &Behaviour,
        id: u64,
        with_refresh_token: bool,
        repeated: Option<Secret>,
    ) -> Pair {
        let family = self.families.get_mut(&id).expect("callers pass the id of a family that exists");
        family.generation += 1;
        let lifetime = lifetime_of(&family.scope, behaviour);
        let access_token = repeated.unwrap_or_else(|| random_token("at", behaviour.access_token_length));
        let sibling = access_token.fingerprint();
        let entry = AccessEntry {
            family: id,
            text: access_token.clone(),
            expires: now.plus(lifetime),
            killed: false,
        };
        self.access.insert(sibling, entry);
        let refresh_token = with_refresh_token.then(|| random_token("rt", 64));
        if let Some(token) = &refresh_token {
            let expires = now.plus(behaviour.refresh_token_lifetime);
            let entry = RefreshEntry { family: id, expires, state: RefreshState::Current, posts: 0, sibling };
            self.refresh.insert(token.fingerprint(), entry);
        }
        let generation = family.generation;
        Pair { family: id, generation, access_token, lifetime, refresh_token }
    }

    /// What was granted with a refresh token.
    pub(super) fn scope_of(&self, token: Fingerprint) -> Option<&str> {
        let entry = self.refresh.get(&token)?;
        self.families.get(&entry.family).map(|family| family.scope.as_str())
    }

    /// Marks a refresh token as burnt: a wrong secret came with it.
    pub(super) fn burn(&mut self, token: Fingerprint) {
        if let Some(entry) = self.refresh.get_mut(&token) {
            entry.state = RefreshState::Burnt;
        }
    }

    /// Whether an access token is good now: its family, if so, and the time left.
    pub(super) fn live_access_token(&self, now: BootTime, token: Fingerprint) -> Option<LiveToken<'_>> {
        let access = self.access.get(&token)?;
        let family = self.families.get(&access.family)?;
        let good = !access.killed && access.expires > now && family.state == FamilyState::Alive;
        good.then(|| LiveToken {
            client: &family.client,
            subject: &family.subject,
            scope: &family.scope,
            left: access.expires.since(now),
        })
    }

    /// Kills access tokens: of one family, or all. Refresh tokens stay good.
    pub(super) fn kill_access_tokens(&mut self, family: Option<u64>) {
        for access in self.access.values_mut() {
            if family.is_none_or(|id| id == access.family) {
                access.killed = true;
            }
        }
    }

    /// Revokes a family; false if there is none of that number.
    pub(super) fn revoke_family(&mut self, id: u64) -> bool {
        let family = self.families.get_mut(&id);
        family.map(|family| family.state = FamilyState::Revoked).is_some()
    }

    /// Revokes by token (RFC 7009 2.1): a refresh token takes its family along, an access token only itself.
    pub(super) fn revoke_token(&mut self, client: &str, token: Fingerprint) {
        let owner = |families: &BTreeMap<u64, Family>, id: u64| {
            families.get(&id).is_some_and(|family| family.client == client)
        };
        if let Some(id) = self.refresh.get(&token).map(|entry| entry.family) {
            if owner(&self.families, id) {
                self.revoke_family(id);
            }
        } else if let Some(access) = self.access.get_mut(&token)
            && owner(&self.families, access.family)
        {
            access.killed = true;
        }
    }

    /// Every family, oldest first.
    pub(super) fn families(&self) -> Vec<FamilyReport> {
        let mut tokens: BTreeMap<u64, Vec<RefreshTokenReport>> = BTreeMap::new();
        for (fingerprint, entry) in &self.refresh {
            let report = RefreshTokenReport {
                fingerprint: *fingerprint,
                current: matches!(entry.state, RefreshState::Current),
                posts: entry.posts,
            };
            tokens.entry(entry.family).or_default().push(report);
        }
        let report = |(id, family): (&u64, &Family)| FamilyReport {
            id: *id,
            client: family.client.clone(),
            subject: family.subject.clone(),
            scope: family.scope.clone(),
            state: family.state,
            generation: family.generation,
            refresh_tokens: tokens.remove(id).unwrap_or_default(),
        };
        self.families.iter().map(report).collect()
    }
}

/// A good access token.
#[derive(Debug)]
pub(super) struct LiveToken<'a> {
    pub(super) client: &'a str,
    pub(super) subject: &'a str,
    pub(super) scope: &'a str,
    pub(super) left: Duration,
}

/// Expiry follows the scope of the family's first request.
fn lifetime_of(scope: &str, behaviour: &Behaviour) -> Duration {
    if scope.split(' ').any(|word| word == EXPIRY_SCOPE) {
        EXPIRY_SCOPE_LIFETIME
    } else {
        behaviour.access_token_lifetime
    }
}

fn random_token(prefix: &str, length: usize) -> Secret {
    let mut bytes = vec![0; length.clamp(40, 16 * 1024)];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has randomness");
    let mut text = format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(&bytes));
    text.truncate(bytes.len());
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "client";

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(1000 + seconds))
    }

    fn begin(ledger: &mut Ledger, behaviour: &Behaviour, scope: &str) -> (Pair, Fingerprint) {
        let pair = ledger.begin(at(0), behaviour, (CLIENT, "user", scope), true);
        let token = pair.refresh_token.clone().expect("asked for").fingerprint();
        (pair, token)
    }

    fn spend(
        ledger: &mut Ledger,
        behaviour: &Behaviour,
        seconds: u64,
        token: Fingerprint,
    ) -> Result<Pair, RefusedToken> {
        ledger.refresh(at(seconds), behaviour, CLIENT, token)
    }

    fn fingerprint(pair: &Pair) -> Fingerprint {
        pair.refresh_token.as_ref().expect("a rotated pair").fingerprint()
    }

    #[test]
    fn a_spent_refresh_token_revokes_its_family_and_no_other() {
        let (mut ledger, behaviour) = (Ledger::default(), Behaviour::default());
        let (_, first) = begin(&mut ledger, &behaviour, "a");
        let (_, other) = begin(&mut ledger, &behaviour, "a");
        let second = spend(&mut ledger, &behaviour, 1, first).expect("current");
        assert!(ledger.live_access_token(at(1), second.access_token.fingerprint()).is_some());
        assert_eq!(spend(&mut ledger, &behaviour, 2, first).expect_err("spent"), RefusedToken::Reused);
        let newest = fingerprint(&second);
        assert_eq!(
            spend(&mut ledger, &behaviour, 3, newest).expect_err("revoked"),
            RefusedToken::FamilyRevoked
        );
        assert!(ledger.live_access_token(at(3), second.access_token.fingerprint()).is_none());
        assert!(spend(&mut ledger, &behaviour, 4, other).is_ok());
        let states: Vec<_> = ledger.families().iter().map(|family| family.state).collect();
        assert_eq!(states, [FamilyState::RevokedByReuse, FamilyState::Alive]);
    }

    #[test]
    fn inside_the_grace_a_spent_token_is_taken_once_more() {
        for (answer, same) in [(GraceAnswer::SamePair, true), (GraceAnswer::NewPair, false)] {
            let behaviour =
                Behaviour { grace: Duration::from_secs(30), grace_answer: answer, ..Behaviour::default() };
            let mut ledger = Ledger::default();
            let (_, first) = begin(&mut ledger, &behaviour, "a");
            let one = spend(&mut ledger, &behaviour, 10, first).expect("current");
            let two = spend(&mut ledger, &behaviour, 39, first).expect("inside the grace");
            assert_eq!(one.access_token == two.access_token, same);
            assert_eq!(one.refresh_token == two.refresh_token, same);
            let expected = RefusedToken::Reused;
            assert_eq!(spend(&mut ledger, &behaviour, 40, first).expect_err("outside"), expected);
        }
    }

    #[test]
    fn tokens_die_in_time() {
        let behaviour = Behaviour { dies_with_access_token: true, ..Behaviour::default() };
        let mut ledger = Ledger::default();
        let (pair, first) = begin(&mut ledger, &behaviour, "a");
        let access = pair.access_token.fingerprint();
        assert!(ledger.live_access_token(at(59), access).is_some());
        assert!(ledger.live_access_token(at(60), access).is_none());
        assert_eq!(spend(&mut ledger, &behaviour, 60, first).expect_err("died"), RefusedToken::Expired);
        let lasting = Behaviour::default();
        assert_eq!(spend(&mut ledger, &lasting, 604_800, first).expect_err("old"), RefusedToken::Expired);
        assert!(spend(&mut ledger, &lasting, 604_799, first).is_ok());
        let (year, _) = begin(&mut ledger, &lasting, "a urn:opc:resource:expiry");
        assert_eq!(year.lifetime, EXPIRY_SCOPE_LIFETIME);
    }

    #[test]
    fn servers_that_kill_repeat_or_never_rotate() {
        let mut ledger = Ledger::default();
        let kills = Behaviour { refresh_kills_access_token: true, ..Behaviour::default() };
        let (old, token) = begin(&mut ledger, &kills, "a");
        let new = spend(&mut ledger, &kills, 1, token).expect("current");
        assert!(ledger.live_access_token(at(1), old.access_token.fingerprint()).is_none());
        assert!(ledger.live_access_token(at(1), new.access_token.fingerprint()).is_some());

        let repeats = Behaviour { same_access_token: true, ..Behaviour::default() };
        let (old, token) = begin(&mut ledger, &repeats, "a");
        let new = spend(&mut ledger, &repeats, 30, token).expect("current");
        assert_eq!(old.access_token, new.access_token);
        assert!(ledger.live_access_token(at(89), new.access_token.fingerprint()).is_some());

        let reusable = Behaviour { rotation: Rotation::Reusable, ..Behaviour::default() };
        let (_, token) = begin(&mut ledger, &reusable, "a");
        for second in 1..4 {
            let pair = spend(&mut ledger, &reusable, second, token).expect("reusable");
            assert!(pair.refresh_token.is_none());
        }
    }

    #[test]
    fn a_revoked_refresh_token_takes_its_family_along_but_only_for_its_owner() {
        let (mut ledger, behaviour) = (Ledger::default(), Behaviour::default());
        let (pair, token) = begin(&mut ledger, &behaviour, "a");
        ledger.revoke_token("somebody else", token);
        assert!(ledger.live_access_token(at(1), pair.access_token.fingerprint()).is_some());
        ledger.revoke_token(CLIENT, token);
        assert!(ledger.live_access_token(at(1), pair.access_token.fingerprint()).is_none());
        assert_eq!(
            ledger.refresh(at(1), &behaviour, "somebody else", token).expect_err("not theirs"),
            RefusedToken::OtherClient
        );
    }
}
