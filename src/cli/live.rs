//! `bearward check --live`: whether what the configuration names is there.
//!
//! Resolves names, opens connections, shakes hands and reads providers' metadata. Redeems nothing, sends no
//! secret and no request to an upstream.

use std::process::ExitCode;
use std::time::Duration;

use super::{exit, fail, print_bytes};
use crate::clock::Clock;
use crate::config::Config;
use crate::credential::CredentialConfig;
use crate::oauth::{EndpointSource, OAuthClient};
use crate::origin::Origin;
use crate::upstream::{Connector, DialError, HttpVersion, TlsClient, UpstreamConfig, UpstreamOptions};

/// Tries upstreams and providers one after the other; prints a line for each.
pub(super) fn probe(config: &Config) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let good = match runtime {
        Ok(runtime) => runtime.block_on(all(config)),
        Err(error) => {
            return ExitCode::from(fail(exit::FAILED, &format!("the runtime could not be started: {error}")));
        }
    };
    ExitCode::from(if good { exit::OK } else { exit::FAILED })
}

async fn all(config: &Config) -> bool {
    let mut good = true;
    let mut tried: Vec<&UpstreamConfig> = Vec::new();
    for listener in &config.listeners {
        for route in &listener.routes {
            if tried.contains(&&route.upstream) {
                continue;
            }
            tried.push(&route.upstream);
            for origin in route.upstream.origins() {
                let what = format!("upstream {origin} (route {}/{})", listener.name, route.name);
                let one = UpstreamConfig { origin: origin.clone(), ..route.upstream.clone() };
                good &= report(&what, connect(&one, route.timeouts.connect).await);
            }
        }
    }
    for credential in &config.credentials {
        good &= provider(credential).await;
    }
    good
}

/// The token endpoint, found by discovery where an issuer is configured.
async fn provider(credential: &CredentialConfig) -> bool {
    let name = &credential.name;
    let endpoint = match &credential.oauth.endpoint {
        EndpointSource::None => return true,
        EndpointSource::Url(url) => url.clone(),
        EndpointSource::Issuer(issuer) => {
            let what = format!("metadata of {issuer} (credential {name})");
            let found = match OAuthClient::try_new(credential.oauth.clone()) {
                Ok(client) => {
                    client.discover(Clock::System.wall()).await.map_err(|failure| failure.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match found {
                Ok(endpoint) => {
                    report(&what, Ok(()));
                    endpoint
                }
                Err(reason) => return report(&what, Err(reason)),
            }
        }
    };
    let what = format!("token endpoint {endpoint} (credential {name})");
    let Ok(origin) = Origin::of_url(&endpoint) else {
        return report(&what, Err("it is no http or https URL".into()));
    };
    let config = UpstreamConfig {
        origin,
        http: HttpVersion::Http1,
        tls: credential.oauth.tls.clone(),
        outbound_proxy: credential.oauth.outbound_proxy.clone(),
        options: UpstreamOptions::default(),
    };
    report(&what, connect(&config, credential.oauth.connect_timeout).await)
}

async fn connect(config: &UpstreamConfig, deadline: Duration) -> Result<(), String> {
    let tls = TlsClient::try_new(config).map_err(|error| error.to_string())?;
    let connector = Connector::try_new(config, tls.as_ref(), deadline)?;
    connector.connect().await.map(drop).map_err(|error| reason(&error).to_owned())
}

/// A failed connection, in words that fit any server.
fn reason(error: &DialError) -> &'static str {
    match error {
        DialError::Dns => "its name does not resolve",
        DialError::DnsTimeout => "its name did not resolve in time",
        DialError::Refused => "it refused the connection",
        DialError::NotHttp2 => "it does not speak HTTP/2",
        DialError::Timeout => "connecting took too long",
        DialError::Unreachable => "it cannot be reached",
        DialError::TlsCertificate => {
            "its certificate is not accepted: `tls: {ca: {file: PATH}}` names another authority"
        }
        DialError::Tls => "the TLS handshake failed",
        DialError::Forbidden => "the network guard lets no address of it pass",
        DialError::OutboundProxy => "the outbound proxy refused the connection",
    }
}

fn report(what: &str, outcome: Result<(), String>) -> bool {
    let line = match &outcome {
        Ok(()) => format!("ok      {what}\n"),
        Err(reason) => format!("failed  {what}: {reason}\n"),
    };
    print_bytes(line.as_bytes());
    outcome.is_ok()
}
