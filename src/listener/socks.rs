//! SOCKS5 on an egress listener (RFC 1928, RFC 1929): another way of asking for a tunnel.
//!
//! Owns: the bytes of the negotiation and its deadline. Whom it lets in and where it leads is decided as for CONNECT.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::Limits;
use super::detect;
use super::entry::unless_stopped;
use super::intercept::{self, Way};
use super::serve::{End, Stop, join};
use super::stream::ClientStream;
use super::timer::Timer;
use crate::policy::egress::Target;
use crate::proxy::egress::socks;
use crate::proxy::{Client, Refusal, Site, Switched};
use crate::upstream::DialError;

/// What a SOCKS5 client says first.
pub(super) const VERSION: u8 = 5;
/// How long the negotiation may take, without the way to the target.
const LIMIT: Duration = Duration::from_secs(10);
/// RFC 1928, 3.
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
/// RFC 1929, 2.
const AUTHENTICATION_VERSION: u8 = 1;
/// RFC 1928, 4.
const CONNECT: u8 = 1;
/// RFC 1928, 6.
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_NOT_SUPPORTED: u8 = 8;

/// Serves a connection that began with [`VERSION`]. `read` was read from it already.
pub(super) async fn serve(
    stream: ClientStream,
    read: Bytes,
    client: Rc<Client>,
    site: Rc<Site>,
    limits: &Limits,
    (stop, mut timer): (Rc<Stop>, Timer),
) -> End {
    let mut near = Near { stream, read };
    let negotiation = async {
        let target = tokio::time::timeout(LIMIT, negotiate(&mut near, &client, &site)).await;
        match target.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
            Some(target) => open(&mut near, &client, &site, &target).await,
            None => Ok(None),
        }
    };
    let switched = match unless_stopped(negotiation, &stop).await {
        Ok(Ok(Some(switched))) => switched,
        Ok(Ok(None)) => return End::Closed,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a SOCKS connection broke off");
            return End::Closed;
        }
        Err(_) => return End::Cut,
    };
    match switched {
        Switched::Intercept(intercept) => {
            let way = Way::Connection(near.stream, near.read);
            intercept::run(way, intercept, client.link(), site, limits, stop).await
        }
        other => join((near.stream, near.read), other, limits.tunnel_idle_timeout, &stop, &mut timer).await,
    }
}

/// Who asks, and for what. `None`: it was refused and told so.
async fn negotiate(near: &mut Near, client: &Client, site: &Site) -> io::Result<Option<Target>> {
    let [_, count] = near.array().await?;
    let methods = near.bytes(count).await?;
    if !introduce(near, &methods, client, site).await? {
        return Ok(None);
    }
    let [version, command, _, kind] = near.array().await?;
    if version != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let host = match kind {
        1 => Host::Address(Ipv4Addr::from(near.array::<4>().await?).into()),
        4 => Host::Address(Ipv6Addr::from(near.array::<16>().await?).into()),
        3 => {
            let [length] = near.array().await?;
            Host::Name(near.bytes(length).await?)
        }
        _ => return near.refuse(ADDRESS_NOT_SUPPORTED).await,
    };
    let port = u16::from_be_bytes(near.array().await?);
    if command != CONNECT {
        return near.refuse(COMMAND_NOT_SUPPORTED).await;
    }
    match host.target(port) {
        Some(target) => Ok(Some(target)),
        None => near.refuse(GENERAL_FAILURE).await,
    }
}

/// Settles the method of authentication; whether the client may go on.
async fn introduce(near: &mut Near, methods: &[u8], client: &Client, site: &Site) -> io::Result<bool> {
    let offered = |method: u8| methods.contains(&method);
    if offered(USER_AND_PASSWORD) && (site.asks_clients() || !offered(NO_AUTHENTICATION)) {
        near.stream.write_all(&[VERSION, USER_AND_PASSWORD]).await?;
        let [version, length] = near.array().await?;
        let user = near.bytes(length).await?;
        let [length] = near.array().await?;
        let password = near.bytes(length).await?;
        let known =
            version == AUTHENTICATION_VERSION && socks::admits(site, client, Some((&user, &password))).await;
        near.stream.write_all(&[AUTHENTICATION_VERSION, u8::from(!known)]).await?;
        return Ok(known);
    }
    if offered(NO_AUTHENTICATION) && socks::admits(site, client, None).await {
        near.stream.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
        return Ok(true);
    }
    near.stream.write_all(&[VERSION, NO_ACCEPTABLE_METHOD]).await?;
    Ok(false)
}

/// Opens the way and says so, or why not.
async fn open(
    near: &mut Near,
    client: &Rc<Client>,
    site: &Site,
    target: &Target,
) -> io::Result<Option<Switched>> {
    match socks::open(site, client, target).await {
        Ok(way) => {
            near.reply(SUCCEEDED).await?;
            Ok(Some(way))
        }
        Err(refusal) => near.refuse(reply_of(&refusal)).await,
    }
}

fn reply_of(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::EgressDenied(_) | Refusal::NotBound | Refusal::Dial(DialError::Forbidden) => NOT_ALLOWED,
        Refusal::Dial(DialError::Refused) => REFUSED,
        Refusal::Dial(_) => HOST_UNREACHABLE,
        _ => GENERAL_FAILURE,
    }
}

enum Host {
    Name(Vec<u8>),
    Address(IpAddr),
}

impl Host {
    /// A name is held to what CONNECT may name.
    fn target(&self, port: u16) -> Option<Target> {
        if port == 0 {
            return None;
        }
        match self {
            Self::Address(ip) => Some(Target::of_address(*ip, port)),
            Self::Name(name) => {
                let name = std::str::from_utf8(name).ok().filter(|name| !name.contains(':'))?;
                Target::parse(&[name, ":", &port.to_string()].concat()).ok()
            }
        }
    }
}

/// The client's side.
struct Near {
    stream: ClientStream,
    read: Bytes,
}

impl Near {
    async fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn bytes(&mut self, length: u8) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::from(length)];
        self.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Says what came of it. The address that we dialled from is nobody's business.
    async fn reply(&mut self, code: u8) -> io::Result<()> {
        self.stream.write_all(&[VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]).await
    }

    async fn refuse<T>(&mut self, code: u8) -> io::Result<Option<T>> {
        self.reply(code).await?;
        self.stream.shutdown().await?;
        Ok(None)
    }
}

impl AsyncRead for Near {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        detect::hand_over(&mut this.read, buf);
        Poll::Ready(Ok(()))
    }
}
