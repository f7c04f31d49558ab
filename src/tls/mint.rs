//! Certificates that are made here: the authority of an interception, and the leaves that it signs.
//!
//! Owns: what such certificates say, and what an authority must be to sign one. A leaf is for one name and short; its key is
//! this process's own and leaves it never.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use super::server::ALPN;
use super::{TlsError, pem, provider};
use crate::clock::UnixTime;
use crate::secret::{Fingerprint, SecretSource};

/// How long a leaf is good. Clocks of clients may be behind as far as [`BACKDATED`].
const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// `intercept:` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintConfig {
    /// PEM certificate of the authority, its own issuers after it.
    pub ca_cert: PathBuf,
    /// PEM private key of the first certificate.
    pub ca_key: SecretSource,
}

/// Signs leaves with the authority of one listener, shared by all workers.
#[derive(Debug)]
pub struct Mint {
    config: MintConfig,
    live: ArcSwap<Signer>,
}

/// What was read last.
#[derive(Debug)]
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// The certificates of the file.
    chain: Vec<CertificateDer<'static>>,
    /// Of the first of them.
    fingerprint: Fingerprint,
    not_after: UnixTime,
    permitted: Option<Permitted>,
    leaf_key: KeyPair,
}

/// The names that an authority may sign for (RFC 5280, 4.2.1.10).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Permitted {
    names: Vec<String>,
    networks: Vec<ipnet::IpNet>,
}

/// A certificate for one name with all that a handshake needs.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// For handshakes.
    pub server: Arc<rustls::ServerConfig>,
    /// Another one is wanted from here on.
    pub renew_at: UnixTime,
    /// Of the authority that signed it.
    pub authority: Fingerprint,
}

/// Why there is no leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The authority is not allowed to.
    #[error("the interception CA may not sign for `{0}`: its name constraints do not permit it")]
    NotPermitted(String),
    /// The authority's own time is over.
    #[error("the interception CA has expired: make a new one with `bearward ca init`")]
    Expired,
    /// Anything else.
    #[error("no certificate could be made for `{0}`")]
    Failed(String),
}

impl Mint {
    /// Reads the authority, blocking.
    pub fn try_new(config: &MintConfig) -> Result<Self, TlsError> {
        Ok(Self { config: config.clone(), live: ArcSwap::from_pointee(Signer::read(config)?) })
    }

    /// Reads the files again, blocking. After an error everything is as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.live.store(Arc::new(Signer::read(&self.config)?));
        Ok(())
    }

    /// The files to watch.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        [Some(self.config.ca_cert.clone()), self.config.ca_key.path()].into_iter().flatten().collect()
    }

    /// Which authority signs now.
    pub fn fingerprint(&self) -> Fingerprint {
        self.live.load().fingerprint
    }

    /// When the authority's time is over.
    pub fn not_after(&self) -> UnixTime {
        self.live.load().not_after
    }

    /// Whether the authority can sign for any name: whoever has its key can be any site to those who trust it.
    pub fn is_unconstrained(&self) -> bool {
        self.live.load().permitted.is_none()
    }

    /// Whether the authority may sign for a host (a name, or an address without brackets).
    pub fn permits(&self, host: &str) -> bool {
        self.live.load().permitted.as_ref().is_none_or(|permitted| permitted.has(host))
    }

    /// A leaf for a host (a name in lower case, or an address without brackets). Costs one signature.
    pub fn leaf(&self, host: &str, now: UnixTime) -> Result<Leaf, MintError> {
        self.live.load().leaf(host, now)
    }
}

impl Signer {
    fn read(config: &MintConfig) -> Result<Self, TlsError> {
        let path = config.ca_cert.display().to_string();
        let refused = |reason: String| TlsError::File { path: path.clone(), reason };
        let chain = pem::read_certificates(&config.ca_cert)?;
        // The key belongs to the certificate, and both can be used.
        super::certified_key(&config.ca_cert, &config.ca_key)?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|error| refused(format!("the first certificate cannot be parsed: {error}")))?;
        if !certificate.is_ca() {
            return Err(refused("the first certificate is not a CA's; `bearward ca init` makes one".into()));
        }
        let usage = certificate.key_usage().ok().flatten();
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(refused(
                "this CA may not sign certificates (its key usage lacks keyCertSign)".into(),
            ));
        }
        let permitted = permitted(&certificate)
            .map_err(|()| refused("the name constraints of this CA cannot be read".into()))?;
        let not_after = certificate.validity().not_after.timestamp();
        let not_after = UnixTime::from_millis(not_after.saturating_mul(1000));
        let failed = |error: rcgen::Error| refused(format!("this CA cannot be used: {error}"));
        let key = Self::key(config)?;
        let issuer = Issuer::from_ca_cert_der(&chain[0], key).map_err(failed)?;
        let leaf_key = KeyPair::generate().map_err(failed)?;
        let fingerprint = Fingerprint::of(&chain[0]);
        Ok(Self { issuer, fingerprint, not_after, permitted, leaf_key, chain })
    }

    fn key(config: &MintConfig) -> Result<KeyPair, TlsError> {
        let place =
            config.ca_key.path().map_or_else(|| "the CA's key".into(), |path| path.display().to_string());
        let der = pem::parse_private_key(config.ca_key.read_blocking()?.expose(), &place)?;
        KeyPair::try_from(&der)
            .map_err(|error| TlsError::File { path: place, reason: format!("this key cannot sign: {error}") })
    }

    fn leaf(&self, host: &str, now: UnixTime) -> Result<Leaf, MintError> {
        let failed = |_| MintError::Failed(host.to_owned());
        if self.permitted.as_ref().is_some_and(|permitted| !permitted.has(host)) {
            return Err(MintError::NotPermitted(host.to_owned()));
        }
        let not_after = now.plus(LEAF_LIFE).min(self.not_after);
        if not_after <= now {
            return Err(MintError::Expired);
        }
        let mut params = CertificateParams::default();
        params.not_before = date(now.minus(BACKDATED));
        params.not_after = date(not_after);
        params.distinguished_name = common_name(host);
        params.subject_alt_names = vec![match host.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(host.try_into().map_err(|_| MintError::Failed(host.to_owned()))?),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&self.leaf_key, &self.issuer).map_err(failed)?;
        let mut chain = vec![signed.der().clone()];
        // A root is not sent: who does not have it already does not trust it.
        let issuers = self.chain.len() - usize::from(self.chain.len() == 1);
        chain.extend(self.chain[..issuers].iter().cloned());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let server = CertifiedKey::from_der(chain, key, &provider()).and_then(server);
        let server = server.map_err(|_| MintError::Failed(host.to_owned()))?;
        let life = not_after.checked_since(now).unwrap_or_default();
        Ok(Leaf { server: Arc::new(server), renew_at: now.plus(life / 2), authority: self.fingerprint })
    }
}

fn server(key: CertifiedKey) -> Result<rustls::ServerConfig, rustls::Error> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(key));
    let mut server = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    server.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    // A session of one tunnel must not open another one.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

impl Permitted {
    fn has(&self, host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(ip) => self.networks.iter().any(|network| network.contains(&ip)),
            Err(_) => self.names.iter().any(|name| is_below(host, name)),
        }
    }
}

/// RFC 5280, 4.2.1.10: a name with any labels added on its left is below it.
fn is_below(host: &str, name: &str) -> bool {
    let name = name.strip_prefix('.').unwrap_or(name);
    let rest = host.len().checked_sub(name.len()).filter(|at| host[*at..].eq_ignore_ascii_case(name));
    rest.is_some_and(|at| at == 0 || name.is_empty() || host.as_bytes()[at - 1] == b'.')
}

/// `None`: any name. A kind of name that the extension does not list is unrestricted by it; of an authority for a few hosts
/// that is never meant, so it is taken for none.
fn permitted(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Result<Option<Permitted>, ()> {
    let Some(constraints) = certificate.name_constraints().map_err(|_| ())? else { return Ok(None) };
    let Some(subtrees) = &constraints.value.permitted_subtrees else { return Ok(None) };
    let mut permitted = Permitted::default();
    for subtree in subtrees {
        match &subtree.base {
            GeneralName::DNSName(name) => permitted.names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => permitted.networks.extend(network(bytes)),
            _ => {}
        }
    }
    Ok(Some(permitted))
}

/// An address with its mask.
fn network(bytes: &[u8]) -> Option<ipnet::IpNet> {
    let (address, mask): (IpAddr, IpAddr) = match bytes.len() {
        8 => (<[u8; 4]>::try_from(&bytes[..4]).ok()?.into(), <[u8; 4]>::try_from(&bytes[4..]).ok()?.into()),
        32 => {
            (<[u8; 16]>::try_from(&bytes[..16]).ok()?.into(), <[u8; 16]>::try_from(&bytes[16..]).ok()?.into())
        }
        _ => return None,
    };
    ipnet::IpNet::with_netmask(address, mask).ok()
}

/// An authority that was made now, as PEM.
#[derive(Debug)]
pub struct NewAuthority {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
    /// SHA-256 of the certificate, as tools show it.
    pub fingerprint: Fingerprint,
}

/// Makes an authority that may sign for `hosts` (names with everything below them, and addresses) and for nothing else; for
/// any name if there are none.
pub fn authority(
    name: &str,
    hosts: &[String],
    life: Duration,
    now: UnixTime,
) -> Result<NewAuthority, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.not_before = date(now.minus(BACKDATED));
    params.not_after = date(now.plus(life));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = (!hosts.is_empty()).then(|| constraints(hosts));
    let certificate = params.self_signed(&key)?;
    Ok(NewAuthority {
        fingerprint: Fingerprint::of(certificate.der()),
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

fn constraints(hosts: &[String]) -> NameConstraints {
    let subtree = |host: &String| match host.parse::<IpAddr>() {
        Ok(ip) => {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, if ip.is_ipv4() { 32 } else { 128 }))
        }
        Err(_) => GeneralSubtree::DnsName(host.clone()),
    };
    let permitted_subtrees: Vec<_> = hosts.iter().map(subtree).collect();
    let mut excluded_subtrees = Vec::new();
    // RFC 5280, 4.2.1.10: a kind of name that no subtree names is not restricted at all.
    if !hosts.iter().any(|host| host.parse::<IpAddr>().is_ok()) {
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
    }
    NameConstraints { permitted_subtrees, excluded_subtrees }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    // RFC 5280, appendix A.1: at most 64 characters. Names of hosts stand in the alternative names.
    subject.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    subject
}

fn date(time: UnixTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    struct Files {
        _directory: tempfile::TempDir,
        config: MintConfig,
    }

    fn files(hosts: &[&str]) -> Files {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = authority("test authority", &hosts, YEAR, NOW).expect("made");
        let directory = tempfile::tempdir().expect("a directory");
        let (cert, key) = (directory.path().join("ca.crt"), directory.path().join("ca.key"));
        std::fs::write(&cert, &made.certificate).expect("written");
        std::fs::write(&key, &*made.key).expect("written");
        Files { _directory: directory, config: MintConfig { ca_cert: cert, ca_key: SecretSource::File(key) } }
    }

    /// What a client says of a leaf for `minted` when it expects `expected`.
    fn verified(files: &Files, mint: &Mint, minted: &str, expected: &str) -> Result<(), String> {
        use rustls::client::danger::ServerCertVerifier;
        let leaf = mint.leaf(minted, NOW).map_err(|error| error.to_string())?;
        let hello = rustls::pki_types::ServerName::try_from(expected.to_owned()).expect("a name");
        let roots = pem::read_trust_anchors(&files.config.ca_cert).expect("roots");
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let chain = handshake(&leaf, expected);
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let verifier = verifier.build().expect("a verifier");
        let verdict = verifier.verify_server_cert(&chain[0], &chain[1..], &hello, &[], now);
        verdict.map(|_| ()).map_err(|error| error.to_string())
    }

    /// The certificates that a client is shown.
    fn handshake(leaf: &Leaf, host: &str) -> Vec<CertificateDer<'static>> {
        #[derive(Debug)]
        struct Any(std::sync::Mutex<Vec<CertificateDer<'static>>>);
        impl rustls::client::danger::ServerCertVerifier for Any {
            fn verify_server_cert(
                &self,
                leaf: &CertificateDer<'_>,
                issuers: &[CertificateDer<'_>],
                _: &rustls::pki_types::ServerName<'_>,
                _: &[u8],
                _: rustls::pki_types::UnixTime,
            ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
                let all = std::iter::once(leaf).chain(issuers).map(|one| one.clone().into_owned());
                *self.0.lock().expect("lock") = all.collect();
                Ok(rustls::client::danger::ServerCertVerified::assertion())
            }
            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }
            fn verify_tls13_signature(
                &self,
                message: &[u8],
                certificate: &CertificateDer<'_>,
                signature: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
                let algorithms = provider().signature_verification_algorithms;
                rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
            }
            fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
                provider().signature_verification_algorithms.supported_schemes()
            }
        }
        let seen = Arc::new(Any(std::sync::Mutex::default()));
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as _)
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut server = rustls::ServerConnection::new(Arc::clone(&leaf.server)).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("written");
            server.read_tls(&mut bytes.as_slice()).expect("read");
            server.process_new_packets().expect("taken");
            bytes.clear();
            server.write_tls(&mut bytes).expect("written");
            client.read_tls(&mut bytes.as_slice()).expect("read");
            client.process_new_packets().expect("taken");
        }
        seen.0.lock().expect("lock").clone()
    }

    #[test]
    fn leaves_are_for_one_name_and_verify() {
        let files = files(&["api.example.com", "192.0.2.7"]);
        let mint = Mint::try_new(&files.config).expect("an authority");
        assert_eq!(verified(&files, &mint, "api.example.com", "api.example.com"), Ok(()));
        assert_eq!(verified(&files, &mint, "eu.api.example.com", "eu.api.example.com"), Ok(()));
        assert_eq!(verified(&files, &mint, "192.0.2.7", "192.0.2.7"), Ok(()));
        assert!(verified(&files, &mint, "api.example.com", "eu.api.example.com").is_err());
        for other in ["example.com", "evil-api.example.com", "example.org", "192.0.2.8", "::1"] {
            assert_eq!(
                mint.leaf(other, NOW).map(|_| ()),
                Err(MintError::NotPermitted(other.into())),
                "{other}"
            );
            assert!(!mint.permits(other));
        }
        assert!(!mint.is_unconstrained());
    }

    #[test]
    fn an_authority_without_constraints_is_told_from_others() {
        let files = files(&[]);
        let mint = Mint::try_new(&files.config).expect("an authority");
        assert!(mint.is_unconstrained());
        assert_eq!(verified(&files, &mint, "anything.example", "anything.example"), Ok(()));
    }

    #[test]
    fn clients_hold_an_authority_to_its_constraints_too() {
        let files = files(&["api.example.com"]);
        let mint = Mint::try_new(&files.config).expect("an authority");
        let signer = mint.live.load();
        let rogue = Signer {
            issuer: Issuer::from_ca_cert_der(&signer.chain[0], Signer::key(&files.config).expect("a key"))
                .expect("an issuer"),
            chain: signer.chain.clone(),
            fingerprint: signer.fingerprint,
            not_after: signer.not_after,
            permitted: None,
            leaf_key: KeyPair::generate().expect("a key"),
        };
        let rogue = Mint { config: files.config.clone(), live: ArcSwap::from_pointee(rogue) };
        assert!(verified(&files, &rogue, "example.org", "example.org").is_err());
        assert!(verified(&files, &rogue, "192.0.2.8", "192.0.2.8").is_err());
    }

    #[test]
    fn what_is_no_authority_is_refused_with_words() {
        let files = files(&["a.example"]);
        let mint = Mint::try_new(&files.config).expect("an authority");
        assert_eq!(mint.leaf("a.example", NOW.plus(YEAR)).map(|_| ()), Err(MintError::Expired));
        let signed = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("signed");
        std::fs::write(&files.config.ca_cert, signed.cert.pem()).expect("written");
        let error = mint.reload().expect_err("another key").to_string();
        assert!(error.contains("does not belong"), "{error}");
        let key = files.config.ca_key.path().expect("a path");
        std::fs::write(key, signed.signing_key.serialize_pem()).expect("written");
        let error = mint.reload().expect_err("no authority").to_string();
        assert!(error.contains("not a CA's"), "{error}");
        assert!(mint.leaf("a.example", NOW).is_ok(), "the last good one stays");
    }
}
