//! `/api/v1`: status and actions, as JSON.
//!
//! Owns: the machine-readable contract of the status. Fields are added, never renamed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;

use super::Running;
use crate::clock::UnixTime;
use crate::credential::snapshot::LastError;
use crate::credential::{ForcedRefresh, Snapshot};
use crate::listener::UpstreamAddress;

/// `GET /api/v1/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    started_at: String,
    credentials: Vec<CredentialStatus>,
    listeners: Vec<ListenerStatus>,
    routes: Vec<RouteStatus>,
}

#[derive(Debug, Serialize)]
struct CredentialStatus {
    name: String,
    state: &'static str,
    generation: u64,
    expires_at: Option<String>,
    expires_in_seconds: Option<u64>,
    refresh_at: Option<String>,
    refresh_token_expires_at: Option<String>,
    last_refresh_at: Option<String>,
    last_error: Option<ErrorStatus>,
    refreshes: Refreshes,
    store: StoreStatus,
    required: bool,
    unsaved: bool,
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct ErrorStatus {
    class: &'static str,
    error: String,
    description: Option<String>,
    at: String,
    retry_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Refreshes {
    ok: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct StoreStatus {
    kind: &'static str,
    leader: bool,
}

#[derive(Debug, Serialize)]
struct ListenerStatus {
    name: String,
    kind: &'static str,
    address: String,
    connections: u64,
    certificate: Option<CertificateStatus>,
}

#[derive(Debug, Serialize)]
struct CertificateStatus {
    names: Vec<String>,
    expires_at: String,
}

#[derive(Debug, Serialize)]
struct RouteStatus {
    listener: String,
    name: String,
    upstream: String,
    credential: Option<String>,
    requests: u64,
    errors: u64,
    addresses: Vec<AddressStatus>,
    ejections: u64,
}

#[derive(Debug, Serialize)]
struct AddressStatus {
    url: String,
    address: String,
    state: &'static str,
}

fn shown(time: UnixTime) -> String {
    time.rfc3339()
}

impl From<&UpstreamAddress> for AddressStatus {
    fn from(known: &UpstreamAddress) -> Self {
        Self { url: known.url.clone(), address: known.address.clone(), state: known.state.as_str() }
    }
}

impl From<LastError> for ErrorStatus {
    fn from(error: LastError) -> Self {
        Self {
            class: error.class,
            error: error.error,
            description: error.description,
            at: shown(error.at),
            retry_at: error.retry_at.map(shown),
        }
    }
}

impl From<Snapshot> for CredentialStatus {
    fn from(credential: Snapshot) -> Self {
        Self {
            name: credential.name.to_string(),
            state: credential.state.as_str(),
            generation: credential.generation,
            expires_at: credential.expires_at.map(shown),
            expires_in_seconds: credential.expires_in_seconds,
            refresh_at: credential.refresh_at.map(shown),
            refresh_token_expires_at: credential.refresh_token_expires_at.map(shown),
            last_refresh_at: credential.last_refresh_at.map(shown),
            last_error: credential.last_error.map(Into::into),
            refreshes: Refreshes { ok: credential.refreshes_ok, failed: credential.refreshes_failed },
            store: StoreStatus { kind: credential.store_kind, leader: credential.leader },
            required: credential.required,
            unsaved: credential.unsaved,
            remedy: credential.remedy,
        }
    }
}

/// Everything that is known now.
pub fn status_of(running: &Running) -> Status {
    let data = running.data.snapshot();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        started_at: shown(running.started_at),
        credentials: running.credentials.iter().map(|credential| credential.snapshot().into()).collect(),
        listeners: data
            .listeners
            .iter()
            .map(|listener| ListenerStatus {
                name: listener.name.to_string(),
                kind: listener.kind,
                address: listener.address.clone(),
                connections: listener.connections,
                certificate: listener.certificate.as_ref().map(|certificate| CertificateStatus {
                    names: certificate.names.clone(),
                    expires_at: shown(certificate.not_after),
                }),
            })
            .collect(),
        routes: data
            .routes
            .iter()
            .map(|route| RouteStatus {
                listener: route.listener.to_string(),
                name: route.name.to_string(),
                upstream: route.upstream.clone(),
                credential: route.credential.as_ref().map(ToString::to_string),
                requests: route.traffic.requests,
                errors: route.traffic.errors,
                addresses: route.addresses.iter().map(AddressStatus::from).collect(),
                ejections: route.ejections,
            })
            .collect(),
    }
}

/// `GET /api/v1/status`.
pub async fn status(State(running): State<Arc<Running>>) -> Json<Status> {
    Json(status_of(&running))
}

/// `POST /api/v1/credentials/NAME/refresh`.
pub async fn refresh(State(running): State<Arc<Running>>, Path(name): Path<String>) -> Response {
    let Some(credential) = running.credential(&name) else {
        let names: Vec<String> = running.credential_names().iter().map(ToString::to_string).collect();
        let detail = format!("no such credential; there are: {}", names.join(", "));
        return problem(StatusCode::NOT_FOUND, &detail).into_response();
    };
    match credential.refresh().await {
        Ok(ForcedRefresh::Refreshed(generation)) => {
            Json(serde_json::json!({"credential": name, "outcome": "refreshed", "generation": generation}))
                .into_response()
        }
        Ok(ForcedRefresh::Failed(why)) => problem(StatusCode::BAD_GATEWAY, &why).into_response(),
        Ok(ForcedRefresh::Refused(why)) => problem(StatusCode::CONFLICT, &why).into_response(),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "bearward is stopping").into_response(),
    }
}

/// An RFC 9457 problem document.
pub fn problem(status: StatusCode, detail: &str) -> impl IntoResponse + use<> {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string())
}
