//! Saving: compare-and-swap writes, and the pair that did not land.
//!
//! Owns: the record that only memory holds, until it is on disk. Never overwrites what another process
//! wrote: only a mark of our own may be replaced without the version that we know.

use std::time::Duration;

use super::attempt::Work;
use super::task::Task;
use crate::clock::BootTime;
use crate::store::{Lease, Record, RecordState, StoreError};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long a stopping process goes on trying to save a rotated token.
const LAST_CHANCE: Duration = Duration::from_secs(10);

/// A rotated pair that is not on disk.
#[derive(Debug)]
pub(super) struct Unsaved {
    /// `None`: lost; before the next try it is taken again and the record judged.
    lease: Option<Lease>,
    version: u64,
    record: Record,
    next_try: BootTime,
    pause: Duration,
}

impl Unsaved {
    /// Goes on from the pair in memory, if the lease is still ours.
    pub(super) fn into_work(self: Box<Self>) -> Result<Work, Box<Self>> {
        match self.lease {
            Some(lease) => {
                Ok(Work { lease, record: self.record, version: self.version, behind: true, in_doubt: false })
            }
            None => Err(self),
        }
    }
}

impl Task {
    /// Commits the record of the work; keeps what is known of the disk in step.
    pub(super) async fn write(&mut self, work: &mut Work) -> Result<(), StoreError> {
        match self.store.commit(&work.lease, work.version, &work.record).await {
            Ok(version) => {
                work.version = version;
                work.record.version = version;
                work.behind = false;
                self.record = Some(work.record.clone());
                Ok(())
            }
            Err(error) => {
                self.counts.store_errors += 1;
                Err(error)
            }
        }
    }

    /// The new pair could not be written: it is served from memory and the write is tried until it lands.
    pub(super) fn keep_unsaved(&mut self, work: Work, error: &StoreError) {
        let lost = matches!(error, StoreError::Conflict { .. } | StoreError::LeaseLost { .. });
        tracing::error!(
            credential = %self.config.name,
            %error,
            "ALARM: a rotated refresh token is only in memory; the write is tried again until it lands"
        );
        let next_try = self.clock.boot().plus(FIRST_PAUSE);
        self.note_store_error(&error.to_string(), Some(next_try));
        self.remedy = Some(format!(
            "mend the store and do not stop this process before it has saved the refresh token: {error}"
        ));
        self.put_back(work, lost);
    }

    /// The work ends with a pair that is still only in memory.
    pub(super) fn put_back(&mut self, work: Work, lost: bool) {
        self.record = Some(work.record.clone());
        self.unsaved = Some(Box::new(Unsaved {
            lease: (!lost).then_some(work.lease),
            version: work.version,
            record: work.record,
            next_try: self.clock.boot().plus(FIRST_PAUSE),
            pause: FIRST_PAUSE,
        }));
    }

    /// One more try, when it is time.
    pub(super) async fn save_again(&mut self) {
        let now = self.clock.boot();
        if self.unsaved.as_ref().is_none_or(|unsaved| unsaved.next_try > now) {
            return;
        }
        let Some(mut unsaved) = self.unsaved.take() else { return };
        unsaved.pause = (unsaved.pause * 2).min(LAST_PAUSE);
        unsaved.next_try = now.plus(unsaved.pause);
        if unsaved.lease.is_none() && !self.take_lease_again(&mut unsaved).await {
            return;
        }
        let Some(lease) = &unsaved.lease else {
            self.unsaved = Some(unsaved);
            return;
        };
        match self.store.commit(lease, unsaved.version, &unsaved.record).await {
            Ok(version) => {
                unsaved.record.version = version;
                self.record = Some(unsaved.record);
                self.last_error = None;
                self.remedy = None;
                tracing::info!(credential = %self.config.name, version, "the rotated refresh token is saved now");
            }
            Err(error) => {
                if matches!(error, StoreError::Conflict { .. } | StoreError::LeaseLost { .. }) {
                    unsaved.lease = None;
                }
                self.note_store_error(&error.to_string(), Some(unsaved.next_try));
                self.unsaved = Some(unsaved);
            }
        }
    }

    /// A late commit is allowed over our own mark and over nothing else. False: the pair was given up.
    async fn take_lease_again(&mut self, unsaved: &mut Unsaved) -> bool {
        let name = self.config.name.clone();
        let Ok(Some(lease)) = self.store.try_lease(&name).await else { return true };
        match self.store.load(&name).await {
            Ok(Some(stored)) if is_own_mark(&stored, &self.owner) => {
                unsaved.version = stored.version;
                unsaved.lease = Some(lease);
                true
            }
            // A person removed it (as is advised where it is damaged): what is in memory is all there is.
            Ok(None) => {
                unsaved.version = 0;
                unsaved.lease = Some(lease);
                true
            }
            Ok(stored) => {
                tracing::error!(
                    credential = %name,
                    "another process wrote the record while our token request was under way: its record \
                     stands, ours is given up"
                );
                self.take_over(stored, false);
                false
            }
            Err(error) => {
                self.note_store_error(&error.to_string(), Some(unsaved.next_try));
                true
            }
        }
    }

    /// A stopping process does not leave a rotated token in memory if it can help it.
    pub(super) async fn save_before_the_end(&mut self) {
        let until = self.clock.boot().plus(LAST_CHANCE);
        while self.unsaved.is_some() && self.clock.boot() < until {
            self.save_again().await;
            tokio::time::sleep(FIRST_PAUSE).await;
        }
        if self.unsaved.is_some() {
            tracing::error!(
                credential = %self.config.name,
                "stopping with a rotated refresh token that could not be saved: it is lost"
            );
        }
    }
}

fn is_own_mark(stored: &Record, owner: &str) -> bool {
    matches!(&stored.state, RecordState::InFlight(mark) if mark.owner == owner)
}
