//! PEM files: certificates, trust anchors and private keys.
//!
//! Owns: the messages for what people put into such files by mistake. Never shows a key.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// All certificates of a PEM file, in their order; at least one.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |reason: String| TlsError::File { path: path.display().to_string(), reason };
    let text = std::fs::read(path).map_err(|error| refused(plain(&error)))?;
    let found = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refused(format!("broken PEM: {}", pem_words(&error))))?;
    if !found.is_empty() {
        return Ok(found);
    }
    Err(refused(if text.starts_with(&[0x30, 0x82]) {
        "this is DER, and PEM is wanted: convert it with `openssl x509 -inform der -in … -out …`".into()
    } else if contains(&text, b"PRIVATE KEY-----") {
        "there is a private key here but no certificate (`-----BEGIN CERTIFICATE-----`)".into()
    } else {
        "no certificate in this file: it must hold PEM blocks that begin with `-----BEGIN CERTIFICATE-----`"
            .into()
    }))
}

/// The certificates of a PEM bundle as trust anchors.
pub fn read_trust_anchors(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in read_certificates(path)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| TlsError::File {
            path: path.display().to_string(),
            reason: format!("certificate {} of this file cannot be used as a root: {error}", index + 1),
        })?;
    }
    Ok(roots)
}

/// The first private key (PKCS#8, PKCS#1 or SEC1) in a PEM text that came from `place`.
pub fn parse_private_key(text: &str, place: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        let reason = match error {
            PemError::NoItemsFound => missing_key(text.as_bytes()).to_owned(),
            other => format!("broken PEM: {}", pem_words(&other)),
        };
        TlsError::File { path: place.to_owned(), reason }
    })
}

fn missing_key(text: &[u8]) -> &'static str {
    if contains(text, b"BEGIN ENCRYPTED PRIVATE KEY-----") || contains(text, b"Proc-Type: 4,ENCRYPTED") {
        "the private key is encrypted: decrypt it with `openssl pkey -in … -out …` and protect the file instead"
    } else if contains(text, b"BEGIN OPENSSH PRIVATE KEY-----") {
        "this is an OpenSSH key: convert it with `ssh-keygen -p -m pem -f …`"
    } else if contains(text, b"BEGIN CERTIFICATE-----") {
        "there is a certificate here but no private key (`-----BEGIN PRIVATE KEY-----`)"
    } else if contains(text, b"BEGIN PUBLIC KEY-----") {
        "this is a public key, and the private one is wanted"
    } else {
        "no private key here: a PEM block that begins with `-----BEGIN PRIVATE KEY-----` (or RSA, or EC) is wanted"
    }
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(text, what).is_some()
}

/// The parser's own words may quote a line of the file, which may be a key's.
fn pem_words(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a block has no END line",
        PemError::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        PemError::Base64Decode(_) => "a block is not base64",
        PemError::SectionTooLarge => "a block is too large",
        _ => "it cannot be parsed",
    }
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "it is a directory, and a PEM file is wanted".into(),
        _ => error.to_string(),
    }
}
