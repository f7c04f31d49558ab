//! The access log and the audit log: one line an exchange, one line a use of a credential.
//!
//! Owns: what a worker does of it. A worker formats into a buffer of its own, without a lock and without an allocation a
//! line, and hands full buffers to the one writer thread. A writer that cannot keep up costs lines, which are counted, and
//! never a request. No line holds a secret: neither fields of a request but its User-Agent, nor queries unless asked for.

mod line;
mod record;
mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};

use crate::clock::Clock;

use line::Stamp;
pub use record::{Labels, Noted, Record, Use};
pub use writer::OpenError;
use writer::{Chunk, Target};

/// A buffer of this size goes to the writer.
const FULL: usize = 32 * 1024;
/// Room for the line that fills it.
const SLACK: usize = 4 * 1024;
/// Records that are kept for their memory.
const MAX_SPARE: usize = 256;

/// `log.access`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessConfig {
    /// `enabled`: true.
    pub enabled: bool,
    /// `format`.
    pub format: Format,
    /// `sample`: the share of exchanges that is logged, in parts per million.
    pub sample: u32,
    /// `query`: whether the query of a target is logged: false, since it may hold secrets.
    pub query: bool,
    /// `file`; `None`: standard output.
    pub file: Option<PathBuf>,
}

/// `log.audit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// `enabled`: true.
    pub enabled: bool,
    /// `file`; `None`: standard output.
    pub file: Option<PathBuf>,
}

/// `log.access.format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// The Combined Log Format of Apache and nginx.
    Combined,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { enabled: true, format: Format::Json, sample: 1_000_000, query: false, file: None }
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { enabled: true, file: None }
    }
}

/// Both logs as the control plane holds them. Its lines end when this and all that came of it are dropped.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    sender: SyncSender<Chunk>,
    ended: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    access: AccessConfig,
    audit: AuditConfig,
    /// Lines that were lost.
    dropped: AtomicU64,
}

/// Makes the part of one worker; goes to its thread.
#[derive(Debug, Clone)]
pub struct Seed {
    shared: Arc<Shared>,
    sender: SyncSender<Chunk>,
}

/// The part of one worker.
#[derive(Debug)]
pub struct WorkerLog {
    seed: Seed,
    clock: Clock,
    access: RefCell<Buffer>,
    audit: RefCell<Buffer>,
    stamp: RefCell<Stamp>,
    random: RefCell<fastrand::Rng>,
    #[allow(clippy::vec_box, reason = "whoever keeps one keeps a pointer, and it comes back as one")]
    spare: RefCell<Vec<Box<Record>>>,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u32,
}

impl AccessLog {
    /// Opens the files and starts the writer; `None` where both logs are off.
    pub fn open(access: AccessConfig, audit: AuditConfig) -> Result<Option<Self>, OpenError> {
        if !access.enabled && !audit.enabled {
            return Ok(None);
        }
        let shared = Arc::new(Shared { access, audit, dropped: AtomicU64::new(0) });
        let (sender, ended) = writer::start(&shared)?;
        Ok(Some(Self { shared, sender, ended }))
    }

    /// For one more worker.
    pub fn seed(&self) -> Seed {
        Seed { shared: Arc::clone(&self.shared), sender: self.sender.clone() }
    }

    /// Lines that were lost since the start: the writer could not keep up, or the disk was full.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was handed over is written, within limits: a reader that is stuck must not keep the process.
    pub fn finish(self) {
        let Self { sender, ended, .. } = self;
        drop(sender);
        // An error says that the writer has ended.
        let _ = ended.recv_timeout(writer::FAREWELL);
    }
}

impl Seed {
    /// The worker's own part. Called on its thread.
    pub fn grow(self, clock: Clock) -> WorkerLog {
        WorkerLog {
            seed: self,
            clock,
            access: RefCell::default(),
            audit: RefCell::default(),
            stamp: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            spare: RefCell::default(),
        }
    }
}

impl WorkerLog {
    /// A record of the exchange that begins now, where a line will be wanted. `audited`: its route has a credential.
    #[inline]
    pub fn begin(self: &Rc<Self>, audited: bool) -> Option<Noted> {
        let accessed = self.is_sampled();
        let audited = audited && self.seed.shared.audit.enabled;
        if !accessed && !audited {
            return None;
        }
        let mut record = self.spare.borrow_mut().pop().unwrap_or_default();
        record.reset(accessed, audited, self.seed.shared.access.query);
        Some(Noted::new(record, Rc::clone(self)))
    }

    fn is_sampled(&self) -> bool {
        let access = &self.seed.shared.access;
        access.enabled
            && (access.sample >= 1_000_000 || self.random.borrow_mut().u32(..1_000_000) < access.sample)
    }

    /// The exchange has ended: writes its lines and keeps the record's memory.
    fn end(&self, record: Box<Record>) {
        let began = self.clock.wall().minus(record.duration());
        let mut stamp = self.stamp.borrow_mut();
        if record.accessed() {
            let mut buffer = self.access.borrow_mut();
            match self.seed.shared.access.format {
                Format::Json => line::json(&mut buffer.bytes, &record, stamp.rfc3339(began)),
                Format::Combined => line::combined(&mut buffer.bytes, &record, stamp.combined(began)),
            }
            self.added(&mut buffer, Target::Access);
        }
        if record.is_audited() {
            let mut buffer = self.audit.borrow_mut();
            line::audit(&mut buffer.bytes, &record, stamp.rfc3339(began));
            self.added(&mut buffer, Target::Audit);
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            spare.push(record);
        }
    }

    #[inline]
    fn added(&self, buffer: &mut Buffer, target: Target) {
        buffer.lines += 1;
        if buffer.bytes.len() >= FULL {
            self.hand_over(buffer, target);
        }
    }

    /// Hands over what is there. To be called at least each second.
    pub fn flush(&self) {
        self.hand_over(&mut self.access.borrow_mut(), Target::Access);
        self.hand_over(&mut self.audit.borrow_mut(), Target::Audit);
    }

    #[cold]
    fn hand_over(&self, buffer: &mut Buffer, target: Target) {
        if buffer.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut buffer.lines);
        // Never waits: a full channel, or a writer that is gone, costs these lines and gives the buffer back.
        match self.seed.sender.try_send(Chunk { target, bytes: std::mem::take(&mut buffer.bytes), lines }) {
            Ok(()) => buffer.bytes = Vec::with_capacity(FULL + SLACK),
            Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                self.seed.shared.dropped.fetch_add(u64::from(lines), Ordering::Relaxed);
                buffer.bytes = refused.bytes;
                buffer.bytes.clear();
            }
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
