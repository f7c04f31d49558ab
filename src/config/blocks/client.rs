//! Clients: who may use listeners and routes.

use http::HeaderName;
use serde_json::{Value, json};

use crate::config::addresses::{HttpUrl, Network, ProxyUrl};
use crate::config::block::block;
use crate::config::read::{At, Named, OneOrMany, Parse, ParseError};
use crate::config::secrets::FileRef;
use crate::config::values::{Count, Loose, NonEmpty, Positive};
use crate::policy::clients::{jwt, mtls};
use crate::secret::{Fingerprint, SecretSource};

block! {
    /// A client and how it shows who it is: exactly one of `mtls`, `api_key`, `basic`, `jwt`, `cidr`, `unix_peer`.
    struct Client = "client" {
        /// By a certificate. The listener needs `tls.client_ca`.
        optional mtls: Mtls;
        /// By a key in a header field.
        optional api_key: ApiKey;
        /// By user and password.
        optional basic: Basic;
        /// By a signed token of an issuer.
        optional jwt: Jwt;
        /// By the address that it comes from: whoever can take such an address is this client.
        optional cidr: Vec<At<Network>>;
        /// By the user or group that runs it, where it connects to a Unix socket.
        optional unix_peer: UnixPeerBlock;
        /// How often it may ask, on all listeners together. A tunnel counts once; of an intercepted connection each request
        /// inside does, and CONNECT does not.
        optional rate_limit: ClientRateBlock;
        /// Requests of it under way and tunnels open at a time, on all listeners together; more are answered with 429.
        optional concurrency: Count;
    }
}

block! {
    /// A token bucket of one client, for the whole process. What exceeds it is answered with 429 and `Retry-After`; every answer to
    /// the client tells the bucket in `RateLimit` and `RateLimit-Policy`.
    struct ClientRateBlock = "client rate limit" {
        /// How many requests.
        required requests: Count;
        /// In which time.
        default("1s") per: Positive;
        /// How many at once; as many as `requests` unless given.
        optional burst: Count;
    }
}

block! {
    /// A client with a certificate that the listener's `client_ca` issued. Of `san` and `spiffe` one entry must match; without
    /// either, every such certificate does.
    struct Mtls = "mtls" {
        /// DNS names or addresses of the certificate: `host`, `*.zone` (one label) or `**.zone` (any depth).
        optional san: Vec<At<NamePattern>>;
        /// SPIFFE identifiers: `spiffe://domain/path`, or one that ends with `/*`.
        optional spiffe: Vec<At<SpiffePattern>>;
        /// A PEM bundle that must have issued the certificate, where `client_ca` holds several.
        optional ca: FileRef;
    }
}

block! {
    /// A client with a key of high entropy. Only SHA-256 digests of keys are kept; `bearward client add` makes both.
    struct ApiKey = "api_key" {
        /// The header field that holds the key. It ends here: the upstream never sees it.
        default("X-Api-Key") header: HeaderName;
        /// The SHA-256 of each key, 64 hex digits.
        optional sha256: Vec<At<KeyDigest>>;
        /// A file with one digest a line; read again when it changes.
        optional keys: FileRef;
    }
}

block! {
    /// A client with a user name and a password (RFC 7617). Where many requests come it costs nothing: a password that was good
    /// is known again by a keyed digest.
    struct Basic = "basic" {
        /// The user name; no two clients have one.
        required username: NonEmpty;
        /// The argon2id hash of the password, as `bearward client hash` makes it; read again when its file changes.
        required password_hash: SecretSource;
    }
}

block! {
    /// A client with a token (RFC 7519) that an issuer signed for us. `exp`, `iss` and `aud` must be there.
    struct Jwt = "jwt" {
        /// The claim `iss`, letter for letter.
        required issuer: NonEmpty;
        /// What `aud` must name: one of these.
        required audience: OneOrMany<NonEmpty>;
        /// Where the issuer's keys are: https, or http on this machine.
        optional jwks_uri: HttpUrl;
        /// The issuer's keys in a file instead; read again when it changes.
        optional jwks: FileRef;
        /// Which signatures are good. One with a shared secret never is.
        optional algorithms: Vec<At<JwtAlgorithm>>;
        /// Further claims that must have these values, such as `sub` or `client_id`: they tell one client of an issuer from another.
        optional claims: Named<Loose>;
        /// How far clocks may differ; at most 5m.
        default("30s") leeway: crate::config::blocks::Grace;
        /// Whom to trust for `jwks_uri`.
        optional tls: crate::config::blocks::Tls;
        /// The HTTP proxy for `jwks_uri`; the global one unless given.
        optional outbound_proxy: ProxyUrl;
    }
}

/// An algorithm that signs with a private key.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct JwtAlgorithm(pub(in crate::config) jsonwebtoken::Algorithm);

impl Parse for JwtAlgorithm {
    const WHAT: &'static str = "an algorithm that signs with a private key";
    fn schema() -> Value {
        let names: Vec<String> = jwt::ALGORITHMS.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        json!({"title": "algorithm", "enum": names})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let known = jwt::ALGORITHMS.iter().find(|algorithm| format!("{algorithm:?}") == text);
        known.map(|algorithm| Self(*algorithm)).ok_or_else(|| {
            ParseError::plain().hint("use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA")
        })
    }
}

block! {
    /// A client at the other end of a Unix socket: its user is one of these, or its group.
    struct UnixPeerBlock = "unix_peer" {
        /// Numbers of users.
        optional uid: Vec<At<Id>>;
        /// Numbers of groups; the primary group of the process counts.
        optional gid: Vec<At<Id>>;
    }
}

/// A name in `san`.
#[derive(Debug, Clone)]
pub(in crate::config) struct NamePattern(pub(in crate::config) String);

impl Parse for NamePattern {
    const WHAT: &'static str = "a name such as `erp.internal` or `*.batch.internal`";
    fn schema() -> Value {
        json!({"title": "name", "type": "string", "examples": ["erp.internal", "*.batch.internal"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if mtls::is_name_pattern(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::plain().hint("a `*` or `**` stands alone in the first label"))
        }
    }
}

/// An identifier in `spiffe`.
#[derive(Debug, Clone)]
pub(in crate::config) struct SpiffePattern(pub(in crate::config) String);

impl Parse for SpiffePattern {
    const WHAT: &'static str = "a SPIFFE identifier such as `spiffe://corp/batch` or `spiffe://corp/ns/*`";
    fn schema() -> Value {
        json!({"title": "SPIFFE identifier", "type": "string", "examples": ["spiffe://corp/batch", "spiffe://corp/ns/*"]})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        if mtls::is_spiffe_pattern(text) {
            return Ok(Self(text.to_owned()));
        }
        let problem = ParseError::plain();
        Err(match text.strip_prefix("spiffe://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
            None => problem.hint("it begins with `spiffe://` and the trust domain: `spiffe://corp/batch`"),
            Some((domain, _)) if domain.contains('*') => {
                problem.hint("a trust domain is named whole: list `spiffe://DOMAIN/*` for each that may come")
            }
            Some((domain, _)) if domain.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                problem.hint("trust domains are written in lower case")
            }
            Some((_, path)) if path.contains('*') => {
                problem.hint("a `*` stands alone behind the last `/`, for everything below")
            }
            Some(_) => problem.hint(
                "letters, digits, `.`, `-` and `_`, in parts that single `/` divide; no port, no query",
            ),
        })
    }
}

/// The SHA-256 of a key.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct KeyDigest(pub(in crate::config) Fingerprint);

impl Parse for KeyDigest {
    const WHAT: &'static str = "the SHA-256 of a key, 64 hex digits";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "SHA-256", "type": "string", "pattern": "^[0-9A-Fa-f]{64}$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        let known = Fingerprint::from_hex(text).map(Self);
        known.ok_or_else(|| {
            ParseError::plain()
                .hint("the key itself does not belong here: `printf %s KEY | sha256sum` tells its digest")
        })
    }
}

/// The number of a user or group.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Id(pub(in crate::config) u32);

impl Parse for Id {
    const WHAT: &'static str = "the number of a user or group";
    const NUMBERS: bool = true;
    fn schema() -> Value {
        json!({"title": "number", "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+$|\\$\\{"})
    }
    fn parse(text: &str) -> Result<Self, ParseError> {
        text.parse().map(Self).map_err(|_| ParseError::plain().hint("`id -u NAME` tells it"))
    }
}
