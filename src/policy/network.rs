//! The network guard: which resolved addresses an upstream connection may go to.
//!
//! Owns: the judgement of one address, whatever text it was resolved from. It is asked at dial time, and the address that it
//! saw is the one that is dialled. Resolves nothing and connects to nothing.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use crate::names::Name;
use crate::telemetry::throttle::Throttle;
use crate::upstream::AddressGuard;

/// `egress_network`, or `network_guard` of a route, with what this process itself listens on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkGuard {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    own_ports: Vec<u16>,
}

/// Why an address is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// `deny`.
    Listed,
    /// This process listens there.
    Ourselves,
    /// Where a cloud hands credentials to its machines.
    Metadata,
    /// 127.0.0.0/8, ::1.
    Loopback,
    /// 0.0.0.0/8, ::.
    Unspecified,
    /// RFC 1918.
    Private,
    /// RFC 4193, and the site-local addresses before it.
    UniqueLocal,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// 100.64.0.0/10.
    SharedAddressSpace,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// RFC 5737, RFC 3849, RFC 9637.
    Documentation,
    /// RFC 2544, RFC 5180.
    Benchmarking,
    /// 64:ff9b:1::/48: where the IPv4 address stands in it is known to its network only.
    LocalTranslation,
    /// Everything else that is not globally reachable.
    Reserved,
}

impl Blocked {
    /// A word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Ourselves => "ourselves",
            Self::Metadata => "metadata",
            Self::Loopback => "loopback",
            Self::Unspecified => "unspecified",
            Self::Private => "private",
            Self::UniqueLocal => "unique_local",
            Self::LinkLocal => "link_local",
            Self::SharedAddressSpace => "shared_address_space",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::LocalTranslation => "local_translation",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listed => "`deny` lists it",
            Self::Ourselves => "this proxy itself listens there",
            Self::Metadata => "a cloud's metadata service",
            Self::Loopback => "a loopback address",
            Self::Unspecified => "an unspecified address, which reaches this machine",
            Self::Private => "a private address",
            Self::UniqueLocal => "a unique local address",
            Self::LinkLocal => "a link-local address",
            Self::SharedAddressSpace => "an address of a provider's shared space (100.64.0.0/10)",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Documentation => "an address for documentation",
            Self::Benchmarking => "an address for benchmarks",
            Self::LocalTranslation => "an address of a local IPv4 translation (64:ff9b:1::/48)",
            Self::Reserved => "a reserved address",
        })
    }
}

impl NetworkGuard {
    /// `allow` makes exceptions from the built-in denials, `deny` adds to them and wins over `allow`.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny, own_ports: Vec::new() }
    }

    /// The ports that this process listens on; no range of `allow` opens the way to them.
    #[must_use]
    pub fn with_own_ports(mut self, ports: &[u16]) -> Self {
        self.own_ports = ports.to_vec();
        self
    }

    /// Judges an address that is about to be dialled.
    pub fn judge(&self, address: SocketAddr) -> Result<(), Blocked> {
        let ip = address.ip().to_canonical();
        let inside = Inside::of(ip);
        let forms = || std::iter::once(ip).chain(inside.iter().map(IpAddr::V4));
        let listed = |ranges: &[IpNet], ip: IpAddr| ranges.iter().any(|range| range.contains(&ip));
        if forms().any(|ip| listed(&self.deny, ip)) {
            return Err(Blocked::Listed);
        }
        if self.own_ports.contains(&address.port()) && forms().any(is_own_address) {
            return Err(Blocked::Ourselves);
        }
        if listed_itself(&self.allow, ip) {
            return Ok(());
        }
        let of_inside = inside
            .iter()
            .map(IpAddr::V4)
            .find_map(|ip| natural(ip).filter(|blocked| !excepted(&self.allow, ip, *blocked)));
        let blocked = of_inside.or_else(|| natural(ip).filter(|_| !inside.replaces));
        match blocked {
            Some(blocked) if !excepted(&self.allow, ip, blocked) => Err(blocked),
            _ => Ok(()),
        }
    }
}

/// The guard of an egress listener or of a route, at the place where addresses are dialled.
#[derive(Debug)]
pub struct DialGuard {
    listener: Name,
    route: Option<Name>,
    guard: NetworkGuard,
    throttle: Throttle,
}

impl DialGuard {
    /// The guard of this listener.
    pub fn new(listener: Name, guard: NetworkGuard) -> Self {
        Self { listener, route: None, guard, throttle: Throttle::default() }
    }

    /// The same of one route.
    #[must_use]
    pub fn of_route(self, route: Name) -> Self {
        Self { route: Some(route), ..self }
    }
}

impl AddressGuard for DialGuard {
    fn admits(&self, host: &str, address: SocketAddr) -> bool {
        let Err(blocked) = self.guard.judge(address) else { return true };
        if let Some(suppressed) = self.throttle.admit() {
            let (listener, reason) = (&self.listener, blocked.as_str());
            let route = self.route.as_ref().map(Name::as_str);
            tracing::info!(target: "bearward::egress", %listener, route, decision = "address_denied", host, %address, reason, suppressed);
        }
        false
    }
}

/// A metadata service gives away credentials: only a range that is its very address makes an exception of it.
fn excepted(allow: &[IpNet], ip: IpAddr, blocked: Blocked) -> bool {
    match blocked {
        Blocked::Metadata => listed_itself(allow, ip),
        _ => allow.iter().any(|range| range.contains(&ip)),
    }
}

fn listed_itself(ranges: &[IpNet], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.prefix_len() == range.max_prefix_len() && range.addr() == ip)
}

/// Whether an address is one of this machine: only such a one can be bound to. What cannot be told counts as one.
fn is_own_address(ip: IpAddr) -> bool {
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

/// The IPv4 addresses inside an IPv6 address that leads to them.
#[derive(Debug, Default)]
struct Inside {
    addresses: [Option<Ipv4Addr>; 2],
    /// Its own prefix only says how they stand in it.
    replaces: bool,
}

impl Inside {
    fn of(ip: IpAddr) -> Self {
        let IpAddr::V6(ip) = ip else { return Self::default() };
        let bytes = ip.octets();
        let at =
            |place: usize| Ipv4Addr::new(bytes[place], bytes[place + 1], bytes[place + 2], bytes[place + 3]);
        match ip.segments() {
            // Itself, and the loopback address.
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::default(),
            // IPv4-compatible (RFC 4291, 2.5.5.1), IPv4-translated (RFC 2765), NAT64 (RFC 6052).
            [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                Self { addresses: [Some(at(12)), None], replaces: true }
            }
            // 6to4 (RFC 3056).
            [0x2002, ..] => Self { addresses: [Some(at(2)), None], replaces: true },
            // Teredo (RFC 4380): the server, and the client in one's complement.
            [0x2001, 0, ..] => {
                let client = Ipv4Addr::from_bits(!at(12).to_bits());
                Self { addresses: [Some(at(4)), Some(client)], replaces: true }
            }
            // ISATAP (RFC 5214), below any prefix.
            [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Self { addresses: [Some(at(12)), None], replaces: false },
            _ => Self::default(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().flatten().copied()
    }
}

/// What an address is by itself; `None`: globally reachable.
fn natural(ip: IpAddr) -> Option<Blocked> {
    match ip {
        IpAddr::V4(ip) => natural_v4(ip),
        IpAddr::V6(ip) => natural_v6(ip),
    }
}

fn natural_v4(ip: Ipv4Addr) -> Option<Blocked> {
    Some(match ip.octets() {
        // AWS, Azure, GCP and most others; ECS; EKS; Alibaba; Oracle; Azure's wire server.
        [169, 254, 169, 254]
        | [169, 254, 170, 2 | 23]
        | [100, 100, 100, 200]
        | [192, 0, 0, 192]
        | [168, 63, 129, 16] => Blocked::Metadata,
        [0, ..] => Blocked::Unspecified,
        [127, ..] => Blocked::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Blocked::Private,
        [169, 254, ..] => Blocked::LinkLocal,
        [100, 64..=127, ..] => Blocked::SharedAddressSpace,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Blocked::Documentation,
        [198, 18..=19, ..] => Blocked::Benchmarking,
        [255, 255, 255, 255] => Blocked::Broadcast,
        [224..=239, ..] => Blocked::Multicast,
        // Protocol assignments, the anycast address of 6to4 relays, class E.
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Blocked::Reserved,
        _ => return None,
    })
}

fn natural_v6(ip: Ipv6Addr) -> Option<Blocked> {
    Some(match ip.segments() {
        // AWS; GCP; Oracle.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23]
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe] => Blocked::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 0] => Blocked::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Blocked::Loopback,
        [0x64, 0xff9b, 1, ..] => Blocked::LocalTranslation,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Blocked::UniqueLocal,
        [0xfe80..=0xfebf, ..] => Blocked::LinkLocal,
        [0xff00..=0xffff, ..] => Blocked::Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Blocked::Documentation,
        [0x2001, 2, 0, ..] => Blocked::Benchmarking,
        // Protocol assignments (RFC 2928), of which only these are reachable: PCP and TURN anycast, AMT, AS112, drones.
        [0x2001, 1, 0, 0, 0, 0, 0, 1 | 2] | [0x2001, 3 | 4 | 0x30..=0x3f, ..] => return None,
        [0x2001, 0..=0x1ff, ..] => Blocked::Reserved,
        [0x2000..=0x3fff, ..] => return None,
        _ => Blocked::Reserved,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(guard: &NetworkGuard, ip: &str) -> &'static str {
        let ip: IpAddr = ip.parse().expect(ip);
        guard.judge(SocketAddr::new(ip, 443)).map_or_else(Blocked::as_str, |()| "")
    }

    #[test]
    fn addresses_that_are_not_of_the_internet_are_not_dialled() {
        let guard = NetworkGuard::default();
        let check = |ip: &str, expected: &str| assert_eq!(judge(&guard, ip), expected, "{ip}");
        for (ip, expected) in [
            ("1.1.1.1", ""),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.1", "private"),
            ("100.63.255.255", ""),
            ("100.64.0.1", "shared_address_space"),
            ("100.127.255.255", "shared_address_space"),
            ("100.128.0.0", ""),
            ("100.100.100.200", "metadata"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("168.63.129.16", "metadata"),
            ("169.254.0.1", "link_local"),
            ("169.254.169.254", "metadata"),
            ("169.254.170.2", "metadata"),
            ("172.15.255.255", ""),
            ("172.16.0.0", "private"),
            ("172.31.255.255", "private"),
            ("172.32.0.0", ""),
            ("192.0.0.8", "reserved"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "reserved"),
            ("192.168.1.1", "private"),
            ("192.169.0.1", ""),
            ("198.17.255.255", ""),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("198.51.100.7", "documentation"),
            ("203.0.113.1", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
        ] {
            check(ip, expected);
        }
        for (ip, expected) in [
            ("2606:4700::1111", ""),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("100::1", "reserved"),
            ("2001:db8::1", "documentation"),
            ("3fff:fff::1", "documentation"),
            ("2001:2::1", "benchmarking"),
            ("2001:10::1", "reserved"),
            ("2001:4:112::1", ""),
            ("2001:4860:4860::8888", ""),
            ("4000::1", "reserved"),
            ("5f00::1", "reserved"),
            ("fc00::1", "unique_local"),
            ("fd12:3456::1", "unique_local"),
            ("fd00:ec2::254", "metadata"),
            ("fd20:ce::254", "metadata"),
            ("fe80::1", "link_local"),
            ("febf::1", "link_local"),
            ("fec0::1", "unique_local"),
            ("ff02::1", "multicast"),
        ] {
            check(ip, expected);
        }
    }

    #[test]
    fn an_address_that_holds_an_ipv4_address_is_judged_by_it() {
        let guard = NetworkGuard::default();
        let check = |ip: &str, expected: &str| assert_eq!(judge(&guard, ip), expected, "{ip}");
        check("::ffff:127.0.0.1", "loopback");
        check("::ffff:169.254.169.254", "metadata");
        check("::ffff:1.1.1.1", "");
        check("::127.0.0.1", "loopback");
        check("::10.0.0.1", "private");
        check("::ffff:0:127.0.0.1", "loopback");
        check("64:ff9b::10.0.0.1", "private");
        check("64:ff9b::169.254.169.254", "metadata");
        check("64:ff9b::8.8.8.8", "");
        check("64:ff9b:1::8.8.8.8", "local_translation");
        check("64:ff9b:1:a00:1::", "local_translation");
        check("2002:7f00:1::1", "loopback");
        check("2002:a9fe:a9fe::", "metadata");
        check("2002:808:808::1", "");
        // The server is 65.54.227.120, the client 192.168.0.1 and 8.8.8.8.
        check("2001:0:4136:e378:8000:63bf:3f57:fffe", "private");
        check("2001:0:4136:e378:8000:63bf:f7f7:f7f7", "");
        check("2001:0:7f00:1:8000:63bf:f7f7:f7f7", "loopback");
        check("2606:4700::5efe:10.0.0.1", "private");
        check("2606:4700::200:5efe:127.0.0.1", "loopback");
        check("fd12::5efe:8.8.8.8", "unique_local");
    }

    #[test]
    fn ranges_make_exceptions_and_denials_win() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect();
        let check = |allow: &[&str], deny: &[&str], ip: &str, expected: &str| {
            let guard = NetworkGuard::new(nets(allow), nets(deny));
            assert_eq!(judge(&guard, ip), expected, "{allow:?} {deny:?} {ip}");
        };
        check(&["10.20.0.0/16"], &[], "10.20.3.4", "");
        check(&["10.20.0.0/16"], &[], "10.21.3.4", "private");
        check(&["10.20.0.0/16"], &[], "::ffff:10.20.3.4", "");
        check(&["10.20.0.0/16"], &[], "64:ff9b::10.20.3.4", "");
        check(&["10.20.0.0/16"], &[], "64:ff9b::10.21.3.4", "private");
        check(&["64:ff9b::/96"], &[], "64:ff9b::10.21.3.4", "");
        check(&["10.20.0.0/16"], &["10.20.3.0/24"], "10.20.3.4", "listed");
        check(&[], &["1.1.1.0/24"], "1.1.1.1", "listed");
        check(&[], &["1.1.1.0/24"], "2002:101:101::", "listed");
        check(&["169.254.0.0/16"], &[], "169.254.0.9", "");
        check(&["169.254.0.0/16"], &[], "169.254.169.254", "metadata");
        check(&["0.0.0.0/0", "::/0"], &[], "fd00:ec2::254", "metadata");
        check(&["0.0.0.0/0", "::/0"], &[], "64:ff9b::169.254.169.254", "metadata");
        check(&["169.254.169.254/32"], &[], "169.254.169.254", "");
        check(&["169.254.169.254/32"], &[], "64:ff9b::169.254.169.254", "");
        check(&["0.0.0.0/0"], &[], "127.0.0.1", "");
        check(&["0.0.0.0/0"], &[], "::1", "loopback");
    }

    #[test]
    fn no_range_opens_the_way_to_ourselves() {
        let everything = ["0.0.0.0/0", "::/0", "127.0.0.1/32"].map(|text| text.parse().expect("a network"));
        let guard = NetworkGuard::new(everything.to_vec(), Vec::new()).with_own_ports(&[9901]);
        let check = |address: &str, expected: Result<(), Blocked>| {
            assert_eq!(guard.judge(address.parse().expect(address)), expected, "{address}");
        };
        for own in
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]"]
        {
            check(&format!("{own}:9901"), Err(Blocked::Ourselves));
            check(&format!("{own}:9902"), Ok(()));
        }
        check("192.0.2.1:9901", Ok(()));
    }
}
