//! Serving the admin and health listeners on the control plane's runtime.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::access::{Access, guard};
use super::{Running, api, metrics, readiness};
use crate::listener::BindAddress;
use crate::shutdown::Shutdown;

/// A bound admin or health socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, mode 0600, with its path.
    Unix(UnixListener, PathBuf),
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind `{what}` to {address}: {reason}")]
pub struct BindError {
    what: &'static str,
    address: String,
    reason: String,
}

impl Socket {
    /// Binds; `what` is the configuration key for the message.
    pub async fn bind(what: &'static str, address: &BindAddress) -> Result<Self, BindError> {
        let refused = |address: String, reason: String| BindError { what, address, reason };
        match address {
            BindAddress::Tcp(address) => match TcpListener::bind(address).await {
                Ok(listener) => Ok(Self::Tcp(listener)),
                Err(error) => Err(refused(address.to_string(), bind_reason(&error))),
            },
            BindAddress::Unix(path) => {
                let listener =
                    bind_unix(path).map_err(|reason| refused(format!("unix:{}", path.display()), reason))?;
                Ok(Self::Unix(listener, path.clone()))
            }
            BindAddress::Systemd(name) => Err(refused(
                format!("systemd:{name}"),
                "an inherited socket cannot serve here; use an address or unix:PATH".into(),
            )),
        }
    }

    /// The port, of a TCP socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Self::Unix(..) => None,
        }
    }

    /// Where it listens, as a person or a client would write it.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
            }
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(..))
    }
}

fn bind_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another process uses this address; stop it or choose another port (0 takes a free one)".into()
        }
        std::io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need a privilege (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)".into()
        }
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        _ => error.to_string(),
    }
}

fn bind_unix(path: &Path) -> Result<UnixListener, String> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err("something that is no socket stands there".into());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err("another process listens there".into());
        }
        std::fs::remove_file(path).map_err(|error| format!("a stale socket cannot be removed: {error}"))?;
    }
    // Nobody else may connect in the moment between bind and chmod: the mode comes from the umask.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(|error| bind_reason(&error))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| error.to_string())?;
    Ok(listener)
}

/// Serves the whole admin surface until `shutdown` has begun and `until` is cancelled.
pub fn spawn_admin(
    socket: Socket,
    running: Arc<Running>,
    access: Access,
    shutdown: &Shutdown,
    until: CancellationToken,
) {
    let router = health_routes()
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/credentials/{name}/refresh", post(api::refresh))
        .fallback(not_found)
        .with_state(running)
        .layer(middleware::from_fn_with_state(access, guard))
        .layer(middleware::map_response(harden));
    shutdown.spawn("admin", serve(socket, router, until));
}

/// Serves `/livez`, `/readyz` and `/metrics`.
pub fn spawn_health(socket: Socket, running: Arc<Running>, shutdown: &Shutdown, until: CancellationToken) {
    let router =
        health_routes().fallback(not_found).with_state(running).layer(middleware::map_response(harden));
    shutdown.spawn("health", serve(socket, router, until));
}

fn health_routes() -> Router<Arc<Running>> {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
}

async fn readyz(State(running): State<Arc<Running>>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let verbose = query.is_some_and(|query| {
        form_urlencoded::parse(query.as_bytes())
            .any(|(name, value)| name == "verbose" && value != "0" && value != "false")
    });
    let readiness = readiness::judge(&running, verbose);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], readiness.text)
}

async fn scrape(State(running): State<Arc<Running>>) -> impl IntoResponse {
    match metrics::encode(&running) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            error.to_string(),
        ),
    }
}

async fn not_found() -> impl IntoResponse {
    api::problem(
        StatusCode::NOT_FOUND,
        "nothing is here; try /livez, /readyz, /metrics or, on the admin listener, /api/v1/status",
    )
}

async fn harden(mut response: axum::response::Response) -> axum::response::Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

/// How many admin connections may be open: probes, one scraper, a few people.
const MAX_CONNECTIONS: usize = 128;
/// How long a client may take for a request head.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

async fn serve(socket: Socket, router: Router, until: CancellationToken) {
    let permits = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let tasks = tokio_util::task::TaskTracker::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            () = until.cancelled() => break,
            accepted = accept(&socket) => accepted,
        };
        match accepted {
            Ok(Stream::Tcp(stream)) => {
                tasks.spawn(connection(TokioIo::new(stream), router.clone(), until.clone(), permit));
            }
            Ok(Stream::Unix(stream)) => {
                tasks.spawn(connection(TokioIo::new(stream), router.clone(), until.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    let _ = tokio::time::timeout(Duration::from_secs(2), tasks.wait()).await;
    if let Socket::Unix(_, path) = &socket {
        let _ = std::fs::remove_file(path);
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(socket: &Socket) -> std::io::Result<Stream> {
    match socket {
        Socket::Tcp(listener) => Ok(Stream::Tcp(listener.accept().await?.0)),
        Socket::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
    }
}

async fn connection<I>(
    io: I,
    router: Router,
    until: CancellationToken,
    permit: tokio::sync::OwnedSemaphorePermit,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(32 * 1024);
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection broke");
            }
        }
        () = until.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    drop(permit);
}
