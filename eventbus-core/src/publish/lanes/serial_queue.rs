//! [`SerialQueue`]: a serial queue. Items are worked on one at a time, in push order, and no lock is held meanwhile.
//!
//! # Invariant
//!
//! Items are worked on in the order in which they were pushed, one at a time: a thread that finds another one at work
//! leaves its item to that thread. So the order of submissions to a partition, and of results to the hooks, is the
//! order in which they were decided under the key's lock. The work (a backend, a hook, a waker) may call the lanes
//! again, on the same thread, without meeting a lock that this thread holds.

use std::collections::VecDeque;

use crate::runtime::Mutex;

/// The capacity that an empty queue keeps.
const KEPT_CAPACITY: usize = 256;

pub(super) struct SerialQueue<T>(Mutex<QueueState<T>>);

struct QueueState<T> {
    queue: VecDeque<T>,
    taken: bool,
}

impl<T> SerialQueue<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(QueueState { queue: VecDeque::new(), taken: false }))
    }

    pub(super) fn push(&self, item: T) {
        self.0.lock().queue.push_back(item);
    }

    /// Works on the queue until it is empty, unless a thread does so already.
    pub(super) fn work(&self, mut each: impl FnMut(T)) {
        let Some(mut item) = self.begin() else { return };
        let busy = Busy(self);
        loop {
            each(item);
            match self.next() {
                Some(next) => item = next,
                None => break,
            }
        }
        std::mem::forget(busy);
    }

    fn begin(&self) -> Option<T> {
        let mut state = self.0.lock();
        if state.taken {
            return None;
        }
        let item = state.queue.pop_front()?;
        state.taken = true;
        Some(item)
    }

    /// Returns the next item, or ends the work.
    fn next(&self) -> Option<T> {
        let mut state = self.0.lock();
        let item = state.queue.pop_front();
        if item.is_none() {
            state.taken = false;
            if state.queue.capacity() > KEPT_CAPACITY {
                state.queue = VecDeque::new();
            }
        }
        item
    }
}

/// A guard that ends the work after a panic, so that the next thread can go on.
struct Busy<'a, T>(&'a SerialQueue<T>);

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        self.0.0.lock().taken = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_pushes_to_its_own_turn_is_not_nested() {
        let queue = SerialQueue::new();
        let (mut order, depth) = (Vec::new(), std::cell::Cell::new(0));
        queue.push(3);
        queue.work(|n: u32| {
            depth.set(depth.get() + 1);
            assert_eq!(depth.get(), 1);
            order.push(n);
            if n > 0 {
                queue.push(n - 1);
                queue.work(|_| unreachable!("the queue is taken"));
            }
            depth.set(depth.get() - 1);
        });
        assert_eq!(order, [3, 2, 1, 0]);
    }

    #[test]
    fn a_panic_does_not_keep_the_turn() {
        let queue = SerialQueue::new();
        queue.push(1);
        queue.push(2);
        let work = std::panic::AssertUnwindSafe(|| queue.work(|_| panic!("odd backend")));
        assert!(std::panic::catch_unwind(work).is_err());
        let mut seen = Vec::new();
        queue.work(|n| seen.push(n));
        assert_eq!(seen, [2]);
    }
}
