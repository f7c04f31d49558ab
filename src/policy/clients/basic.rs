//! Users with passwords.
//!
//! Owns: argon2id hashes and their verification, on a few threads of its own with a short queue: what a password costs is
//! paid neither by a worker nor without a bound. A password is held no longer than that takes.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Argon2, PasswordHash, PasswordVerifier};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::BasicConfig;
use super::presented::{self, Authorization};
use crate::secret::Fingerprint;

/// Threads that verify. Each takes what a hash asks for: 19 MiB by default.
const THREADS: usize = 2;
/// Passwords that wait for one.
const QUEUE: usize = 64;
/// The most memory that a hash may ask for, in KiB, and the most passes.
const MAX_MEMORY: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;

/// One client's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hash {
    phc: String,
    /// Which hash this is: what was verified against another is not known any more.
    pub(super) id: Fingerprint,
}

impl Hash {
    /// Reads it, blocking.
    pub(super) fn read(config: &BasicConfig) -> Result<Self, String> {
        let text = config.password_hash.read_blocking().map_err(|error| error.to_string())?;
        Self::parse(text.expose().trim())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wanted =
            "`password_hash` is no argon2id hash (`$argon2id$v=19$…`); `bearward client hash` makes one";
        let hash = PasswordHash::new(text).map_err(|_| wanted.to_owned())?;
        if hash.algorithm != argon2::ARGON2ID_IDENT || hash.hash.is_none() || hash.salt.is_none() {
            return Err(wanted.to_owned());
        }
        let params = argon2::Params::try_from(&hash).map_err(|_| wanted.to_owned())?;
        if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES {
            return Err(
                "`password_hash` asks for more than 256 MiB or 16 passes: each login would cost that".into(),
            );
        }
        Ok(Self { phc: text.to_owned(), id: Fingerprint::of(text.as_bytes()) })
    }

    fn admits(&self, password: &[u8]) -> bool {
        PasswordHash::new(&self.phc)
            .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
    }
}

/// Makes a hash with the parameters that OWASP recommends: 19 MiB, two passes.
pub fn hash_password(password: &[u8]) -> Option<String> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    let salt = SaltString::encode_b64(&random).ok()?;
    Argon2::default().hash_password(password, &salt).ok().map(|hash| hash.to_string())
}

/// Reads users and passwords of RFC 7617: base64, and the first colon parts them.
pub fn user_and_password(base64_text: &[u8]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    use base64::Engine;
    let pair = Zeroizing::new(base64::engine::general_purpose::STANDARD.decode(base64_text).ok()?);
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some((pair[..colon].to_vec(), Zeroizing::new(pair[colon + 1..].to_vec())))
}

/// The one `Basic` credential of `Authorization`, in base64.
pub fn pair_of(headers: &http::HeaderMap) -> Option<&[u8]> {
    match presented::authorization(headers, false) {
        Authorization::Basic(pair) => Some(pair),
        _ => None,
    }
}

struct Job {
    hash: Arc<Hash>,
    password: Zeroizing<Vec<u8>>,
    reply: oneshot::Sender<bool>,
}

/// The threads; none before the first password.
#[derive(Default)]
pub(super) struct Verifiers(OnceLock<SyncSender<Job>>);

impl std::fmt::Debug for Verifiers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verifiers").field(&self.0.get().is_some()).finish()
    }
}

impl Verifiers {
    /// Whether the password is the hash's; `None` where too many wait.
    pub(super) async fn verify(&self, hash: Arc<Hash>, password: Zeroizing<Vec<u8>>) -> Option<bool> {
        let queue = self.0.get_or_init(begin);
        let (reply, answer) = oneshot::channel();
        queue.try_send(Job { hash, password, reply }).ok()?;
        answer.await.ok()
    }
}

fn begin() -> SyncSender<Job> {
    let (queue, jobs) = sync_channel::<Job>(QUEUE);
    let jobs = Arc::new(Mutex::new(jobs));
    for number in 0..THREADS {
        let jobs = Arc::clone(&jobs);
        // Without a thread nobody is answered, and nobody is let in.
        let _ = std::thread::Builder::new().name(format!("bw-password-{number}")).spawn(move || serve(&jobs));
    }
    queue
}

fn serve(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { hash, password, reply }) = job else { return };
        if !reply.is_closed() {
            let _ = reply.send(hash.admits(&password));
        }
    }
}

/// The file of a hash, if it is in one.
pub(super) fn file(config: &BasicConfig) -> Option<std::path::PathBuf> {
    config.password_hash.path()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_argon2id_within_bounds_is_a_hash() {
        let made = hash_password(b"correct horse").expect("a hash");
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
        let hash = Hash::parse(&made).expect("it is one");
        assert!(hash.admits(b"correct horse") && !hash.admits(b"correct horse ") && !hash.admits(b""));
        for (from, to) in
            [("argon2id", "argon2i"), ("m=19456", "m=2000000"), ("t=2", "t=99"), ("$v=19", "$v=x")]
        {
            assert!(Hash::parse(&made.replace(from, to)).is_err(), "{to}");
        }
        let cut = made.rsplit_once('$').expect("parts").0;
        for bad in [cut, "correct horse", "", "$2b$12$abcdefghijklmnopqrstuv"] {
            assert!(Hash::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_colon_parts_user_and_password() {
        let check = |text: &[u8], expected: Option<(&[u8], &[u8])>| {
            let read = user_and_password(text);
            let read = read.as_ref().map(|(user, password)| (user.as_slice(), password.as_slice()));
            assert_eq!(read, expected);
        };
        check(b"YTpiOmM=", Some((b"a", b"b:c")));
        check(b"Og==", Some((b"", b"")));
        check(b"YWI=", None);
        check(b"%%%", None);
    }
}
