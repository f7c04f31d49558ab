//! Certificates: whether the one that a connection showed is a client's.
//!
//! Owns: the names that are looked for. The chain was verified in the handshake; a client with a `ca` of its own is
//! verified against that once more.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::MtlsConfig;
use crate::tls::x509::Certificate;
use crate::tls::{TlsError, pem, provider};

/// One client's rule.
pub(super) struct Rule {
    config: MtlsConfig,
    ca: Option<ArcSwap<Verifier>>,
}

#[derive(Debug)]
struct Verifier(Arc<dyn ClientCertVerifier>);

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Rule {
    /// Reads the bundle, blocking.
    pub(super) fn try_new(config: &MtlsConfig) -> Result<Self, TlsError> {
        let ca = config.ca.as_deref().map(verifier).transpose()?;
        Ok(Self { config: config.clone(), ca: ca.map(ArcSwap::from_pointee) })
    }

    /// The bundle's file.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.config.ca.clone()
    }

    /// Reads the bundle again, blocking. After an error all is as it was.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        if let (Some(path), Some(ca)) = (&self.config.ca, &self.ca) {
            ca.store(Arc::new(verifier(path)?));
        }
        Ok(())
    }

    /// Whether the chain, the client's own certificate first, is this client's.
    pub(super) fn admits(&self, chain: &[CertificateDer<'static>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let verified = |ca: &ArcSwap<Verifier>| {
            ca.load().0.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok()
        };
        if !self.ca.as_ref().is_none_or(verified) {
            return false;
        }
        if self.config.san.is_empty() && self.config.spiffe.is_empty() {
            return true;
        }
        let Some(certificate) = Certificate::read(leaf) else { return false };
        let names = &certificate.names;
        self.config.san.iter().any(|pattern| names.iter().any(|name| name_matches(pattern, name)))
            || self.config.spiffe.iter().any(|pattern| spiffe_matches(pattern, &certificate.uris))
    }
}

fn verifier(path: &Path) -> Result<Verifier, TlsError> {
    let roots = Arc::new(pem::read_trust_anchors(path)?);
    let built = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    built.map(Verifier).map_err(|error| TlsError::Config(error.to_string()))
}

/// Whether a text can stand in `san`.
pub fn is_name_pattern(text: &str) -> bool {
    let rest = text.strip_prefix("**.").or_else(|| text.strip_prefix("*.")).unwrap_or(text);
    !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':'))
}

/// Whether a text can stand in `spiffe`.
pub fn is_spiffe_pattern(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let rest = rest.strip_suffix("/*").unwrap_or(rest);
    let mut parts = rest.split('/');
    let good = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    let domain = parts.next().unwrap_or_default();
    good(domain) && !domain.bytes().any(|byte| byte.is_ascii_uppercase()) && parts.all(good)
}

/// `*.` is one label, `**.` is one or more. A name of a certificate with a `*` of its own is never matched.
fn name_matches(pattern: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.contains('*') {
        return false;
    }
    let zone = |zone: &str| {
        let at = name.len().checked_sub(zone.len())?;
        let (labels, tail) = name.split_at_checked(at)?;
        let labels = labels.strip_suffix('.').filter(|labels| !labels.is_empty())?;
        tail.eq_ignore_ascii_case(zone).then_some(labels)
    };
    if let Some(rest) = pattern.strip_prefix("**.") {
        zone(rest).is_some()
    } else if let Some(rest) = pattern.strip_prefix("*.") {
        zone(rest).is_some_and(|labels| !labels.contains('.'))
    } else {
        pattern.eq_ignore_ascii_case(name)
    }
}

/// A certificate has one SPIFFE identifier, and it is its only URI.
fn spiffe_matches(pattern: &str, uris: &[String]) -> bool {
    let [uri] = uris else { return false };
    match pattern.strip_suffix('*') {
        // The path goes on behind the slash that stands before the `*`.
        Some(prefix) => uri.len() > prefix.len() && uri.starts_with(prefix),
        None => uri == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_label_by_label() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(name_matches(pattern, name), expected, "{pattern} {name}");
        };
        check("a.batch.internal", "A.Batch.internal.", true);
        check("a.batch.internal", "b.batch.internal", false);
        check("*.batch.internal", "a.batch.internal", true);
        check("*.batch.internal", "a.b.batch.internal", false);
        check("*.batch.internal", "batch.internal", false);
        check("*.batch.internal", ".batch.internal", false);
        check("*.batch.internal", "a.evilbatch.internal", false);
        check("*.batch.internal", "*.batch.internal", false);
        check("**.batch.internal", "a.b.batch.internal", true);
        check("**.batch.internal", "xbatch.internal", false);
        check("192.0.2.1", "192.0.2.1", true);
    }

    #[test]
    fn a_spiffe_identifier_is_the_only_uri() {
        let check = |pattern: &str, uris: &[&str], expected: bool| {
            let uris: Vec<_> = uris.iter().map(|uri| (*uri).to_owned()).collect();
            assert_eq!(spiffe_matches(pattern, &uris), expected, "{pattern} {uris:?}");
        };
        let batch = "spiffe://corp/ns/batch";
        check(batch, &[batch], true);
        check(batch, &[batch, "spiffe://corp/ns/erp"], false);
        check(batch, &["spiffe://corp/ns/batch2"], false);
        check("spiffe://corp/ns/*", &[batch], true);
        check("spiffe://corp/ns/*", &["spiffe://corp/ns/"], false);
        check("spiffe://corp/ns/*", &["spiffe://corp/nsx/batch"], false);
        check("spiffe://corp/ns/*", &[], false);
    }

    #[test]
    fn patterns_are_what_they_can_be() {
        for good in ["a.example", "*.a.example", "**.a.example", "192.0.2.1", "2001:db8::1"] {
            assert!(is_name_pattern(good), "{good}");
        }
        for bad in ["", "*", "*.", "a.*.example", "*a.example", "a b"] {
            assert!(!is_name_pattern(bad), "{bad}");
        }
        for good in ["spiffe://corp/a", "spiffe://corp/*", "spiffe://corp"] {
            assert!(is_spiffe_pattern(good), "{good}");
        }
        for bad in [
            "corp/a",
            "spiffe://",
            "spiffe:///*",
            "spiffe://corp/*/a",
            "https://corp/a",
            "spiffe://*/a",
            "spiffe://Corp/a",
            "spiffe://corp/a?b",
            "spiffe://corp//a",
            "spiffe://corp/../a",
            "spiffe://corp:1/a",
        ] {
            assert!(!is_spiffe_pattern(bad), "{bad}");
        }
    }
}
