//! The control API of the authorization server: `/_control/…`, JSON, for tests of the real binary and
//! for people who want to see what the proxy does about trouble.
//!
//! Answers loopback names only and refuses browsers: a web page must not be able to issue seeds.

use http::{HeaderMap, Method, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::Fault;
use super::server::{Body, full};
use super::{Idp, Shared};

/// `POST /_control/faults`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFaults {
    /// What goes wrong, together, with one token request.
    faults: Vec<Fault>,
    /// With how many of the next token requests; `always`: with every one.
    #[serde(default)]
    times: Times,
}

/// A number or `"always"`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Times {
    Number(usize),
    Word(String),
}

impl Default for Times {
    fn default() -> Self {
        Self::Number(1)
    }
}

/// `POST /_control/revoke`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Revocation {
    /// `{"family": 1}`.
    Family(u64),
    /// `"access_tokens"`: all of them; refresh tokens stay good.
    AccessTokens,
}

/// `POST /_control/seeds`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSeed {
    client: String,
    #[serde(default = "default_scope")]
    scope: String,
}

fn default_scope() -> String {
    super::DEFAULT_SCOPE.into()
}

/// A control request that cannot be carried out.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("no such thing here: {0}")]
    NotFound(String),
    #[error("{0}")]
    Bad(String),
    #[error("the control API does not take requests of browsers")]
    Forbidden,
}

impl From<serde_json::Error> for ControlError {
    fn from(error: serde_json::Error) -> Self {
        Self::Bad(error.to_string())
    }
}

/// Answers one request; `path` is what follows `/_control/`.
pub(super) fn respond(
    shared: &Shared,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Response<Body> {
    let (status, value) = match carry_out(shared, method, path, headers, body) {
        Ok(value) => (StatusCode::OK, value),
        Err(error) => {
            let status = match error {
                ControlError::NotFound(_) => StatusCode::NOT_FOUND,
                ControlError::Bad(_) => StatusCode::BAD_REQUEST,
                ControlError::Forbidden => StatusCode::FORBIDDEN,
            };
            (status, json!({"error": error.to_string()}))
        }
    };
    let text = serde_json::to_string_pretty(&value).unwrap_or_default() + "\n";
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(full(text)).expect("static headers are valid")
}

fn carry_out(
    shared: &Shared,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, ControlError> {
    if headers.contains_key(header::ORIGIN) || !names_loopback(headers) {
        return Err(ControlError::Forbidden);
    }
    Ok(match (method.as_str(), path) {
        ("GET", "") => directory(),
        ("GET", "log") => serde_json::to_value(shared.authority().log.entries())?,
        ("GET", "families") => serde_json::to_value(shared.authority().ledger.families())?,
        ("GET", "api") => serde_json::to_value(shared.api().clone())?,
        ("GET", "faults") => serde_json::to_value(shared.faults.plan())?,
        ("DELETE", "faults") => {
            shared.faults.clear();
            json!({})
        }
        ("POST", "faults") => {
            add_faults(shared, serde_json::from_slice(body)?)?;
            serde_json::to_value(shared.faults.plan())?
        }
        ("GET", "behaviour") => serde_json::to_value(&shared.authority().behaviour)?,
        ("PUT" | "PATCH" | "POST", "behaviour") => change_behaviour(shared, serde_json::from_slice(body)?)?,
        ("POST", "seeds") => {
            let seed: NewSeed = serde_json::from_slice(body)?;
            if shared.authority().clients.iter().all(|client| client.id != seed.client) {
                return Err(ControlError::Bad(format!("there is no client `{}`", seed.client)));
            }
            let token = shared.new_seed(&seed.client, &seed.scope);
            json!({"refresh_token": token.expose()})
        }
        ("POST", "revoke") => match serde_json::from_slice(body)? {
            Revocation::AccessTokens => {
                shared.authority().ledger.kill_access_tokens(None);
                json!({})
            }
            Revocation::Family(id) if shared.authority().ledger.revoke_family(id) => json!({}),
            Revocation::Family(id) => return Err(ControlError::Bad(format!("there is no family {id}"))),
        },
        _ => return Err(ControlError::NotFound(format!("{method} {}{path}", Idp::CONTROL_PREFIX))),
    })
}

/// What can be asked for.
fn directory() -> Value {
    json!({
        "GET log": "the token requests",
        "GET families": "the families of tokens: alive or revoked, how often each refresh token was sent",
        "GET api": "the requests to the API",
        "GET faults": "what is about to go wrong",
        "POST faults": {"faults": ["drop_after"], "times": 1},
        "DELETE faults": "nothing goes wrong any more",
        "GET behaviour": "how tokens are treated",
        "PATCH behaviour": {"access_token_lifetime": 30.0},
        "POST seeds": {"client": "the client's id"},
        "POST revoke": ["access_tokens", {"family": 1}],
    })
}

fn add_faults(shared: &Shared, new: NewFaults) -> Result<(), ControlError> {
    match new.times {
        Times::Number(times) if times <= 100_000 => {
            (0..times).for_each(|_| shared.faults.push_together(new.faults.clone()));
        }
        Times::Word(word) if word == "always" => new.faults.into_iter().for_each(|f| shared.faults.always(f)),
        Times::Number(_) | Times::Word(_) => {
            return Err(ControlError::Bad("`times` is a number up to 100000, or \"always\"".into()));
        }
    }
    Ok(())
}

/// Lays the given fields over what holds now.
fn change_behaviour(shared: &Shared, changes: Value) -> Result<Value, ControlError> {
    let Value::Object(changes) = changes else {
        return Err(ControlError::Bad("an object of fields to change is needed".into()));
    };
    let mut authority = shared.authority();
    let mut whole = serde_json::to_value(&authority.behaviour)?;
    if let Value::Object(fields) = &mut whole {
        fields.extend(changes);
    }
    authority.behaviour = serde_json::from_value(whole.clone())?;
    Ok(whole)
}

/// A Host that is an address or `localhost` cannot come from a rebound DNS name.
fn names_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}
