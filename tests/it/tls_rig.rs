//! What the tests of TLS listeners share: an authority that issues certificates, their files, and a raw client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bearward::secret::SecretSource;
use bearward::tls::provider;
use bearward::tls::server::TlsServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

/// An authority.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) certificate: rcgen::Certificate,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("params");
        // Else it has the name of what it issues, and OpenSSL takes that for self-signed.
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority of the tests");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate");
        Self { issuer: rcgen::Issuer::new(params, key), certificate }
    }

    /// For these names, until the year 4096.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 4096)
    }

    /// Until the first of March of that year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let key = rcgen::KeyPair::generate().expect("key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("params");
        params.not_after = rcgen::date_time_ymd(year, 3, 1);
        let cert = params.signed_by(&key, &self.issuer).expect("certificate").pem();
        Pair { cert, key: key.serialize_pem() }
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Pair>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("certificate")];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key");
                builder.with_client_auth_cert(chain, key).expect("identity")
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// The files of a listener.
pub(crate) struct Files(pub(crate) tempfile::TempDir);

impl Files {
    pub(crate) fn of(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().expect("tempdir"));
        files.write("tls.crt", &pair.cert);
        files.write("tls.key", &pair.key);
        files
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).expect("written");
    }

    pub(crate) fn config(&self) -> TlsServerConfig {
        TlsServerConfig {
            cert: self.at("tls.crt"),
            key: SecretSource::File(self.at("tls.key")),
            client_ca: self.at("clients.crt").exists().then(|| self.at("clients.crt")),
            client_optional: false,
        }
    }

    /// Puts a pair in the place of the last one at once, as Kubernetes does: `..data` leads to another directory.
    pub(crate) fn swap_data(&self, version: &str, pair: &Pair) {
        let folder = self.at(version);
        std::fs::create_dir(&folder).expect("created");
        std::fs::write(folder.join("tls.crt"), &pair.cert).expect("written");
        std::fs::write(folder.join("tls.key"), &pair.key).expect("written");
        std::os::unix::fs::symlink(version, self.at("..data_tmp")).expect("linked");
        std::fs::rename(self.at("..data_tmp"), self.at("..data")).expect("renamed");
        for name in ["tls.crt", "tls.key"] {
            if std::fs::symlink_metadata(self.at(name)).is_ok_and(|metadata| metadata.is_symlink()) {
                continue;
            }
            let _ = std::fs::remove_file(self.at(name));
            std::os::unix::fs::symlink(Path::new("..data").join(name), self.at(name)).expect("linked");
        }
    }
}

/// A raw client connection over TLS.
pub(crate) struct TlsWire<S: Read + Write>(pub(crate) StreamOwned<ClientConnection, S>);

impl TlsWire<TcpStream> {
    /// Connects; the handshake is whole, or an error tells why not.
    pub(crate) fn to(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Self::over(stream, config)
    }
}

impl<S: Read + Write> TlsWire<S> {
    /// The same over a connected socket.
    pub(crate) fn over(stream: S, config: &Arc<ClientConfig>) -> std::io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
        let mut wire = StreamOwned::new(session, stream);
        while wire.conn.is_handshaking() {
            wire.conn.complete_io(&mut wire.sock)?;
        }
        Ok(Self(wire))
    }

    /// `GET /` and its answer.
    pub(crate) fn get(&mut self) -> std::io::Result<String> {
        self.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }

    /// Sends a request and reads an answer with a Content-Length.
    pub(crate) fn exchange(&mut self, request: &str) -> std::io::Result<String> {
        self.0.write_all(request.as_bytes())?;
        self.0.flush()?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&answer).into_owned();
        let length = crate::proxy_rig::field_of(&head, "content-length");
        let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(head + &String::from_utf8_lossy(&body))
    }

    /// The certificate that was shown.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().expect("a certificate")[0].clone().into_owned()
    }
}
