//! DPoP (RFC 9449): proofs that whoever sends a token holds its key.
//!
//! Owns: the key, made once a credential and kept with its tokens, and the proofs. Knows no clock and no request.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;

use super::SetupError;
use crate::clock::UnixTime;
use crate::secret::Secret;

/// A key for proofs: P-256, ES256.
pub struct DpopKey {
    pair: EcdsaKeyPair,
    /// The encoded header with the public key in it, and the dot behind it.
    header: String,
}

/// What one proof is for.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// `htm`.
    pub method: &'a str,
    /// `htu`, in pieces: the target without query and fragment.
    pub target: &'a [&'a str],
    /// `iat`.
    pub now: UnixTime,
    /// `nonce`, where the server gave one.
    pub nonce: Option<&'a str>,
    /// `ath`, where a token goes with it.
    pub token_hash: Option<&'a str>,
}

impl DpopKey {
    /// A new key, as it is stored.
    pub fn generate() -> Result<Secret, SetupError> {
        let failed = |_| SetupError::Key("a DPoP key could not be made".into());
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
        let der = pair.to_pkcs8v1().map_err(failed)?;
        Ok(Secret::new(URL_SAFE_NO_PAD.encode(der.as_ref())))
    }

    /// Reads what [`DpopKey::generate`] gave.
    pub fn try_new(stored: &Secret) -> Result<Arc<Self>, SetupError> {
        let broken = || SetupError::Key("the stored DPoP key cannot be read".into());
        let der = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(stored.expose()).map_err(|_| broken())?);
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(|_| broken())?;
        // An uncompressed point: a four, then both coordinates.
        let point = pair.public_key().as_ref();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else { return Err(broken()) };
        let header = format!(
            r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}}}"#,
            URL_SAFE_NO_PAD.encode(x),
            URL_SAFE_NO_PAD.encode(y)
        );
        Ok(Arc::new(Self { header: URL_SAFE_NO_PAD.encode(header) + ".", pair }))
    }

    /// Signs a proof (RFC 9449 4.2). `None`: the machine gives no random numbers.
    pub fn prove(&self, proof: &Proof<'_>) -> Option<HeaderValue> {
        let random = SystemRandom::new();
        let mut id = [0_u8; 16];
        random.fill(&mut id).ok()?;
        let mut claims = String::with_capacity(320);
        claims.push_str(r#"{"jti":""#);
        URL_SAFE_NO_PAD.encode_string(id, &mut claims);
        claims.push_str(r#"","htm":""#);
        push_text(&mut claims, proof.method);
        claims.push_str(r#"","htu":""#);
        proof.target.iter().for_each(|piece| push_text(&mut claims, piece));
        claims.push_str(r#"","iat":"#);
        claims.push_str(&proof.now.seconds().to_string());
        for (name, value) in [("nonce", proof.nonce), ("ath", proof.token_hash)] {
            let Some(value) = value else { continue };
            for piece in [",\"", name, "\":\""] {
                claims.push_str(piece);
            }
            push_text(&mut claims, value);
            claims.push('"');
        }
        claims.push('}');
        let mut jwt = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 92);
        jwt.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut jwt);
        let signature = self.pair.sign(&random, jwt.as_bytes()).ok()?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        let mut value = HeaderValue::try_from(jwt).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl std::fmt::Debug for DpopKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DpopKey")
    }
}

/// `ath`: the hash of an access token.
pub fn token_hash(token: &Secret) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

/// Whether a text may be a nonce (RFC 9449 8.1).
pub fn is_nonce(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    !text.is_empty() && text.len() <= 1024 && text.bytes().all(is_char)
}

/// What may stand in a target and not in JSON's quotes.
fn push_text(json: &mut String, text: &str) {
    for piece in text.split_inclusive(['"', '\\']) {
        match piece.strip_suffix(['"', '\\']) {
            None => json.push_str(piece),
            Some(plain) => {
                json.push_str(plain);
                json.push('\\');
                json.push_str(&piece[plain.len()..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(proof: &HeaderValue) -> (serde_json::Value, serde_json::Value) {
        let text = proof.to_str().expect("ASCII");
        let parts: Vec<&str> = text.split('.').collect();
        let json = |part: &str| {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
        };
        assert_eq!(parts.len(), 3);
        (json(parts[0]), json(parts[1]))
    }

    #[test]
    fn a_proof_says_what_it_is_for_and_its_key_verifies_it() {
        let key = DpopKey::try_new(&DpopKey::generate().expect("a key")).expect("readable");
        let proof = Proof {
            method: "POST",
            target: &["https", "://", "api.example", "/a\"\\b"],
            now: UnixTime::from_millis(1_700_000_000_999),
            nonce: Some("n-1"),
            token_hash: Some(&token_hash(&"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU".into())),
        };
        let signed = key.prove(&proof).expect("a proof");
        assert!(signed.is_sensitive());
        let (header, said) = claims(&signed);
        assert_eq!((&header["typ"], &header["alg"]), (&"dpop+jwt".into(), &"ES256".into()));
        assert_eq!(said["htm"], "POST");
        assert_eq!(said["htu"], "https://api.example/a\"\\b");
        assert_eq!(said["iat"], 1_700_000_000);
        assert_eq!(said["nonce"], "n-1");
        // The example of RFC 9449 7.1.
        assert_eq!(said["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(header["jwk"].clone()).expect("a key");
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let decoding = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
        let text = signed.to_str().expect("ASCII");
        jsonwebtoken::decode::<serde_json::Value>(text, &decoding, &validation).expect("verified");
        let again = key.prove(&Proof { nonce: None, token_hash: None, ..proof }).expect("a proof");
        let (_, other) = claims(&again);
        assert_ne!(other["jti"], said["jti"], "fresh each time");
        assert!(other.get("nonce").is_none() && other.get("ath").is_none());
        assert!(DpopKey::try_new(&"broken".into()).is_err());
        assert!(is_nonce("a-b_c.1") && !is_nonce("a\"b") && !is_nonce("") && !is_nonce("a b"));
    }
}
