//! Binding: TCP, Unix sockets, and sockets that systemd passes.
//!
//! Owns: the sockets that listeners accept on, and the Unix socket's file. All are bound before any is served.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::{BindAddress, ListenerError};
use crate::names::Name;

/// The queue of connections that were not accepted yet.
const BACKLOG: i32 = 4096;

/// A bound socket.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener),
    /// With the file to remove at the end, if it is ours.
    Unix(UnixListener, Option<PathBuf>),
}

impl Bound {
    /// As the API shows it: `127.0.0.1:8080` or `unix:/path`.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
            }
            Self::Unix(_, Some(path)) => ["unix:", &path.display().to_string()].concat(),
            Self::Unix(listener, None) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                ["unix:", &path.unwrap_or(Path::new("")).display().to_string()].concat()
            }
        }
    }

    /// The port, of a TCP listener.
    pub(super) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Self::Unix(..) => None,
        }
    }

    /// The address that routes without `hosts` answer for.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.ip()),
            Self::Unix(..) => None,
        }
    }
}

/// Sockets that systemd passed, taken one by one.
pub(super) struct Passed {
    sockets: listenfd::ListenFd,
    names: Vec<String>,
}

impl Passed {
    /// What the environment tells.
    pub(super) fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self { sockets: listenfd::ListenFd::from_env(), names: names.split(':').map(str::to_owned).collect() }
    }

    fn take(&mut self, name: &str) -> Result<Bound, String> {
        let position =
            self.names.iter().position(|known| known == name).filter(|at| *at < self.sockets.len());
        let Some(index) = position else {
            return Err(
                "systemd passed no socket of this name; set FileDescriptorName= in the .socket unit".into()
            );
        };
        if let Ok(Some(listener)) = self.sockets.take_tcp_listener(index) {
            return Ok(Bound::Tcp(listener));
        }
        match self.sockets.take_unix_listener(index) {
            Ok(Some(listener)) => Ok(Bound::Unix(listener, None)),
            Ok(None) => Err("the socket that systemd passed is in use by another listener".into()),
            Err(error) => {
                Err(["the socket that systemd passed cannot be used: ", &error.to_string()].concat())
            }
        }
    }
}

/// Binds one listener.
pub(super) fn bind(name: &Name, address: &BindAddress, passed: &mut Passed) -> Result<Bound, ListenerError> {
    let refused =
        |address: String, reason: String| ListenerError::Bind { listener: name.clone(), address, reason };
    let bound = match address {
        BindAddress::Tcp(address) => {
            bind_tcp(*address).map_err(|error| refused(address.to_string(), tcp_reason(&error)))?
        }
        BindAddress::Unix(path) => bind_unix(path)
            .map_err(|reason| refused(["unix:", &path.display().to_string()].concat(), reason))?,
        BindAddress::Systemd(socket) => {
            passed.take(socket).map_err(|reason| refused(["systemd:", socket].concat(), reason))?
        }
    };
    let nonblocking = match &bound {
        Bound::Tcp(listener) => listener.set_nonblocking(true),
        Bound::Unix(listener, _) => listener.set_nonblocking(true),
    };
    nonblocking.map_err(|error| refused(bound.address(), error.to_string()))?;
    Ok(bound)
}

fn bind_tcp(address: SocketAddr) -> io::Result<Bound> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Bound::Tcp(socket.into()))
}

fn tcp_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there; stop it, or choose another port (0 takes a free one)".into()
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted; choose a port of 1024 or above, or grant CAP_NET_BIND_SERVICE".into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        _ => error.to_string(),
    }
}

/// Binds a Unix socket that owner and group may use. A socket file that nobody listens on is replaced.
fn bind_unix(path: &Path) -> Result<Bound, String> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err("a file that is no socket stands there; remove it, or choose another path".into());
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err("another process listens there; stop it, or choose another path".into());
        }
        Ok(_) => std::fs::remove_file(path).map_err(|error| error.to_string())?,
    }
    let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "the directory does not exist; create it".into(),
        io::ErrorKind::PermissionDenied => {
            "not permitted; give the process write access to the directory".into()
        }
        _ => error.to_string(),
    })?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(path, mode).map_err(|error| error.to_string())?;
    Ok(Bound::Unix(listener, Some(path.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name::try_new("legacy").expect("name")
    }

    #[test]
    fn a_port_in_use_is_told_with_its_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = taken.local_addr().expect("address");
        let error = bind(&name(), &BindAddress::Tcp(address), &mut Passed::from_env()).expect_err("in use");
        let text = error.to_string();
        for part in ["legacy", &address.to_string(), "another process listens there", "choose another port"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("api.sock");
        drop(UnixListener::bind(&path).expect("bind"));
        assert!(path.exists());
        let bound = bind_unix(&path).expect("the stale socket is replaced");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
        assert_eq!(bound.address(), format!("unix:{}", path.display()));
        assert!(bind_unix(&path).expect_err("live").contains("another process listens"));
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").expect("write");
        assert!(bind_unix(&file).expect_err("no socket").contains("no socket"));
        assert_eq!(std::fs::read_to_string(&file).expect("kept"), "precious");
    }

    #[test]
    fn a_missing_systemd_socket_is_told() {
        let mut passed = Passed { sockets: listenfd::ListenFd::empty(), names: Vec::new() };
        let error = bind(&name(), &BindAddress::Systemd("web".into()), &mut passed).expect_err("none");
        assert!(error.to_string().contains("FileDescriptorName"), "{error}");
    }
}
