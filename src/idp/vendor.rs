//! A token endpoint that is not OAuth's, as legacy vendors have them.
//!
//! Owns: its JSON. `{"user": ID, "pass": SECRET, "refreshToken": TOKEN?, "scope": TEXT?}` is answered with
//! `{"data": {"accessToken", "expiresIn", "refreshToken"?, "requestHeaders": {"x-vendor-tenant": "acme"}}}`. Behind it
//! is the same authority as behind the token endpoint.

use serde_json::{Map, Value, json};

use super::form::Form;
use super::refusal::Refusal;
use super::token::VENDOR;

/// The form that a request stands for.
pub(super) fn read(body: &[u8]) -> Result<Form, Refusal> {
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Refusal::invalid_request("The body is no JSON object."))?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let grant = if text("refreshToken").is_some() { "refresh_token" } else { VENDOR };
    let pairs = [
        ("grant_type", Some(grant)),
        ("client_id", text("user")),
        ("client_secret", text("pass")),
        ("refresh_token", text("refreshToken")),
        ("scope", text("scope")),
    ];
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        if let Some(value) = value {
            encoded.append_pair(name, value);
        }
    }
    Ok(Form::decode(encoded.finish().as_bytes()))
}

/// The vendor's answer with the fields of OAuth's.
pub(super) fn answer(mut fields: Map<String, Value>) -> Value {
    let mut data = json!({
        "accessToken": fields.remove("access_token"),
        "expiresIn": fields.remove("expires_in"),
        "requestHeaders": {"x-vendor-tenant": "acme"},
    });
    if let Some(token) = fields.remove("refresh_token") {
        data["refreshToken"] = token;
    }
    json!({"status": "ok", "data": data})
}
