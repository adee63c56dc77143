//! Threads that verify signatures, so that one costly token never delays the other streams of a request thread.
//!
//! The queue is bounded; a full queue is the caller's to answer (503). What bounds a flood is this, never an address. A short
//! verification costs less than handing it to another thread and back: it is done in place, while that takes no more than two
//! thirds of the thread's time.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::process::nice;

type Job = Box<dyn FnOnce() + Send>;

/// What is added to the nice value of the threads: a third of the share of others, so that they still get on.
const POLITENESS: i32 = 5;

/// The most time that a thread saves up for verifying in place: what a burst of tokens may delay its other streams by.
const LARGEST_CREDIT: Duration = Duration::from_micros(250);

/// The most that it owes for a verification that took longer than it had: as long as a slow one takes. A thread that was
/// itself kept waiting owes no more.
const LARGEST_DEBT: Duration = Duration::from_micros(50);

/// A fixed number of threads and a bounded queue before them. Dropping it ends the threads after what is queued.
pub(super) struct Pool(Arc<Queue>);

struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    limit: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Pool {
    /// # Errors
    ///
    /// A thread could not be started.
    pub(super) fn start(threads: usize, limit: usize) -> std::io::Result<Self> {
        let queue = Arc::new(Queue { state: Mutex::default(), wake: Condvar::new(), limit });
        let pool = Self(queue.clone());
        for i in 0..threads.max(1) {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("verify-{i}")).spawn(move || queue.work())?;
        }
        Ok(pool)
    }

    /// Does `job` at once where it is `short` and this thread can spare the time, else queues it. Says whether there was room.
    pub(super) fn run(&self, short: bool, job: impl FnOnce() + Send + 'static) -> bool {
        thread_local!(static SPARE: Cell<Option<Spare>> = const { Cell::new(None) });
        if !short {
            return self.submit(job);
        }
        let now = Instant::now();
        let spare = SPARE.get().unwrap_or(Spare { balance: Spare::MOST, at: now }).at(now);
        if !spare.is_there() {
            return self.submit(job);
        }
        job();
        SPARE.set(Some(spare.spend(Instant::now())));
        true
    }

    /// Queues `job`, or says that the queue is full.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let mut state = self.0.state.lock();
        if state.jobs.len() >= self.0.limit {
            return false;
        }
        state.jobs.push_back(Box::new(job));
        drop(state);
        self.0.wake.notify_one();
        true
    }
}

/// Time that a thread may verify for: it grows twice as fast as time passes with other work.
#[derive(Clone, Copy)]
struct Spare {
    /// Credit above [`LARGEST_DEBT`], debt below.
    balance: Duration,
    at: Instant,
}

impl Spare {
    const MOST: Duration = LARGEST_DEBT.saturating_add(LARGEST_CREDIT);

    fn at(self, now: Instant) -> Self {
        let earned = now.saturating_duration_since(self.at) * 2;
        Self { balance: self.balance.saturating_add(earned).min(Self::MOST), at: now }
    }

    fn is_there(self) -> bool {
        self.balance > LARGEST_DEBT
    }

    fn spend(self, until: Instant) -> Self {
        let spent = until.saturating_duration_since(self.at);
        Self { balance: self.balance.saturating_sub(spent), at: until }
    }
}

impl Queue {
    fn work(&self) {
        // On a busy machine, answers that need no signature come first. Where that is not allowed they come as they may.
        let _ = nice(POLITENESS);
        while let Some(job) = self.next() {
            // A panic costs its own token, not the thread. The job's guards tell whoever waits.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            match state.jobs.pop_front() {
                Some(job) => return Some(job),
                None if state.closed => return None,
                None => self.wake.wait(&mut state),
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.wake.notify_all();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} queued)", self.0.state.lock().jobs.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    #[test]
    fn a_burst_is_bounded_and_what_was_spent_must_be_earned_first() {
        let start = Instant::now();
        let later = |micros| start + Duration::from_micros(micros);
        let full = Spare { balance: Duration::ZERO, at: start }.at(later(1_000_000));
        assert_eq!(full.balance, LARGEST_DEBT + LARGEST_CREDIT);
        // Ten of 26 µs with nothing between them use up the credit, and one more than it.
        let mut burst = Spare { at: start, ..full };
        let count = (1..).find(|number| {
            burst = burst.spend(later(26 * number));
            !burst.is_there()
        });
        assert_eq!(count, Some(10));
        assert!(!burst.at(later(260 + 5)).is_there() && burst.at(later(260 + 6)).is_there());
        // However long one took that was itself kept waiting, it is made up for in 25 µs.
        let kept_waiting = Spare { at: start, ..full }.spend(later(1_000_000));
        assert!(!kept_waiting.at(later(1_000_025)).is_there() && kept_waiting.at(later(1_000_026)).is_there());
    }

    #[test]
    fn verifying_never_takes_more_than_two_thirds_of_the_time() {
        let start = Instant::now();
        let later = |micros| start + Duration::from_micros(micros);
        // A verification of 26 µs and then something else for 5 µs, as long as there is credit.
        let (mut spare, mut now, mut verified) = (Spare { balance: Duration::ZERO, at: start }, 0, 0);
        while now < 100_000 {
            spare = spare.at(later(now));
            if spare.is_there() {
                (now, verified) = (now + 26, verified + 26);
                spare = spare.spend(later(now));
            }
            now += 5;
        }
        assert!((60_000..67_000).contains(&verified), "{verified} µs");
    }

    #[test]
    fn only_a_short_job_is_done_in_place() {
        let pool = Pool::start(1, 4).unwrap();
        let here = std::thread::current().id();
        let (told, heard) = mpsc::channel();
        for short in [true, false] {
            let told = told.clone();
            assert!(pool.run(short, move || told.send(std::thread::current().id() == here).unwrap()));
            assert_eq!(heard.recv().unwrap(), short);
        }
    }

    #[test]
    fn a_flood_of_short_jobs_is_not_done_in_place() {
        let pool = Pool::start(1, 1).unwrap();
        let here = std::thread::current().id();
        let done_here = Arc::new(AtomicUsize::new(0));
        for _ in 0..1_000 {
            let done_here = Arc::clone(&done_here);
            // Queued or refused: either is the pool's to bound.
            let _ = pool.run(true, move || {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_micros(30) {
                    std::hint::spin_loop();
                }
                done_here.fetch_add(usize::from(std::thread::current().id() == here), Ordering::Relaxed);
            });
        }
        // Some ten at once, and what is earned while the others are refused.
        let done_here = done_here.load(Ordering::Relaxed);
        assert!((1..=200).contains(&done_here), "{done_here} of 1000");
    }

    #[test]
    fn a_full_queue_says_so_and_a_panic_does_not_end_the_thread() {
        let pool = Pool::start(1, 1).unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        assert!(pool.submit(move || {
            let _ = started.send(());
            let _ = blocked.recv();
            panic!("on purpose");
        }));
        has_started.recv().unwrap();
        let (done, is_done) = mpsc::channel();
        assert!(pool.submit(move || done.send(()).unwrap()));
        assert!(!pool.submit(|| {}), "the queue holds one");
        release.send(()).unwrap();
        is_done.recv().unwrap();
    }
}
