//! The loopback end of a login (RFC 8252 7.3): a small server that takes one redirect.
//!
//! Owns: the sockets of the redirect URI. Believes only what carries this login's `state`; all else is told so and changes
//! nothing.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Url};

use super::page;
use crate::oauth::login::{Authorization, RedirectError};
use crate::secret::Secret;
use crate::shutdown::Shutdown;

/// How long the last page may take to reach the browser.
const LAST_PAGE: Duration = Duration::from_secs(2);

/// Sockets that wait for the redirect.
pub(super) struct Callback {
    sockets: Vec<TcpListener>,
    path: String,
    redirect_uri: String,
}

/// A code that came, and a browser that waits for what becomes of it.
pub(super) struct Received {
    pub(super) code: Secret,
    outcome: watch::Sender<Option<Outcome>>,
    server: Shutdown,
}

/// What the page says: that it is done, or what went wrong.
type Outcome = Result<(), String>;

struct Shared {
    authorization: Arc<Authorization>,
    path: String,
    found: mpsc::Sender<Result<Secret, RedirectError>>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Callback {
    /// Binds the redirect URI; without one, a free port.
    pub(super) async fn bind(registered: Option<&Url>) -> Result<Self, String> {
        let Some(url) = registered else {
            let socket = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
            let port = socket.local_addr().map_err(|error| error.to_string())?.port();
            let redirect_uri = format!("http://127.0.0.1:{port}/callback");
            return Ok(Self { sockets: vec![socket], path: "/callback".into(), redirect_uri });
        };
        let addresses: &[IpAddr] = match url.host() {
            Some(Host::Ipv4(ip)) if ip.is_loopback() => &[IpAddr::V4(ip)],
            Some(Host::Ipv6(ip)) if ip.is_loopback() => &[IpAddr::V6(ip)],
            Some(Host::Domain("localhost")) => {
                &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            }
            _ => &[],
        };
        if addresses.is_empty() || url.scheme() != "http" {
            return Err(format!(
                "`login.redirect_uri` {url} is not on this machine (http://127.0.0.1:PORT/…), so that its answer cannot \
                 be received here: use `--manual`"
            ));
        }
        let port = url.port_or_known_default().unwrap_or(80);
        let mut sockets = Vec::new();
        for (place, ip) in addresses.iter().enumerate() {
            match listen(SocketAddr::new(*ip, port)).await {
                Ok(socket) => sockets.push(socket),
                // A machine without IPv6 has a `localhost` all the same.
                Err(_) if place > 0 => {}
                Err(error) => return Err(format!("`login.redirect_uri`: {error}")),
            }
        }
        Ok(Self { sockets, path: url.path().to_owned(), redirect_uri: url.to_string() })
    }

    /// As it stands in the authorization request.
    pub(super) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Waits for the redirect that answers `authorization`.
    pub(super) async fn wait(
        self,
        authorization: Arc<Authorization>,
        deadline: Instant,
    ) -> Result<Received, String> {
        let (found, mut codes) = mpsc::channel(1);
        let (outcome, told) = watch::channel(None);
        let shared = Arc::new(Shared { authorization, path: self.path, found, outcome: told });
        let server = Shutdown::new();
        for socket in self.sockets {
            let (shared, connections) = (Arc::clone(&shared), server.clone());
            server.spawn("login listener", async move { accept(&socket, &shared, &connections).await });
        }
        let result = match timeout_at(deadline, codes.recv()).await {
            Ok(Some(Ok(code))) => return Ok(Received { code, outcome, server }),
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(None) => Err("the login was given up".to_owned()),
            Err(_) => Err("nobody logged in in time; `--timeout` says how long to wait".to_owned()),
        };
        finish(&outcome, &server, result.as_ref().map(drop).map_err(Clone::clone)).await;
        result.map(|()| unreachable!("a code was returned above"))
    }
}

impl Received {
    /// Shows in the browser what became of the login.
    pub(super) async fn tell(self, failure: Option<&str>) {
        let outcome = failure.map_or(Ok(()), |message| Err(message.to_owned()));
        finish(&self.outcome, &self.server, outcome).await;
    }
}

async fn finish(outcome: &watch::Sender<Option<Outcome>>, server: &Shutdown, result: Outcome) {
    outcome.send_replace(Some(result));
    server.begin();
    let _ = timeout(LAST_PAGE, server.finished()).await;
}

async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{address} cannot be listened on: {error}"))
}

async fn accept(socket: &TcpListener, shared: &Arc<Shared>, server: &Shutdown) {
    loop {
        tokio::select! {
            () = server.begun() => return,
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => drop(server.spawn("login page", serve(stream, Arc::clone(shared)))),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(&shared, &request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the login broke off");
    }
}

async fn respond(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET || request.uri().path() != shared.path {
        return page::answer(StatusCode::NOT_FOUND, Err("There is nothing here."));
    }
    let found = shared.authorization.code(request.uri().query().unwrap_or_default());
    if let Err(error @ (RedirectError::Foreign | RedirectError::Empty)) = found {
        return page::answer(StatusCode::BAD_REQUEST, Err(&error.to_string()));
    }
    if shared.found.try_send(found).is_err() {
        return page::answer(StatusCode::CONFLICT, Err("This login was answered already."));
    }
    let mut outcome = shared.outcome.clone();
    let Ok(outcome) = outcome.wait_for(Option::is_some).await else {
        return page::answer(StatusCode::INTERNAL_SERVER_ERROR, Err("The login was given up."));
    };
    match outcome.as_ref() {
        Some(Ok(())) => page::answer(StatusCode::OK, Ok(())),
        Some(Err(message)) => page::answer(StatusCode::BAD_GATEWAY, Err(message)),
        None => unreachable!("it was waited for"),
    }
}
