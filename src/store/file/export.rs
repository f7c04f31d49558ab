//! Records on their way to another store.
//!
//! Owns: the text of an export: the files of the records, one after the other, sealed with a key of the export. Never
//! writes a record in the clear.

use super::codec;
use super::seal::Keyring;
use crate::names::Name;
use crate::secret::SecretSource;
use crate::store::{Record, StoreError};

/// The text of an export.
pub async fn seal(records: &[(Name, Record)], key: &SecretSource) -> Result<Vec<u8>, StoreError> {
    let ring = keyring(key).await?;
    let mut text = Vec::new();
    for (name, record) in records {
        text.extend_from_slice(&codec::encode(name, record, &ring));
        if text.last() != Some(&b'\n') {
            text.push(b'\n');
        }
    }
    Ok(text)
}

/// The records of an export.
pub async fn open(text: &str, key: &SecretSource) -> Result<Vec<(Name, Record)>, StoreError> {
    let ring = keyring(key).await?;
    let mut records = Vec::new();
    let mut lines = text.lines();
    while let Some(header) = lines.next() {
        let refused = |reason: &str| {
            StoreError::Setup(format!("record {} of the export cannot be used: {reason}", records.len() + 1))
        };
        let name = header.split(' ').find_map(|word| word.strip_prefix("key="));
        let name = name.and_then(|name| Name::try_new(name).ok());
        let (Some(name), Some(body)) = (name, lines.next()) else {
            return Err(refused("it is not what `bearward store export` wrote, or it is cut short"));
        };
        let file = [header, "\n", body, "\n"].concat();
        let record =
            codec::decode(&name, file.as_bytes(), &ring).map_err(|unusable| refused(unusable.reason()))?;
        records.push((name, record));
    }
    if records.is_empty() {
        return Err(StoreError::Setup("there is no record in the export".into()));
    }
    Ok(records)
}

async fn keyring(key: &SecretSource) -> Result<Keyring, StoreError> {
    Keyring::read(std::slice::from_ref(key)).await.map_err(|error| match error {
        StoreError::Setup(text) => {
            StoreError::Setup(text.replace("key 1 of store.encryption", "the key of the export"))
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::store::Identity;

    fn key(text: &str) -> SecretSource {
        SecretSource::Value(Secret::from(text))
    }

    #[tokio::test]
    async fn records_come_back_whole_and_only_with_the_key() {
        let name = |text: &str| Name::try_new(text).expect("name");
        let record = |token: &str| Record {
            version: 1,
            refresh_token: Some(token.into()),
            ..Record::new(Identity::default())
        };
        let records = [(name("a"), record("first-token")), (name("b"), record("second-token"))];
        let text = seal(&records, &key("a pass phrase of the export")).await.expect("sealed");
        let text = String::from_utf8(text).expect("text");
        assert!(!text.contains("first-token") && !text.contains("second-token"));
        let back = open(&text, &key("a pass phrase of the export")).await.expect("opened");
        assert_eq!(back, records);
        for (text, key) in [
            (text.as_str(), key("another pass phrase of ours")),
            (&text[..text.len() - 9], key("a pass phrase of the export")),
            (&text.replacen("key=a", "key=b", 1), key("a pass phrase of the export")),
            ("hello", key("a pass phrase of the export")),
            ("", key("a pass phrase of the export")),
        ] {
            let error = open(text, &key).await.expect_err("refused").to_string();
            assert!(!error.contains("pass phrase of"), "{error}");
        }
        assert!(seal(&records, &key("short")).await.is_err());
    }
}
