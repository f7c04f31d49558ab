//! All clients of a process: what was read for them, for every worker to look at.
//!
//! Owns: reading it, at the start and again when a file changes. A worker sees each part through one atomic load.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;
use ipnet::IpNet;

use super::api_key::{self, Keys};
use super::basic::{self, Hash, Verifiers};
use super::jwt::{self, KeySource};
use super::mtls::Rule;
use super::throttle::Throttle;
use super::{ApiKeyConfig, BasicConfig, ClientConfig, KeysFrom, Kind, Proof, UnixPeerConfig};
use crate::names::Name;
use crate::route::rate::Allowance;
use crate::tls::TlsError;

/// Why clients cannot be told apart.
#[derive(Debug, thiserror::Error)]
#[error("the client `{client}`: {reason}")]
pub struct ClientError {
    /// Which.
    pub client: Name,
    /// What is wrong.
    pub reason: String,
}

/// All clients.
#[derive(Debug)]
pub struct Clients {
    pub(super) entries: Vec<Entry>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) verifiers: Verifiers,
    /// What proofs are remembered under is keyed with this.
    pub(super) digest_key: aws_lc_rs::hmac::Key,
}

/// One client.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) kind: Kind,
    pub(super) proof: Known,
    pub(super) allowance: Option<Arc<Allowance>>,
}

/// What a proof is held against.
#[derive(Debug)]
pub(super) enum Known {
    Mtls(Rule),
    ApiKey { config: ApiKeyConfig, keys: ArcSwap<Keys> },
    Basic { config: BasicConfig, hash: ArcSwap<Hash> },
    Jwt(Box<jwt::Rule>),
    Cidr(Vec<IpNet>),
    UnixPeer(UnixPeerConfig),
}

impl Clients {
    /// Reads what is needed, blocking. What cannot be read is no client.
    pub fn try_new(configs: &[ClientConfig]) -> Result<Arc<Self>, ClientError> {
        let mut sources = Vec::new();
        let mut entry = |config: &ClientConfig| {
            let refused = |reason| ClientError { client: config.name.clone(), reason };
            let proof = Known::read(&config.proof, &mut sources).map_err(refused)?;
            let allowance = Allowance::of(config.throttle);
            Ok(Entry { name: config.name.clone(), kind: config.proof.kind(), proof, allowance })
        };
        let random = aws_lc_rs::rand::SystemRandom::new();
        let digest_key = aws_lc_rs::hmac::Key::generate(aws_lc_rs::hmac::HMAC_SHA256, &random);
        Ok(Arc::new(Self {
            entries: configs.iter().map(&mut entry).collect::<Result<_, _>>()?,
            throttle: Arc::default(),
            verifiers: Verifiers::default(),
            digest_key: digest_key.expect("the system has random numbers"),
        }))
    }

    /// Failed attempts, of clients and of whoever else shows a password.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// The names, in the order of the configuration.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.entries.iter().map(|entry| &entry.name)
    }

    /// The place of a client.
    pub fn index_of(&self, name: &Name) -> Option<usize> {
        self.entries.iter().position(|entry| entry.name == *name)
    }
}

impl Entry {
    pub(super) fn key_header(&self) -> Option<&HeaderName> {
        match &self.proof {
            Known::ApiKey { config, .. } => Some(&config.header),
            _ => None,
        }
    }
}

impl Known {
    /// `sources`: the keys of the issuers so far; clients of one issuer share them.
    fn read(proof: &Proof, sources: &mut Vec<Arc<KeySource>>) -> Result<Self, String> {
        Ok(match proof {
            Proof::Mtls(config) => {
                Self::Mtls(Rule::try_new(config).map_err(|error: TlsError| error.to_string())?)
            }
            Proof::ApiKey(config) => {
                Self::ApiKey { config: config.clone(), keys: ArcSwap::from_pointee(keys(config)?) }
            }
            Proof::Basic(config) => {
                Self::Basic { config: config.clone(), hash: ArcSwap::from_pointee(Hash::read(config)?) }
            }
            Proof::Jwt(config) => {
                let known = sources.iter().find(|source| source.from == config.keys);
                let source = match known {
                    Some(source) => Arc::clone(source),
                    None => {
                        let source = KeySource::new(config.keys.clone());
                        if let KeysFrom::File(path) = &config.keys {
                            source.read(path)?;
                        }
                        sources.push(Arc::clone(&source));
                        source
                    }
                };
                Self::Jwt(Box::new(jwt::Rule { config: (**config).clone(), source }))
            }
            Proof::Cidr(networks) => Self::Cidr(networks.clone()),
            Proof::UnixPeer(config) => Self::UnixPeer(config.clone()),
        })
    }

    /// The files to watch.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Mtls(rule) => rule.file().into_iter().collect(),
            Self::ApiKey { config, .. } => config.file.clone().into_iter().collect(),
            Self::Basic { config, .. } => basic::file(config).into_iter().collect(),
            Self::Jwt(rule) => match &rule.config.keys {
                KeysFrom::File(path) => vec![path.clone()],
                KeysFrom::Uri(_) => Vec::new(),
            },
            Self::Cidr(_) | Self::UnixPeer(_) => Vec::new(),
        }
    }

    /// Reads the files again, blocking. After an error all is as it was.
    pub(super) fn reload(&self) -> Result<(), String> {
        match self {
            Self::Mtls(rule) => rule.reload().map_err(|error| error.to_string()),
            Self::ApiKey { config, keys: current } => {
                current.store(Arc::new(keys(config)?));
                Ok(())
            }
            Self::Basic { config, hash } => {
                hash.store(Arc::new(Hash::read(config)?));
                Ok(())
            }
            Self::Jwt(rule) => match &rule.config.keys {
                KeysFrom::File(path) => rule.source.read(path),
                KeysFrom::Uri(_) => Ok(()),
            },
            Self::Cidr(_) | Self::UnixPeer(_) => Ok(()),
        }
    }
}

fn keys(config: &ApiKeyConfig) -> Result<Keys, String> {
    let mut digests = config.digests.clone();
    if let Some(path) = &config.file {
        digests.extend(api_key::read(path)?);
    }
    Ok(Keys::new(&digests))
}
