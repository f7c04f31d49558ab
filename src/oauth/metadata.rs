//! Authorization server metadata: RFC 8414 and OpenID Connect discovery.
//!
//! Owns: what is believed of a discovered document: only one that names the configured issuer (or the preset's one
//! alias). What was found is kept for a day, and looked up again after a failure; if that fails the old one serves on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::answer::{Answer, Body};
use super::error::{Failure, FailureClass};
use super::http::{Exchange, HttpSettings, shown};
use super::preset::Preset;
use crate::clock::UnixTime;
use crate::origin::Origin;
use crate::tls::TlsClientConfig;

/// How long a document is believed.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What is used of a metadata document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The issuer, letter for letter as the document has it.
    pub issuer: String,
    /// Where tokens are asked for.
    pub token_endpoint: Url,
    /// Where a person logs in.
    pub authorization_endpoint: Option<Url>,
    /// Where a device asks for a code (RFC 8628 4).
    pub device_authorization_endpoint: Option<Url>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// Whether authorization responses name the issuer (RFC 9207 3).
    pub names_issuer: bool,
    /// Where a client with a certificate finds the same (RFC 8705 5).
    pub aliases: Aliases,
}

/// `mtls_endpoint_aliases`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aliases {
    /// For `token_endpoint`.
    pub token: Option<Url>,
    /// For `device_authorization_endpoint`.
    pub device: Option<Url>,
    /// For `revocation_endpoint`.
    pub revocation: Option<Url>,
}

impl Metadata {
    /// The endpoints as a client with these settings must reach them: one that shows a certificate by their aliases.
    pub(super) fn reached_by(mut self, tls: &TlsClientConfig) -> Self {
        if tls.identity.is_some() {
            let aliases = std::mem::take(&mut self.aliases);
            self.token_endpoint = aliases.token.unwrap_or(self.token_endpoint);
            self.device_authorization_endpoint = aliases.device.or(self.device_authorization_endpoint);
            self.revocation_endpoint = aliases.revocation.or(self.revocation_endpoint);
        }
        self
    }
}

/// How a document is asked for.
pub(super) struct Ask<'a> {
    /// The settings of the exchange.
    pub(super) http: &'a HttpSettings,
    /// The client of this request.
    pub(super) client: &'a reqwest::Client,
    /// Whose alias is accepted.
    pub(super) preset: &'a Preset,
    /// When to give up.
    pub(super) deadline: Instant,
}

/// The document of one issuer and its age.
#[derive(Default)]
pub(super) struct Discovery(Mutex<Option<Kept>>);

#[derive(Clone)]
struct Kept {
    metadata: Metadata,
    fetched: UnixTime,
    suspect: bool,
}

impl Discovery {
    /// The metadata: what is kept if it is young and above suspicion, else fetched.
    pub(super) async fn metadata(
        &self,
        ask: &Ask<'_>,
        issuer: &Url,
        now: UnixTime,
    ) -> Result<Metadata, Failure> {
        let kept = self.kept();
        if let Some(kept) = &kept
            && !kept.suspect
            && now.checked_since(kept.fetched).is_some_and(|age| age < LIFETIME)
        {
            return Ok(kept.metadata.clone());
        }
        match (fetch(ask, issuer).await, kept) {
            (Ok(metadata), _) => {
                let fresh = Kept { metadata: metadata.clone(), fetched: now, suspect: false };
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
                Ok(metadata)
            }
            (Err(failure), Some(kept)) => {
                tracing::warn!(error = %failure, "discovery failed; the metadata of before is used");
                Ok(kept.metadata)
            }
            (Err(failure), None) => Err(failure),
        }
    }

    /// A request failed: the document may be out of date.
    pub(super) fn suspect(&self) {
        if let Some(kept) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            kept.suspect = true;
        }
    }

    fn kept(&self) -> Option<Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The places where the document may be, the likeliest first.
fn candidates(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    // RFC 8414 3.1 puts the well-known part before the issuer's path, OpenID Connect Discovery 4 behind it.
    let mut paths = vec![
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("{path}/.well-known/openid-configuration"),
        format!("/.well-known/openid-configuration{path}"),
    ];
    paths.dedup();
    paths
        .into_iter()
        .map(|path| {
            let mut url = issuer.clone();
            url.set_path(&path);
            url.set_query(None);
            url.set_fragment(None);
            url
        })
        .collect()
}

async fn fetch(ask: &Ask<'_>, issuer: &Url) -> Result<Metadata, Failure> {
    let mut worst: Option<Failure> = None;
    for url in candidates(issuer) {
        let place = shown(&url);
        let answer =
            ask.http.exchange(ask.client, Exchange::get(url), ask.deadline).await.map_err(|lost| {
                Failure::new(
                    FailureClass::Clean,
                    lost.error,
                    format!("discovery at {place} failed: {}", lost.reason),
                )
            })?;
        match read(answer, issuer, ask.preset) {
            Ok(metadata) => return Ok(metadata),
            Err(Refused { class, reason }) => {
                let failure = Failure::new(class, "discovery", format!("discovery at {place}: {reason}"));
                if worst.as_ref().is_none_or(|known| known.class == FailureClass::Clean) {
                    worst = Some(failure);
                }
            }
        }
    }
    Err(worst.expect("there is at least one candidate"))
}

struct Refused {
    class: FailureClass,
    reason: String,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: Option<String>,
    authorization_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    mtls_endpoint_aliases: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

fn read(mut answer: Answer, issuer: &Url, preset: &Preset) -> Result<Metadata, Refused> {
    let passing = |reason: String| Refused { class: FailureClass::Clean, reason };
    let wrong = |reason: String| Refused { class: FailureClass::Configuration, reason };
    if answer.status != http::StatusCode::OK {
        return Err(passing(format!("the answer is {}; check `issuer`", answer.status.as_u16())));
    }
    let document: Document = match answer.read_body() {
        Body::Fields(fields) => fields.deserialize(),
        _ => None,
    }
    .ok_or_else(|| passing("the answer is no metadata document; check `issuer`".into()))?;
    if !is_issuer(&document.issuer, issuer, preset) {
        return Err(wrong(format!(
            "the document names the issuer `{}`, not `{issuer}`: configure the issuer letter for letter",
            shown_text(&document.issuer)
        )));
    }
    let endpoint =
        document.token_endpoint.ok_or_else(|| wrong("the document names no token_endpoint".into()))?;
    let token_endpoint =
        Url::parse(&endpoint).ok().filter(|url| check_endpoint(url).is_ok()).ok_or_else(|| {
            wrong(format!("its token_endpoint `{}` is not an https URL", shown_text(&endpoint)))
        })?;
    // Only a login needs the others: one that cannot be used is as good as missing.
    let usable = |text: Option<String>| {
        text.and_then(|text| Url::parse(&text).ok()).filter(|url| check_endpoint(url).is_ok())
    };
    let alias = |name: &str| document.mtls_endpoint_aliases.get(name)?.as_str().map(str::to_owned);
    Ok(Metadata {
        issuer: document.issuer.clone(),
        token_endpoint,
        authorization_endpoint: usable(document.authorization_endpoint),
        device_authorization_endpoint: usable(document.device_authorization_endpoint),
        revocation_endpoint: usable(document.revocation_endpoint),
        aliases: Aliases {
            token: usable(alias("token_endpoint")),
            device: usable(alias("device_authorization_endpoint")),
            revocation: usable(alias("revocation_endpoint")),
        },
        names_issuer: document.authorization_response_iss_parameter_supported,
    })
}

/// RFC 8414 3.3: identical. (An issuer without a path may be written with or without its slash: a URL does not tell.)
fn is_issuer(named: &str, configured: &Url, preset: &Preset) -> bool {
    let text = configured.as_str();
    let bare = if configured.path() == "/" { text.trim_end_matches('/') } else { text };
    named == text
        || named == bare
        || preset.issuer_alias.is_some_and(|alias| named.strip_suffix('/').unwrap_or(named) == alias)
}

/// RFC 6749 3.2: TLS, no fragment. Plain http only to this machine.
pub(super) fn check_endpoint(url: &Url) -> Result<(), String> {
    let origin = Origin::of_url(url).map_err(|error| error.to_string())?;
    if url.fragment().is_some() {
        return Err("a fragment (`#…`) cannot stand in this URL".into());
    }
    if origin.scheme() == crate::origin::Scheme::Http && !origin.is_loopback() {
        return Err(
            "it must be https: secrets would cross the network in the clear (http is for loopback only)"
                .into(),
        );
    }
    Ok(())
}

fn shown_text(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::super::preset::{GENERIC, OCI};
    use super::*;

    #[test]
    fn both_well_known_forms_are_tried() {
        let check = |issuer: &str, expected: &[&str]| {
            let found: Vec<String> = candidates(&Url::parse(issuer).expect("url"))
                .iter()
                .map(|url| url.path().to_owned())
                .collect();
            assert_eq!(found, expected, "{issuer}");
        };
        check(
            "https://idp.example",
            &["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"],
        );
        check(
            "https://idp.example/realms/a/",
            &[
                "/.well-known/oauth-authorization-server/realms/a",
                "/realms/a/.well-known/openid-configuration",
                "/.well-known/openid-configuration/realms/a",
            ],
        );
    }

    #[test]
    fn the_issuer_is_compared_exactly_but_for_the_presets_alias() {
        let check = |named: &str, configured: &str, preset: &Preset, expected: bool| {
            let configured = Url::parse(configured).expect("url");
            assert_eq!(is_issuer(named, &configured, preset), expected, "{named} for {configured}");
        };
        check("https://idp.example", "https://idp.example", &GENERIC, true);
        check("https://idp.example/a", "https://idp.example/a", &GENERIC, true);
        check("https://idp.example/a/", "https://idp.example/a", &GENERIC, false);
        check("https://idp.example.evil", "https://idp.example", &GENERIC, false);
        check(
            "https://identity.oraclecloud.com/",
            "https://idcs-1.identity.oraclecloud.com",
            &GENERIC,
            false,
        );
        check("https://identity.oraclecloud.com/", "https://idcs-1.identity.oraclecloud.com", &OCI, true);
        check("https://identity.oraclecloud.com", "https://idcs-1.identity.oraclecloud.com", &OCI, true);
        check(
            "https://identity.oraclecloud.com.evil",
            "https://idcs-1.identity.oraclecloud.com",
            &OCI,
            false,
        );
    }
}
