//! The token endpoint: grants (RFC 6749, RFC 7523 2.1), revocation (RFC 7009), introspection (RFC 7662).

use std::time::Duration;

use http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use super::assertion::{UsedAssertions, Verifier};
use super::client::Presented;
use super::form::Form;
use super::ledger::{Ledger, Pair};
use super::log::{LogEntry, Outcome, RequestLog};
use super::refusal::Refusal;
use super::settings::{Behaviour, Client, ORACLE_ISSUER, User};
use crate::clock::{Clock, UnixTime};
use crate::secret::{Fingerprint, Secret};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// What a request to the vendor's endpoint is taken for.
pub(super) const VENDOR: &str = "x-vendor";

/// Everything that a request may change.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) clock: Clock,
    pub(super) clients: Vec<Client>,
    pub(super) users: Vec<User>,
    pub(super) behaviour: Behaviour,
    pub(super) ledger: Ledger,
    pub(super) log: RequestLog,
    pub(super) used: UsedAssertions,
    /// The server's own URLs and its issuer: what an assertion may be addressed to.
    pub(super) audiences: Vec<String>,
}

impl Authority {
    /// The server's idea of the wall clock.
    pub(super) fn wall(&self) -> UnixTime {
        let offset = Duration::from_secs(self.behaviour.skew_seconds.unsigned_abs());
        let wall = self.clock.wall();
        if self.behaviour.skew_seconds < 0 { wall.minus(offset) } else { wall.plus(offset) }
    }

    /// Notes that a token request has come; its number.
    pub(super) fn arrived(&mut self, headers: &HeaderMap, form: &Form) -> u64 {
        let presented = Presented::read(headers, form);
        let refresh_token = form.value("refresh_token").map(|token| Fingerprint::of(token.as_bytes()));
        if let Some(token) = refresh_token {
            self.ledger.count_post(token);
        }
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.log.add(LogEntry {
            number: 0,
            at: self.clock.wall(),
            grant: form.value("grant_type").unwrap_or_default().to_owned(),
            client: presented.id,
            client_auth: presented.method,
            refresh_token,
            outcome: Outcome::Pending,
            form: form.pairs().to_vec(),
            authorization: authorization.map(Secret::from),
        })
    }

    /// Processes a token request: the fields of the answer.
    pub(super) fn token(&mut self, headers: &HeaderMap, form: &Form) -> (Outcome, Result<Fields, Refusal>) {
        match self.grant(headers, form) {
            Ok((pair, scope)) => {
                let outcome = Outcome::Issued {
                    family: pair.family,
                    generation: pair.generation,
                    access_token: pair.access_token.fingerprint(),
                    refresh_token: pair.refresh_token.as_ref().map(Secret::fingerprint),
                };
                let mut fields = fields(&pair, scope);
                if form.value("grant_type") == Some(TOKEN_EXCHANGE) {
                    let kind = "urn:ietf:params:oauth:token-type:access_token";
                    fields.insert("issued_token_type".into(), kind.into());
                }
                (outcome, Ok(fields))
            }
            Err(refusal) => (refusal.outcome(), Err(refusal)),
        }
    }

    fn grant(&mut self, headers: &HeaderMap, form: &Form) -> Result<(Pair, Option<String>), Refusal> {
        form.refuse_repeated()?;
        let client = match self.authenticate(headers, form) {
            Ok(client) => client,
            Err(refusal) => {
                if refusal.is_invalid_client() && self.behaviour.wrong_secret_burns {
                    self.burn(form);
                }
                return Err(refusal);
            }
        };
        match form.required("grant_type")? {
            "refresh_token" => self.refresh(&client, form),
            "client_credentials" if client.public => {
                Err(Refusal::new("unauthorized_client", "A public client cannot use this grant."))
            }
            // RFC 6749 4.4.3: no refresh token.
            "client_credentials" => Ok((self.begin(&client, &client.id, form, false), None)),
            JWT_BEARER => {
                let subject = self.asserted_user(&client, form)?;
                Ok((self.begin(&client, &subject, form, true), None))
            }
            TOKEN_EXCHANGE => {
                let subject = exchanged_subject(&client, form)?;
                Ok((self.begin(&client, &subject, form, true), None))
            }
            VENDOR => Ok((self.begin(&client, &client.id, form, true), None)),
            "password" => {
                let subject = self.password_user(form)?;
                Ok((self.begin(&client, &subject, form, true), None))
            }
            _ => Err(Refusal::new("unsupported_grant_type", "The grant type is not supported.")),
        }
    }

    fn authenticate(&mut self, headers: &HeaderMap, form: &Form) -> Result<Client, Refusal> {
        let presented = Presented::read(headers, form);
        let now = self.wall().seconds();
        let mut verifier = verifier(&self.audiences, now, &self.behaviour, &mut self.used);
        presented.authenticate(&self.clients, form, &mut verifier).cloned()
    }

    /// Some servers spend the refresh token that comes with a wrong secret.
    fn burn(&mut self, form: &Form) {
        if let Some(token) = form.value("refresh_token") {
            self.ledger.burn(Fingerprint::of(token.as_bytes()));
        }
    }

    fn refresh(&mut self, client: &Client, form: &Form) -> Result<(Pair, Option<String>), Refusal> {
        let token = Fingerprint::of(form.required("refresh_token")?.as_bytes());
        let scope = form.value("scope").map(str::to_owned);
        if let (Some(asked), Some(granted)) = (&scope, self.ledger.scope_of(token)) {
            // RFC 6749 6: nothing that was not granted at first.
            if asked.split(' ').any(|word| granted.split(' ').all(|had| had != word)) {
                return Err(Refusal::new("invalid_scope", "The scope is wider than what was granted."));
            }
        }
        let pair = self.ledger.refresh(self.clock.boot(), &self.behaviour, &client.id, token)?;
        Ok((pair, scope))
    }

    fn begin(&mut self, client: &Client, subject: &str, form: &Form, refreshable: bool) -> Pair {
        let scope = form.value("scope").unwrap_or_default();
        let offline = scope.split(' ').any(|word| word == "offline_access");
        let with_refresh_token = refreshable && (offline || !self.behaviour.needs_offline_access);
        let whom = (client.id.as_str(), subject, scope);
        self.ledger.begin(self.clock.boot(), &self.behaviour, whom, with_refresh_token)
    }

    /// RFC 7523 3, the user assertion of OCI: signed by the client's key, `iss` the client, `sub` the user.
    fn asserted_user(&mut self, client: &Client, form: &Form) -> Result<String, Refusal> {
        let refused = |why: &str| Refusal::new("invalid_grant", why);
        let jwt = form.required("assertion")?;
        let now = self.wall().seconds();
        let mut verifier = verifier(&self.audiences, now, &self.behaviour, &mut self.used);
        let claims = verifier.verify(jwt, &client.keys).map_err(|why| refused(&why))?;
        if claims.text("iss") != Some(client.id.as_str()) {
            return Err(refused("The claim iss of the assertion is not the client."));
        }
        let subject = claims.text("sub").ok_or_else(|| refused("The assertion has no sub."))?;
        if self.users.iter().all(|user| user.name != subject) {
            return Err(refused("The user of the assertion is unknown."));
        }
        Ok(subject.to_owned())
    }

    fn password_user(&self, form: &Form) -> Result<String, Refusal> {
        let (name, password) = (form.required("username")?, Secret::from(form.required("password")?));
        let known = |user: &&User| user.name == name && user.password.as_ref() == Some(&password);
        let user = self.users.iter().find(known);
        let user = user.ok_or_else(|| Refusal::new("invalid_grant", "The name or password is wrong."))?;
        Ok(user.name.clone())
    }

    /// RFC 7009: unknown tokens are no error.
    pub(super) fn revoke(&mut self, headers: &HeaderMap, form: &Form) -> Result<(), Refusal> {
        let client = self.authenticate(headers, form)?;
        let token = Fingerprint::of(form.required("token")?.as_bytes());
        self.ledger.revoke_token(&client.id, token);
        Ok(())
    }

    /// RFC 7662 2.2.
    pub(super) fn introspect(&mut self, headers: &HeaderMap, form: &Form) -> Result<Value, Refusal> {
        self.authenticate(headers, form)?;
        let token = Fingerprint::of(form.required("token")?.as_bytes());
        let now = self.wall().seconds();
        Ok(match self.ledger.live_access_token(self.clock.boot(), token) {
            None => json!({"active": false}),
            Some(live) => json!({
                "active": true,
                "client_id": live.client,
                "sub": live.subject,
                "scope": live.scope,
                "token_type": "Bearer",
                "exp": now.saturating_add_unsigned(live.left.as_secs()),
            }),
        })
    }
}

/// RFC 8693 2.1, 2.2.2: a token that this server was told of, with its type; an actor's likewise.
fn exchanged_subject(client: &Client, form: &Form) -> Result<String, Refusal> {
    let known = |token: &str| client.foreign_tokens.iter().any(|known| known.expose() == token);
    let (token, kind) = (form.required("subject_token")?, form.required("subject_token_type")?);
    if !kind.starts_with("urn:ietf:params:oauth:token-type:") || !known(token) {
        return Err(Refusal::invalid_request("The subject token is not known."));
    }
    match (form.value("actor_token"), form.value("actor_token_type")) {
        (None, None) => {}
        (Some(actor), Some(_)) if known(actor) => {}
        _ => return Err(Refusal::invalid_request("The actor token is not known.")),
    }
    Ok(format!("{} by exchange", client.id))
}

/// The fields of a successful answer.
pub(super) type Fields = Map<String, Value>;

fn verifier<'a>(
    audiences: &[String],
    now: i64,
    behaviour: &Behaviour,
    used: &'a mut UsedAssertions,
) -> Verifier<'a> {
    let mut audiences = audiences.to_vec();
    audiences.push(ORACLE_ISSUER.into());
    Verifier { audiences, now, jti_required: behaviour.jti_required, used }
}

fn fields(pair: &Pair, scope: Option<String>) -> Fields {
    let mut fields = Map::new();
    fields.insert("access_token".into(), pair.access_token.expose().into());
    fields.insert("token_type".into(), "Bearer".into());
    // Whole seconds as every provider has them; a test's shorter lifetime with its fraction.
    let whole = pair.lifetime.subsec_nanos() == 0;
    let seconds = if whole { pair.lifetime.as_secs().into() } else { pair.lifetime.as_secs_f64().into() };
    fields.insert("expires_in".into(), seconds);
    if let Some(token) = &pair.refresh_token {
        fields.insert("refresh_token".into(), token.expose().into());
    }
    if let Some(scope) = scope {
        fields.insert("scope".into(), scope.into());
    }
    fields
}
