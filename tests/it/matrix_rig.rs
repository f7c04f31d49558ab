//! Grants and client authentications that the embedded authorization server takes, ready to be combined.

use std::sync::Arc;
use std::time::Duration;

use bearward::clock::{Clock, ManualClock, UnixTime};
use bearward::credential::{CredentialConfig, RotationMode};
use bearward::idp::{
    Behaviour, Client, DEFAULT_CLIENT, DEFAULT_SECRET, DEFAULT_USER, Idp, Rotation, Settings, User,
    VerifyingKey,
};
use bearward::names::Name;
use bearward::oauth::client_auth::AssertionClaims;
use bearward::oauth::template::{JsonTemplate, Template};
use bearward::oauth::{
    Algorithm, Assertion, BasicEncoding, ClientAuth, ClientIdParam, Custom, CustomBody, CustomResponse,
    EndpointSource, ForeignToken, Grant, KeyId, OAuthConfig, SigningKey, TokenExchange, UserAssertion,
    preset,
};
use bearward::secret::{Secret, SecretSource};
use bearward::tls::TlsClientConfig;

use crate::lifecycle::HOUR;

/// When the tests begin.
const BEGIN: i64 = 1_800_000_000;

/// The rows' grants. `single` and `reusable` are both `refresh_token`.
pub(crate) const GRANTS: [&str; 7] =
    ["single", "reusable", "client_credentials", "jwt_bearer", "password", "token_exchange", "custom"];
/// The columns' client authentications.
pub(crate) const AUTHS: [&str; 6] = [
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "assertion file",
    "none",
];

/// A provider with a client that may authenticate in every way; a public one where it does not.
pub(crate) struct Party {
    pub(crate) idp: Idp,
    pub(crate) clock: Arc<ManualClock>,
    key: String,
    folder: tempfile::TempDir,
    grant: &'static str,
    auth: &'static str,
}

fn value(text: &str) -> SecretSource {
    SecretSource::Value(Secret::from(text))
}

fn claims() -> AssertionClaims {
    AssertionClaims {
        audience: Vec::new(),
        audience_as_list: false,
        lifetime: Duration::from_secs(60),
        extra: Default::default(),
    }
}

impl Party {
    pub(crate) async fn new(grant: &'static str, auth: &'static str) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        let public = key.public_key_pem();
        let verifying =
            VerifyingKey::from_pem(jsonwebtoken::Algorithm::ES256, public.as_bytes()).expect("key");
        let client = Client {
            keys: vec![verifying],
            foreign_tokens: vec![Secret::from("a token of elsewhere")],
            public: auth == "none",
            ..Client::with_secret(DEFAULT_CLIENT, DEFAULT_SECRET)
        };
        let clock = ManualClock::starting_at(UnixTime::from_millis(BEGIN * 1000));
        let rotation = if grant == "reusable" { Rotation::Reusable } else { Rotation::SingleUse };
        let settings = Settings {
            clock: Clock::Manual(Arc::clone(&clock)),
            clients: vec![client],
            users: vec![User { name: DEFAULT_USER.into(), password: Some(Secret::from("the password")) }],
            behaviour: Behaviour {
                access_token_lifetime: HOUR,
                rotation,
                // An assertion in a file is the same each time, and names itself not at all.
                jti_required: false,
                ..Behaviour::default()
            },
            ..Settings::default()
        };
        let idp = Idp::start(settings).await.expect("the provider starts");
        let folder = tempfile::tempdir().expect("tempdir");
        let party = Self { idp, clock, key: key.serialize_pem(), folder, grant, auth };
        party.write_assertion();
        party
    }

    /// A client assertion as another program would leave it.
    fn write_assertion(&self) {
        let claims = serde_json::json!({
            "iss": DEFAULT_CLIENT, "sub": DEFAULT_CLIENT, "aud": self.idp.token_endpoint(), "iat": BEGIN - 10,
            "exp": BEGIN + 3000,
        });
        let key = jsonwebtoken::EncodingKey::from_ec_pem(self.key.as_bytes()).expect("key");
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        let token = jsonwebtoken::encode(&header, &claims, &key).expect("signed");
        std::fs::write(self.folder.path().join("assertion"), token).expect("write");
    }

    /// A new credential; one that refreshes has a seed of its own.
    pub(crate) fn credential(&self) -> CredentialConfig {
        let is_refresh = matches!(self.grant, "single" | "reusable");
        // Without `offline_access` there is no refresh token: the own grant is used each time.
        let scope = (!is_refresh).then(|| "api".to_owned());
        CredentialConfig {
            injection: Box::default(),
            name: Name::try_new("primavera").expect("a name"),
            oauth: OAuthConfig {
                endpoint: EndpointSource::Url(self.idp.token_endpoint().parse().expect("a URL")),
                preset: &preset::GENERIC,
                client_id: DEFAULT_CLIENT.into(),
                client_auth: self.client_auth(),
                grant: self.grant(),
                scope,
                refresh_scope: None,
                audience: None,
                resource: Vec::new(),
                parameters: Default::default(),
                dpop: false,
                tls: TlsClientConfig::default(),
                login: Box::default(),
                outbound_proxy: None,
                connect_timeout: Duration::from_secs(5),
                request_timeout: Duration::from_secs(30),
            },
            allowed_upstreams: Vec::new(),
            required: false,
            revoke_on_removal: false,
            rotation: if self.grant == "reusable" { RotationMode::Reusable } else { RotationMode::Auto },
            grace: Duration::ZERO,
            refresh_at_ppm: None,
            min_interval: Duration::from_secs(5),
            default_lifetime: HOUR,
            refresh_token_lifetime: None,
        }
    }

    fn signing_key(&self) -> SigningKey {
        SigningKey { source: value(&self.key), algorithm: Algorithm::Es256, key_id: KeyId::default() }
    }

    fn client_auth(&self) -> ClientAuth {
        let (secret, client_id_param) = (value(DEFAULT_SECRET), ClientIdParam::Plain);
        match self.auth {
            "client_secret_basic" => ClientAuth::Basic { secret, encoding: BasicEncoding::Form },
            "client_secret_post" => ClientAuth::Post { secret },
            "client_secret_jwt" => ClientAuth::SecretJwt { secret, claims: claims(), client_id_param },
            "private_key_jwt" => {
                let assertion = Assertion { key: self.signing_key(), claims: claims() };
                ClientAuth::PrivateKeyJwt { assertion, client_id_param, secret: None }
            }
            "assertion file" => {
                let path = self.folder.path().join("assertion");
                ClientAuth::AssertionFile { path, client_id_param, secret: None }
            }
            "none" => ClientAuth::None,
            other => panic!("{other}"),
        }
    }

    fn grant(&self) -> Grant {
        match self.grant {
            "single" | "reusable" => {
                Grant::RefreshToken { seed: Some(SecretSource::Value(self.idp.new_seed())) }
            }
            "client_credentials" => Grant::ClientCredentials,
            "jwt_bearer" => Grant::JwtBearer(UserAssertion::Minted {
                subject: DEFAULT_USER.into(),
                assertion: Assertion { key: self.signing_key(), claims: claims() },
            }),
            "password" => Grant::Password { username: DEFAULT_USER.into(), password: value("the password") },
            "token_exchange" => Grant::TokenExchange(Box::new(TokenExchange {
                subject: ForeignToken {
                    token: value("a token of elsewhere"),
                    kind: "urn:ietf:params:oauth:token-type:jwt".into(),
                },
                actor: None,
                requested_token_type: None,
            })),
            "custom" => Grant::Custom(Box::new(self.custom())),
            other => panic!("{other}"),
        }
    }

    fn custom(&self) -> Custom {
        let text = |text: &str| JsonTemplate::Text(Template::parse(text).expect(text));
        Custom {
            method: http::Method::POST,
            url: Template::parse(&self.idp.vendor_endpoint()).expect("a URL"),
            headers: Vec::new(),
            body: CustomBody::Json(JsonTemplate::Object(vec![
                ("user".to_owned(), text("{client_id}")),
                ("pass".to_owned(), text("{client_secret}")),
                ("scope".to_owned(), text("{scope}")),
            ])),
            response: CustomResponse {
                headers: None,
                access_token: "/data/accessToken".into(),
                expires_in: "/data/expiresIn".into(),
                refresh_token: Some("/data/refreshToken".into()),
            },
            client_secret: Some(value(DEFAULT_SECRET)),
            username: None,
            password: None,
            subject_token: None,
            seed: None,
        }
    }
}
