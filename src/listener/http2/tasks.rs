//! Many futures as part of one task, in memory that is used again.
//!
//! Owns: which of them are polled: only those that were woken, each once a turn. A future serves one job after the other: it is
//! some KiB that is made once and then neither allocated nor moved for each. Knows nothing of the jobs; what is kept of one
//! for the next is memory alone.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::LocalKey;

use futures_util::task::AtomicWaker;

/// How many futures at rest a worker keeps, of all connections.
const KEPT: usize = 512;
/// Seats of one board.
const BITS: usize = u64::BITS as usize;

/// Where a future gets its jobs from.
pub(super) struct Desk<J> {
    job: Cell<Option<J>>,
    /// The last job is done.
    rests: Cell<bool>,
}

impl<J> Desk<J> {
    /// The next job. The one before is over.
    pub(super) async fn next(&self) -> J {
        std::future::poll_fn(|_| {
            let job = self.job.take();
            self.rests.set(job.is_none());
            job.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// A future that serves jobs.
pub(super) struct Runner<J> {
    future: Pin<Box<dyn Future<Output = Infallible>>>,
    desk: Rc<Desk<J>>,
}

impl<J> Runner<J> {
    /// `serve` takes jobs from the desk for as long as it is polled.
    pub(super) fn new<F>(serve: impl FnOnce(Rc<Desk<J>>) -> F) -> Self
    where
        F: Future<Output = Infallible> + 'static,
    {
        let desk = Rc::new(Desk { job: Cell::new(None), rests: Cell::new(true) });
        Self { future: Box::pin(serve(Rc::clone(&desk))), desk }
    }
}

/// Futures at rest.
pub(super) type Kept<J> = LocalKey<RefCell<Vec<Runner<J>>>>;

/// The futures of one task. Each has a `T` for as long as it is at work.
pub(super) struct Tasks<J: 'static, T> {
    seats: Vec<Seat<J, T>>,
    free: Vec<usize>,
    /// One for each 64 seats.
    boards: Vec<Arc<Board>>,
    parent: Arc<AtomicWaker>,
    make: fn() -> Runner<J>,
    kept: &'static Kept<J>,
}

struct Seat<J, T> {
    waker: Waker,
    taken: Option<(Runner<J>, T)>,
}

impl<J, T> Tasks<J, T> {
    /// None yet. They are made by `make` where none are kept.
    pub(super) fn new(make: fn() -> Runner<J>, kept: &'static Kept<J>) -> Self {
        let (seats, free, boards) = (Vec::new(), Vec::new(), Vec::new());
        Self { seats, free, boards, parent: Arc::default(), make, kept }
    }

    /// Begins a job with the next poll, which has to follow in this turn.
    pub(super) fn add(&mut self, job: J, of: T) {
        let at = match self.free.pop() {
            Some(at) => at,
            None => self.add_seat(),
        };
        let kept = self.kept.with_borrow_mut(Vec::pop);
        let runner = kept.unwrap_or_else(self.make);
        runner.desk.job.set(Some(job));
        runner.desk.rests.set(false);
        self.seats[at].taken = Some((runner, of));
        self.boards[at / BITS].ready.fetch_or(1 << (at % BITS), Ordering::AcqRel);
    }

    #[cold]
    fn add_seat(&mut self) -> usize {
        let at = self.seats.len();
        if at.is_multiple_of(BITS) {
            let board = Board { ready: AtomicU64::new(0), parent: Arc::clone(&self.parent) };
            self.boards.push(Arc::new(board));
        }
        let call = Call { board: Arc::clone(&self.boards[at / BITS]), bit: 1 << (at % BITS) };
        self.seats.push(Seat { waker: Waker::from(Arc::new(call)), taken: None });
        at
    }

    /// Polls those that were woken.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        self.parent.register(cx.waker());
        for place in 0..self.boards.len() {
            let mut ready = self.boards[place].ready.swap(0, Ordering::AcqRel);
            while ready != 0 {
                self.poll_seat(place * BITS + ready.trailing_zeros() as usize);
                ready &= ready - 1;
            }
        }
    }

    fn poll_seat(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        // Empty: the call was for one that has ended.
        let Some((runner, _)) = &mut seat.taken else { return };
        match runner.future.as_mut().poll(&mut Context::from_waker(&seat.waker)) {
            Poll::Ready(never) => match never {},
            Poll::Pending if !runner.desk.rests.get() => return,
            Poll::Pending => {}
        }
        if let Some((runner, _)) = seat.taken.take() {
            self.free.push(at);
            self.kept.with_borrow_mut(|kept| {
                if kept.len() < KEPT {
                    kept.push(runner);
                }
            });
        }
    }

    /// Whether none is at work.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.seats.len()
    }

    /// What those at work were given.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.seats.iter().filter_map(|seat| seat.taken.as_ref().map(|(_, of)| of))
    }
}

/// Who of 64 was woken.
struct Board {
    ready: AtomicU64,
    parent: Arc<AtomicWaker>,
}

/// Wakes one.
struct Call {
    board: Arc<Board>,
    bit: u64,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Where others were woken the parent was, and has not looked yet.
        if self.board.ready.fetch_or(self.bit, Ordering::AcqRel) == 0 {
            self.board.parent.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends when its waker was called as often.
    struct Job {
        turns: u32,
        log: Rc<RefCell<Vec<u32>>>,
        waker: Rc<RefCell<Option<Waker>>>,
    }

    thread_local! {
        static KEPT_JOBS: RefCell<Vec<Runner<Job>>> = const { RefCell::new(Vec::new()) };
        static MADE: Cell<usize> = const { Cell::new(0) };
    }

    async fn serve(desk: Rc<Desk<Job>>) -> Infallible {
        loop {
            let mut job = desk.next().await;
            std::future::poll_fn(|cx| {
                job.log.borrow_mut().push(job.turns);
                if job.turns == 0 {
                    return Poll::Ready(());
                }
                job.turns -= 1;
                job.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            })
            .await;
        }
    }

    fn make() -> Runner<Job> {
        MADE.set(MADE.get() + 1);
        Runner::new(serve)
    }

    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Default)]
    struct Seen {
        log: Rc<RefCell<Vec<u32>>>,
        waker: Rc<RefCell<Option<Waker>>>,
    }

    impl Seen {
        fn job(&self, turns: u32) -> Job {
            Job { turns, log: Rc::clone(&self.log), waker: Rc::clone(&self.waker) }
        }

        fn wake(&self) {
            let waker = self.waker.borrow().clone();
            waker.expect("it waits").wake();
        }
    }

    #[test]
    fn only_who_was_woken_is_polled_and_the_task_is_woken_once() {
        let (woken, mut tasks) = (Arc::new(Woken::default()), Tasks::new(make, &KEPT_JOBS));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        let seen: Vec<Seen> = (0..100).map(|_| Seen::default()).collect();
        for (number, seen) in (0..).zip(&seen) {
            tasks.add(seen.job(number % 2), number);
        }
        tasks.poll(cx);
        assert!(seen.iter().zip(0..).all(|(seen, number)| *seen.log.borrow() == [number % 2]));
        assert_eq!(tasks.iter().copied().sum::<u32>(), 2500);
        tasks.poll(cx);
        seen[1].wake();
        seen[3].wake();
        seen[3].wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        tasks.poll(cx);
        for (number, seen) in seen.iter().enumerate().filter(|(number, _)| number % 2 == 1) {
            let log: &[u32] = if number < 4 { &[1, 0] } else { &[1] };
            assert_eq!(*seen.log.borrow(), log, "{number}");
        }
        assert_eq!(tasks.iter().count(), 48);
    }

    #[test]
    fn a_call_for_one_that_has_ended_does_nothing() {
        let mut tasks = Tasks::new(make, &KEPT_JOBS);
        let cx = &mut Context::from_waker(Waker::noop());
        let seen = Seen::default();
        tasks.add(seen.job(1), ());
        tasks.poll(cx);
        seen.wake();
        tasks.poll(cx);
        assert!(tasks.is_empty());
        seen.wake();
        tasks.poll(cx);
        assert_eq!(*seen.log.borrow(), [1, 0]);
    }

    #[test]
    fn futures_are_used_again_by_others_and_ended_with_their_tasks() {
        let cx = &mut Context::from_waker(Waker::noop());
        let made = MADE.get();
        for _ in 0..3 {
            let mut tasks = Tasks::new(make, &KEPT_JOBS);
            let seen = Seen::default();
            for turns in [0, 0, 0] {
                tasks.add(seen.job(turns), ());
                tasks.poll(cx);
            }
            assert!(tasks.is_empty());
        }
        assert_eq!(MADE.get() - made, 1);
        let (seen, mut tasks) = (Seen::default(), Tasks::new(make, &KEPT_JOBS));
        tasks.add(seen.job(1), ());
        tasks.poll(cx);
        assert_eq!(Rc::strong_count(&seen.log), 2);
        drop(tasks);
        assert_eq!(Rc::strong_count(&seen.log), 1);
        assert!(KEPT_JOBS.with_borrow(Vec::is_empty));
    }

    #[test]
    fn not_more_than_some_are_kept() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (seen, mut tasks) = (Seen::default(), Tasks::new(make, &KEPT_JOBS));
        for number in 0..KEPT + 10 {
            tasks.add(seen.job(0), number);
        }
        tasks.poll(cx);
        assert!(tasks.is_empty());
        assert_eq!(KEPT_JOBS.with_borrow(Vec::len), KEPT);
    }
}
