//! `bearward client`: makes what clients are known by.
//!
//! Shows a secret that it made once, and none that it was given.

use std::io::{IsTerminal as _, Read as _};

use zeroize::Zeroizing;

use super::{exit, fail, print_bytes};
use crate::names::Name;
use crate::policy::clients::basic;
use crate::secret::{Fingerprint, Secret};

/// The longest password that is read.
const MAX_PASSWORD: u64 = 4096;

/// `bearward client`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Prints the argon2id hash of a password from standard input, for `basic.password_hash`
    Hash,
    /// Prints a block for `clients:`, and once the secret that it was made for
    Add {
        /// The client's name
        name: String,
        /// How it shows who it is
        #[arg(long, value_enum)]
        kind: Kind,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    /// A key in a header field
    ApiKey,
    /// User and password
    Basic,
    /// A certificate
    Mtls,
    /// A token of an issuer
    Jwt,
    /// Its address
    Cidr,
    /// The user that runs it
    UnixPeer,
}

/// Runs it.
pub fn client(arguments: &Arguments) -> u8 {
    match &arguments.action {
        Action::Hash => hash(),
        Action::Add { name, kind } => match Name::try_new(name) {
            Ok(name) => add(&name, *kind),
            Err(error) => fail(exit::INVALID, &format!("`{name}` is no name of a client: {error}")),
        },
    }
}

fn hash() -> u8 {
    let password = match read_password() {
        Ok(password) => password,
        Err(reason) => return fail(exit::INVALID, &reason),
    };
    match basic::hash_password(password.expose().as_bytes()) {
        Some(hash) => print_bytes(format!("{hash}\n").as_bytes()),
        None => fail(exit::FAILED, "the password could not be hashed"),
    }
}

/// One line; from a terminal without showing it, and twice.
fn read_password() -> Result<Secret, String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let mut text = Zeroizing::new(String::new());
        let read = stdin.take(MAX_PASSWORD + 1).read_to_string(&mut text);
        read.map_err(|error| format!("the password cannot be read: {error}"))?;
        return one_line(&text);
    }
    let ask = |prompt: &str| {
        anstream::eprint!("{prompt}");
        let line = hidden(|| {
            let mut line = Zeroizing::new(String::new());
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        anstream::eprintln!();
        line.map_err(|error| format!("the password cannot be read: {error}")).and_then(|line| one_line(&line))
    };
    let password = ask("Password: ")?;
    if ask("The same again: ")? == password { Ok(password) } else { Err("the two passwords differ".into()) }
}

fn one_line(text: &str) -> Result<Secret, String> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err("there is no password on standard input".into());
    }
    if text.len() as u64 > MAX_PASSWORD || text.contains('\n') {
        return Err("a password is one line of at most 4096 bytes".into());
    }
    Ok(Secret::from(text))
}

/// Runs `read` with the terminal's echo off.
fn hidden<T>(read: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
    let outcome = read();
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    outcome
}

fn add(name: &Name, kind: Kind) -> u8 {
    let (block, secret) = match kind {
        Kind::ApiKey => {
            let Some(key) = random("bw_") else { return no_random() };
            let digest = Fingerprint::of(key.expose().as_bytes()).to_hex();
            (format!("{{api_key: {{header: X-Api-Key, sha256: [\"{digest}\"]}}}}"), Some(("key", key)))
        }
        Kind::Basic => {
            let Some(password) = random("") else { return no_random() };
            let Some(hash) = basic::hash_password(password.expose().as_bytes()) else { return no_random() };
            // In single quotes: in double ones `${…}` would be replaced.
            let block = format!("{{basic: {{username: {name}, password_hash: {{value: '{hash}'}}}}}}");
            (block, Some(("password", password)))
        }
        Kind::Mtls => (format!("{{mtls: {{san: [\"{name}.clients.internal\"]}}}}"), None),
        Kind::Jwt => {
            let jwt =
                "issuer: https://id.example.com, audience: bearward, jwks_uri: https://id.example.com/jwks";
            (format!("{{jwt: {{{jwt}, claims: {{sub: {name}}}}}}}"), None)
        }
        Kind::Cidr => ("{cidr: [\"192.0.2.0/24\"]}".to_owned(), None),
        Kind::UnixPeer => (format!("{{unix_peer: {{uid: [{}]}}}}", rustix::process::getuid().as_raw()), None),
    };
    let code = print_bytes(format!("clients:\n  {name}: {block}\n").as_bytes());
    match secret {
        Some((what, secret)) => {
            let shown = format!("# The {what} of `{name}`. It is not shown again:\n# {}\n", secret.expose());
            code.max(print_bytes(shown.as_bytes()))
        }
        None => {
            anstream::eprintln!("bearward: change the block to what the client has");
            code
        }
    }
}

/// 256 bits.
fn random(prefix: &str) -> Option<Secret> {
    use base64::Engine;
    let mut bytes = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).ok()?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*bytes);
    Some(Secret::new([prefix, &text].concat()))
}

fn no_random() -> u8 {
    fail(exit::FAILED, "the system has no random numbers")
}
