//! Grants and client authentications that the embedded authorization server takes, ready to be combined.

use std::sync::Arc;
use std::time::Duration;

use bearward::clock::{Clock, ManualClock, UnixTime};
use bearward::credential::{CredentialConfig, RotationMode};
use bearward::idp::{
    BasicDecoding, Behaviour, Client, DEFAULT_CLIENT, DEFAULT_SECRET, DEFAULT_USER, Fault, Idp, Rotation,
    Settings, User, VerifyingKey,
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
use bearward::tls::{TlsClientConfig, TlsIdentity, provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::lifecycle::HOUR;
use crate::tls_rig::Authority;

/// When the tests begin.
const BEGIN: i64 = 1_800_000_000;

/// The rows' grants. `single` and `reusable` are both `refresh_token`.
pub(crate) const GRANTS: [&str; 7] =
    ["single", "reusable", "client_credentials", "jwt_bearer", "password", "token_exchange", "custom"];
/// The columns' client authentications; `dpop` is a secret with tokens that are bound to a key.
pub(crate) const AUTHS: [&str; 8] = [
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "assertion file",
    "dpop",
    "none",
    "tls_client_auth",
];

/// The authentications that go with a grant.
pub(crate) fn auths_of(grant: &str) -> Vec<&'static str> {
    let fits = |auth: &&str| match grant {
        // A vendor's endpoint binds nothing to a key.
        "custom" => !matches!(*auth, "dpop" | "tls_client_auth"),
        // A public client has nothing to obtain a token with (RFC 6749 4.4); one with a certificate is public behind what
        // looks at the certificate.
        "client_credentials" => !matches!(*auth, "none" | "tls_client_auth"),
        _ => true,
    };
    AUTHS.into_iter().filter(fits).collect()
}

/// A provider with a client that may authenticate in every way; a public one where it does not.
pub(crate) struct Party {
    pub(crate) idp: Idp,
    pub(crate) clock: Arc<ManualClock>,
    key: String,
    folder: tempfile::TempDir,
    grant: &'static str,
    auth: &'static str,
    /// Where whoever has a certificate is let through to the provider.
    gate: Option<u16>,
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
            public: matches!(auth, "none" | "tls_client_auth") && grant != "custom",
            // A template encodes nothing in `{basic}`.
            basic: if grant == "custom" && auth == "none" { BasicDecoding::Raw } else { BasicDecoding::Form },
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
        let mut party = Self { idp, clock, key: key.serialize_pem(), folder, grant, auth, gate: None };
        party.write_assertion();
        if auth == "tls_client_auth" {
            party.gate = Some(party.open_gate().await);
        }
        party
    }

    /// Ends TLS before the provider, for clients with a certificate of the right authority alone.
    #[allow(clippy::disallowed_methods, reason = "a test server, ended with its runtime")]
    async fn open_gate(&self) -> u16 {
        let authority = Authority::new();
        let (own, client) = (authority.issue(&["localhost"]), authority.issue(&["gateway.example"]));
        for (name, text) in
            [("ca.crt", authority.certificate.pem()), ("client.crt", client.cert), ("client.key", client.key)]
        {
            std::fs::write(self.folder.path().join(name), text).expect("write");
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).expect("a root");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let chain = vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).expect("certificate")];
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("key");
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain, key)
            .expect("a server");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let plain = self.idp.token_endpoint().parse::<url::Url>().expect("a URL");
        let plain = ("127.0.0.1", plain.port().expect("a port"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut near = acceptor.accept(stream).await?;
                    let mut far = tokio::net::TcpStream::connect(plain).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        port
    }

    fn endpoint(&self) -> url::Url {
        let mut url: url::Url = self.idp.token_endpoint().parse().expect("a URL");
        if let Some(port) = self.gate {
            url = format!("https://localhost:{port}{}", url.path()).parse().expect("a URL");
        }
        url
    }

    fn tls(&self) -> TlsClientConfig {
        let at = |name: &str| self.folder.path().join(name);
        match self.gate {
            None => TlsClientConfig::default(),
            Some(_) => TlsClientConfig {
                ca: Some(at("ca.crt")),
                identity: Some(TlsIdentity {
                    cert: at("client.crt"),
                    key: SecretSource::File(at("client.key")),
                }),
                server_name: None,
            },
        }
    }

    /// What is done to a request whose token is to be as configured.
    pub(crate) fn ordinary(&self) -> Vec<Fault> {
        let bound = (self.auth == "dpop").then(|| Fault::set("token_type", "DPoP"));
        bound.into_iter().collect()
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
                endpoint: EndpointSource::Url(self.endpoint()),
                preset: &preset::GENERIC,
                client_id: DEFAULT_CLIENT.into(),
                client_auth: self.client_auth(),
                grant: self.grant(),
                scope,
                refresh_scope: None,
                audience: None,
                resource: Vec::new(),
                parameters: Default::default(),
                dpop: self.auth == "dpop",
                carried: Vec::new(),
                tls: self.tls(),
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
            "client_secret_basic" | "dpop" => ClientAuth::Basic { secret, encoding: BasicEncoding::Form },
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
            "tls_client_auth" => ClientAuth::MutualTls { self_signed: false },
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
                // Behind the gate the provider goes by another name.
                assertion: Assertion {
                    key: self.signing_key(),
                    claims: AssertionClaims { audience: vec![self.idp.token_endpoint()], ..claims() },
                },
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

    /// Who asks stands in the body, or in a field of the template, or is added by `client.auth`: to the vendor's own
    /// endpoint where there is a form.
    fn custom(&self) -> Custom {
        let template = |text: &str| Template::parse(text).expect(text);
        let text = |text: &str| JsonTemplate::Text(template(text));
        let scope = ("scope".to_owned(), text("{scope}"));
        let body = match self.auth {
            "client_secret_basic" => vec![
                ("user".to_owned(), text("{client_id}")),
                ("pass".to_owned(), text("{client_secret}")),
                scope,
            ],
            _ => vec![scope],
        };
        let headers = match self.auth {
            "none" => vec![(http::header::AUTHORIZATION, template("Basic {basic}"))],
            _ => Vec::new(),
        };
        let is_vendors = matches!(self.auth, "client_secret_basic" | "none");
        let form = [("grant_type", "client_credentials"), ("scope", "{scope}")];
        let form = form.map(|(name, value)| (name.to_owned(), template(value))).into();
        Custom {
            method: http::Method::POST,
            url: template(&if is_vendors { self.idp.vendor_endpoint() } else { self.idp.token_endpoint() }),
            headers,
            body: if is_vendors {
                CustomBody::Json(JsonTemplate::Object(body))
            } else {
                CustomBody::Form(form)
            },
            response: CustomResponse {
                headers: None,
                access_token: if is_vendors { "/data/accessToken" } else { "/access_token" }.into(),
                expires_in: if is_vendors { "/data/expiresIn" } else { "/expires_in" }.into(),
                refresh_token: is_vendors.then(|| "/data/refreshToken".into()),
            },
            client_secret: Some(value(DEFAULT_SECRET)),
            username: None,
            password: None,
            subject_token: None,
            seed: None,
        }
    }
}
