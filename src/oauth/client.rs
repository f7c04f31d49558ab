//! The client of one provider as one credential sees it.
//!
//! Owns: the order of a request: endpoint, secrets, form, authentication, one exchange, one judgement. Never sends a
//! second request after a failed one.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use url::Url;

use super::answer::Body;
use super::bound::Bound;
use super::client_auth::ClientKeys;
use super::dpop::DpopKey;
use super::draft::{Draft, Facts};
use super::error::{Judge, Stake};
use super::http::{Exchange, HttpSettings, shown};
use super::jws::KeyCache;
use super::metadata::{Ask, Discovery, Metadata, check_endpoint};
use super::scrub::{Former, Scrubber};
use super::{
    ClientAuth, ClientIdParam, CustomResponse, EndpointSource, Failure, FailureClass, Grant, OAuthConfig,
    SetupError, TokenRequest, TokenResponse, client_auth, form, grant, token,
};
use crate::clock::UnixTime;
use crate::secret::SecretError;

/// A provider as one credential sees it: its settings, parsed keys, and metadata once discovered.
pub struct OAuthClient {
    pub(super) config: OAuthConfig,
    pub(super) http: HttpSettings,
    discovery: Discovery,
    pub(super) keys: ClientKeys,
    pub(super) user_key: KeyCache,
    former: Former,
    bound: Bound,
}

/// Everything that is needed to send, and to judge what comes back.
struct Prepared {
    client: reqwest::Client,
    exchange: Exchange,
    scrubber: Scrubber,
    endpoint: String,
    /// Where an answer that is not OAuth's has its token.
    response: Option<CustomResponse>,
}

impl OAuthClient {
    /// Builds the client; reads and checks keys, certificates and secrets, blocking. Asks nobody.
    pub fn try_new(config: OAuthConfig) -> Result<Self, SetupError> {
        let http = HttpSettings {
            tls: config.tls.clone(),
            proxy: config.outbound_proxy.clone(),
            // The connection's deadline comes first: only then is it known that nothing was written.
            connect_timeout: config.connect_timeout.min(config.request_timeout / 2),
            last_tls: Arc::default(),
        };
        let client = Self {
            http,
            discovery: Discovery::default(),
            keys: ClientKeys::default(),
            user_key: KeyCache::default(),
            former: Former::default(),
            bound: Bound::default(),
            config,
        };
        if !matches!(client.config.grant, Grant::Static { .. }) {
            client.check()?;
        }
        Ok(client)
    }

    fn check(&self) -> Result<(), SetupError> {
        let config = &self.config;
        if let Grant::Custom(custom) = &config.grant {
            custom.check(&config.client_auth)?;
        }
        let (name, url) = match &config.endpoint {
            EndpointSource::Url(url) => ("token_endpoint", url),
            EndpointSource::Issuer(url) => ("issuer", url),
            EndpointSource::None => {
                return Err(SetupError::Http(format!(
                    "grant `{}` needs `token_endpoint` or `issuer`",
                    config.grant.as_str()
                )));
            }
        };
        check_endpoint(url)
            .map_err(|reason| SetupError::Http(format!("{name} `{}`: {reason}", shown(url))))?;
        for (reserved, remedy) in form::RESERVED {
            if config.parameters.contains_key(*reserved) {
                return Err(SetupError::Http(format!(
                    "parameters: `{reserved}` is set by the proxy: {remedy} instead"
                )));
            }
        }
        let asks_for_client = !matches!(config.grant, Grant::Custom(_));
        if asks_for_client && config.client_id.is_empty() && !names_no_client(&config.client_auth) {
            return Err(SetupError::Http("client.id is missing".into()));
        }
        if self.http.tls.server_name.is_some() && self.http.proxy.is_some() {
            return Err(SetupError::Http(
                "tls.server_name cannot be used through an outbound_proxy: the proxy would be asked for that name".into(),
            ));
        }
        if self.http.tls.server_name.is_some() && matches!(config.endpoint, EndpointSource::Issuer(_)) {
            return Err(SetupError::Http(
                "tls.server_name is for one server: configure `token_endpoint` instead of `issuer`".into(),
            ));
        }
        if matches!(config.client_auth, ClientAuth::MutualTls { .. })
            && (self.http.tls.identity.is_none() || url.scheme() != "https")
        {
            return Err(SetupError::Http(format!(
                "client.auth `{}` needs a client certificate and an https endpoint to show it to",
                config.client_auth.as_str()
            )));
        }
        client_auth::check(&config.client_auth, &self.keys)?;
        config.grant.check(&self.user_key)?;
        self.http.client(Some(url)).map(|_| ())
    }

    /// What it was built from.
    pub fn config(&self) -> &OAuthConfig {
        &self.config
    }

    /// Where token requests go, asking for the metadata where an issuer is configured. Sends no secret.
    pub async fn discover(&self, now: UnixTime) -> Result<Url, Failure> {
        match &self.config.endpoint {
            EndpointSource::Url(url) => Ok(url.clone()),
            EndpointSource::Issuer(_) => Ok(self.metadata(now).await?.token_endpoint),
            EndpointSource::None => unreachable_endpoint().map(|(url, _)| url),
        }
    }

    /// Sends one token request, within [`OAuthConfig::request_timeout`] in all. `now` is the wall clock corrected by
    /// the provider's skew, for `iat` and `exp`. Everything that can fail before a byte is written (secrets, keys,
    /// discovery) fails as [`FailureClass::Clean`] or [`FailureClass::Configuration`].
    pub async fn request(&self, request: TokenRequest<'_>, now: UnixTime) -> Result<TokenResponse, Failure> {
        let stake = match (&self.config.grant, &request) {
            (Grant::Static { token }, TokenRequest::Own) => return grant::static_token::read(token).await,
            (
                Grant::Static { .. },
                TokenRequest::Refresh { .. }
                | TokenRequest::Code { .. }
                | TokenRequest::Device { .. }
                | TokenRequest::User { .. },
            )
            | (Grant::RefreshToken { .. } | Grant::Users, TokenRequest::Own) => {
                let message = format!("grant `{}` cannot send this request", self.config.grant.as_str());
                return Err(Failure::new(FailureClass::Configuration, "unsupported", message));
            }
            (_, TokenRequest::Refresh { single_use: true, .. }) => Stake::OneTimeToken,
            (_, TokenRequest::Refresh { single_use: false, .. }) => Stake::ReusableToken,
            (
                _,
                TokenRequest::Own
                | TokenRequest::Code { .. }
                | TokenRequest::Device { .. }
                | TokenRequest::User { .. },
            ) => Stake::OwnGrant,
        };
        let deadline = Instant::now() + self.config.request_timeout;
        let mut result = self.attempt(&request, stake, deadline, now).await;
        if result.as_ref().is_err_and(|failure| failure.error == "use_dpop_nonce") && self.bound.has_nonce() {
            // RFC 9449 8: the request was turned away before it was looked at. Once.
            result = Box::pin(self.attempt(&request, stake, deadline, now)).await;
        }
        if result.as_ref().is_err_and(|failure| failure.class != FailureClass::GrantDead) {
            self.discovery.suspect();
        }
        result
    }

    async fn attempt(
        &self,
        request: &TokenRequest<'_>,
        stake: Stake,
        deadline: Instant,
        now: UnixTime,
    ) -> Result<TokenResponse, Failure> {
        match timeout_at(deadline, self.prepare(request, deadline, now)).await {
            Ok(Ok(prepared)) => self.send(prepared, stake, deadline, now).await,
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                let message = format!(
                    "the token request could not be prepared within {:?} (secrets, discovery)",
                    self.config.request_timeout
                );
                Err(Failure::new(FailureClass::Clean, "timeout", message))
            }
        }
    }

    /// The key that tokens are bound to: without it no request is sent where `dpop` is configured.
    pub fn bind(&self, key: Arc<DpopKey>) {
        self.bound.bind(key);
    }

    async fn prepare(
        &self,
        request: &TokenRequest<'_>,
        deadline: Instant,
        now: UnixTime,
    ) -> Result<Prepared, Failure> {
        let config = &self.config;
        let client = self.http_client().await.map_err(|error| unprepared(&error))?;
        if let Some((custom, refresh_token)) = config.grant.custom_request(request) {
            let made = grant::custom::make(config, custom, &self.keys, refresh_token, now);
            let grant::custom::Made { exchange, mut scrubber, lasting, endpoint } =
                made.await.map_err(|error| unprepared(&error))?;
            self.former.join(&lasting, &mut scrubber);
            let response = Some(custom.response.clone());
            return Ok(Prepared { client, exchange, scrubber, endpoint, response });
        }
        let (url, issuer) = match &config.endpoint {
            EndpointSource::Url(url) => (url.clone(), None),
            EndpointSource::Issuer(issuer) => {
                let ask = Ask { http: &self.http, client: &client, preset: config.preset, deadline };
                let found = self.discovery.metadata(&ask, issuer, now).await?.reached_by(&self.http.tls);
                (found.token_endpoint, Some(found.issuer))
            }
            EndpointSource::None => unreachable_endpoint()?,
        };
        let audience = config.preset.assertion_audience(&url, issuer.as_deref());
        let facts = Facts { client_id: &config.client_id, audience: &audience, now };
        let mut draft = Draft::default();
        match request {
            TokenRequest::Refresh { token, .. } => grant::refresh(config, token, &mut draft),
            TokenRequest::Own => grant::own(config, &self.user_key, &facts, &mut draft)
                .await
                .map_err(|error| unprepared(&error))?,
            TokenRequest::Code { code, verifier, redirect_uri } => {
                grant::authorization_code(code, verifier, redirect_uri, &mut draft);
            }
            TokenRequest::User { username, password } => grant::user(config, username, password, &mut draft),
            TokenRequest::Device { device_code } => grant::device_code(device_code, &mut draft),
        }
        for (name, value) in &config.parameters {
            draft.form.set(name.clone(), value);
            // A short one (`true`, `v2`) is no secret, and a message without it would say nothing.
            if value.len() >= 8 {
                draft.scrubber.add(value);
            }
        }
        client_auth::apply(&config.client_auth, &self.keys, &facts, &mut draft)
            .await
            .map_err(|error| unprepared(&error))?;
        let Draft { form, authorization, mut scrubber, lasting } = draft;
        self.former.join(&lasting, &mut scrubber);
        let endpoint = shown(&url);
        let mut exchange = Exchange::post(url, form.encode(), authorization);
        if self.config.dpop {
            self.bound.prove(&mut exchange, now).map_err(|error| unprepared(&error))?;
        }
        Ok(Prepared { client, exchange, scrubber, endpoint, response: None })
    }

    /// The provider's metadata, where an issuer is configured.
    pub(super) async fn metadata(&self, now: UnixTime) -> Result<Metadata, Failure> {
        let EndpointSource::Issuer(issuer) = &self.config.endpoint else {
            return Err(unreachable_endpoint().expect_err("it is always an error"));
        };
        let client = self.http_client().await.map_err(|error| unprepared(&error))?;
        let deadline = Instant::now() + self.config.request_timeout;
        let ask = Ask { http: &self.http, client: &client, preset: self.config.preset, deadline };
        Ok(self.discovery.metadata(&ask, issuer, now).await?.reached_by(&self.http.tls))
    }

    /// Sends one authenticated form to another endpoint of the provider. An answer that is no success is a failure.
    pub(super) async fn post(
        &self,
        endpoint: &Url,
        mut draft: Draft,
        now: UnixTime,
    ) -> Result<Body, Failure> {
        check_endpoint(endpoint).map_err(|reason| unprepared(&SetupError::Http(reason)))?;
        let (token_endpoint, issuer) = match &self.config.endpoint {
            EndpointSource::Url(url) => (url.clone(), None),
            _ => self.metadata(now).await.map(|found| (found.token_endpoint, Some(found.issuer)))?,
        };
        let audience = self.config.preset.assertion_audience(&token_endpoint, issuer.as_deref());
        let facts = Facts { client_id: &self.config.client_id, audience: &audience, now };
        client_auth::apply(&self.config.client_auth, &self.keys, &facts, &mut draft)
            .await
            .map_err(|error| unprepared(&error))?;
        let Draft { form, authorization, mut scrubber, lasting } = draft;
        self.former.join(&lasting, &mut scrubber);
        let shown = shown(endpoint);
        let exchange = Exchange::post(endpoint.clone(), form.encode(), authorization);
        let client = self.http_client().await.map_err(|error| unprepared(&error))?;
        let deadline = Instant::now() + self.config.request_timeout;
        let mut answer = self.http.exchange(&client, exchange, deadline).await.map_err(|lost| {
            Failure::new(FailureClass::Transient, lost.error, format!("{shown}: {}", lost.reason))
        })?;
        let body = answer.read_body();
        let refused = match &body {
            Body::Fields(fields) => fields.error_code().is_some(),
            _ => false,
        };
        if answer.status.is_success() && !refused {
            return Ok(body);
        }
        let judge = Judge {
            stake: Stake::OwnGrant,
            preset: self.config.preset,
            grant: &self.config.grant,
            endpoint: &shown,
            scrubber: &scrubber,
            response: None,
            carried: &[],
            dpop: false,
            now,
        };
        Err(judge.refusal(&answer, &body))
    }

    async fn http_client(&self) -> Result<reqwest::Client, SetupError> {
        let (http, url) = (self.http.clone(), self.config.endpoint.url().cloned());
        #[allow(clippy::disallowed_methods, reason = "certificate files are read, joined at once")]
        let built = tokio::task::spawn_blocking(move || http.client(url.as_ref())).await;
        built.unwrap_or_else(|_| Err(SetupError::Http("the HTTP client could not be built".into())))
    }

    async fn send(
        &self,
        prepared: Prepared,
        stake: Stake,
        deadline: Instant,
        now: UnixTime,
    ) -> Result<TokenResponse, Failure> {
        let Prepared { client, exchange, scrubber, endpoint, response } = prepared;
        let judge = Judge {
            stake,
            preset: self.config.preset,
            grant: &self.config.grant,
            endpoint: &endpoint,
            scrubber: &scrubber,
            response: response.as_ref(),
            carried: &self.config.carried,
            dpop: self.config.dpop,
            now,
        };
        let answer = self.http.exchange(&client, exchange, deadline).await.map_err(|lost| {
            let class = if lost.written { stake.outcome_unknown() } else { FailureClass::Clean };
            let waited = match lost.error {
                "timeout" if lost.written => format!(" (within {:?})", self.config.request_timeout),
                _ => String::new(),
            };
            Failure::new(class, lost.error, format!("token request to {endpoint}: {}{waited}", lost.reason))
        })?;
        if self.config.dpop {
            self.bound.note(&answer.headers);
        }
        token::read(answer, &judge)
    }
}

impl std::fmt::Debug for OAuthClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OAuthClient").field("config", &self.config).finish_non_exhaustive()
    }
}

fn names_no_client(auth: &ClientAuth) -> bool {
    matches!(auth, ClientAuth::AssertionFile { client_id_param: ClientIdParam::Omit, .. })
}

fn unreachable_endpoint() -> Result<(Url, Option<String>), Failure> {
    let message = "neither `token_endpoint` nor `issuer` is configured".into();
    Err(Failure::new(FailureClass::Configuration, "unsupported", message))
}

/// A request that could not be made. A command may answer the next time; all else waits for somebody's change.
fn unprepared(error: &SetupError) -> Failure {
    let (class, word) = match error {
        SetupError::Secret(SecretError::Exec { .. }) => (FailureClass::Clean, "secret"),
        SetupError::Secret(_) => (FailureClass::Configuration, "secret"),
        SetupError::Key(_) => (FailureClass::Configuration, "key"),
        SetupError::Tls(_) => (FailureClass::Configuration, "tls"),
        SetupError::Http(_) => (FailureClass::Configuration, "unsupported"),
    };
    Failure::new(class, word, format!("the token request cannot be made: {error}"))
}
