//! `bearward ca init`: the authority of an interception.
//!
//! Owns: its two files. Never overwrites one.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::{exit, fail};
use crate::clock::Clock;
use crate::tls::mint;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What to do with an authority.
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Makes a CA for `intercept:`, limited to the hosts that it is to stand in for
    Init(Init),
}

/// `bearward ca init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// A host whose certificates it may sign, with every name below it; several times for several
    #[arg(long = "permit", value_name = "HOST", required_unless_present = "unconstrained")]
    permit: Vec<String>,
    /// Lets it sign for any name. Whoever gets its key can be any site to those who trust it
    #[arg(long, conflicts_with = "permit")]
    unconstrained: bool,
    /// Where the certificate goes
    #[arg(long, value_name = "FILE", default_value = "ca.crt")]
    cert: PathBuf,
    /// Where the private key goes, readable for its owner only
    #[arg(long, value_name = "FILE", default_value = "ca.key")]
    key: PathBuf,
    /// How long it is good
    #[arg(long, value_name = "DAYS", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Its name, as clients show it
    #[arg(long, value_name = "NAME", default_value = "bearward interception CA")]
    name: String,
}

/// Runs the command.
pub fn ca(command: &Ca) -> u8 {
    let Ca::Init(init) = command;
    match self::init(init) {
        Ok(()) => exit::OK,
        Err((code, message)) => fail(code, &message),
    }
}

fn init(init: &Init) -> Result<(), (u8, String)> {
    let hosts = init.permit.iter().map(|host| permitted(host)).collect::<Result<Vec<_>, _>>();
    let hosts = hosts.map_err(|message| (exit::INVALID, message))?;
    let made = mint::authority(&init.name, &hosts, DAY * init.days, Clock::System.wall());
    let made = made.map_err(|error| (exit::FAILED, format!("the CA could not be made: {error}")))?;
    write_new(&init.key, made.key.as_bytes(), 0o600)?;
    if let Err(refused) = write_new(&init.cert, made.certificate.as_bytes(), 0o644) {
        // Without its certificate the key is of no use. It was made a moment ago.
        let _ = std::fs::remove_file(&init.key);
        return Err(refused);
    }
    let (cert, key) = (init.cert.display(), init.key.display());
    let scope = if hosts.is_empty() { "any name".to_owned() } else { hosts.join(", ") };
    anstream::println!(
        "{cert}  the certificate: install it where the clients' trust store is (docs/interception.md says how)\n\
         {key}  the private key, mode 0600: only bearward reads it\n\
         \n\
         Good for     {scope}\n\
         Until        {}\n\
         SHA-256      {}\n\
         \n\
         In the configuration of the egress listener:\n  \
         intercept: {{ca_cert: {{file: {cert}}}, ca_key: {{file: {key}}}}}",
        Clock::System.wall().plus(DAY * init.days).rfc3339(),
        made.fingerprint.to_hex(),
    );
    if hosts.is_empty() {
        anstream::eprintln!(
            "bearward: warning: this CA can sign for any name: keep its key as you would keep every password of those who trust it"
        );
    }
    Ok(())
}

/// A host of a name constraint: what may stand below it does.
fn permitted(host: &str) -> Result<String, String> {
    let plain = host.strip_prefix("**.").or_else(|| host.strip_prefix("*.")).unwrap_or(host);
    let plain = plain.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(plain);
    if plain.parse::<std::net::IpAddr>().is_ok() {
        return Ok(plain.to_owned());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = plain.trim_end_matches('.').to_ascii_lowercase();
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(name);
    }
    Err(format!(
        "--permit {host:?}: this is no host: give a name (api.example.com) or an address, without scheme and port"
    ))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), (u8, String)> {
    let refused = |error: std::io::Error| {
        let message = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                format!(
                    "{}: there is a file already, and it stays: move it away, or name another one",
                    path.display()
                )
            }
            _ => format!("{}: {error}", path.display()),
        };
        (exit::FAILED, message)
    };
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(refused)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = std::fs::remove_file(path);
        refused(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_what_people_paste() {
        for (given, taken) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.com.", "api.example.com"),
            ("*.example.com", "example.com"),
            ("**.example.com", "example.com"),
            ("192.0.2.1", "192.0.2.1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(permitted(given).as_deref(), Ok(taken));
        }
        for bad in ["", "https://a.example", "a.example:443", "a..b", "*", "a b", "ü.example"] {
            assert!(permitted(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.crt");
        std::fs::write(&path, "mine").expect("written");
        let given = Init {
            permit: vec!["a.example".into()],
            unconstrained: false,
            cert: path.clone(),
            key: directory.path().join("ca.key"),
            days: 1,
            name: "x".into(),
        };
        let (code, message) = init(&given).expect_err("refused");
        assert_eq!(code, exit::FAILED);
        assert!(message.contains("there is a file already"), "{message}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "mine");
        assert!(!given.key.exists(), "a key without its certificate");
    }
}
