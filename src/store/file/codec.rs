//! The bytes of a record's file.
//!
//! Owns: the header line and the checks that tell a whole record from a torn, damaged or foreign file.
//! Never writes, and never quotes what it reads.
//!
//! ```text
//! bearward-record 1 plain key=primavera sha256=<of the body>
//! {"format":1,"version":42,…}
//! ```
//!
//! and where keys are configured, with the whole first line as associated data (so that the record of one
//! credential cannot be passed off as another's):
//!
//! ```text
//! bearward-record 1 sealed key=primavera cipher=aes-256-gcm kid=<of the encryption key> kdf=none
//! <base64 of nonce, ciphertext and tag>
//! ```

use zeroize::Zeroizing;

use super::seal::{CIPHER, Kdf, Keyring};
use crate::names::Name;
use crate::secret::Fingerprint;
use crate::store::Record;
use crate::store::record::RecordError;

const MAGIC: &str = "bearward-record";
const VERSION: &str = "1";
const NO_RECORD: &str = "it does not begin with the line of a record";
const BAD_HEADER: &str = "its first line is damaged";
/// Longer than any header that is written.
const MAX_HEADER: usize = 512;

/// Why a file is no record of this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Cut short, changed, or never a record.
    Damaged(String),
    /// The record of another credential.
    Foreign(String),
    /// Written by a later build.
    Newer(String),
    /// Encrypted with a key that is not configured.
    Locked(String),
}

impl Unusable {
    /// What is wrong.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Damaged(reason) | Self::Foreign(reason) | Self::Newer(reason) | Self::Locked(reason) => {
                reason
            }
        }
    }
}

/// The file of a record: sealed where there is a key.
pub(super) fn encode(key: &Name, record: &Record, ring: &Keyring) -> Zeroizing<Vec<u8>> {
    let body = record.to_json();
    let Some((cipher_key, kdf)) = ring.first() else {
        let sum = Fingerprint::of(&body).to_hex();
        return file_of(&format!("{MAGIC} {VERSION} plain key={key} sha256={sum}"), &body);
    };
    let id = cipher_key.id();
    let header = format!("{MAGIC} {VERSION} sealed key={key} cipher={CIPHER} kid={id} kdf={kdf}");
    let sealed = cipher_key.seal(header.as_bytes(), body);
    file_of(&header, sealed.as_bytes())
}

fn file_of(header: &str, body: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut file = Zeroizing::new(Vec::with_capacity(header.len() + body.len() + 2));
    for part in [header.as_bytes(), b"\n", body, b"\n"] {
        file.extend_from_slice(part);
    }
    file
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(key: &Name, file: &[u8], ring: &Keyring) -> Result<Record, Unusable> {
    if file.is_empty() {
        return Err(damaged("it is empty"));
    }
    let end = file.iter().take(MAX_HEADER).position(|byte| *byte == b'\n');
    let header = end.and_then(|end| std::str::from_utf8(&file[..end]).ok());
    let (Some(end), Some(header)) = (end, header) else {
        return Err(damaged(NO_RECORD));
    };
    let body = &file[end + 1..];
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let words: Vec<_> = header.split(' ').collect();
    match words[..] {
        [MAGIC, VERSION, "plain", owner, sum] => {
            let owner = value(owner, "key=")?;
            let sum = value(sum, "sha256=")?;
            if sum != Fingerprint::of(body).to_hex() {
                return Err(damaged("it is cut short or was changed: its checksum does not match"));
            }
            check_key(key, owner)?;
            read_json(body)
        }
        [MAGIC, VERSION, "sealed", owner, cipher, id, kdf] => {
            check_key(key, value(owner, "key=")?)?;
            if value(cipher, "cipher=")? != CIPHER {
                return Err(damaged(BAD_HEADER));
            }
            let kdf = Kdf::parse(value(kdf, "kdf=")?).ok_or_else(|| damaged(BAD_HEADER))?;
            let json = unseal(header, body, value(id, "kid=")?, kdf, ring)?;
            read_json(&json)
        }
        [MAGIC, VERSION, ..] => Err(damaged(BAD_HEADER)),
        [MAGIC, later, ..] if later.parse::<u32>().is_ok_and(|later| later > 1) => {
            Err(Unusable::Newer(format!("it has file format {later}, and this build knows format {VERSION}")))
        }
        _ => Err(damaged(NO_RECORD)),
    }
}

fn unseal(
    header: &str,
    body: &[u8],
    id: &str,
    kdf: Kdf,
    ring: &Keyring,
) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(damaged(BAD_HEADER));
    }
    if ring.is_empty() {
        return Err(Unusable::Locked(format!("it is encrypted (key {id}), and no key is configured")));
    }
    let Some(key) = ring.find(id, kdf) else {
        return Err(Unusable::Locked(format!(
            "it is encrypted with key {id}, which is not among those configured"
        )));
    };
    key.open(header.as_bytes(), body).ok_or_else(|| {
        damaged("it is cut short or was changed: it cannot be decrypted, though its key is configured")
    })
}

fn damaged(reason: &str) -> Unusable {
    Unusable::Damaged(reason.to_owned())
}

fn value<'a>(word: &'a str, name: &str) -> Result<&'a str, Unusable> {
    word.strip_prefix(name).ok_or_else(|| damaged(BAD_HEADER))
}

fn check_key(key: &Name, owner: &str) -> Result<(), Unusable> {
    if owner == key.as_str() {
        return Ok(());
    }
    match Name::try_new(owner) {
        Ok(owner) => Err(Unusable::Foreign(format!("it is the record of `{owner}`"))),
        Err(_) => Err(damaged(BAD_HEADER)),
    }
}

fn read_json(json: &[u8]) -> Result<Record, Unusable> {
    Record::from_json(json).map_err(|error| match error {
        RecordError::Newer(_) => Unusable::Newer(error.to_string()),
        RecordError::Malformed { .. } | RecordError::Impossible(_) => Unusable::Damaged(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::seal::tests::keyring;
    use super::*;
    use crate::store::contract::{full_record, key};

    const KEY: &str = "fbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfb";
    const OTHER: &str = "0101010101010101010101010101010101010101010101010101010101010101";

    fn record() -> Record {
        Record { version: 7, ..full_record() }
    }

    #[tokio::test]
    async fn a_file_cut_at_any_byte_is_damaged() {
        for ring in [keyring(&[]).await, keyring(&[KEY]).await] {
            let file = encode(&key("k"), &record(), &ring);
            assert_eq!(decode(&key("k"), &file, &ring), Ok(record()));
            // Without its last line feed nothing is missing.
            assert_eq!(decode(&key("k"), &file[..file.len() - 1], &ring), Ok(record()));
            for length in 0..file.len() - 1 {
                match decode(&key("k"), &file[..length], &ring) {
                    Err(Unusable::Damaged(_)) => {}
                    other => panic!("{length} of {} bytes: {other:?}", file.len()),
                }
            }
        }
    }

    #[tokio::test]
    async fn no_changed_byte_passes() {
        for ring in [keyring(&[]).await, keyring(&[KEY]).await] {
            let file = encode(&key("k"), &record(), &ring);
            for index in 0..file.len() - 1 {
                for flip in [0x01, 0x20, 0x80] {
                    let mut changed = file.to_vec();
                    changed[index] ^= flip;
                    assert!(decode(&key("k"), &changed, &ring).is_err(), "byte {index} ^ {flip:#x}");
                }
            }
        }
    }

    #[tokio::test]
    async fn each_unusable_file_is_told_from_the_others() {
        let (none, ring) = (keyring(&[]).await, keyring(&[KEY]).await);
        let plain = encode(&key("k"), &record(), &none).to_vec();
        let sealed = encode(&key("k"), &record(), &ring).to_vec();
        let other = keyring(&[OTHER]).await;
        let check = |name: &str, file: &[u8], ring: &Keyring, expected: &str| {
            let shown = format!("{:?}", decode(&key(name), file, ring).expect_err(expected));
            assert!(shown.contains(expected), "{shown}");
        };
        check("k", b"", &none, "Damaged(\"it is empty");
        check("k", b"{\"refresh_token\": \"x\"}\n", &none, "Damaged(\"it does not begin");
        check("k", &[0xff; 4096], &none, "Damaged(\"it does not begin");
        check("other", &plain, &none, "Foreign(\"it is the record of `k`");
        check("other", &sealed, &ring, "Foreign(\"it is the record of `k`");
        check("k", b"bearward-record 2 plain\n{}", &none, "Newer(\"it has file format 2");
        check("k", &sealed, &none, "and no key is configured");
        check("k", &sealed, &other, "Locked(\"it is encrypted with key");
        let renamed = String::from_utf8(sealed).expect("text").replacen("key=k ", "key=l ", 1);
        check("l", renamed.as_bytes(), &ring, "Damaged(\"it is cut short or was changed");
    }

    #[tokio::test]
    async fn keys_rotate_by_standing_first() {
        let (none, old) = (keyring(&[]).await, keyring(&[KEY]).await);
        let both = keyring(&[OTHER, KEY]).await;
        let new = keyring(&[OTHER]).await;
        for file in [encode(&key("k"), &record(), &none), encode(&key("k"), &record(), &old)] {
            let read = decode(&key("k"), &file, &both).expect("plain and old records are read");
            let rewritten = encode(&key("k"), &read, &both);
            assert_eq!(decode(&key("k"), &rewritten, &new), Ok(record()), "the new key is enough now");
        }
    }

    #[tokio::test]
    async fn a_sealed_file_shows_nothing() {
        let ring = keyring(&[KEY]).await;
        let file = encode(&key("k"), &record(), &ring);
        let text = std::str::from_utf8(&file).expect("text");
        for secret in ["access-token", "refresh", "idp.example", "client", KEY] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
