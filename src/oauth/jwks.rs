//! The public keys of an issuer (RFC 7517), fetched.
//!
//! Owns: the request alone. What the keys are good for is judged by whoever asks.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::http::{Exchange, HttpSettings};
use super::metadata::check_endpoint;
use crate::tls::TlsClientConfig;

/// How long it may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Fetches a key set; on failure says why.
pub async fn fetch(
    url: &Url,
    tls: &TlsClientConfig,
    proxy: Option<&Url>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    check_endpoint(url)?;
    let settings = HttpSettings {
        tls: tls.clone(),
        proxy: proxy.cloned(),
        connect_timeout: DEADLINE,
        last_tls: Arc::default(),
    };
    let client = settings.client(Some(url)).map_err(|error| error.to_string())?;
    let exchange =
        Exchange { method: Method::GET, url: url.clone(), headers: http::HeaderMap::new(), body: None };
    let answer = settings.exchange(&client, exchange, Instant::now() + DEADLINE).await;
    let answer = answer.map_err(|lost| lost.reason)?;
    if answer.status != StatusCode::OK {
        return Err(format!("the answer is {}", answer.status.as_u16()));
    }
    Ok(answer.body)
}
