//! The one thread that writes the access and the audit log.
//!
//! Owns: the files. It follows a file that was renamed or removed (logrotate needs no signal), and counts what it cannot
//! write. It may wait as long as a disk or a pipe takes: nobody waits for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::Shared;

/// Buffers on the way: 2 MiB.
const MAX_CHUNKS: usize = 64;
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of the process waits for what is on the way.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file.
    #[error(
        "the log {path} cannot be opened for writing: {error}; create its directory, or say another `file`"
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The thread.
    #[error("the log's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Access,
    Audit,
}

/// Whole lines.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) target: Target,
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u32,
}

/// Opens the files and starts the thread. What is received last says that all is written.
pub(super) fn start(shared: &Arc<Shared>) -> Result<(SyncSender<Chunk>, Receiver<()>), OpenError> {
    let open = |enabled: bool, path: &Option<PathBuf>| match path {
        Some(path) if enabled => Output::open(path),
        _ => Ok(Output::Standard),
    };
    let access = open(shared.access.enabled, &shared.access.file)?;
    let audit = open(shared.audit.enabled, &shared.audit.file)?;
    let (sender, chunks) = sync_channel(MAX_CHUNKS);
    let (end, ended) = sync_channel(1);
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("bw-log".into());
    let running = thread.spawn(move || {
        run(&chunks, access, audit, &shared);
        drop(end);
    });
    running.map_err(OpenError::Thread)?;
    Ok((sender, ended))
}

fn run(chunks: &Receiver<Chunk>, mut access: Output, mut audit: Output, shared: &Shared) {
    let mut told = false;
    loop {
        let chunk = match chunks.recv_timeout(LOOK) {
            Ok(chunk) => chunk,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let output = if chunk.target == Target::Access { &mut access } else { &mut audit };
        if let Err(error) = output.write(&chunk.bytes) {
            shared.dropped.fetch_add(u64::from(chunk.lines), Ordering::Relaxed);
            if !std::mem::replace(&mut told, true) {
                tracing::error!(%error, "the access or audit log cannot be written; lost lines are counted");
            }
        } else {
            told = false;
        }
    }
}

/// Where lines go.
#[derive(Debug)]
enum Output {
    Standard,
    File { path: PathBuf, file: File, looked: tokio::time::Instant },
}

impl Output {
    fn open(path: &Path) -> Result<Self, OpenError> {
        let file = append(path).map_err(|error| OpenError::File { path: path.to_owned(), error })?;
        Ok(Self::File { path: path.to_owned(), file, looked: tokio::time::Instant::now() })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Standard => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File { path, file, looked } => {
                if looked.elapsed() >= LOOK {
                    *looked = tokio::time::Instant::now();
                    if !is_same(path, file)
                        && let Ok(new) = append(path)
                    {
                        *file = new;
                    }
                }
                file.write_all(bytes)
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Whether the path still leads to the open file.
fn is_same(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(at), Ok(open)) => (at.dev(), at.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}
