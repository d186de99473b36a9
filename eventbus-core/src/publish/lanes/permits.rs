//! [`Permits`]: the limit on records that are outstanding, over all keys.
//!
//! # Invariants
//!
//! - At most `limit` permits are out.
//! - **First come, first served**: a lane that found no permit waits in a line, no lane passes the line, and a permit
//!   that comes back goes to its head.
//! - No permit lies idle while a lane waits: the line's length is raised *before* the count is looked at again. So
//!   either the waiter sees the permit, or the thread that returns the permit sees the waiter.

use std::collections::VecDeque;

use crate::runtime::Mutex;
use crate::runtime::sync::atomic::AtomicUsize;
use crate::runtime::sync::atomic::Ordering::SeqCst;

pub(super) struct Permits<W> {
    limit: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
    line: Mutex<VecDeque<W>>,
}

impl<W> Permits<W> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            line: Mutex::new(VecDeque::new()),
        }
    }

    /// Takes a permit and returns true; or puts `waiter` in line and returns false.
    pub(super) fn acquire(&self, waiter: impl FnOnce() -> W) -> bool {
        if self.waiting.load(SeqCst) == 0 && self.take() {
            return true;
        }
        let mut line = self.line.lock();
        self.waiting.fetch_add(1, SeqCst);
        if line.is_empty() && self.take() {
            self.waiting.fetch_sub(1, SeqCst);
            return true;
        }
        line.push_back(waiter());
        false
    }

    fn take(&self) -> bool {
        self.used.fetch_update(SeqCst, SeqCst, |used| (used < self.limit).then_some(used + 1)).is_ok()
    }

    /// Gives a permit back. A waiter that is returned holds the permit now: pass it on, or give it back in turn.
    pub(super) fn release(&self) -> Option<W> {
        self.used.fetch_sub(1, SeqCst);
        if self.waiting.load(SeqCst) == 0 {
            return None;
        }
        let mut line = self.line.lock();
        if line.is_empty() || !self.take() {
            return None;
        }
        self.waiting.fetch_sub(1, SeqCst);
        line.pop_front()
    }

    /// Drops all waiters, because the lanes are closed.
    pub(super) fn dismiss(&self) {
        let mut line = self.line.lock();
        self.waiting.store(0, SeqCst);
        let dismissed = std::mem::take(&mut *line);
        drop(line);
        drop(dismissed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_permit_goes_to_the_head_of_the_line_and_nobody_passes_it() {
        let permits = Permits::new(2);
        assert!(permits.acquire(|| 'x') && permits.acquire(|| 'x'));
        assert!(!permits.acquire(|| 'a'));
        assert!(!permits.acquire(|| 'b'));
        assert_eq!(permits.release(), Some('a'));
        assert!(!permits.acquire(|| 'c'));
        assert_eq!(permits.release(), Some('b'));
        assert_eq!(permits.release(), Some('c'));
        assert_eq!((permits.release(), permits.release()), (None, None));
        assert!(permits.acquire(|| 'd'));
    }
}
