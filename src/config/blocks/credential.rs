//! Credentials.

use super::Tls;
use crate::config::addresses::{HttpUrl, ProxyUrl};
use crate::config::block::{block, choice};
use crate::config::read::{At, Named, OneOrMany};
use crate::config::secrets::FileRef;
use crate::config::template::Pointer;
use crate::config::values::{Fraction, Loose, NonEmpty, Positive};
use crate::credential::RotationMode;
use crate::oauth::preset::Thumbprint;
use crate::oauth::template::{JsonTemplate, Template};
use crate::oauth::{Algorithm, BasicEncoding, ClientIdParam, Preset};
use crate::origin::Origin;
use crate::secret::SecretSource;

/// `grant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum GrantName {
    RefreshToken,
    ClientCredentials,
    JwtBearer,
    TokenExchange,
    Password,
    Custom,
    Static,
}

choice! { GrantName = "grant" {
    Self::RefreshToken => "refresh_token",
    Self::ClientCredentials => "client_credentials",
    Self::JwtBearer => "jwt_bearer",
    Self::TokenExchange => "token_exchange",
    Self::Password => "password",
    Self::Custom => "custom",
    Self::Static => "static",
} }

impl GrantName {
    /// As it is written.
    pub(in crate::config) fn as_str(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer => "jwt_bearer",
            Self::TokenExchange => "token_exchange",
            Self::Password => "password",
            Self::Custom => "custom",
            Self::Static => "static",
        }
    }
}

/// `client.auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum AuthName {
    Basic,
    Post,
    SecretJwt,
    PrivateKeyJwt,
    TlsClient,
    SelfSignedTlsClient,
    None,
}

choice! { AuthName = "client authentication method" {
    Self::Basic => "client_secret_basic",
    Self::Post => "client_secret_post",
    Self::SecretJwt => "client_secret_jwt",
    Self::PrivateKeyJwt => "private_key_jwt",
    Self::TlsClient => "tls_client_auth",
    Self::SelfSignedTlsClient => "self_signed_tls_client_auth",
    Self::None => "none",
} }

choice! { BasicEncoding = "encoding" { Self::Form => "form", Self::Raw => "raw" } }
choice! { ClientIdParam = "form of `client_id`" {
    Self::Plain => "plain", Self::Omit => "omit", Self::Base64Pair => "base64_pair",
} }
choice! { Algorithm = "algorithm" {
    Self::Rs256 => "RS256", Self::Ps256 => "PS256", Self::Es256 => "ES256", Self::Es384 => "ES384",
    Self::EdDsa => "EdDSA",
} }
choice! { RotationMode = "rotation mode" {
    Self::Auto => "auto", Self::SingleUse => "single_use", Self::Reusable => "reusable",
} }

choice! { Thumbprint = "thumbprint" { Self::Sha1 => "sha1", Self::Sha256 => "sha256" } }

impl crate::config::read::Parse for &'static Preset {
    const WHAT: &'static str = "a known preset";
    fn schema() -> serde_json::Value {
        let names: Vec<_> = crate::oauth::preset::ALL.iter().map(|preset| preset.name).collect();
        serde_json::json!({"title": "preset", "enum": names})
    }
    fn parse(text: &str) -> Result<Self, crate::config::read::ParseError> {
        crate::oauth::preset::find(text).ok_or_else(|| {
            let names: Vec<_> = crate::oauth::preset::ALL.iter().map(|preset| preset.name).collect();
            crate::config::block::no_choice("preset", text, &names)
        })
    }
}

block! {
    /// A token that is kept fresh, and where it may be sent.
    struct Credential = "credential" {
        /// What is known of the provider: `generic`, or the name of one of [these](providers/README.md). Every part of it can be overridden.
        default("generic") preset: &'static Preset;
        /// The provider's token endpoint. Either this or `issuer`; neither where the preset knows its provider's only one.
        optional token_endpoint: HttpUrl;
        /// The provider's issuer: the token endpoint is discovered (RFC 8414, OpenID Connect).
        optional issuer: HttpUrl;
        /// The origins that the token may be sent to. Without it, the upstreams of the routes that name the credential.
        optional allowed_upstreams: Vec<At<Origin>>;
        /// Whether `/readyz` is red without a usable token.
        default("false") required: bool;
        /// Who we are to the provider.
        optional client: Client;
        /// How tokens are obtained: `refresh_token`, `client_credentials`, `jwt_bearer`, `token_exchange`, `password`, `custom` or `static`.
        required grant: GrantName;
        /// The seed: the first refresh token. It is redeemed once and never again; what follows it is in the store.
        optional refresh_token: SecretSource;
        /// The fixed token of `grant: static`.
        optional token: SecretSource;
        /// The user assertion of `grant: jwt_bearer`.
        optional user_assertion: UserAssertionBlock;
        /// The user name of `grant: password`, and `{username}` of `grant: custom`.
        optional username: NonEmpty;
        /// The password of `grant: password`, and `{password}` of `grant: custom`. One that is refused is sent three times at most.
        optional password: SecretSource;
        /// The token that `grant: token_exchange` exchanges, read for every request; `{subject_token}` of `grant: custom`.
        optional subject_token: SecretSource;
        /// Its type: a URI, or the last word of a registered one; `jwt` unless given.
        optional subject_token_type: NonEmpty;
        /// The token of who acts for the subject (`grant: token_exchange`), read for every request.
        optional actor_token: SecretSource;
        /// Its type, written in the same way; `jwt` unless given.
        optional actor_token_type: NonEmpty;
        /// The type of token that `grant: token_exchange` asks for, written in the same way.
        optional requested_token_type: NonEmpty;
        /// The request of `grant: custom` and where its answer has the token.
        optional custom: CustomBlock;
        /// Where in a request the token stands: `Authorization: Bearer` (or the preset's scheme) unless given; a list for several places.
        optional inject: OneOrMany<InjectBlock>;
        /// The scope of the first request.
        optional scope: NonEmpty;
        /// The `audience` parameter of the first request.
        optional audience: NonEmpty;
        /// The `resource` parameters (RFC 8707).
        optional resource: OneOrMany<NonEmpty>;
        /// Extra form parameters of every token request.
        optional parameters: Named<Loose>;
        /// Whether refresh tokens are single use.
        optional rotation: Rotation;
        /// When to refresh.
        optional refresh: Refresh;
        /// Lifetimes that answers do not tell.
        optional lifetime: Lifetime;
        /// Whom to trust at the token endpoint, and a client certificate.
        optional tls: Tls;
        /// Whether its tokens are revoked at the provider (RFC 7009) at the first start without this credential. The store must belong to this configuration alone.
        default("false") revoke_on_removal: bool;
        /// Binds tokens to a key of this program's own (DPoP, RFC 9449): every request proves that it holds the key.
        optional dpop: Dpop;
        /// Whether access tokens are bound to the client certificate (RFC 8705): it is then shown to the upstreams too. Unless given, `true` with `tls_client_auth` and `self_signed_tls_client_auth`.
        optional certificate_bound: bool;
        /// The HTTP proxy on the way to the token endpoint; the global one unless given.
        optional outbound_proxy: ProxyUrl;
        /// What `bearward login` and `bearward revoke` need and discovery does not tell.
        optional login: Login;
    }
}

block! {
    /// A token endpoint that is not OAuth's. In `url` (behind the host), `headers`, `form` and the texts of `json` these stand for their values: `{client_id}`, `{client_secret}`, `{basic}` (base64 of `client_id:client_secret`), `{refresh_token}`, `{scope}`, `{audience}`, `{username}`, `{password}`, `{subject_token}`. `client.auth` is added as to any token request unless `{client_secret}`, `{basic}` or an `Authorization` field stands in the templates. Where `{refresh_token}` stands in them, this request spends refresh tokens; else the refresh token that an answer brings is spent by the `refresh_token` grant at `token_endpoint`, or at `url`.
    struct CustomBlock = "custom" {
        /// The method.
        default("POST") method: http::Method;
        /// The URL.
        required url: Template;
        /// Header fields.
        optional headers: Named<Template>;
        /// The parameters of a form body.
        optional form: Named<Template>;
        /// A JSON body.
        optional json: JsonTemplate;
        /// Where the answer has what is needed.
        optional response: CustomResponseBlock;
    }
}

block! {
    /// Where a custom answer has what is needed, as JSON pointers.
    struct CustomResponseBlock = "custom response" {
        /// The access token; `/access_token` unless given.
        optional access_token: Pointer;
        /// Its lifetime in seconds; `/expires_in` unless given.
        optional expires_in: Pointer;
        /// A refresh token; without this none is taken.
        optional refresh_token: Pointer;
        /// An object of header fields that every request with the token must carry; they are injected beside it.
        optional headers: Pointer;
    }
}

/// `dpop.alg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum DpopAlgorithm {
    Es256,
}

choice! { DpopAlgorithm = "DPoP algorithm" { Self::Es256 => "ES256" } }

block! {
    /// How tokens are bound to a key. The key is made once and kept in the store with them.
    struct Dpop = "dpop" {
        /// The algorithm of the proofs.
        default("ES256") alg: DpopAlgorithm;
    }
}

block! {
    /// One place of a request where the token stands. What a client sends there is removed.
    struct InjectBlock = "inject" {
        /// A header field.
        optional header: http::HeaderName;
        /// The scheme before the token in a header field.
        optional scheme: NonEmpty;
        /// A cookie.
        optional cookie: NonEmpty;
        /// A query parameter; needs `allow_query: true`.
        optional query: NonEmpty;
        /// What stands there; `{token}` is the token, and all there is unless given.
        optional value: NonEmpty;
        /// What stands in `header` instead of the token: the text or number at this place of the token's answer, such as `/instance_url`.
        optional response: Pointer;
        /// Accepts that the token is in URLs, which servers write into their logs.
        default("false") allow_query: bool;
    }
}

block! {
    /// How a person logs in (`bearward login`).
    struct Login = "login" {
        /// Where a person is sent with a browser (authorization code with PKCE).
        optional authorization_endpoint: HttpUrl;
        /// Where a device asks for its code (`bearward login --device`).
        optional device_authorization_endpoint: HttpUrl;
        /// Where `bearward revoke` revokes tokens (RFC 7009).
        optional revocation_endpoint: HttpUrl;
        /// The redirect URI as it is registered. Without it, `http://127.0.0.1:PORT/callback` on a free port.
        optional redirect_uri: HttpUrl;
        /// The word that is added to a login's `scope` so that a refresh token comes; the preset's unless given, and none if it is empty.
        optional offline_scope: String;
        /// Further parameters of the authorization request, such as `access_type: offline`. The preset's are sent besides.
        optional parameters: Named<String>;
    }
}

block! {
    /// The client as it is registered with the provider, and how it proves who it is. Exactly one method is used.
    struct Client = "client" {
        /// The client identifier.
        required id: NonEmpty;
        /// `client_secret_basic`, `client_secret_post`, `client_secret_jwt`, `private_key_jwt`, `tls_client_auth`, `self_signed_tls_client_auth` or `none`. Without it, `client_secret_basic` (or what the preset says) where there is a secret and `private_key_jwt` where there is a key or an assertion.
        optional auth: AuthName;
        /// The client secret.
        optional secret: SecretSource;
        /// `form` as the standard says, or `raw` for servers that do not decode (`client_secret_basic`).
        optional basic_encoding: BasicEncoding;
        /// How assertions name the client: `plain`, `omit` or `base64_pair`, which puts the secret in the request's body.
        optional client_id_param: ClientIdParam;
        /// The PEM private key that signs assertions; with `tls_client_auth` that of `certificate`.
        optional key: SecretSource;
        /// The algorithm of `key`; the preset's unless given, which is `RS256` for most.
        optional alg: Algorithm;
        /// The `kid` of the assertion's header.
        optional kid: NonEmpty;
        /// The PEM certificate that `x5t` is computed from; with `tls_client_auth` the chain that is shown to the provider.
        optional certificate: FileRef;
        /// The thumbprint of `certificate` in the assertion's header: `sha1` (`x5t`) or `sha256` (`x5t#S256`), or both in a list; the preset's unless given.
        optional x5t: OneOrMany<Thumbprint>;
        /// The `aud` of assertions, a text or a list. Without it, the issuer if known, else the token endpoint.
        optional audience: OneOrMany<NonEmpty>;
        /// How long an assertion is valid; `60s` unless given.
        optional assertion_lifetime: Positive;
        /// Further claims of assertions.
        optional assertion_claims: Named<String>;
        /// A ready-made assertion, read from a file on every attempt.
        optional assertion: FileRef;
    }
}

block! {
    /// An assertion about a user (RFC 7523 2.1), minted here from a key or read from a file.
    struct UserAssertionBlock = "user_assertion" {
        /// A ready-made assertion: a file that is read on every attempt.
        optional file: crate::config::secrets::LocalPath;
        /// The user.
        optional sub: NonEmpty;
        /// The `aud`, a text or a list. Without it, the preset's, else the issuer if known, else the token endpoint.
        optional audience: OneOrMany<NonEmpty>;
        /// The PEM private key that signs it; `client.key` unless given.
        optional key: SecretSource;
        /// The algorithm of `key`; `RS256` unless given.
        optional alg: Algorithm;
        /// The `kid` of the header.
        optional kid: NonEmpty;
        /// The PEM certificate that `x5t` is computed from.
        optional certificate: FileRef;
        /// The thumbprint of `certificate` in the header: `sha1`, `sha256`, or both in a list.
        optional x5t: OneOrMany<Thumbprint>;
        /// How long it is valid; `60s` unless given.
        optional lifetime: Positive;
        /// Further claims.
        optional claims: Named<String>;
    }
}

block! {
    /// What is known of the rotation of refresh tokens.
    struct Rotation = "rotation" {
        /// `auto` takes refresh tokens for single use until observed otherwise; `single_use`; `reusable`.
        default("auto") mode: RotationMode;
        /// How long after its first use a refresh token may be sent again; the preset's unless given.
        optional grace: super::Grace;
    }
}

block! {
    /// When tokens are refreshed.
    struct Refresh = "refresh" {
        /// The part of the lifetime after which to refresh. Without it: 0.5 of two hours and more, 0.75 of more than a minute, 0.5 below.
        optional at: Fraction;
        /// The `scope` of refresh requests; without it none is sent.
        optional scope: NonEmpty;
        /// The least time between two token requests; the preset's unless given, which is `5s` for most.
        optional min_interval: Positive;
    }
}

block! {
    /// Lifetimes that answers do not tell.
    struct Lifetime = "lifetime" {
        /// Of an access token whose answer has no `expires_in`; the preset's unless given, which is `10m` for most.
        optional default: Positive;
        /// Of a refresh token; the preset's unless given.
        optional refresh_token: Positive;
    }
}
