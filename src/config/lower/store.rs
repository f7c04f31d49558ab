//! `store:`.

use super::secret;
use crate::config::blocks::{File, Store, StoreKindName};
use crate::config::context::Cx;
use crate::config::read::At;
use crate::config::source::Span;
use crate::credential::{CredentialConfig, RotationMode};
use crate::secret::SecretSource;
use crate::store::{StoreConfig, StoreKind};

/// The store, checked against the credentials that it would keep.
pub(super) fn store(file: &File, credentials: &[CredentialConfig], cx: &mut Cx<'_>) -> Option<StoreConfig> {
    let Some(block) = &file.store else {
        return Some(StoreConfig { kind: StoreKind::File { path: None }, encryption: Vec::new() });
    };
    let encryption = encryption(&block.value, cx);
    let kind = block.value.kind.as_ref()?;
    let allow_volatile = block.value.allow_volatile.as_ref()?;
    let kind = match kind.value {
        StoreKindName::File => {
            StoreKind::File { path: block.value.path.as_ref().map(|path| path.value.0.clone()) }
        }
        StoreKindName::Memory => {
            if let Some(path) = &block.value.path {
                cx.error(path.span, "the memory store has no `path`").hint("remove it, or say `kind: file`");
            }
            if !allow_volatile.value {
                refuse_rotating(file, credentials, kind.span, cx);
            }
            StoreKind::Memory { allow_volatile: allow_volatile.value }
        }
    };
    Some(StoreConfig { kind, encryption })
}

fn encryption(block: &Store, cx: &mut Cx<'_>) -> Vec<SecretSource> {
    let Some(encryption) = &block.encryption else { return Vec::new() };
    let keys: Vec<&At<SecretSource>> = match (&encryption.value.key, &encryption.value.keys) {
        (Some(key), Some(keys)) => {
            cx.error(key.span, "`key` and `keys` are both given")
                .also(keys.span, "here as well")
                .hint("list all in `keys`: the first encrypts, all decrypt");
            return Vec::new();
        }
        (Some(key), None) => vec![key],
        (None, Some(keys)) if !keys.value.is_empty() => keys.value.iter().collect(),
        (None, _) => {
            let place = encryption.value.keys.as_ref().map_or(encryption.span, |keys| keys.span);
            if !cx.reported_in(encryption.span) {
                cx.error(place, "`encryption` has no key").hint("write `encryption: {keys: [{file: PATH}]}`");
            }
            return Vec::new();
        }
    };
    for key in &keys {
        secret::check(key, "this encryption key", cx);
    }
    keys.into_iter().map(|key| key.value.clone()).collect()
}

/// A refresh token that is single use must outlive the process.
fn refuse_rotating(file: &File, credentials: &[CredentialConfig], at: Span, cx: &mut Cx<'_>) {
    for credential in credentials {
        let rotates = match credential.rotation {
            RotationMode::SingleUse => true,
            RotationMode::Reusable => false,
            RotationMode::Auto => credential.oauth.preset.rotates != Some(false),
        };
        if !rotates || credential.oauth.grant.is_unattended() {
            continue;
        }
        let name = &credential.name;
        let key = file
            .credentials
            .iter()
            .flat_map(|credentials| &credentials.value.0)
            .find(|(key, _)| key.value == name.as_str());
        let problem = cx.error(
            at,
            format!("the memory store would lose the refresh token of `{name}` when the program stops"),
        );
        if let Some((key, _)) = key {
            problem.also(key.span, "its refresh tokens are single use, as far as is known");
        }
        problem.hint("say `kind: file`; or `allow_volatile: true` if a new seed for each start is what you want; or `rotation: {mode: reusable}` on the credential if its provider does not rotate");
    }
}
