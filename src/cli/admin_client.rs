//! The way from a command to the running proxy: the admin listener, over TCP or a Unix socket.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::{ConfigPath, check, exit, fail};
use crate::config;
use crate::listener::BindAddress;
use crate::secret::{Secret, SecretSource};

/// How to find the running proxy.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    #[command(flatten)]
    config: ConfigPath,
    /// The admin listener: HOST:PORT, http://HOST:PORT or unix:PATH [default: what the configuration says, else 127.0.0.1:9901]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// A file with the admin token [default: what the configuration says, else $BEARWARD_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// An answer of the admin listener.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
const DEFAULT_ADMIN: &str = "127.0.0.1:9901";

#[derive(Debug, Clone)]
enum Address {
    Tcp(String),
    Unix(PathBuf),
}

/// Sends one request to the running proxy; prints why not and gives the exit code where that fails.
pub(super) fn call(target: &Target, method: Method, path: &str, deadline: Duration) -> Result<Answer, u8> {
    let (address, configured_token) = find(target)?;
    let token = match method {
        Method::GET => None,
        _ => read_token(target, configured_token)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| fail(exit::FAILED, &error.to_string()))?;
    let shown = match &address {
        Address::Tcp(address) => address.clone(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    runtime.block_on(async {
        match tokio::time::timeout(deadline, exchange(&address, method, path, token.as_ref())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(fail(
                exit::UNREACHABLE,
                &format!("no running proxy answers at {shown}: {why}. Is `bearward run` up, and is this its admin listener (-c FILE or --admin ADDRESS)?"),
            )),
            Err(_) => Err(fail(exit::UNREACHABLE, &format!("the proxy at {shown} did not answer within {deadline:?}"))),
        }
    })
}

fn find(target: &Target) -> Result<(Address, Option<SecretSource>), u8> {
    if let Some(text) = &target.admin {
        return Ok((parse(text)?, None));
    }
    let named = target.config.config.as_deref();
    let path = match check::config_path(named) {
        Ok(path) => path,
        Err(_) => return Ok((Address::Tcp(DEFAULT_ADMIN.to_owned()), None)),
    };
    // The rest of the file is for who starts the proxy.
    let admin = config::load_admin(&path).map_err(|problems| {
        check::print_problems(&path, &problems);
        exit::INVALID
    })?;
    if !admin.enabled {
        return Err(fail(
            exit::INVALID,
            &format!("{}: `admin.enabled` is false, so there is nothing to ask", path.display()),
        ));
    }
    let address = match admin.bind {
        BindAddress::Tcp(address) if address.port() == 0 => {
            return Err(fail(
                exit::INVALID,
                "`admin.bind` has port 0; name the port that the proxy took with --admin ADDRESS",
            ));
        }
        BindAddress::Tcp(address) => Address::Tcp(address.to_string()),
        BindAddress::Unix(path) => Address::Unix(path),
        BindAddress::Systemd(name) => {
            return Err(fail(
                exit::INVALID,
                &format!("`admin.bind` is systemd:{name}; name its address with --admin ADDRESS"),
            ));
        }
    };
    Ok((address, admin.token))
}

fn parse(text: &str) -> Result<Address, u8> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Address::Unix(path.into()));
    }
    let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match rest.parse::<http::uri::Authority>() {
        Ok(authority) if authority.port().is_some() => Ok(Address::Tcp(authority.to_string())),
        _ => Err(fail(
            exit::INVALID,
            &format!("`{text}` is no admin address: write HOST:PORT, http://HOST:PORT or unix:PATH"),
        )),
    }
}

fn read_token(target: &Target, configured: Option<SecretSource>) -> Result<Option<Secret>, u8> {
    let source = match (&target.token_file, configured) {
        (Some(path), _) => Some(SecretSource::File(path.clone())),
        (None, Some(source)) => Some(source),
        (None, None) if std::env::var_os("BEARWARD_ADMIN_TOKEN").is_some() => {
            Some(SecretSource::Env("BEARWARD_ADMIN_TOKEN".to_owned()))
        }
        (None, None) => None,
    };
    match source.map(|source| source.read_blocking()) {
        None => Ok(None),
        Some(Ok(token)) => Ok(Some(token)),
        Some(Err(error)) => Err(fail(exit::INVALID, &format!("the admin token: {error}"))),
    }
}

async fn exchange(
    address: &Address,
    method: Method,
    path: &str,
    token: Option<&Secret>,
) -> Result<Answer, String> {
    match address {
        Address::Tcp(authority) => {
            let stream = TcpStream::connect(authority).await.map_err(|error| error.to_string())?;
            send(TokioIo::new(stream), authority, method, path, token).await
        }
        Address::Unix(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
            send(TokioIo::new(stream), "localhost", method, path, token).await
        }
    }
}

async fn send<I>(
    io: I,
    authority: &str,
    method: Method,
    path: &str,
    token: Option<&Secret>,
) -> Result<Answer, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|error| said(&error))?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        let mut value = header::HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| "the admin token holds a character that no header may hold".to_owned())?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| said(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| said(&error))?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(|error| said(&error))?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        Err(error) = connection => Err(said(&error)),
    }
}

/// The `detail` of a problem document, else the status.
pub(super) fn detail(answer: &Answer) -> String {
    serde_json::from_slice::<serde_json::Value>(&answer.body)
        .ok()
        .and_then(|problem| problem.get("detail").and_then(|detail| detail.as_str()).map(str::to_owned))
        .unwrap_or_else(|| format!("the proxy answered {}", answer.status))
}
