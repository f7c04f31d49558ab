//! Room at an upstream: how many requests are under way to it in the whole process, and the short queue before it.
//!
//! Owns: the count. A worker keeps a few places at hand, so that most requests touch nothing that another worker
//! writes; where the limit is small, or somebody waits, it keeps none.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Of so many places all workers together keep one at hand.
const AT_HAND: usize = 8;

/// `limits` of an upstream, but for those of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomConfig {
    /// `requests`: under way at once, in the process: 1,024.
    pub requests: usize,
    /// `queue`: how many may wait for a place: 1,024.
    pub queue: usize,
    /// `queue_timeout`: for how long: 1 s.
    pub queue_timeout: Duration,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self { requests: 1024, queue: 1024, queue_timeout: Duration::from_secs(1) }
    }
}

/// The places at one upstream, for all workers.
#[derive(Debug)]
pub struct Room {
    places: Semaphore,
    waiting: AtomicUsize,
    config: RoomConfig,
    /// How many places one worker may keep without a request.
    at_hand: usize,
}

/// No place: the queue was full, or none came free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Room {
    /// All places free.
    pub fn new(config: RoomConfig, workers: usize) -> Arc<Self> {
        let requests = config.requests.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            places: Semaphore::new(requests),
            waiting: AtomicUsize::new(0),
            config,
            at_hand: requests / (AT_HAND * workers.max(1)),
        })
    }
}

/// The way of one worker to a [`Room`].
#[derive(Debug)]
pub struct Entrance {
    room: Arc<Room>,
    at_hand: Cell<usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Admission(Rc<Entrance>);

impl Entrance {
    /// With no place at hand.
    pub fn new(room: Arc<Room>) -> Rc<Self> {
        Rc::new(Self { room, at_hand: Cell::new(0) })
    }

    /// A place, if one is free.
    #[inline]
    pub fn enter_at_once(self: &Rc<Self>) -> Option<Admission> {
        match self.at_hand.get() {
            0 => self.room.places.try_acquire().ok()?.forget(),
            kept => self.at_hand.set(kept - 1),
        }
        Some(Admission(Rc::clone(self)))
    }

    /// A place, after those who came before.
    #[cold]
    pub async fn queue(self: &Rc<Self>) -> Result<Admission, Full> {
        let RoomConfig { queue, queue_timeout, .. } = self.room.config;
        let _waiting = Waiting::begin(&self.room.waiting, queue).ok_or(Full)?;
        match tokio::time::timeout(queue_timeout, self.room.places.acquire()).await {
            Ok(Ok(place)) => {
                place.forget();
                Ok(Admission(Rc::clone(self)))
            }
            _ => Err(Full),
        }
    }

    /// Whether the next one would have to wait.
    pub fn is_full(&self) -> bool {
        self.at_hand.get() == 0 && self.room.places.available_permits() == 0
    }

    /// Leaves what is kept at hand to the others.
    pub fn sweep(&self) {
        let kept = self.at_hand.replace(0);
        if kept > 0 {
            self.room.places.add_permits(kept);
        }
    }
}

impl Drop for Admission {
    #[inline]
    fn drop(&mut self) {
        let Entrance { room, at_hand } = &*self.0;
        if at_hand.get() < room.at_hand && room.waiting.load(Relaxed) == 0 {
            at_hand.set(at_hand.get() + 1);
        } else {
            room.places.add_permits(1);
        }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.sweep();
    }
}

/// Someone in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let waits = Self(waiting);
        (waiting.fetch_add(1, Relaxed) < most).then_some(waits)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(requests: usize, queue: usize) -> RoomConfig {
        RoomConfig { requests, queue, queue_timeout: Duration::from_secs(1) }
    }

    #[tokio::test]
    async fn two_workers_have_no_more_places_than_there_are() {
        let room = Room::new(config(3, 0), 2);
        let (one, two) = (Entrance::new(Arc::clone(&room)), Entrance::new(room));
        let first = one.enter_at_once().expect("a place");
        let _second = one.enter_at_once().expect("a place");
        let _third = two.enter_at_once().expect("a place");
        assert!(two.enter_at_once().is_none() && two.is_full());
        assert_eq!(two.queue().await.err(), Some(Full));
        drop(first);
        assert!(two.enter_at_once().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_place_or_gives_up_in_time() {
        let room = Room::new(config(1, 1), 2);
        let (one, two) = (Entrance::new(Arc::clone(&room)), Entrance::new(room));
        let held = one.enter_at_once().expect("a place");
        let (waited, turned_away, ()) = tokio::join!(two.queue(), two.queue(), async { drop(held) });
        let waited = waited.expect("the place that came free");
        assert_eq!(turned_away.err(), Some(Full));
        let began = tokio::time::Instant::now();
        assert_eq!(one.queue().await.err(), Some(Full));
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        drop(waited);
        assert!(one.queue().await.is_ok());
    }

    #[tokio::test]
    async fn places_at_hand_are_given_back_at_a_sweep_and_to_who_waits() {
        let room = Room::new(config(64, 1), 2);
        let (one, two) = (Entrance::new(Arc::clone(&room)), Entrance::new(Arc::clone(&room)));
        drop(one.enter_at_once());
        assert_eq!(room.places.available_permits(), 63);
        let held: Vec<_> = std::iter::from_fn(|| two.enter_at_once()).collect();
        assert_eq!(held.len(), 63);
        one.sweep();
        let last = two.enter_at_once();
        assert!(last.is_some());
        let (waited, ()) = tokio::join!(one.queue(), async { drop(held) });
        assert!(waited.is_ok());
        drop((last, waited));
        one.sweep();
        two.sweep();
        assert_eq!(room.places.available_permits(), 64);
    }
}
