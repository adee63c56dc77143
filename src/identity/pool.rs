//! Threads that verify signatures, so that one costly token never delays the other streams of a request thread.
//!
//! The queue is bounded; a full queue is the caller's to answer (503). What bounds a flood is this, never an address.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

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

impl Queue {
    fn work(&self) {
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
    use std::sync::mpsc;

    use super::*;

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
