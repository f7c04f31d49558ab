//! Dialling: names to addresses to a connected TCP stream.
//!
//! Owns: resolution and the race over all addresses (RFC 8305 in short). Never sends a byte.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long a name may take to resolve.
const RESOLUTION_DEADLINE: Duration = Duration::from_secs(3);
/// How long an address has before the next one is tried beside it.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// Judges addresses before they are dialled. The address that it saw is the one that is dialled.
pub trait AddressGuard: fmt::Debug + Send + Sync {
    /// Whether the address may be dialled on behalf of `host`.
    fn admits(&self, host: &str, address: SocketAddr) -> bool;
}

/// Why there is no connection to an upstream. Nothing of a request was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The name does not resolve.
    #[error("the name of the upstream does not resolve")]
    Dns,
    /// The resolver did not answer in time.
    #[error("the name of the upstream did not resolve in time")]
    DnsTimeout,
    /// Every address refused.
    #[error("the upstream refused the connection")]
    Refused,
    /// Connecting (or the handshake) took longer than `timeouts.connect`.
    #[error("connecting to the upstream took too long")]
    Timeout,
    /// The network says that there is no way.
    #[error("the upstream cannot be reached")]
    Unreachable,
    /// The certificate was not accepted.
    #[error("the certificate of the upstream was not accepted")]
    TlsCertificate,
    /// Another failure of the handshake.
    #[error("the TLS handshake with the upstream failed")]
    Tls,
    /// The network guard let no address of the name pass.
    #[error(
        "the upstream's address is not allowed: it is not of the internet and no range of `allow_private` holds it"
    )]
    Forbidden,
    /// HTTP/2 was asked for.
    #[error("the upstream does not speak HTTP/2")]
    NotHttp2,
    /// The outbound proxy did not open the way.
    #[error("the outbound proxy refused the connection")]
    OutboundProxy,
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // NotFound: a Unix socket that is not there.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                Self::Refused
            }
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable,
        }
    }
}

/// Connects to any of the addresses of `host` that `guard` admits. The caller sets the deadline of the whole.
pub(super) async fn connect(
    host: &str,
    port: u16,
    guard: Option<&dyn AddressGuard>,
) -> Result<TcpStream, DialError> {
    dial(&resolve_guarded(host, port, guard).await?).await
}

/// Connects to any of these very addresses.
pub(super) async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let stream = match addresses {
        [only] => TcpStream::connect(*only).await?,
        addresses => race(addresses).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The addresses of `host` that `guard` admits.
pub(super) async fn resolve_guarded(
    host: &str,
    port: u16,
    guard: Option<&dyn AddressGuard>,
) -> Result<Vec<SocketAddr>, DialError> {
    let mut addresses = resolve(host, port).await?;
    if let Some(guard) = guard {
        addresses.retain(|address| guard.admits(host, *address));
        if addresses.is_empty() {
            return Err(DialError::Forbidden);
        }
    }
    Ok(addresses)
}

/// The addresses of `host`, in the order in which they are tried.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let lookup = tokio::time::timeout(RESOLUTION_DEADLINE, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<_> = lookup.map_err(|_| DialError::DnsTimeout)?.map_err(|_| DialError::Dns)?.collect();
    if addresses.is_empty() { Err(DialError::Dns) } else { Ok(interleave(addresses)) }
}

/// Families in turn, beginning with the one that the resolver put first (RFC 8305, 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (leading, following): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut following = following.into_iter();
    let mut out = Vec::with_capacity(leading.len() + following.len());
    for address in leading {
        out.push(address);
        out.extend(following.next());
    }
    out.extend(following);
    out
}

async fn race(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut attempts: JoinSet<io::Result<TcpStream>> = JoinSet::new();
    let mut waiting = addresses.iter().copied();
    let mut last = DialError::Unreachable;
    loop {
        match waiting.next() {
            Some(address) => {
                attempts.spawn_local(TcpStream::connect(address));
            }
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some(outcome) = attempts.join_next() => match outcome {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error.into(),
                Err(_) => last = DialError::Unreachable,
            },
            () = tokio::time::sleep(HEAD_START), if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn families_take_turns() {
        let got = interleave(["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(address).to_vec());
        assert_eq!(got, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].map(address));
    }

    #[tokio::test]
    async fn a_refusing_address_does_not_hide_a_good_one() {
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let closed =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address");
        let local = tokio::task::LocalSet::new();
        let addresses = [closed, good.local_addr().expect("address")];
        let stream = local.run_until(race(&addresses)).await.expect("connected");
        assert_eq!(stream.peer_addr().ok(), good.local_addr().ok());
        assert_eq!(local.run_until(race(&[closed, closed])).await.err(), Some(DialError::Refused));
    }

    #[tokio::test]
    async fn a_name_that_cannot_exist_is_a_dns_error() {
        assert_eq!(connect("no-such-host.invalid", 1, None).await.err(), Some(DialError::Dns));
    }

    #[tokio::test]
    async fn an_address_that_the_guard_does_not_admit_is_not_dialled() {
        #[derive(Debug)]
        struct Only(u16);
        impl AddressGuard for Only {
            fn admits(&self, _host: &str, address: SocketAddr) -> bool {
                address.port() == self.0
            }
        }
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = server.local_addr().expect("address").port();
        let dial = |guard: Only| async move { connect("127.0.0.1", port, Some(&guard)).await };
        assert!(dial(Only(port)).await.is_ok());
        assert_eq!(dial(Only(1)).await.err(), Some(DialError::Forbidden));
    }
}
