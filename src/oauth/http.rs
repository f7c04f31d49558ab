//! The HTTP exchange with a provider.
//!
//! Owns: the client's settings (no redirect, no retry, no reused connection, no proxy but the configured one), the
//! limit on what is read, and the answer to the question whether a byte of the request was written.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::SetupError;
use super::answer::Answer;
use super::last_good::LastGood;
use crate::clock::Deadline;
use crate::tls::{TlsClientConfig, client_config};

/// The largest body that is read, decoded.
const MAX_BODY: usize = 1024 * 1024;

/// How a provider is reached.
#[derive(Clone)]
pub(super) struct HttpSettings {
    /// Trust and identity; its files are read for every exchange, so that a replaced one is used.
    pub(super) tls: TlsClientConfig,
    /// `outbound_proxy`.
    pub(super) proxy: Option<Url>,
    /// DNS, TCP, TLS and CONNECT together.
    pub(super) connect_timeout: Duration,
    /// What its files gave last.
    pub(super) last_tls: Arc<LastGood<rustls::ClientConfig>>,
}

/// One request.
pub(super) struct Exchange {
    /// GET or POST.
    pub(super) method: Method,
    /// Where.
    pub(super) url: Url,
    /// Header fields beside those that every request has; `Authorization` among them is marked sensitive.
    pub(super) headers: HeaderMap,
    /// What it carries.
    pub(super) body: Option<Payload>,
}

/// A body with its type.
pub(super) enum Payload {
    /// Form parameters.
    Form(Zeroizing<String>),
    /// JSON.
    Json(Zeroizing<String>),
}

impl Exchange {
    /// A form with what authenticates it.
    pub(super) fn post(url: Url, form: Zeroizing<String>, authorization: Option<HeaderValue>) -> Self {
        let headers = authorization.map(|value| (AUTHORIZATION, value)).into_iter().collect();
        Self { method: Method::POST, url, headers, body: Some(Payload::Form(form)) }
    }

    /// A question that carries nothing.
    pub(super) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None }
    }
}

/// Why there is no whole answer.
#[derive(Debug)]
pub(super) struct Lost {
    /// Whether a byte of the request may have been written.
    pub(super) written: bool,
    /// A short word for the kind.
    pub(super) error: &'static str,
    /// What happened, for a person.
    pub(super) reason: String,
}

impl HttpSettings {
    /// Builds a client for one exchange. Nothing is worth keeping: no connection is ever used twice.
    pub(super) fn client(&self, url: Option<&Url>) -> Result<reqwest::Client, SetupError> {
        let read = client_config(&self.tls).map_err(SetupError::from);
        let mut tls = self.last_tls.or_last("TLS file", read)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(self.connect_timeout)
            .user_agent(concat!("bearward/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &self.proxy {
            let known = matches!(proxy.scheme(), "http" | "https");
            let proxy = known.then(|| reqwest::Proxy::all(proxy.as_str()).ok()).flatten();
            let proxy = proxy.ok_or_else(|| {
                SetupError::Http("outbound_proxy: not the URL of a proxy (http://host:port)".into())
            })?;
            builder = builder.proxy(proxy);
        }
        if let (Some(_), Some(url)) = (&self.tls.server_name, url) {
            let host = url.host_str().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            builder = builder.dns_resolver(Arc::new(ResolveAs(host)));
        }
        builder.build().map_err(|error| SetupError::Http(format!("HTTP client: {}", root_cause(&error))))
    }

    /// Sends one request and reads the whole answer until the deadline.
    pub(super) async fn exchange(
        &self,
        client: &reqwest::Client,
        exchange: Exchange,
        deadline: Instant,
    ) -> Result<Answer, Lost> {
        let request = self.request(exchange);
        let mut deadline = Deadline::at(deadline);
        let mut response = match deadline.bound(client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.lost(&error)),
            Err(_) => return Err(late()),
        };
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = Zeroizing::new(Vec::new());
        loop {
            let ended = match deadline.bound(response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    if body.len() + chunk.len() > MAX_BODY {
                        return Err(too_large(status));
                    }
                    body.extend_from_slice(&chunk);
                    continue;
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => self.lost(&error),
                Err(_) => late(),
            };
            // Sloppy servers end without the last chunk or TLS's closing words. JSON tells by itself that it is
            // complete, and a refresh token that has arrived is not thrown away.
            if is_whole_json(&body) {
                break;
            }
            return Err(ended);
        }
        Ok(Answer { status, headers, body })
    }

    fn request(&self, exchange: Exchange) -> reqwest::Request {
        let Exchange { method, mut url, headers: own, body } = exchange;
        let mut request = reqwest::Request::new(method, url.clone());
        if let Some(name) = &self.tls.server_name {
            // The name goes where TLS takes it from; the resolver and the Host field keep the address.
            let host = host_field(&url);
            if url.set_host(Some(name)).is_ok() {
                *request.url_mut() = url;
                request.headers_mut().insert(HOST, host);
            }
        }
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let content = body.map(|body| match body {
            Payload::Form(text) => ("application/x-www-form-urlencoded", text),
            Payload::Json(text) => ("application/json", text),
        });
        if let Some((kind, _)) = &content {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        headers.extend(own);
        if let Some((_, text)) = content {
            *request.body_mut() = Some(text.as_bytes().to_vec().into());
        }
        request
    }

    fn lost(&self, error: &reqwest::Error) -> Lost {
        let cause = root_cause(error);
        let tls = find_rustls(error);
        let through = match &self.proxy {
            Some(proxy) => format!(" through the outbound proxy {}", shown(proxy)),
            None => String::new(),
        };
        let lost = |written, error, reason| Lost { written, error, reason };
        // `is_connect` is true only for what the connector returns (DNS, TCP, CONNECT, TLS), which ends before
        // the first byte of the request.
        if error.is_connect() || error.is_builder() {
            return if error.is_dns() {
                lost(false, "dns", format!("its name does not resolve{through}: {cause}"))
            } else if error.is_timeout() {
                lost(false, "timeout", format!("no connection within {:?}{through}", self.connect_timeout))
            } else if let Some(tls) = tls {
                lost(false, "tls", format!("the TLS handshake failed{through}: {}", tls_words(tls)))
            } else if cause.contains("tunnel") || cause.contains("proxy") {
                lost(false, "proxy", format!("no connection{through}: {}", proxy_words(&cause)))
            } else {
                lost(false, "connect", format!("no connection{through}: {cause}"))
            };
        }
        match tls {
            // TLS 1.3 tells the client only after its own last flight that its certificate is refused; the server
            // has not read the request then (RFC 8446 4.4.2.4).
            Some(rustls::Error::AlertReceived(alert)) if refuses_certificate(*alert) => lost(
                false,
                "tls",
                format!(
                    "the server refuses our client certificate ({alert:?}): check `tls.cert` and `tls.key`"
                ),
            ),
            _ if error.is_timeout() => late(),
            _ => {
                lost(true, "cut", format!("the connection ended before the whole answer was there: {cause}"))
            }
        }
    }
}

fn late() -> Lost {
    Lost { written: true, error: "timeout", reason: "no complete answer in time".into() }
}

fn too_large(status: http::StatusCode) -> Lost {
    let reason = format!("its answer ({}) is larger than 1 MiB", status.as_u16());
    Lost { written: true, error: "too_large", reason }
}

fn is_whole_json(body: &[u8]) -> bool {
    body.trim_ascii_end().ends_with(b"}") && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// A URL fit for messages: no user, password, query or fragment.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn host_field(url: &Url) -> HeaderValue {
    let host = url.host_str().unwrap_or_default();
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    HeaderValue::from_str(&text).expect("a URL's host is visible ASCII")
}

/// Resolves whatever is asked to the addresses of one host.
struct ResolveAs(String);

impl Resolve for ResolveAs {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        async move {
            let found: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        }
        .boxed()
    }
}

fn refuses_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as A;
    matches!(
        alert,
        A::CertificateRequired
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            // RFC 8446 6.2: of the handshake alone; a certificate whose signature does not verify.
            | A::DecryptError
    )
}

fn tls_words(error: &rustls::Error) -> String {
    let mend = match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "; if a private CA issued the certificate, configure it as `tls.ca`"
        }
        _ => "",
    };
    format!("{error}{mend}")
}

/// What a proxy's answer to CONNECT means; the library keeps its status to itself.
fn proxy_words(cause: &str) -> String {
    let mend = if cause.contains("authorization required") {
        "; it wants another user and password (407): write `outbound_proxy: http://USER:PASSWORD@HOST:PORT`"
    } else if cause.contains("unsuccessful") {
        "; it does not open a way to this server: look at its rules and its log"
    } else {
        ""
    };
    format!("{cause}{mend}")
}

/// Each error of the chain, also those that an `io::Error` wraps (its `source` skips them).
fn chain<'a>(first: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn next<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    }
    std::iter::successors(Some(first), next)
}

fn find_rustls(error: &reqwest::Error) -> Option<&rustls::Error> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// The innermost words: the outer ones name the URL or repeat themselves.
fn root_cause(error: &reqwest::Error) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}
