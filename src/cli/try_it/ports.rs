//! The four ports of the demonstration.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Where proxy, admin, authorization server and API live unless told.
const DEFAULTS: [u16; 4] = [8080, 9901, 9902, 9903];
const NAMES: [&str; 4] = ["the proxy", "the admin listener", "the authorization server", "the API"];

/// The ports; two of them bound already.
#[derive(Debug)]
pub(super) struct Ports {
    /// The proxy's; 0: the proxy takes a free one.
    pub(super) proxy: u16,
    /// The admin listener's; likewise.
    pub(super) admin: u16,
    /// The authorization server's.
    pub(super) idp: TcpListener,
    /// The API's.
    pub(super) api: TcpListener,
}

/// A port cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PortError {
    #[error("{0}. Take others with `--port PORT`, or free ones with `--port 0`")]
    Taken(String),
    #[error("`--port {0}` leaves no room for the three ports after it: take one up to 65532")]
    TooHigh(u16),
}

impl Ports {
    /// Takes them all or says which are taken.
    pub(super) fn take(first: Option<u16>) -> Result<Self, PortError> {
        let numbers = numbers(first)?;
        let mut bound = Vec::with_capacity(numbers.len());
        let (mut taken, mut problems) = (Vec::new(), Vec::new());
        for (number, name) in numbers.into_iter().zip(NAMES) {
            match bind(number) {
                Ok(listener) => bound.push(listener),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    taken.push(format!("{number} ({name})"));
                }
                Err(error) => problems.push(format!("port {number} ({name}): {error}")),
            }
        }
        match taken.as_slice() {
            [] => {}
            [one] => problems.push(format!("port {one} is in use by another program")),
            several => problems.push(format!("ports {} are in use by other programs", several.join(", "))),
        }
        // The proxy binds its own two sockets: these were only asked whether they are free.
        match (bound.pop(), bound.pop()) {
            (Some(api), Some(idp)) if problems.is_empty() => {
                Ok(Self { proxy: numbers[0], admin: numbers[1], idp, api })
            }
            _ => Err(PortError::Taken(problems.join("; "))),
        }
    }
}

fn numbers(first: Option<u16>) -> Result<[u16; 4], PortError> {
    match first {
        None => Ok(DEFAULTS),
        Some(0) => Ok([0; 4]),
        Some(first) if first <= u16::MAX - 3 => Ok([first, first + 1, first + 2, first + 3]),
        Some(first) => Err(PortError::TooHigh(first)),
    }
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_purpose_and_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let number = taken.local_addr().expect("bound").port();
        let message = Ports::take(Some(number)).expect_err("it is taken").to_string();
        assert!(message.contains(&format!("{number} (the proxy)")), "{message}");
        assert!(message.contains("--port 0"), "{message}");
        assert_eq!(Ports::take(Some(65_533)).expect_err("too high"), PortError::TooHigh(65_533));
        assert!(Ports::take(Some(0)).is_ok());
    }
}
