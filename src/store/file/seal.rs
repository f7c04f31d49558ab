//! Encryption of records: the keys, and what is said of them in a file's header.
//!
//! Owns: reading keys, AES-256-GCM with a random nonce, and PBKDF2 for pass phrases. The first key
//! encrypts, all decrypt. Never shows a key, nor anything that would let a pass phrase be guessed faster
//! than PBKDF2 allows: the id of a key is made from what was derived.
//!
//! 32 random bytes are used as they are. A pass phrase costs tenths of a second of CPU for
//! each salt that is met, so all records that one process writes share a salt.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::secret::{Fingerprint, Secret, SecretSource};
use crate::store::StoreError;

/// The only cipher so far, as headers name it.
pub(super) const CIPHER: &str = "aes-256-gcm";
/// What new records are written with (OWASP's figure for PBKDF2-HMAC-SHA256).
const ITERATIONS: u32 = 600_000;
/// What a header may ask for: more would only burn time.
const MAX_ITERATIONS: u32 = 10_000_000;
const MIN_PHRASE: usize = 16;
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// The keys of a store. Empty: records are plain.
#[derive(Default)]
pub(super) struct Keyring {
    keys: Vec<Material>,
    derived: Mutex<HashMap<(usize, Stretch), Arc<Key>>>,
}

enum Material {
    Bytes(Arc<Key>),
    Phrase(Secret),
}

/// A key that can be used.
pub(super) struct Key {
    id: String,
    cipher: RandomizedNonceKey,
}

/// How a key comes from the secret, as the header says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kdf {
    /// The secret is the key.
    None,
    /// The secret is a pass phrase.
    Pbkdf2(Stretch),
}

/// The public inputs of PBKDF2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stretch {
    iterations: u32,
    salt: [u8; SALT_BYTES],
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

impl fmt::Display for Kdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Pbkdf2(Stretch { iterations, salt }) => {
                write!(f, "pbkdf2-sha256:{iterations}:{}", URL_SAFE_NO_PAD.encode(salt))
            }
        }
    }
}

impl Kdf {
    /// Reads what `Display` wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::None);
        }
        let (iterations, salt) = text.strip_prefix("pbkdf2-sha256:")?.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|n| (1..=MAX_ITERATIONS).contains(n))?;
        let salt = URL_SAFE_NO_PAD.decode(salt).ok()?.try_into().ok()?;
        Some(Self::Pbkdf2(Stretch { iterations, salt }))
    }
}

impl Keyring {
    /// Reads the secrets.
    pub(super) async fn read(sources: &[SecretSource]) -> Result<Self, StoreError> {
        let mut keys = Vec::with_capacity(sources.len());
        for (index, source) in sources.iter().enumerate() {
            let refused = |reason: String| {
                StoreError::Setup(format!("key {} of store.encryption cannot be used: {reason}", index + 1))
            };
            let secret = source.read().await.map_err(|error| refused(error.to_string()))?;
            keys.push(Material::of(secret).map_err(refused)?);
        }
        Ok(Self { keys, derived: Mutex::default() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that encrypts, and how it was made; `None` where records are plain.
    pub(super) fn first(&self) -> Option<(Arc<Key>, Kdf)> {
        match self.keys.first()? {
            Material::Bytes(key) => Some((Arc::clone(key), Kdf::None)),
            Material::Phrase(phrase) => {
                let stretch = self.known_salt().unwrap_or_else(Stretch::random);
                Some((self.derive(0, phrase, stretch), Kdf::Pbkdf2(stretch)))
            }
        }
    }

    /// The key of this id.
    pub(super) fn find(&self, id: &str, kdf: Kdf) -> Option<Arc<Key>> {
        let keys = self.keys.iter().enumerate();
        keys.filter_map(|(index, material)| match (material, kdf) {
            (Material::Bytes(key), Kdf::None) => Some(Arc::clone(key)),
            (Material::Phrase(phrase), Kdf::Pbkdf2(stretch)) => Some(self.derive(index, phrase, stretch)),
            _ => None,
        })
        .find(|key| key.id == id)
    }

    /// A salt that the first pass phrase was stretched with already: another one would cost time anew.
    fn known_salt(&self) -> Option<Stretch> {
        let derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        derived
            .keys()
            .find(|(index, known)| *index == 0 && known.iterations == ITERATIONS)
            .map(|(_, known)| *known)
    }

    fn derive(&self, index: usize, phrase: &Secret, stretch: Stretch) -> Arc<Key> {
        // Held while it is derived, so that two readers do not both do it.
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let key = derived.entry((index, stretch)).or_insert_with(|| {
            let mut bytes = Zeroizing::new([0; KEY_BYTES]);
            let iterations = NonZeroU32::new(stretch.iterations).unwrap_or(NonZeroU32::MIN);
            let phrase = phrase.expose().as_bytes();
            pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, &stretch.salt, phrase, &mut *bytes);
            Arc::new(Key::new(&bytes))
        });
        Arc::clone(key)
    }
}

impl Stretch {
    fn random() -> Self {
        let mut salt = [0; SALT_BYTES];
        aws_lc_rs::rand::fill(&mut salt).expect("the system has randomness");
        Self { iterations: ITERATIONS, salt }
    }
}

impl Material {
    fn of(secret: Secret) -> Result<Self, String> {
        let text = secret.expose().trim();
        if let Some(bytes) = key_bytes(text) {
            return Ok(Self::Bytes(Arc::new(Key::new(&bytes))));
        }
        let length = text.chars().count();
        if length < MIN_PHRASE {
            return Err(format!(
                "it has {length} characters: give 32 random bytes in base64 or hex (`openssl rand -base64 32`), or a \
                 pass phrase of at least {MIN_PHRASE} characters"
            ));
        }
        Ok(Self::Phrase(Secret::from(text)))
    }
}

/// The 32 bytes that a text stands for in hex or any usual base64.
fn key_bytes(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    if text.len() == 2 * KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        return Some(bytes);
    }
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|alphabet| {
        let decoded = Zeroizing::new(alphabet.decode(text).ok()?);
        let bytes: [u8; KEY_BYTES] = decoded.as_slice().try_into().ok()?;
        Some(Zeroizing::new(bytes))
    })
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let labelled = Zeroizing::new([b"bearward store key\0".as_slice(), bytes].concat());
        let id = Fingerprint::of(&labelled).to_hex()[..16].to_owned();
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("AES-256 takes 32 bytes");
        Self { id, cipher }
    }

    /// What tells it from others.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Nonce and ciphertext in base64.
    pub(super) fn seal(&self, header: &[u8], mut body: Zeroizing<Vec<u8>>) -> String {
        let sealed = self.cipher.seal_in_place_append_tag(Aad::from(header), &mut *body);
        let nonce = sealed.expect("a record is far below the 64 GiB that AES-GCM takes");
        STANDARD.encode([nonce.as_ref().as_slice(), &body].concat())
    }

    /// Undoes [`Key::seal`]; `None` where header or body were changed.
    pub(super) fn open(&self, header: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = Zeroizing::new(STANDARD.decode(sealed).ok()?);
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = self.cipher.open_in_place(nonce, Aad::from(header), &mut body).ok()?.len();
        body.truncate(plain);
        Some(body)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A keyring of these secrets.
    pub(in crate::store::file) async fn keyring(secrets: &[&str]) -> Keyring {
        let sources: Vec<_> = secrets.iter().map(|text| SecretSource::Value(Secret::from(*text))).collect();
        Keyring::read(&sources).await.expect("keys")
    }

    #[tokio::test]
    async fn thirty_two_bytes_are_a_key_in_every_usual_spelling() {
        let bytes = [0xfb; KEY_BYTES];
        let hex = "fb".repeat(KEY_BYTES);
        let spellings = [
            hex.clone(),
            hex.to_uppercase(),
            STANDARD.encode(bytes),
            URL_SAFE.encode(bytes),
            URL_SAFE_NO_PAD.encode(bytes),
            format!("{}\n", STANDARD_NO_PAD.encode(bytes)),
        ];
        let expected = Key::new(&bytes).id;
        for text in &spellings {
            let ring = keyring(&[text]).await;
            let (key, kdf) = ring.first().expect("a key");
            assert_eq!((key.id(), kdf), (expected.as_str(), Kdf::None), "{text}");
        }
    }

    #[tokio::test]
    async fn a_pass_phrase_is_stretched_with_a_salt_that_the_header_keeps() {
        let ring = keyring(&["correct horse battery staple"]).await;
        let (key, kdf) = ring.first().expect("a key");
        let sealed = key.seal(b"header", Zeroizing::new(b"body".to_vec()));
        assert_eq!(ring.first().expect("a key").1, kdf, "one salt a process");
        let later = keyring(&["correct horse battery staple"]).await;
        let found = later.find(key.id(), Kdf::parse(&kdf.to_string()).expect("kdf")).expect("the same key");
        assert_eq!(found.open(b"header", sealed.as_bytes()).expect("opens").as_slice(), b"body");
        assert_eq!(later.first().expect("a key").1, kdf, "a salt that was met is used on");
        let other = keyring(&["correct horse battery stapler"]).await;
        assert!(other.find(key.id(), kdf).is_none());
    }

    #[tokio::test]
    async fn weak_and_unreadable_keys_are_refused_without_being_shown() {
        let check = async |source: SecretSource, expected: &str| {
            let error = Keyring::read(&[source]).await.expect_err(expected).to_string();
            assert!(error.starts_with("key 1 of store.encryption cannot be used: "), "{error}");
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        };
        check(SecretSource::Value(Secret::from("hunter2")), "it has 7 characters: give 32 random bytes")
            .await;
        check(SecretSource::Env("BEARWARD_NO_SUCH_KEY".into()), "BEARWARD_NO_SUCH_KEY is not set").await;
    }

    #[test]
    fn headers_that_ask_for_too_much_work_are_refused() {
        let check = |text: &str, expected: bool| assert_eq!(Kdf::parse(text).is_some(), expected, "{text}");
        check("none", true);
        check("pbkdf2-sha256:600000:AAAAAAAAAAAAAAAAAAAAAA", true);
        check("pbkdf2-sha256:600000:AAAA", false);
        check("pbkdf2-sha256:0:AAAAAAAAAAAAAAAAAAAAAA", false);
        check("pbkdf2-sha256:4000000000:AAAAAAAAAAAAAAAAAAAAAA", false);
        check("scrypt", false);
    }

    #[test]
    fn every_write_has_another_nonce_and_no_change_passes() {
        let key = Key::new(&[7; KEY_BYTES]);
        let seal = || key.seal(b"header", Zeroizing::new(b"body".to_vec()));
        let sealed = seal();
        assert_ne!(sealed, seal());
        assert!(key.open(b"other header", sealed.as_bytes()).is_none());
        assert!(Key::new(&[8; KEY_BYTES]).open(b"header", sealed.as_bytes()).is_none());
        for index in 0..sealed.len() - 4 {
            let mut changed = sealed.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert!(key.open(b"header", &changed).is_none(), "byte {index}");
        }
    }
}
