//! Trusted proxies: peers whose word about a client is taken.
//!
//! Owns: who is one. Trust is by address alone: whoever can take such an address can claim to be any client.

use std::net::IpAddr;

use ipnet::IpNet;

/// One entry of `trusted_proxies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedPeer {
    /// A network, in normal form.
    Network(IpNet),
    /// Whoever connects to a Unix socket.
    Unix,
}

/// `trusted_proxies` of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<TrustedPeer>);

impl TrustedProxies {
    /// From the list.
    pub fn new(peers: Vec<TrustedPeer>) -> Self {
        Self(peers)
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this peer is trusted; `None` is one of a Unix socket.
    pub fn contain(&self, peer: Option<IpAddr>) -> bool {
        let peer = peer.map(|ip| ip.to_canonical());
        self.0.iter().any(|trusted| match (trusted, peer) {
            (TrustedPeer::Network(network), Some(ip)) => network.contains(&ip),
            (TrustedPeer::Unix, None) => true,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_trusted_by_their_address() {
        let network = |text: &str| TrustedPeer::Network(text.parse().expect("a network"));
        let trusted = TrustedProxies::new(vec![network("10.0.0.0/8"), network("2001:db8::/32")]);
        let check = |peer: &str, expected: bool| {
            assert_eq!(trusted.contain(Some(peer.parse().expect("ip"))), expected, "{peer}");
        };
        check("10.255.0.1", true);
        check("::ffff:10.0.0.1", true);
        check("11.0.0.1", false);
        check("2001:db8::1", true);
        check("2001:db9::1", false);
        check("::1", false);
        assert!(!trusted.contain(None));
        assert!(TrustedProxies::new(vec![TrustedPeer::Unix]).contain(None));
        assert!(!TrustedProxies::default().contain(None));
    }
}
