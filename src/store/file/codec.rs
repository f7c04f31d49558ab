//! The bytes of a record's file.
//!
//! Owns: the header line and the checks that tell a whole record from a torn, damaged or foreign file.
//! Never writes, and never quotes what it reads.
//!
//! ```text
//! bearward-record 1 plain key=primavera sha256=<of the body>
//! {"format":1,"version":42,…}
//! ```

use zeroize::Zeroizing;

use crate::names::Name;
use crate::secret::Fingerprint;
use crate::store::Record;
use crate::store::record::RecordError;

const MAGIC: &str = "bearward-record";
const VERSION: &str = "1";
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
}

impl Unusable {
    /// What is wrong.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Damaged(reason) | Self::Foreign(reason) | Self::Newer(reason) => reason,
        }
    }
}

/// The file of a record.
pub(super) fn encode(key: &Name, record: &Record) -> Zeroizing<Vec<u8>> {
    let body = record.to_json();
    let header = format!("{MAGIC} {VERSION} plain key={key} sha256={}\n", Fingerprint::of(&body).to_hex());
    let mut file = Zeroizing::new(Vec::with_capacity(header.len() + body.len() + 1));
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&body);
    file.push(b'\n');
    file
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(key: &Name, file: &[u8]) -> Result<Record, Unusable> {
    if file.is_empty() {
        return Err(damaged("it is empty"));
    }
    let end = file.iter().take(MAX_HEADER).position(|byte| *byte == b'\n');
    let header = end.and_then(|end| std::str::from_utf8(&file[..end]).ok());
    let (Some(end), Some(header)) = (end, header) else {
        return Err(damaged("it does not begin with the line of a record"));
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
        [MAGIC, VERSION, ..] => Err(damaged("its first line is damaged")),
        [MAGIC, later, ..] if later.parse::<u32>().is_ok_and(|later| later > 1) => {
            Err(Unusable::Newer(format!("it has file format {later}, and this build knows format {VERSION}")))
        }
        _ => Err(damaged("it does not begin with the line of a record")),
    }
}

fn damaged(reason: &str) -> Unusable {
    Unusable::Damaged(reason.to_owned())
}

fn value<'a>(word: &'a str, name: &str) -> Result<&'a str, Unusable> {
    word.strip_prefix(name).ok_or_else(|| damaged("its first line is damaged"))
}

fn check_key(key: &Name, owner: &str) -> Result<(), Unusable> {
    if owner == key.as_str() {
        return Ok(());
    }
    match Name::try_new(owner) {
        Ok(owner) => Err(Unusable::Foreign(format!("it is the record of `{owner}`"))),
        Err(_) => Err(damaged("its first line is damaged")),
    }
}

fn read_json(json: &[u8]) -> Result<Record, Unusable> {
    Record::from_json(json).map_err(|error| match error {
        RecordError::Newer(_) => Unusable::Newer(error.to_string()),
        RecordError::Malformed { .. } | RecordError::Impossible(_) => Unusable::Damaged(error.to_string()),
    })
}
