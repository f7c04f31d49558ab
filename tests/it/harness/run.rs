//! One test's directory: configuration, state, everything that was printed and answered, every secret in play.
//!
//! Owns: `target/tmp/runs/NAME-…/` with `*.log` (output and answers) and `secrets.txt`, which stay when the
//! test is over; and a private directory for files with secrets, which goes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::{Value, json};

/// One test's directory.
pub(crate) struct Run {
    kept: PathBuf,
    private: tempfile::TempDir,
}

impl Run {
    /// A new one, under a name that says which test it was.
    pub(crate) fn new(name: &str) -> Self {
        let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
        fs::create_dir_all(&runs).expect("the directory for kept output can be made");
        let kept = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(runs)
            .expect("and one in it")
            .keep();
        Self { kept, private: tempfile::tempdir().expect("a private directory can be made") }
    }

    /// The state directory of the binary. Not made yet.
    pub(crate) fn state(&self) -> PathBuf {
        self.private.path().join("state")
    }

    /// Where files with secrets lie, and whatever else goes when the test is over.
    pub(crate) fn private(&self) -> &Path {
        self.private.path()
    }

    /// A log file that is kept, open for appending.
    pub(crate) fn log(&self, name: &str) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.kept.join(name))
            .expect("the log can be opened")
    }

    /// Adds to a log file that is kept.
    pub(crate) fn keep(&self, name: &str, text: &str) {
        writeln!(self.log(name), "{text}").expect("the log can be written");
    }

    /// All that was printed and answered so far.
    pub(crate) fn everything(&self) -> String {
        let mut all = String::new();
        for entry in fs::read_dir(&self.kept).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.extension().is_some_and(|extension| extension == "log") {
                all.push_str(&String::from_utf8_lossy(&fs::read(path).expect("it can be read")));
            }
        }
        all
    }

    /// Writes down something that must never be printed or answered.
    pub(crate) fn secret(&self, secret: &str) {
        assert!(secret.len() >= 10, "too short to be searched for");
        let file = OpenOptions::new().create(true).append(true).open(self.kept.join("secrets.txt"));
        writeln!(file.expect("the list can be opened"), "{secret}").expect("the list can be written");
    }

    /// The same for a client secret, in each form that goes over the wire.
    pub(crate) fn client_secret(&self, id: &str, secret: &str) {
        let form = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let base64 = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        self.secret(secret);
        self.secret(&form(secret));
        self.secret(&base64(format!("{}:{}", form(id), form(secret))));
        self.secret(&base64(format!("{id}:{secret}")));
    }

    /// What was written down.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let text = fs::read_to_string(self.kept.join("secrets.txt")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Puts a secret into a file and gives the configuration's reference to it.
    pub(crate) fn secret_file(&self, name: &str, text: &str) -> Value {
        let path = self.private.path().join(name);
        fs::write(&path, text).expect("the secret can be written");
        json!({"file": path})
    }

    /// A configuration: one listener, one route for every path, one credential named `it`, the file store.
    pub(crate) fn config(&self, upstream: &str, credential: &Value) -> Value {
        json!({
            "version": 1,
            "listeners": [{
                "name": "legacy",
                "kind": "reverse",
                "bind": "127.0.0.1:0",
                "routes": [{"name": "api", "match": {"path_prefix": "/"}, "upstream": upstream, "credential": "it"}],
            }],
            "credentials": {"it": credential},
            "store": {"kind": "file", "path": self.state()},
            "admin": {"bind": "127.0.0.1:0"},
            "log": {"level": "debug", "format": "json"},
        })
    }
}
