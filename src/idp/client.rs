//! Who asks: client authentication (RFC 6749 2.3, RFC 7521 4.2, RFC 7523 3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::assertion::{Claims, Verifier, unverified_issuer};
use super::form::Form;
use super::log::AuthMethod;
use super::refusal::Refusal;
use super::settings::{BasicDecoding, Client, VerifyingKey};
use crate::secret::Secret;

/// The one assertion type for clients.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What a request says about its client, before any of it is believed.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) method: AuthMethod,
    pub(super) id: Option<String>,
    proof: Proof,
    had_basic: bool,
}

#[derive(Debug)]
enum Proof {
    None,
    /// Base64-decoded `id:secret`.
    Basic(Secret),
    Secret(Secret),
    Assertion(Secret),
}

impl Presented {
    /// Reads the headers and the form.
    pub(super) fn read(headers: &HeaderMap, form: &Form) -> Self {
        let basic = basic_pair(headers);
        let had_basic = headers.contains_key(AUTHORIZATION);
        let secret = form.value("client_secret");
        let assertion = form.value("client_assertion");
        let named = form.value("client_id").map(id_of_parameter);
        let count = usize::from(had_basic) + usize::from(secret.is_some()) + usize::from(assertion.is_some());
        if count > 1 {
            return Self { method: AuthMethod::Several, id: named, proof: Proof::None, had_basic };
        }
        if let Some(pair) = basic {
            let id = pair.expose().split_once(':').map(|(id, _)| percent_decoded(id));
            return Self { method: AuthMethod::ClientSecretBasic, id, proof: Proof::Basic(pair), had_basic };
        }
        if let Some(secret) = secret {
            let proof = Proof::Secret(Secret::from(secret));
            return Self { method: AuthMethod::ClientSecretPost, id: named, proof, had_basic };
        }
        if let Some(jwt) = assertion {
            let method = if Verifier::is_symmetric(jwt) {
                AuthMethod::ClientSecretJwt
            } else {
                AuthMethod::PrivateKeyJwt
            };
            let id = named.or_else(|| unverified_issuer(jwt));
            return Self { method, id, proof: Proof::Assertion(Secret::from(jwt)), had_basic };
        }
        Self { method: AuthMethod::None, id: named, proof: Proof::None, had_basic }
    }

    /// Finds the client and checks its proof.
    pub(super) fn authenticate<'a>(
        &self,
        clients: &'a [Client],
        form: &Form,
        verifier: &mut Verifier<'_>,
    ) -> Result<&'a Client, Refusal> {
        if self.method == AuthMethod::Several {
            // RFC 6749 2.3: one method a request.
            return Err(Refusal::invalid_request("More than one client authentication method was used."));
        }
        let refused = |why: &str| Refusal::invalid_client(why, self.had_basic);
        if let Proof::Basic(pair) = &self.proof {
            return clients
                .iter()
                .find(|client| basic_matches(client, pair.expose()))
                .ok_or_else(|| refused("Client authentication failed."));
        }
        let id = self.id.as_deref().ok_or_else(|| refused("No client was named."))?;
        let client = clients.iter().find(|client| client.id == id);
        let client = client.ok_or_else(|| refused("Client authentication failed."))?;
        match &self.proof {
            Proof::None if client.public && !self.had_basic => Ok(client),
            Proof::None => Err(refused("The client must authenticate.")),
            Proof::Secret(secret) if client.secrets.contains(secret) => Ok(client),
            Proof::Assertion(jwt) => {
                if form.value("client_assertion_type") != Some(ASSERTION_TYPE) {
                    return Err(Refusal::invalid_request("client_assertion_type is not jwt-bearer."));
                }
                let keys = if Verifier::is_symmetric(jwt.expose()) {
                    secret_keys(client)
                } else {
                    client.keys.clone()
                };
                let claims = verifier.verify(jwt.expose(), &keys).map_err(|why| refused(&why))?;
                self.check_claims(&claims, client).map_err(|why| refused(&why))?;
                Ok(client)
            }
            Proof::Secret(_) | Proof::Basic(_) => Err(refused("Client authentication failed.")),
        }
    }

    /// RFC 7523 3: `iss` and `sub` of a client's assertion are the client.
    fn check_claims(&self, claims: &Claims, client: &Client) -> Result<(), String> {
        for name in ["iss", "sub"] {
            if claims.text(name) != Some(client.id.as_str()) {
                return Err(format!("The claim {name} of the assertion is not the client."));
            }
        }
        Ok(())
    }
}

fn secret_keys(client: &Client) -> Vec<VerifyingKey> {
    let key = |secret: &Secret| VerifyingKey {
        algorithm: jsonwebtoken::Algorithm::HS256,
        key: jsonwebtoken::DecodingKey::from_secret(secret.expose().as_bytes()),
        kid: None,
        x5t: None,
        x5t_s256: None,
    };
    client.secrets.iter().map(key).collect()
}

fn basic_pair(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, pair) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok().map(Secret::new)
}

fn basic_matches(client: &Client, pair: &str) -> bool {
    let Some((id, secret)) = pair.split_once(':') else {
        return false;
    };
    let (id, secret) = match client.basic {
        BasicDecoding::Form => (percent_decoded(id), percent_decoded(secret)),
        BasicDecoding::Raw => (id.to_owned(), secret.to_owned()),
    };
    id == client.id && client.secrets.contains(&Secret::new(secret))
}

/// The form encoding of RFC 6749 appendix B.
fn percent_decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// The vendor's page shows `client_id=<base64(id:secret)>` in the assertion form; other pages the plain id.
fn id_of_parameter(value: &str) -> String {
    let pair = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((id, _)) => id.to_owned(),
        None => value.to_owned(),
    }
}
