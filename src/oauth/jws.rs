//! Signing of assertions (RFC 7515, compact form).
//!
//! Owns: private keys, parsed once and kept while their source is unchanged. Never shows one.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Map, Value};
use zeroize::Zeroize;

use super::SetupError;
use super::client_auth::{Algorithm, KeyId, SigningKey};
use super::last_good::LastGood;
use crate::secret::{Fingerprint, Secret, SecretError, SecretSource};
use crate::tls::pem;

/// A signing key that is read again for every signature and parsed again only when it changed.
#[derive(Default)]
pub(super) struct KeyCache(LastGood<(Fingerprint, Arc<Signer>)>);

/// A private key and the header that names it.
pub(super) struct Signer {
    /// The key.
    pub(super) key: PrivateKey,
    /// `alg`, `kid`, thumbprints of the certificate.
    pub(super) header: Map<String, Value>,
}

impl KeyCache {
    /// Reads key and certificate; the parsed ones of last time if they are the same, or if a file that was replaced
    /// cannot be used.
    pub(super) async fn read(&self, key: &SigningKey) -> Result<Arc<Signer>, SetupError> {
        let read = match key.source.read().await {
            Ok(text) => self.parsed(&text, key),
            // A command may answer the next time.
            Err(error @ SecretError::Exec { .. }) => return Err(error.into()),
            Err(error) => Err(error.into()),
        };
        self.0.or_last("signing key", read).map(|(_, signer)| signer)
    }

    /// The same, blocking, for the start.
    pub(super) fn read_blocking(&self, key: &SigningKey) -> Result<Arc<Signer>, SetupError> {
        let text = key.source.read_blocking()?;
        self.0.or_last("signing key", self.parsed(&text, key)).map(|(_, signer)| signer)
    }

    /// How often the last good key stood in for a broken one.
    pub(super) fn lapses(&self) -> u64 {
        self.0.lapses()
    }

    fn parsed(&self, text: &Secret, key: &SigningKey) -> Result<(Fingerprint, Arc<Signer>), SetupError> {
        let header = header(key.algorithm.as_str(), &key.key_id)?;
        let named = zeroize::Zeroizing::new(format!("{}{}", text.expose(), Value::from(header.clone())));
        let fingerprint = Fingerprint::of(named.as_bytes());
        if let Some((known, signer)) = self.0.get()
            && known == fingerprint
        {
            return Ok((fingerprint, signer));
        }
        let private = PrivateKey::parse(text, key.algorithm, &place_of(&key.source))?;
        // One of the two may be replaced and the other not yet: no assertion names a key that did not sign it.
        if let Some(certificate) = &key.key_id.certificate
            && !matches!(key.source, SecretSource::Exec(_))
        {
            crate::tls::certified_key(certificate, &key.source)?;
        }
        Ok((fingerprint, Arc::new(Signer { key: private, header })))
    }
}

fn place_of(source: &SecretSource) -> String {
    match source {
        SecretSource::Value(_) => "the key in the configuration".into(),
        SecretSource::Env(name) => format!("the key in the environment variable {name}"),
        SecretSource::File(path) => path.display().to_string(),
        SecretSource::Systemd(name) => format!("the systemd credential {name}"),
        SecretSource::Exec(command) => {
            format!("the key from the command `{}`", command.first().map_or("", String::as_str))
        }
    }
}

/// A private key that fits its algorithm.
pub(super) enum PrivateKey {
    /// RS256.
    RsaPkcs1(RsaKeyPair),
    /// PS256.
    RsaPss(RsaKeyPair),
    /// ES256 and ES384.
    Ecdsa(EcdsaKeyPair),
    /// EdDSA.
    Ed25519(Ed25519KeyPair),
    /// HS256 over a client secret.
    Hmac(Box<hmac::Key>),
}

impl PrivateKey {
    /// Parses PEM and checks that the key fits the algorithm.
    pub(super) fn parse(text: &Secret, algorithm: Algorithm, place: &str) -> Result<Self, SetupError> {
        let mut der = pem::parse_private_key(text.expose(), place)?;
        let key = Self::of_der(&der, algorithm, place);
        der.zeroize();
        key
    }

    fn of_der(der: &PrivateKeyDer<'static>, algorithm: Algorithm, place: &str) -> Result<Self, SetupError> {
        let parsed = match algorithm {
            Algorithm::Rs256 => rsa(der).map(Self::RsaPkcs1),
            Algorithm::Ps256 => rsa(der).map(Self::RsaPss),
            Algorithm::Es256 => ecdsa(der, &ECDSA_P256_SHA256_FIXED_SIGNING).map(Self::Ecdsa),
            Algorithm::Es384 => ecdsa(der, &ECDSA_P384_SHA384_FIXED_SIGNING).map(Self::Ecdsa),
            Algorithm::EdDsa => ed25519(der).map(Self::Ed25519),
        };
        parsed.ok_or_else(|| {
            let (found, wanted) = (kind_of(der), algorithm.wants());
            SetupError::Key(format!(
                "{place}: the key does not fit alg {}: {wanted} is wanted, this is {found}; set `alg` to what the key \
                 is for, or use another key",
                algorithm.as_str()
            ))
        })
    }

    /// A client secret as an HS256 key.
    pub(super) fn of_client_secret(secret: &Secret) -> Self {
        Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SetupError> {
        let random = SystemRandom::new();
        let failed = |_| SetupError::Key("the key could not sign an assertion".into());
        let rsa = |key: &RsaKeyPair, scheme| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(scheme, &random, message, &mut signature).map_err(failed)?;
            Ok(signature)
        };
        match self {
            Self::RsaPkcs1(key) => rsa(key, &RSA_PKCS1_SHA256),
            Self::RsaPss(key) => rsa(key, &RSA_PSS_SHA256),
            Self::Ecdsa(key) => Ok(key.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Self::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
        }
    }
}

impl Algorithm {
    /// As it stands in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    fn wants(self) -> &'static str {
        match self {
            Self::Rs256 | Self::Ps256 => "an RSA key of 2048 to 8192 bits",
            Self::Es256 => "a P-256 key",
            Self::Es384 => "a P-384 key",
            Self::EdDsa => "an Ed25519 key",
        }
    }
}

fn rsa(der: &PrivateKeyDer<'_>) -> Option<RsaKeyPair> {
    match der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
        _ => None,
    }
}

fn ecdsa(der: &PrivateKeyDer<'_>, curve: &'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair> {
    match der {
        PrivateKeyDer::Sec1(der) => EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der()).ok(),
        PrivateKeyDer::Pkcs8(der) => EcdsaKeyPair::from_private_key_der(curve, der.secret_pkcs8_der()).ok(),
        _ => None,
    }
}

fn ed25519(der: &PrivateKeyDer<'_>) -> Option<Ed25519KeyPair> {
    match der {
        // Files of OpenSSL hold the private half only.
        PrivateKeyDer::Pkcs8(der) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok(),
        _ => None,
    }
}

fn kind_of(der: &PrivateKeyDer<'_>) -> &'static str {
    if let Some(key) = rsa(der) {
        return if key.public_modulus_len() >= 256 { "an RSA key" } else { "a short RSA key" };
    }
    if ecdsa(der, &ECDSA_P256_SHA256_FIXED_SIGNING).is_some() {
        "a P-256 key"
    } else if ecdsa(der, &ECDSA_P384_SHA384_FIXED_SIGNING).is_some() {
        "a P-384 key"
    } else if ed25519(der).is_some() {
        "an Ed25519 key"
    } else {
        "a key of another kind or a broken one"
    }
}

/// The header of an assertion: `typ`, `alg` and how the key is named.
pub(super) fn header(algorithm: &str, key_id: &KeyId) -> Result<Map<String, Value>, SetupError> {
    let mut header = Map::new();
    header.insert("typ".into(), "JWT".into());
    header.insert("alg".into(), algorithm.into());
    if let Some(kid) = &key_id.kid {
        header.insert("kid".into(), kid.as_str().into());
    }
    if let Some(path) = &key_id.certificate {
        // RFC 7515 4.1.7 and 4.1.8: over the DER of the certificate that the key belongs to.
        let chain = pem::read_certificates(path)?;
        let leaf = chain.first().expect("a file without a certificate was refused");
        let mut insert = |name: &str, algorithm| {
            let thumbprint = URL_SAFE_NO_PAD.encode(digest::digest(algorithm, leaf));
            header.insert(name.into(), thumbprint.into());
        };
        if key_id.x5t_sha1 {
            insert("x5t", &digest::SHA1_FOR_LEGACY_USE_ONLY);
        }
        if key_id.x5t_sha256 {
            insert("x5t#S256", &digest::SHA256);
        }
    }
    Ok(header)
}

/// Signs claims.
pub(super) fn sign(
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
    key: &PrivateKey,
) -> Result<Secret, SetupError> {
    let encode = |part: &Map<String, Value>| {
        URL_SAFE_NO_PAD
            .encode(serde_json::to_vec(part).expect("a map of text keys and plain values serialises"))
    };
    let mut token = format!("{}.{}", encode(header), encode(claims));
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(Secret::new(token))
}

/// A fresh `jti`: 128 random bits.
pub(super) fn fresh_id() -> Result<String, SetupError> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| SetupError::Key("the system gives no random numbers".into()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
