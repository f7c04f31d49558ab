//! Active health checks: one request to each address of an upstream, from time to time.
//!
//! Owns: the request. It carries no token and nothing of a client, and never shares a connection with one.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Body;

use super::health::{Health, HealthCheck};
use super::{Beside, Connector, Pool, Upstream};

/// Checks the addresses of an upstream for ever.
pub async fn check_addresses<B>(upstream: Rc<Upstream<B>>, rules: HealthCheck)
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let addresses = upstream.to_check().await;
        join_all(addresses.into_iter().map(|(connector, health)| check(connector, health, &rules))).await;
        // Not all processes at one moment.
        let tenth = rules.interval / 10;
        tokio::time::sleep(rules.interval - tenth + tenth.mul_f64(2.0 * fastrand::f64())).await;
    }
}

async fn check(connector: Connector, health: Arc<Health>, rules: &HealthCheck) {
    let answer = tokio::time::timeout(rules.timeout, ask(connector, rules)).await;
    let good = matches!(answer, Ok(Some(status)) if rules.expects(status));
    health.checked(good, rules);
}

/// The status of the answer, on a connection of its own.
async fn ask(connector: Connector, rules: &HealthCheck) -> Option<StatusCode> {
    let (mut head, body) = Request::new(Empty::<Bytes>::new()).into_parts();
    let authority = connector.origin().authority();
    head.uri = if connector.absolute_form() {
        let path = rules.path.path_and_query().cloned()?;
        let uri = http::Uri::builder().scheme("http").authority(authority.as_str()).path_and_query(path);
        uri.build().ok()?
    } else {
        rules.path.clone()
    };
    let headers = &mut head.headers;
    headers.insert(header::HOST, HeaderValue::try_from(authority).ok()?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("bearward-health"));
    if let Some(authorization) = connector.proxy_authorization() {
        headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
    }
    let pool = Pool::new(connector);
    let mut lease = pool.connect().await.ok()?;
    let answer = lease.send(&head, Beside::default(), body, || false, |_| ()).await?.ok()?;
    Some(answer.status())
}
