//! Hearing of changes that other processes make.
//!
//! Owns: one thread a store that waits for inotify events on the directory and looks at every watched
//! record each ten seconds besides (network file systems send no events, and a directory can be put in
//! the place of another). Never reads a file whose stamp has not changed.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use super::Files;
use super::directory::{Directory, Stamp};
use super::fault::directory_error;
use crate::names::Name;
use crate::store::StoreError;

/// How often everything is looked at where events arrive.
const POLL: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 10_000 });
/// How often where the kernel gives no more watches.
const POLL_WITHOUT_EVENTS: Duration = Duration::from_millis(500);

/// What is watched, and the thread that does it (begun with the first watch, ended when dropped).
#[derive(Debug)]
pub(super) struct Watches {
    seen: Arc<Seen>,
    thread: Mutex<Option<Sender<News>>>,
}

/// The last version seen of each watched key.
#[derive(Debug)]
struct Seen {
    files: Arc<Files>,
    keys: Mutex<HashMap<Name, Watched>>,
}

#[derive(Debug)]
struct Watched {
    stamp: Option<Stamp>,
    version: watch::Sender<u64>,
}

enum News {
    Changed(Name),
    LookAtAll,
    Stop,
}

impl Watches {
    pub(super) fn new(files: Arc<Files>) -> Self {
        Self { seen: Arc::new(Seen { files, keys: Mutex::default() }), thread: Mutex::default() }
    }

    /// Begins to watch a key: the first value is what stands there now.
    pub(super) fn watch(&self, key: &Name) -> Result<watch::Receiver<u64>, StoreError> {
        self.begin()?;
        let receiver = {
            let mut keys = locked(&self.seen.keys);
            let watched = keys
                .entry(key.clone())
                .or_insert_with(|| Watched { stamp: None, version: watch::Sender::new(0) });
            watched.version.subscribe()
        };
        self.seen.look_at(key);
        Ok(receiver)
    }

    /// Tells the watchers of this process at once of its own write.
    pub(super) fn look_at(&self, key: &Name) {
        self.seen.look_at(key);
    }

    fn begin(&self) -> Result<(), StoreError> {
        let mut thread = locked(&self.thread);
        if thread.is_none() {
            let (sender, receiver) = channel();
            let (seen, events) = (Arc::clone(&self.seen), sender.clone());
            std::thread::Builder::new()
                .name("store-watch".into())
                .stack_size(512 * 1024)
                .spawn(move || run(&seen, &events, &receiver))
                .map_err(|error| directory_error("cannot watch", self.seen.files.directory.path(), &error))?;
            *thread = Some(sender);
        }
        Ok(())
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        if let Some(thread) = locked(&self.thread).take() {
            // An error means that it has ended already.
            let _ = thread.send(News::Stop);
        }
    }
}

impl Seen {
    /// Reads the version if the file has changed, and passes it on. What cannot be read wakes the
    /// watchers as well: whoever loads the record then hears why.
    fn look_at(&self, key: &Name) {
        let mut keys = locked(&self.keys);
        let Some(watched) = keys.get_mut(key) else { return };
        let path = self.files.directory.record(key);
        let Ok(stamp) = Directory::stamp(&path) else { return };
        if stamp == watched.stamp {
            return;
        }
        match self.files.version(key) {
            Ok(version) => drop(watched.version.send_replace(version)),
            // The disk may answer at the next look.
            Err(StoreError::Io { .. }) => return,
            Err(_) => watched.version.send_modify(|_| ()),
        }
        watched.stamp = stamp;
    }

    fn look_at_all(&self) {
        let keys: Vec<_> = locked(&self.keys).keys().cloned().collect();
        for key in keys {
            self.look_at(&key);
        }
    }
}

fn run(seen: &Seen, events: &Sender<News>, news: &Receiver<News>) {
    let mut place = seen.files.directory.identity();
    let mut watcher = listen(seen, events);
    loop {
        let pause = if watcher.is_some() { POLL } else { POLL_WITHOUT_EVENTS };
        match news.recv_timeout(pause) {
            Ok(News::Changed(key)) => seen.look_at(&key),
            Ok(News::LookAtAll) => seen.look_at_all(),
            Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let now = seen.files.directory.identity();
                if now != place {
                    place = now;
                    watcher = listen(seen, events);
                }
                seen.look_at_all();
            }
        }
    }
}

/// Events of the directory as it is now; `None` where the kernel refuses, which is said once.
fn listen(seen: &Seen, events: &Sender<News>) -> Option<RecommendedWatcher> {
    let path = seen.files.directory.path();
    let events = events.clone();
    let listening =
        notify::recommended_watcher(move |event| pass_on(event, &events)).and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
    match listening {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no change events (fs.inotify limits?): polling instead");
            None
        }
    }
}

fn pass_on(event: notify::Result<notify::Event>, events: &Sender<News>) {
    let Ok(event) = event else {
        let _ = events.send(News::LookAtAll);
        return;
    };
    if event.need_rescan() {
        let _ = events.send(News::LookAtAll);
    }
    match event.kind {
        // Reading makes events too, and our own reading must not wake us.
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return,
        _ => {}
    }
    for key in event.paths.iter().filter_map(|path| Directory::key_of_record(path)) {
        let _ = events.send(News::Changed(key));
    }
}

/// Nobody who holds these locks can leave what they guard half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::FileStore;
    use crate::store::contract::{key, lease, record_with};
    use crate::store::{Store, StoreError};

    async fn open(path: &Path) -> Store {
        Store::File(Arc::new(FileStore::open(Some(path), &[]).await.expect("open")))
    }

    async fn write(path: &Path, versions: u64) -> Result<(), StoreError> {
        let store = open(path).await;
        let held = lease(&store, &key("k")).await;
        for version in 0..versions {
            store.commit(&held, version, &record_with(&format!("t{version}"))).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_directory_put_in_the_place_of_another_is_watched_in_its_stead() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (link, old, new) =
            (folder.path().join("link"), folder.path().join("old"), folder.path().join("new"));
        write(&old, 1).await.expect("commit");
        write(&new, 3).await.expect("commit");
        std::os::unix::fs::symlink(&old, &link).expect("symlink");
        let store = open(&link).await;
        let mut watch = store.watch(&key("k")).await.expect("watch");
        assert_eq!(*watch.borrow(), 1);
        let hears = async |watch: &mut tokio::sync::watch::Receiver<u64>, version: u64| {
            let heard =
                tokio::time::timeout(Duration::from_secs(5), watch.wait_for(|seen| *seen == version)).await;
            heard.expect("in time").expect("the store is open");
        };
        let other = folder.path().join("other");
        std::os::unix::fs::symlink(&new, &other).expect("symlink");
        std::fs::rename(&other, &link).expect("rename");
        hears(&mut watch, 3).await;
        let elsewhere = open(&new).await;
        let held = lease(&elsewhere, &key("k")).await;
        elsewhere.commit(&held, 3, &record_with("t3")).await.expect("commit");
        hears(&mut watch, 4).await;
    }

    #[tokio::test]
    async fn a_record_that_becomes_unusable_wakes_those_who_wait_for_it() {
        let folder = tempfile::tempdir().expect("tempdir");
        let place = folder.path().join("state");
        write(&place, 2).await.expect("commit");
        let store = open(&place).await;
        let mut watch = store.watch(&key("k")).await.expect("watch");
        watch.mark_unchanged();
        std::fs::write(place.join("k.record"), "garbage").expect("write");
        let woken = tokio::time::timeout(Duration::from_secs(5), watch.changed()).await;
        woken.expect("in time").expect("the store is open");
        assert!(matches!(store.load(&key("k")).await, Err(StoreError::Corrupt { .. })));
    }
}
