//! Logging in: the authorization code flow with PKCE (RFC 6749 4.1, RFC 7636) and the device flow (RFC 8628); revocation
//! (RFC 7009).
//!
//! Owns: what a login sends and which answers it believes. Shows nothing to a person and writes no store.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use super::answer::Body;
use super::draft::Draft;
use super::error::{Failure, FailureClass};
use super::metadata::check_endpoint;
use super::scrub::Scrubber;
use super::{EndpointSource, OAuthClient, OAuthConfig, TokenRequest};
use crate::clock::UnixTime;
use crate::secret::Secret;

/// How often a device asks unless it is told (RFC 8628 3.2).
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The longest wait between two questions that is believed.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(120);

/// `login`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct LoginConfig {
    /// `authorization_endpoint`, if it is not discovered.
    pub authorization_endpoint: Option<Url>,
    /// `device_authorization_endpoint`, if it is not discovered.
    pub device_authorization_endpoint: Option<Url>,
    /// `revocation_endpoint`, if it is not discovered.
    pub revocation_endpoint: Option<Url>,
    /// `redirect_uri`, as it is registered; `None`: a free port of the loopback interface.
    pub redirect_uri: Option<Url>,
    /// Any of these in the scope brings a refresh token; the first is added where none is there.
    pub offline_scope: Vec<String>,
    /// `parameters` of the authorization request.
    pub parameters: BTreeMap<String, String>,
}

impl LoginConfig {
    /// The scope of a login: the configured one with what brings a refresh token.
    fn scope(&self, configured: Option<&str>) -> Option<String> {
        let scope = configured.unwrap_or_default();
        let has = |word: &String| scope.split_whitespace().any(|known| known == word);
        match self.offline_scope.first() {
            Some(first) if !self.offline_scope.iter().any(has) => {
                Some([scope, first].join(" ").trim().to_owned())
            }
            _ => configured.map(str::to_owned),
        }
    }
}

impl fmt::Debug for LoginConfig {
    /// Leaves out the parameters, as everywhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginConfig")
            .field("authorization_endpoint", &self.authorization_endpoint)
            .field("device_authorization_endpoint", &self.device_authorization_endpoint)
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}

/// Where a provider is asked for what is not a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Where a person logs in.
    pub authorization: Option<Url>,
    /// Where a device asks for a code.
    pub device: Option<Url>,
    /// Where tokens are revoked.
    pub revocation: Option<Url>,
    /// The issuer, where it is known.
    pub issuer: Option<String>,
    /// Whether authorization responses name it.
    pub names_issuer: bool,
}

/// One authorization request and what its answer is checked against.
pub struct Authorization {
    url: Url,
    state: Secret,
    verifier: Secret,
    redirect_uri: String,
    issuer: Option<String>,
    names_issuer: bool,
}

/// Why a redirect brought no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// It answers another request, or is forged: to be ignored.
    #[error("the redirect does not belong to this login: its `state` is another")]
    Foreign,
    /// Another provider answered (RFC 9207): a mix-up.
    #[error("the redirect names another issuer than the configured one: nothing was redeemed")]
    Issuer,
    /// The provider refused, or the person did.
    #[error("the provider answered {0}")]
    Refused(String),
    /// Neither a code nor an error.
    #[error("the redirect holds no `code`")]
    Empty,
}

/// What a device shows and asks with.
#[derive(Debug, Clone)]
pub struct DeviceAuthorization {
    /// Asks for the token.
    pub device_code: Secret,
    /// What a person types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// How long both are good.
    pub expires_in: Duration,
    /// How long to wait between two questions.
    pub interval: Duration,
}

/// What an answer to a device's question means.
#[derive(Debug)]
pub enum DeviceAnswer {
    /// Nobody has decided yet: ask again after this long.
    Wait(Duration),
    /// It is over.
    Failed(Failure),
}

impl Authorization {
    /// Makes a request whose answer goes to `redirect_uri`.
    pub fn begin(config: &OAuthConfig, endpoints: &Endpoints, redirect_uri: &str) -> Option<Self> {
        let (state, verifier) = (random(), random());
        let mut url = endpoints.authorization.clone()?;
        let own = config.login.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut parameters: BTreeMap<&str, &str> = own.collect();
        let scope = config.login.scope(config.scope.as_deref());
        if let Some(scope) = &scope {
            parameters.insert("scope", scope);
            let has = |word| scope.split_whitespace().any(|known| known == word);
            if has("openid") && has("offline_access") {
                // OpenID Connect Core 11: without consent the refresh token may be left out.
                parameters.entry("prompt").or_insert("consent");
            }
        }
        if let Some(audience) = &config.audience {
            parameters.entry("audience").or_insert(audience);
        }
        let challenge = challenge(&verifier);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code").append_pair("client_id", &config.client_id);
            query.append_pair("redirect_uri", redirect_uri).append_pair("state", state.expose());
            query.append_pair("code_challenge", &challenge).append_pair("code_challenge_method", "S256");
            for (name, value) in &parameters {
                query.append_pair(name, value);
            }
            for resource in &config.resource {
                query.append_pair("resource", resource);
            }
        }
        let redirect_uri = redirect_uri.to_owned();
        let (issuer, names_issuer) = (endpoints.issuer.clone(), endpoints.names_issuer);
        Some(Self { url, state, verifier, redirect_uri, issuer, names_issuer })
    }

    /// Where to send the person.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Reads the query of a redirect.
    pub fn code(&self, query: &str) -> Result<Secret, RedirectError> {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if fields.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(RedirectError::Foreign);
            }
        }
        let state = Secret::new(fields.remove("state").unwrap_or_default());
        if state != self.state {
            return Err(RedirectError::Foreign);
        }
        // RFC 9207 2.4: compared letter for letter; one that must be there and is not is a mix-up too.
        match (fields.get("iss"), &self.issuer) {
            (Some(named), Some(issuer)) if named != issuer => return Err(RedirectError::Issuer),
            (None, Some(_)) if self.names_issuer => return Err(RedirectError::Issuer),
            _ => {}
        }
        if let Some(error) = fields.get("error").filter(|error| !error.is_empty()) {
            let scrubber = Scrubber::default();
            let said = fields.get("error_description").and_then(|text| scrubber.description(text));
            let said = said.map(|text| [" (", &text, ")"].concat()).unwrap_or_default();
            return Err(RedirectError::Refused([&scrubber.code(error), said.as_str()].concat()));
        }
        match fields.remove("code").filter(|code| !code.is_empty()) {
            Some(code) => Ok(Secret::new(code)),
            None => Err(RedirectError::Empty),
        }
    }

    /// The token request that redeems `code`.
    pub fn redeem<'a>(&'a self, code: &'a Secret) -> TokenRequest<'a> {
        TokenRequest::Code { code, verifier: &self.verifier, redirect_uri: &self.redirect_uri }
    }
}

impl OAuthClient {
    /// Where the provider is asked: as configured, else as discovered.
    pub async fn endpoints(&self, now: UnixTime) -> Result<Endpoints, Failure> {
        let config = self.config();
        let found = match &config.endpoint {
            EndpointSource::Issuer(_) => Some(self.metadata(now).await?),
            EndpointSource::Url(_) | EndpointSource::None => None,
        };
        let pick = |own: &Option<Url>, found: Option<Url>| own.clone().or(found);
        let login = &config.login;
        let found = found.as_ref();
        Ok(Endpoints {
            authorization: pick(
                &login.authorization_endpoint,
                found.and_then(|found| found.authorization_endpoint.clone()),
            ),
            device: pick(
                &login.device_authorization_endpoint,
                found.and_then(|found| found.device_authorization_endpoint.clone()),
            ),
            revocation: pick(
                &login.revocation_endpoint,
                found.and_then(|found| found.revocation_endpoint.clone()),
            ),
            issuer: found.map(|found| found.issuer.clone()),
            names_issuer: found.is_some_and(|found| found.names_issuer),
        })
    }

    /// Asks for the codes of a device (RFC 8628 3.1).
    pub async fn authorize_device(
        &self,
        endpoint: &Url,
        now: UnixTime,
    ) -> Result<DeviceAuthorization, Failure> {
        let mut draft = Draft::default();
        super::grant::ask(self.config(), &mut draft);
        if let Some(scope) = self.config().login.scope(self.config().scope.as_deref()) {
            draft.form.set("scope", &scope);
        }
        let Body::Fields(mut fields) = self.post(endpoint, draft, now).await? else {
            return Err(unusable(endpoint, "its answer is no JSON object"));
        };
        let Some(device_code) = fields.take_secret("device_code") else {
            return Err(unusable(endpoint, "its answer has no device_code"));
        };
        // `verification_url` is what some wrote before the RFC.
        let uri = ["verification_uri", "verification_url"].iter().find_map(|name| fields.text(name));
        let (Some(user_code), Some(verification_uri)) = (fields.text("user_code"), uri) else {
            return Err(unusable(endpoint, "its answer has no user_code or verification_uri"));
        };
        let seconds =
            |name: &str| fields.number(name).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(DeviceAuthorization {
            user_code: printable(user_code),
            verification_uri: printable(verification_uri),
            verification_uri_complete: fields.text("verification_uri_complete").map(printable),
            expires_in: seconds("expires_in").unwrap_or(Duration::from_secs(600)),
            interval: seconds("interval")
                .unwrap_or(POLL_INTERVAL)
                .clamp(Duration::from_secs(1), MAX_POLL_INTERVAL),
            device_code,
        })
    }

    /// Revokes a token (RFC 7009 2.1). One that the provider does not know counts as revoked.
    pub async fn revoke(
        &self,
        endpoint: &Url,
        token: &Secret,
        hint: &'static str,
        now: UnixTime,
    ) -> Result<(), Failure> {
        let mut draft = Draft::default();
        draft.set_secret("token", token);
        draft.form.set("token_type_hint", hint);
        self.post(endpoint, draft, now).await.map(drop)
    }
}

/// What the failure of a device's token request means, asked every `interval` until now.
pub fn device_answer(failure: Failure, interval: Duration) -> DeviceAnswer {
    // RFC 8628 3.5.
    match failure.error.as_str() {
        "authorization_pending" => DeviceAnswer::Wait(interval),
        "slow_down" => DeviceAnswer::Wait((interval + Duration::from_secs(5)).min(MAX_POLL_INTERVAL)),
        _ if matches!(failure.class, FailureClass::Transient | FailureClass::Clean) => {
            DeviceAnswer::Wait((interval * 2).min(MAX_POLL_INTERVAL))
        }
        _ => DeviceAnswer::Failed(failure),
    }
}

/// Whether a URL may be asked: https, or this machine.
pub fn check_url(url: &Url) -> Result<(), String> {
    check_endpoint(url)
}

/// 256 random bits.
fn random() -> Secret {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).expect("the operating system has randomness");
    Secret::new(URL_SAFE_NO_PAD.encode(*bytes))
}

/// `S256` (RFC 7636 4.2).
fn challenge(verifier: &Secret) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

/// What a provider wants shown, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

fn unusable(endpoint: &Url, what: &str) -> Failure {
    let message = format!("{}: {what}", super::http::shown(endpoint));
    Failure::new(FailureClass::Configuration, "unusable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(issuer: Option<&str>, names_issuer: bool) -> Authorization {
        Authorization {
            url: Url::parse("https://idp.example/authorize").expect("url"),
            state: Secret::from("the-state"),
            verifier: Secret::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            redirect_uri: "http://127.0.0.1:1/callback".into(),
            issuer: issuer.map(str::to_owned),
            names_issuer,
        }
    }

    #[test]
    fn the_challenge_is_the_one_of_the_standard() {
        // RFC 7636, appendix B.
        let verifier = authorization(None, false).verifier;
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn only_the_answer_to_this_login_is_believed() {
        let check =
            |issuer: Option<&str>, names: bool, query: &str, expected: Result<&str, RedirectError>| {
                let got = authorization(issuer, names).code(query);
                assert_eq!(got.as_ref().map(Secret::expose).map_err(Clone::clone), expected, "{query}");
            };
        let known = Some("https://idp.example");
        check(None, false, "code=c&state=the-state", Ok("c"));
        check(known, true, "code=c&state=the-state&iss=https%3A%2F%2Fidp.example", Ok("c"));
        check(None, false, "code=c&state=the-state&iss=https://anything", Ok("c"));
        check(None, false, "code=c", Err(RedirectError::Foreign));
        check(None, false, "code=c&state=other", Err(RedirectError::Foreign));
        check(None, false, "code=c&state=the-state&code=d", Err(RedirectError::Foreign));
        check(known, false, "code=c&state=the-state&iss=https://evil.example", Err(RedirectError::Issuer));
        check(known, false, "code=c&state=the-state&iss=https://idp.example/", Err(RedirectError::Issuer));
        check(known, true, "code=c&state=the-state", Err(RedirectError::Issuer));
        check(None, false, "state=the-state", Err(RedirectError::Empty));
        let refused = "state=the-state&error=access_denied&error_description=The+user%1b[2J+said+no";
        let Err(RedirectError::Refused(text)) = authorization(None, false).code(refused) else {
            panic!("refused")
        };
        assert!(text.starts_with("access_denied (The user"), "{text}");
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
    }
}
