//! TLS towards upstreams, whose files may change while the process runs.
//!
//! Owns: the rustls configuration that the next connection uses, and its replacement. What cannot be used never replaces
//! what can: after a broken file the last good configuration stays, and that is counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::{TlsClientConfig, TlsError, client_config};

/// The TLS settings of one upstream, shared by all workers.
#[derive(Debug)]
pub struct TlsSource {
    config: TlsClientConfig,
    alpn: Vec<Vec<u8>>,
    current: ArcSwap<rustls::ClientConfig>,
    epoch: AtomicU64,
    refused: AtomicU64,
}

impl TlsSource {
    /// Reads the files, blocking. `alpn`: the protocols to offer, the preferred first.
    pub fn try_new(config: &TlsClientConfig, alpn: &[&[u8]]) -> Result<Arc<Self>, TlsError> {
        let alpn = alpn.iter().map(|name| name.to_vec()).collect();
        let current = ArcSwap::from_pointee(read(config, &alpn)?);
        let (epoch, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Arc::new(Self { config: config.clone(), alpn, current, epoch, refused }))
    }

    /// What the next connection uses, without a session that another one could resume.
    pub fn current(&self) -> Arc<rustls::ClientConfig> {
        self.current.load_full()
    }

    /// How often it was replaced. A connection of before shows the certificate of before.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// How often changed files could not be used.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Says that changed files cannot be used.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything can change.
    pub fn has_files(&self) -> bool {
        !self.watched_files().is_empty()
    }

    /// The files to watch.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let identity = self.config.identity.iter();
        let identity = identity.flat_map(|identity| [Some(identity.cert.clone()), identity.key.path()]);
        std::iter::once(self.config.ca.clone()).chain(identity).flatten().collect()
    }

    /// Reads the files again, blocking. After an error everything is as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.config, &self.alpn)?));
        self.epoch.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

fn read(config: &TlsClientConfig, alpn: &Vec<Vec<u8>>) -> Result<rustls::ClientConfig, TlsError> {
    let mut tls = client_config(config)?;
    tls.alpn_protocols.clone_from(alpn);
    // Each worker has its own: no lock is shared between two.
    tls.resumption = rustls::client::Resumption::disabled();
    // Records are opened and sealed here (`records`), by the keys that the handshake made.
    tls.enable_secret_extraction = true;
    Ok(tls)
}
