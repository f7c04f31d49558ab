//! Secrets: text that must never be shown, and where it is read from.
//!
//! Owns: zeroing, redaction and the reading of secret sources. Never prints, compares in the clear or
//! serialises a secret: a fingerprint (eight hex digits of SHA-256) stands for it everywhere.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

/// How long an `exec` source may take.
pub const EXEC_DEADLINE: Duration = Duration::from_secs(10);
/// The largest secret that is read, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A secret text. `Debug` and `Display` show its fingerprint; the buffer is zeroed when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself: for the wire, a signature or the store, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be shown instead.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.as_bytes())
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Secret {
    /// Takes the same time wherever the two differ.
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes()).is_ok()
    }
}
impl Eq for Secret {}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<secret {}>", self.fingerprint())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// SHA-256 of a secret. Shown as its first eight hex digits; stored whole where two must be told apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let mut whole = [0; 32];
        whole.copy_from_slice(digest.as_ref());
        Self(whole)
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All 64 hex digits, for the store.
    pub fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(u32::from(nibble), 16).unwrap_or('?'));
            }
            hex
        })
    }

    /// Reads what [`Fingerprint::to_hex`] wrote.
    pub fn from_hex(hex: &str) -> Option<Self> {
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        let mut whole = [0; 32];
        for (index, byte) in whole.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[index * 2..index * 2 + 2], 16).ok()?;
        }
        Some(Self(whole))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex()[..8])
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a secret is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// Written in the configuration itself.
    Value(Secret),
    /// An environment variable.
    Env(String),
    /// A file; one trailing newline is cut; read again when it changes.
    File(PathBuf),
    /// A file of this name in `$CREDENTIALS_DIRECTORY`.
    Systemd(String),
    /// The standard output of a command; one trailing newline is cut.
    Exec(Vec<String>),
}

/// Why a secret could not be read. Never holds the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    EnvMissing(String),
    /// The variable holds bytes that are no UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    EnvNotUtf8(String),
    /// A file could not be read.
    #[error("cannot read {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// Not started by systemd with credentials.
    #[error(
        "$CREDENTIALS_DIRECTORY is not set: the systemd credential `{0}` can only be read by a unit with LoadCredential="
    )]
    NoCredentialsDirectory(String),
    /// The command failed.
    #[error("the command `{command}` {reason}")]
    Exec {
        /// The program, without its arguments.
        command: String,
        /// What went wrong.
        reason: String,
    },
    /// Nothing but white space was there.
    #[error("the secret from {0} is empty")]
    Empty(String),
    /// Larger than [`MAX_SECRET_BYTES`].
    #[error("the secret from {0} is larger than 64 KiB")]
    TooLarge(String),
}

impl SecretSource {
    /// The file to watch for changes, if it is one.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Systemd(name) => systemd_path(name).ok(),
            Self::Value(_) | Self::Env(_) | Self::Exec(_) => None,
        }
    }

    /// Reads the secret now. Files and commands run on tokio's blocking pool.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        let source = self.clone();
        if let Self::Exec(command) = &source {
            return run_command(command).await;
        }
        #[allow(clippy::disallowed_methods, reason = "a file read, joined at once")]
        match tokio::task::spawn_blocking(move || source.read_blocking()).await {
            Ok(result) => result,
            Err(_) => Err(SecretError::Empty("a reader that was cancelled".into())),
        }
    }

    /// Reads the secret now, blocking; `exec` sources are run without a deadline here.
    pub fn read_blocking(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => checked(text, || format!("the environment variable {name}")),
                Err(std::env::VarError::NotPresent) => Err(SecretError::EnvMissing(name.clone())),
                Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::EnvNotUtf8(name.clone())),
            },
            Self::File(path) => read_file(path),
            Self::Systemd(name) => read_file(&systemd_path(name)?),
            Self::Exec(command) => {
                let (program, arguments) = split_command(command)?;
                let output = std::process::Command::new(program)
                    .args(arguments)
                    .stdin(std::process::Stdio::null())
                    .stderr(std::process::Stdio::inherit())
                    .output()
                    .map_err(|error| exec_error(program, &format!("could not be started: {error}")))?;
                command_output(program, output)
            }
        }
    }
}

fn systemd_path(name: &str) -> Result<PathBuf, SecretError> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => Ok(Path::new(&directory).join(name)),
        None => Err(SecretError::NoCredentialsDirectory(name.to_owned())),
    }
}

fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let refused = |reason: String| SecretError::File { path: path.display().to_string(), reason };
    let metadata = std::fs::metadata(path).map_err(|error| refused(plain(&error)))?;
    if metadata.is_dir() {
        return Err(refused("it is a directory".into()));
    }
    let mut text = Zeroizing::new(String::new());
    // A device or a pipe has no length: one byte more than allowed tells.
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET_BYTES as u64 + 1).read_to_string(&mut text))
        .map_err(|error| refused(plain(&error)))?;
    let text = std::mem::take(&mut *text);
    checked(cut_newline(text), || path.display().to_string())
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8".into(),
        _ => error.to_string(),
    }
}

fn cut_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn checked(mut text: String, place: impl FnOnce() -> String) -> Result<Secret, SecretError> {
    if text.len() > MAX_SECRET_BYTES {
        text.zeroize();
        return Err(SecretError::TooLarge(place()));
    }
    if text.trim().is_empty() {
        return Err(SecretError::Empty(place()));
    }
    Ok(Secret::new(text))
}

fn split_command(command: &[String]) -> Result<(&String, &[String]), SecretError> {
    command.split_first().ok_or_else(|| exec_error("", "is empty"))
}

fn exec_error(program: &str, reason: &str) -> SecretError {
    SecretError::Exec { command: program.to_owned(), reason: reason.to_owned() }
}

async fn run_command(command: &[String]) -> Result<Secret, SecretError> {
    let (program, arguments) = split_command(command)?;
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(EXEC_DEADLINE, child).await {
        Err(_) => Err(exec_error(program, "did not finish within 10 s")),
        Ok(Err(error)) => Err(exec_error(program, &format!("could not be started: {error}"))),
        Ok(Ok(output)) => command_output(program, output),
    }
}

fn command_output(program: &str, output: std::process::Output) -> Result<Secret, SecretError> {
    if !output.status.success() {
        return Err(exec_error(program, &format!("failed: {}", output.status)));
    }
    let text = String::from_utf8(output.stdout).map_err(|error| {
        error.into_bytes().zeroize();
        exec_error(program, "printed something that is not UTF-8")
    })?;
    checked(cut_newline(text), || format!("the command `{program}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_display_show_a_fingerprint_only() {
        let secret = Secret::from("hunter2-hunter2");
        for shown in
            [format!("{secret:?}"), format!("{secret}"), format!("{:?}", SecretSource::Value(secret.clone()))]
        {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains(&secret.fingerprint().to_string()), "{shown}");
        }
        let fingerprint = secret.fingerprint();
        assert_eq!(Fingerprint::from_hex(&fingerprint.to_hex()), Some(fingerprint));
    }

    #[tokio::test]
    async fn each_source_is_read() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret\n").expect("write");
        let check = async |source: SecretSource, expected: Result<&str, &str>| match (
            source.read().await,
            expected,
        ) {
            (Ok(secret), Ok(text)) => assert_eq!(secret.expose(), text),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (got, wanted) => panic!("{got:?} for {wanted:?}"),
        };
        check(SecretSource::File(path.clone()), Ok("s3cret")).await;
        check(SecretSource::Exec(vec!["echo".into(), "from a command".into()]), Ok("from a command")).await;
        check(SecretSource::Exec(vec!["false".into()]), Err("failed: exit status: 1")).await;
        check(SecretSource::Exec(vec!["/no/such/program".into()]), Err("could not be started")).await;
        check(SecretSource::Env("BEARWARD_TEST_UNSET".into()), Err("BEARWARD_TEST_UNSET is not set")).await;
        check(SecretSource::File(folder.path().join("none")), Err("no such file")).await;
        std::fs::write(&path, "\n").expect("write");
        check(SecretSource::File(path), Err("is empty")).await;
        check(SecretSource::File("/dev/zero".into()), Err("larger than 64 KiB")).await;
    }
}
