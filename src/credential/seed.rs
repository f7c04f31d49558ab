//! Seeds and identity: what a stored record means for the credential as it is configured now.
//!
//! Owns: the rule that no seed is redeemed twice and that an old seed never replaces a newer stored token.
//! Decides only; writes nothing.

use super::CredentialConfig;
use crate::oauth::{EndpointSource, Grant, OAuthConfig, client_auth};
use crate::secret::{Fingerprint, Secret, SecretSource};
use crate::store::{Identity, Record, RecordState};

/// What makes a record this credential's.
pub fn identity(oauth: &OAuthConfig) -> Identity {
    Identity {
        endpoint: match &oauth.endpoint {
            EndpointSource::Url(url) | EndpointSource::Issuer(url) => url.to_string(),
            EndpointSource::None => String::new(),
        },
        client_id: oauth.client_id.clone(),
        subject: match &oauth.grant {
            Grant::JwtBearer(crate::oauth::UserAssertion::Minted { subject, .. }) => Some(subject.clone()),
            Grant::Password { username, .. } => Some(username.clone()),
            Grant::Custom(custom) => custom.username.clone(),
            _ => None,
        },
    }
}

/// A digest of what is asked for and of what is taken of an answer: when it changes the access token is dropped.
pub fn request_digest(oauth: &OAuthConfig) -> String {
    let asked = (&oauth.scope, &oauth.refresh_scope, &oauth.audience, &oauth.resource);
    let mut text = serde_json::to_vec(&asked).expect("texts become JSON");
    match &oauth.grant {
        Grant::TokenExchange(exchange) => {
            text.extend(exchange.requested_token_type.as_deref().unwrap_or_default().bytes());
        }
        Grant::Custom(custom) => text.extend(custom.source().to_string().bytes()),
        _ => {}
    }
    if oauth.dpop {
        text.extend(b"dpop");
    }
    for field in &oauth.carried {
        text.extend(field.name.bytes().chain(field.pointer.bytes()));
    }
    Fingerprint::of(&text).to_hex()[..16].to_owned()
}

/// Where the seed comes from, if the grant has one.
pub(super) fn source(config: &CredentialConfig) -> Option<&SecretSource> {
    match &config.oauth.grant {
        Grant::RefreshToken { seed } => seed.as_ref(),
        Grant::Custom(custom) => custom.seed.as_ref(),
        Grant::ClientCredentials
        | Grant::JwtBearer(_)
        | Grant::TokenExchange(_)
        | Grant::Password { .. }
        | Grant::Users
        | Grant::Static { .. } => None,
    }
}

/// Whether a wrong clock can be why the provider refuses a request.
pub(super) fn uses_assertions(oauth: &OAuthConfig) -> bool {
    use client_auth::ClientAuth;
    matches!(oauth.client_auth, ClientAuth::SecretJwt { .. } | ClientAuth::PrivateKeyJwt { .. })
        || matches!(oauth.grant, Grant::JwtBearer(crate::oauth::UserAssertion::Minted { .. }))
}

/// What the configuration wants a record to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) identity: Identity,
    pub(super) request_digest: String,
}

/// A stored record as the configuration sees it.
#[derive(Debug, PartialEq)]
pub(super) struct Reconciled {
    /// The record to go on with; not written yet where anything below says so.
    pub(super) record: Record,
    /// The stored record must be moved aside first, for this reason.
    pub(super) aside: Option<&'static str>,
    /// A seed that was never redeemed stands in it.
    pub(super) new_family: bool,
}

/// Another identity begins anew; an unseen seed begins a new family; a changed request drops the access token.
pub(super) fn reconcile(stored: Option<Record>, wanted: &Wanted, seed: Option<&Secret>) -> Reconciled {
    let (mut record, mut aside) = match stored {
        None => (Record::new(wanted.identity.clone()), None),
        Some(old) if old.identity != wanted.identity => {
            let generation = old.generation;
            let new = Record { generation, ..Record::new(wanted.identity.clone()) };
            (new, Some("the token endpoint, client id or subject changed"))
        }
        Some(record) => (record, None),
    };
    if record.request_digest != wanted.request_digest {
        if !record.request_digest.is_empty() {
            drop_access_token(&mut record);
        }
        record.request_digest.clone_from(&wanted.request_digest);
    }
    let mut new_family = false;
    if let Some(seed) = seed.filter(|seed| !record.has_seen(seed.fingerprint())) {
        let known = record.refresh_token.as_ref() == Some(seed);
        if !known {
            if record.refresh_token.is_some() {
                aside = aside.or(Some("a new refresh token was configured"));
            }
            record.refresh_token = Some(seed.clone());
            record.refresh_expires_at = None;
            record.state = RecordState::Idle;
            new_family = true;
        }
        record.seeds_seen.push(seed.fingerprint().to_hex());
    }
    if aside.is_some() {
        record.version = 0;
    }
    Reconciled { record, aside, new_family }
}

fn drop_access_token(record: &mut Record) {
    record.access_token = None;
    record.headers = Vec::new();
    record.expires_at = None;
    record.obtained_at = None;
    record.refresh_in = None;
    record.scope = None;
}

/// The sentence that says how to give an idle credential its first refresh token.
pub(super) fn login_remedy(config: &CredentialConfig, error: Option<&str>) -> String {
    let name = &config.name;
    let seed = match (source(config), error) {
        (Some(source), error) => {
            let place = match (source.path(), source) {
                (Some(path), _) => format!(" at {}", path.display()),
                (None, SecretSource::Env(variable)) => format!(" into the environment variable {variable}"),
                (None, _) => " where `refresh_token` of the configuration says".to_owned(),
            };
            let why = error.map(|error| format!(" ({error})")).unwrap_or_default();
            format!(", or put a new refresh token{place}{why}")
        }
        (None, _) => ", or give the credential a `refresh_token` in the configuration".to_owned(),
    };
    if matches!(config.oauth.grant, Grant::Custom(_)) {
        // Nobody can log in at an endpoint that is not OAuth's.
        return seed.trim_start_matches(", or ").to_owned();
    }
    format!("run `bearward login {name}`{seed}")
}

/// What to do about a refused client, in words.
pub(super) fn client_remedy(config: &CredentialConfig) -> String {
    let what = match &config.oauth.client_auth {
        client_auth::ClientAuth::None => "the client id",
        client_auth::ClientAuth::PrivateKeyJwt { .. } => "the client id, key and audience",
        client_auth::ClientAuth::AssertionFile { .. } => "the client id and the assertion file",
        _ => "the client id and secret",
    };
    format!(
        "check {what} of `{}` against the provider; a changed secret file is tried at once, else the next try \
         is in 30 min",
        config.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;

    fn wanted() -> Wanted {
        Wanted {
            identity: Identity {
                endpoint: "https://idp.example/token".into(),
                client_id: "client".into(),
                subject: None,
            },
            request_digest: "digest".into(),
        }
    }

    fn stored() -> Record {
        Record {
            version: 7,
            refresh_token: Some("newest".into()),
            access_token: Some("access".into()),
            expires_at: Some(UnixTime::from_millis(3_600_000)),
            obtained_at: Some(UnixTime::from_millis(0)),
            request_digest: "digest".into(),
            generation: 5,
            seeds_seen: vec![Secret::from("A").fingerprint().to_hex()],
            ..Record::new(wanted().identity)
        }
    }

    #[test]
    fn a_seed_seen_before_never_overwrites_the_stored_token() {
        let seed = Secret::from("A");
        let found = reconcile(Some(stored()), &wanted(), Some(&seed));
        assert_eq!(found, Reconciled { record: stored(), aside: None, new_family: false });
    }

    #[test]
    fn case_73_each_of_two_seeds_is_redeemed_once() {
        let (a, b) = (Secret::from("A"), Secret::from("B"));
        let first = reconcile(None, &wanted(), Some(&a));
        assert!(first.new_family && first.aside.is_none());
        let spent = Record { refresh_token: Some("A2".into()), version: 3, ..first.record };
        let second = reconcile(Some(spent), &wanted(), Some(&b));
        assert!(second.new_family && second.aside.is_some());
        assert_eq!(second.record.refresh_token, Some(b.clone()));
        assert_eq!(second.record.version, 0);
        let spent = Record { refresh_token: Some("B2".into()), version: 4, ..second.record };
        for seed in [&a, &b] {
            let back = reconcile(Some(spent.clone()), &wanted(), Some(seed));
            assert_eq!(back, Reconciled { record: spent.clone(), aside: None, new_family: false });
        }
    }

    #[test]
    fn a_seed_that_is_the_stored_token_is_only_noted() {
        let seed = Secret::from("newest");
        let found = reconcile(Some(stored()), &wanted(), Some(&seed));
        assert!(!found.new_family && found.aside.is_none());
        assert_eq!(found.record.seeds_seen.len(), 2);
        assert_eq!(found.record.version, 7);
    }

    #[test]
    fn a_new_family_keeps_serving_the_old_access_token() {
        let seed = Secret::from("B");
        let found = reconcile(Some(stored()), &wanted(), Some(&seed));
        assert_eq!(found.record.access_token, stored().access_token);
        assert_eq!(found.record.generation, 5);
    }

    #[test]
    fn another_identity_begins_anew() {
        let mut other = wanted();
        other.identity.client_id = "another".into();
        let found = reconcile(Some(stored()), &other, Some(&Secret::from("A")));
        assert!(found.aside.is_some() && found.new_family);
        assert_eq!(found.record.access_token, None);
        assert_eq!(found.record.generation, 5, "generations of one cell never go back");
        let found = reconcile(Some(stored()), &other, None);
        assert_eq!(found.record.refresh_token, None);
    }

    #[test]
    fn another_scope_drops_the_access_token_only() {
        let other = Wanted { request_digest: "other".into(), ..wanted() };
        let found = reconcile(Some(stored()), &other, None);
        assert_eq!(found.aside, None);
        assert_eq!(found.record.access_token, None);
        assert_eq!(found.record.refresh_token, stored().refresh_token);
        let imported = Record { request_digest: String::new(), ..stored() };
        let found = reconcile(Some(imported), &other, None);
        assert_eq!(
            found.record.access_token,
            stored().access_token,
            "a record without a digest is taken as it is"
        );
    }
}
