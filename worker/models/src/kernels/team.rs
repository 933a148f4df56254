//! A few threads that wait for the next piece of a step with open eyes.
//!
//! A step forks once or twice in about a millisecond. A pool whose threads sleep in between spends more on waking them than some of
//! the pieces take, so these spin for a moment before they sleep, and the caller works too. Nobody waits for a thread that was too late
//! to take part: on a busy machine the caller does what is left. Which thread does what never shows in a result: pieces are
//! independent.

use std::{
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use rayon::prelude::*;

/// Threads for one training run. Inside rayon's pool there are none, and rayon shares the work out: several conditions are trained
/// at a time then.
#[derive(Debug, Default)]
pub(crate) struct Team {
    helpers: Vec<Helper>,
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Helper {
    thread: Option<JoinHandle<()>>,
    is_parked: Arc<AtomicBool>,
}

/// What the caller and the helpers know of the round in progress.
#[derive(Debug, Default)]
struct Shared {
    /// Number of the round, whether it takes helpers, and how many are in it; see [`OPEN`] and [`ROUND`].
    state: AtomicU64,
    /// What is done in the round with the numbers below `n_pieces`.
    task: UnsafeCell<Option<Task>>,
    n_pieces: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
    ends: AtomicBool,
}

type Task = *const (dyn Fn(usize) + Sync);

// SAFETY: `task` is written by the caller only, while the round is closed and no helper is in it (`for_each` waits for that); helpers
// read it only inside an open round, which they enter through `state` (acquire) after the caller's store (release). What it points
// to may be called from several threads (`Sync`).
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is not used by the thread that drops it.
unsafe impl Send for Shared {}

impl Team {
    /// As many threads as rayon has, the caller among them, and at most `most`.
    pub(crate) fn new(most: usize) -> Self {
        if rayon::current_thread_index().is_some() {
            return Self::default();
        }
        Self::of(rayon::current_num_threads().min(most))
    }

    fn of(n_threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let helper = |_| {
            let (is_parked, shared) = (Arc::new(AtomicBool::new(false)), Arc::clone(&shared));
            let flag = Arc::clone(&is_parked);
            let thread = thread::Builder::new().name("archipelago-team".to_owned()).spawn(move || shared.help(&flag));
            Some(Helper { thread: Some(thread.ok()?), is_parked })
        };
        // Where the system gives no thread there is one less.
        let helpers = (1..n_threads).map_while(helper).collect();
        Self { helpers, shared: Some(shared) }
    }

    /// Calls `f` with each item, on whatever thread is free.
    ///
    /// # Panics  if `f` does
    pub(crate) fn for_each<T: Send>(&mut self, items: &mut [T], f: impl Fn(&mut T) + Sync) {
        let Some(shared) = &self.shared else { return items.par_iter_mut().for_each(&f) };
        if self.helpers.is_empty() || items.len() < 2 {
            return items.iter_mut().for_each(f);
        }
        let (first, n) = (Items(items.as_mut_ptr()), items.len());
        // SAFETY: every number below `n` is claimed once in a round, so no two calls have the same item; `items` is borrowed until
        // all calls are over.
        let task = |i: usize| f(unsafe { &mut *first.at(i) });
        let round = Round::open(shared, &task, n);
        for helper in self.helpers.iter().take(n - 1) {
            if helper.is_parked.swap(false, Ordering::SeqCst) {
                helper.unpark();
            }
        }
        shared.work(&task, n);
        drop(round);
        assert!(!shared.panicked.load(Ordering::Relaxed), "a thread of the team panicked");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.ends.store(true, Ordering::SeqCst);
        }
        for helper in &mut self.helpers {
            helper.unpark();
            if let Some(thread) = helper.thread.take() {
                // It catches what its pieces throw.
                let _ = thread.join();
            }
        }
    }
}

impl Helper {
    fn unpark(&self) {
        self.thread.as_ref().map(JoinHandle::thread).into_iter().for_each(Thread::unpark);
    }
}

/// A pointer that threads of a round share.
struct Items<T>(*mut T);

// SAFETY: only ever used to reach items that no other thread reaches, and these may be sent.
unsafe impl<T: Send> Sync for Items<T> {}

impl<T> Items<T> {
    fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

/// An open round; dropped, it is closed and no helper is left in it, whether the caller returns or unwinds.
struct Round<'a>(&'a Shared);

impl<'a> Round<'a> {
    fn open(shared: &'a Shared, task: &'a (dyn Fn(usize) + Sync), n: usize) -> Self {
        let task: *const (dyn Fn(usize) + Sync + 'a) = task;
        // SAFETY: only the lifetime is taken away; the round ends before `task` does, since this value borrows it. No helper is
        // in a round: the last one waited for them.
        unsafe { *shared.task.get() = Some(std::mem::transmute::<*const (dyn Fn(usize) + Sync + 'a), Task>(task)) };
        shared.n_pieces.store(n, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        let before = shared.state.load(Ordering::Relaxed);
        shared.state.store((before & !(OPEN | INSIDE)).wrapping_add(ROUND) | OPEN, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.next.store(usize::MAX / 2, Ordering::Relaxed);
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let start = Instant::now();
        while self.0.state.load(Ordering::Acquire) & INSIDE != 0 {
            pause(start);
        }
    }
}

impl Shared {
    /// What a helper does until the team ends.
    fn help(&self, is_parked: &AtomicBool) {
        let mut seen = 0;
        let mut idle_since = Instant::now();
        while !self.ends.load(Ordering::SeqCst) {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state / ROUND != seen {
                let enters = self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
                if enters.is_ok() {
                    seen = state / ROUND;
                    self.take_part();
                    idle_since = Instant::now();
                }
                continue;
            }
            if idle_since.elapsed() < OPEN_EYES {
                pause(idle_since);
                continue;
            }
            is_parked.store(true, Ordering::SeqCst);
            // Whoever opened a round before this store did not see the flag: look once more.
            let state = self.state.load(Ordering::SeqCst);
            if (state & OPEN == 0 || state / ROUND == seen) && !self.ends.load(Ordering::SeqCst) {
                thread::park();
            }
            is_parked.store(false, Ordering::SeqCst);
            idle_since = Instant::now();
        }
    }

    /// The part of a helper inside a round.
    fn take_part(&self) {
        let n = self.n_pieces.load(Ordering::Relaxed);
        // SAFETY: this helper is counted in `state`, so the round's owner keeps the task alive until it has left.
        let task = unsafe { (*self.task.get()).map(|task| &*task) };
        let worked = catch_unwind(AssertUnwindSafe(|| task.into_iter().for_each(|task| self.work(task, n))));
        if worked.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.state.fetch_sub(1, Ordering::Release);
    }

    fn work(&self, task: &(dyn Fn(usize) + Sync), n: usize) {
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= n {
                return;
            }
            task(piece);
        }
    }
}

/// A moment of waiting: hot at first, then leaving the processor to others.
fn pause(since: Instant) {
    for _ in 0..16 {
        std::hint::spin_loop();
    }
    if since.elapsed() > HOT {
        thread::yield_now();
    }
}

/// One thread inside a round.
const INSIDE: u64 = 0xffff;
/// Set while helpers may enter.
const OPEN: u64 = 1 << 16;
/// One round.
const ROUND: u64 = 1 << 17;
/// How long a thread waits without giving the processor away.
const HOT: Duration = Duration::from_micros(50);
/// How long a helper waits before it sleeps.
const OPEN_EYES: Duration = Duration::from_micros(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_in_every_round() {
        let mut team = Team::of(3);
        for round in 1..2_000_usize {
            let mut counts = vec![0_usize; round % 40];
            team.for_each(&mut counts, |count| *count += round);
            assert!(counts.iter().all(|&count| count == round));
        }
    }
}
