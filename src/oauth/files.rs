//! The files that a credential is made from.
//!
//! Owns: which they are, and what was seen of them. Reads none.

use std::path::PathBuf;

use super::{OAuthClient, client_auth};

impl OAuthClient {
    /// How often a file that was replaced could not be used, so that the last good one was.
    pub fn lapses(&self) -> u64 {
        self.keys.lapses() + self.user_key.lapses() + self.http.last_tls.lapses()
    }

    /// The files whose change should make a waiting credential try at once.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let tls = &self.config.tls;
        let mut files = client_auth::files(&self.config.client_auth);
        files.extend(self.config.grant.files());
        files.extend(tls.ca.clone());
        if let Some(identity) = &tls.identity {
            files.push(identity.cert.clone());
            files.extend(identity.key.path());
        }
        files.sort();
        files.dedup();
        files
    }
}
