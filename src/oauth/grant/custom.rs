//! `grant: custom`: token endpoints that are not OAuth's.
//!
//! Owns: the request that templates make and where its answer has the token. Everything after that, deadlines,
//! failures, lifetimes, is as with any other grant.

use http::Method;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;

use super::super::client_auth::{self, ClientKeys};
use super::super::draft::{Draft, Facts};
use super::super::http::{Exchange, Payload, shown};
use super::super::metadata::check_endpoint;
use super::super::scrub::Scrubber;
use super::super::template::{JsonTemplate, Template, Values, Variable};
use super::super::{ClientAuth, OAuthConfig, SetupError};
use crate::clock::UnixTime;
use crate::secret::{Secret, SecretSource};

/// RFC 3986 2.3: what needs no encoding anywhere in a URL.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `custom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custom {
    /// `method`.
    pub method: Method,
    /// `url`: scheme and host are plain text.
    pub url: Template,
    /// `headers`.
    pub headers: Vec<(HeaderName, Template)>,
    /// `form` or `json`.
    pub body: CustomBody,
    /// `response`.
    pub response: CustomResponse,
    /// `client.secret`, for `{client_secret}` and `{basic}`.
    pub client_secret: Option<SecretSource>,
    /// `username`.
    pub username: Option<String>,
    /// `password`.
    pub password: Option<SecretSource>,
    /// `subject_token`.
    pub subject_token: Option<SecretSource>,
    /// `refresh_token`: the seed, where the request itself spends refresh tokens.
    pub seed: Option<SecretSource>,
}

/// What the request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomBody {
    /// Nothing.
    None,
    /// Form parameters in their order.
    Form(Vec<(String, Template)>),
    /// JSON.
    Json(JsonTemplate),
}

/// Where the answer has what is needed: JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomResponse {
    /// `access_token`.
    pub access_token: String,
    /// `expires_in`: seconds.
    pub expires_in: String,
    /// `refresh_token`; without it none is taken.
    pub refresh_token: Option<String>,
    /// `headers`: an object of header fields that requests with the token must carry.
    pub headers: Option<String>,
}

impl CustomResponse {
    /// Each place under the name that OAuth has for it.
    pub(in super::super) fn places(&self) -> Vec<(&'static str, &str)> {
        let places = [
            ("access_token", Some(self.access_token.as_str())),
            ("expires_in", Some(self.expires_in.as_str())),
            ("refresh_token", self.refresh_token.as_deref()),
            ("headers", self.headers.as_deref()),
        ];
        places.into_iter().filter_map(|(name, place)| Some((name, place?))).collect()
    }
}

impl Custom {
    /// Whether the request itself spends a refresh token; else it stands for itself, and a refresh token that its
    /// answer brings is spent by the refresh_token grant.
    pub fn refreshes(&self) -> bool {
        self.uses(Variable::RefreshToken)
    }

    /// Whether a variable stands anywhere in the request.
    pub fn uses(&self, variable: Variable) -> bool {
        self.variables().contains(&variable)
    }

    /// Every variable of the request.
    pub fn variables(&self) -> Vec<Variable> {
        let mut all: Vec<Variable> = self.url.variables().collect();
        all.extend(self.headers.iter().flat_map(|(_, value)| value.variables()));
        match &self.body {
            CustomBody::None => {}
            CustomBody::Form(fields) => all.extend(fields.iter().flat_map(|(_, value)| value.variables())),
            CustomBody::Json(json) => all.extend(json.variables()),
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether `client.auth` is added. A template that says by itself who asks is left as it is.
    pub fn adds_client_auth(&self, auth: &ClientAuth) -> bool {
        let speaks_for_itself = self.uses(Variable::ClientSecret)
            || self.uses(Variable::Basic)
            || self.headers.iter().any(|(name, _)| *name == AUTHORIZATION);
        !speaks_for_itself && *auth != ClientAuth::None
    }

    /// The URL without its variables: the endpoint's name in records and messages.
    pub fn endpoint(&self) -> Option<Url> {
        let mut url = Url::parse(&self.url.expand(&Values::new(), str::to_owned)).ok()?;
        url.set_query(None);
        Some(url)
    }

    /// What the request is made from, as it is written: another text asks for another token.
    pub fn source(&self) -> Value {
        let pairs = |pairs: Vec<(String, String)>| {
            Value::from_iter(
                pairs
                    .into_iter()
                    .map(|(n, v)| [n, v].map(Value::from))
                    .map(|pair| Value::from(pair.to_vec())),
            )
        };
        let headers = self.headers.iter().map(|(name, value)| (name.to_string(), value.source())).collect();
        let body = match &self.body {
            CustomBody::None => Value::Null,
            CustomBody::Form(fields) => {
                pairs(fields.iter().map(|(name, value)| (name.clone(), value.source())).collect())
            }
            CustomBody::Json(json) => json.source(),
        };
        serde_json::json!([self.method.as_str(), self.url.source(), pairs(headers), body])
    }

    /// What can be checked without a request.
    pub(in super::super) fn check(&self, auth: &ClientAuth) -> Result<(), SetupError> {
        let refused = |reason: String| Err(SetupError::Http(reason));
        // Whatever variables are replaced by, scheme and host are those of the text.
        let origin = Url::parse(self.url.begin()).ok().filter(|url| url.has_host());
        let authority = self.url.begin().split_once("://").map(|(_, rest)| rest).unwrap_or_default();
        let plain = self.url.variables().next().is_none() || authority.contains(['/', '?']);
        let (Some(url), true) = (origin, plain) else {
            return refused("custom.url: variables can stand behind the host only (https://host/…)".into());
        };
        if let Err(reason) = check_endpoint(&url) {
            return refused(format!("custom.url: {reason}"));
        }
        for (variable, given) in [
            (Variable::ClientSecret, self.client_secret.is_some()),
            (Variable::Basic, self.client_secret.is_some()),
            (Variable::Username, self.username.is_some()),
            (Variable::Password, self.password.is_some()),
            (Variable::SubjectToken, self.subject_token.is_some()),
        ] {
            if self.uses(variable) && !given {
                let key = match variable {
                    Variable::ClientSecret | Variable::Basic => "client.secret",
                    other => other.as_str(),
                };
                return refused(format!("custom: `{{{}}}` needs `{key}`", variable.as_str()));
            }
        }
        let writes_a_form = !matches!(auth, ClientAuth::Basic { .. } | ClientAuth::None);
        if self.adds_client_auth(auth) && writes_a_form && !matches!(self.body, CustomBody::Form(_)) {
            return refused(format!(
                "custom: `{}` writes into a form, and this request has none: use `form`, or `{{client_secret}}` in the \
                 templates",
                auth.as_str()
            ));
        }
        Ok(())
    }

    async fn values(
        &self,
        config: &OAuthConfig,
        keys: &ClientKeys,
        refresh_token: Option<&Secret>,
        draft: &mut Draft,
    ) -> Result<Values, SetupError> {
        let mut values = Values::new();
        for variable in self.variables() {
            let plain = |text: &Option<String>| text.as_deref().map(Secret::from);
            let value = match variable {
                Variable::ClientId => Some(Secret::from(config.client_id.as_str())),
                Variable::ClientSecret => own_secret(keys, self.client_secret.as_ref()).await?,
                Variable::Basic => own_secret(keys, self.client_secret.as_ref()).await?.map(|secret| {
                    draft.add_lasting(&secret);
                    client_auth::pair(&config.client_id, &secret)
                }),
                Variable::RefreshToken => refresh_token.cloned(),
                Variable::Scope => plain(&config.scope),
                Variable::Audience => plain(&config.audience),
                Variable::Username => plain(&self.username),
                Variable::Password => read(self.password.as_ref()).await?,
                Variable::SubjectToken => read(self.subject_token.as_ref()).await?,
            };
            let Some(value) = value else { continue };
            if matches!(variable, Variable::ClientSecret | Variable::Password) {
                draft.add_lasting(&value);
            } else if variable.is_secret() {
                draft.scrubber.add(value.expose());
            }
            values.insert(variable, value);
        }
        Ok(values)
    }

    fn head(&self, values: &Values) -> Result<HeaderMap, SetupError> {
        let mut headers = HeaderMap::new();
        for (name, template) in &self.headers {
            let text = template.expand(values, str::to_owned);
            let mut value = HeaderValue::from_str(&text).map_err(|_| {
                SetupError::Http(format!("custom.headers: what `{name}` would be cannot stand in a header"))
            })?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }
}

/// A request that is ready, the secrets in it, and its URL as it may be shown.
pub(in super::super) struct Made {
    pub(in super::super) exchange: Exchange,
    pub(in super::super) scrubber: Scrubber,
    pub(in super::super) lasting: Vec<Secret>,
    pub(in super::super) endpoint: String,
}

/// Makes the request.
pub(in super::super) async fn make(
    config: &OAuthConfig,
    custom: &Custom,
    keys: &ClientKeys,
    refresh_token: Option<&Secret>,
    now: UnixTime,
) -> Result<Made, SetupError> {
    let mut draft = Draft::default();
    let values = custom.values(config, keys, refresh_token, &mut draft).await?;
    let encode = |text: &str| utf8_percent_encode(text, COMPONENT).to_string();
    let url = Url::parse(&custom.url.expand(&values, encode))
        .map_err(|error| SetupError::Http(format!("custom.url: {error}")))?;
    if let CustomBody::Form(fields) = &custom.body {
        for (name, template) in fields {
            draft.form.set(name.clone(), &template.expand(&values, str::to_owned));
        }
    }
    // Variables in a path may be secrets: only the text of the configuration is shown.
    let endpoint = custom.endpoint().map_or_else(|| "custom.url".to_owned(), |url| shown(&url));
    if custom.adds_client_auth(&config.client_auth) {
        let facts = Facts { client_id: &config.client_id, audience: &endpoint, now };
        client_auth::apply(&config.client_auth, keys, &facts, &mut draft).await?;
    }
    let Draft { form, authorization, scrubber, lasting } = draft;
    let mut headers = custom.head(&values)?;
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    let body = match &custom.body {
        CustomBody::None => None,
        CustomBody::Form(_) => Some(Payload::Form(form.encode())),
        CustomBody::Json(json) => Some(Payload::Json(json.expand(&values))),
    };
    let exchange = Exchange { method: custom.method.clone(), url, headers, body };
    Ok(Made { exchange, scrubber, lasting, endpoint })
}

async fn own_secret(keys: &ClientKeys, source: Option<&SecretSource>) -> Result<Option<Secret>, SetupError> {
    match source {
        Some(source) => keys.secret(source).await.map(Some),
        None => Ok(None),
    }
}

async fn read(source: Option<&SecretSource>) -> Result<Option<Secret>, SetupError> {
    match source {
        Some(source) => Ok(Some(source.read().await?)),
        None => Ok(None),
    }
}
