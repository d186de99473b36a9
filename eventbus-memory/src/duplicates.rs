//! The duplicate window: the stamps that a topic has stored lately (P3).
//!
//! A producer's numbers rise as it publishes, so the stamps of each producer are kept as one sorted run: a new stamp is
//! pushed at the end, and only a stamp below the newest is searched. The window is exact: a stamp is known for strictly
//! less than `window` after it was stored, and unknown from then on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use eventbus_core::{Position, Stamp};
use tokio::time::Instant;

#[derive(Debug)]
struct Known {
    number: u64,
    at: Instant,
    position: Position,
}

#[derive(Debug)]
pub(crate) struct Duplicates {
    /// `None` keeps stamps for ever.
    window: Option<Duration>,
    producers: BTreeMap<u128, VecDeque<Known>>,
    /// The time of the next sweep, for producers that fell silent.
    sweep_at: Option<Instant>,
}

impl Duplicates {
    pub(crate) fn new(window: Option<Duration>) -> Self {
        Self { window, producers: BTreeMap::new(), sweep_at: None }
    }

    pub(crate) fn set_window(&mut self, window: Option<Duration>) {
        self.window = window;
        self.sweep_at = None;
    }

    /// Finds the position of a stamp that was stored within the window.
    pub(crate) fn find(&self, stamp: Stamp, now: Instant) -> Option<Position> {
        let run = self.producers.get(&producer(stamp))?;
        if run.back().is_none_or(|newest| newest.number < stamp.number) {
            return None;
        }
        let known = run.get(run.binary_search_by_key(&stamp.number, |known| known.number).ok()?)?;
        fresh(self.horizon(now), known).then_some(known.position)
    }

    pub(crate) fn remember(&mut self, stamp: Stamp, position: Position, now: Instant) {
        if self.window == Some(Duration::ZERO) {
            return;
        }
        let horizon = self.horizon(now);
        let run = self.producers.entry(producer(stamp)).or_default();
        let known = Known { number: stamp.number, at: now, position };
        if run.back().is_none_or(|newest| newest.number < stamp.number) {
            run.push_back(known);
        } else {
            match run.binary_search_by_key(&stamp.number, |known| known.number) {
                Ok(index) => run[index] = known,
                Err(index) => run.insert(index, known),
            }
        }
        // Two removals for each new stamp shrink the run of a burst while its producer goes on.
        for _ in 0..2 {
            if run.front().is_some_and(|oldest| !fresh(horizon, oldest)) {
                run.pop_front();
            }
        }
        self.sweep(now);
    }

    /// The latest time of storing that the window no longer covers; `None` if it covers all.
    fn horizon(&self, now: Instant) -> Option<Instant> {
        now.checked_sub(self.window?)
    }

    fn sweep(&mut self, now: Instant) {
        let Some(window) = self.window else { return };
        let due = *self.sweep_at.get_or_insert_with(|| now + window);
        if now < due {
            return;
        }
        self.sweep_at = Some(now + window);
        let horizon = self.horizon(now);
        self.producers.retain(|_, run| {
            run.retain(|known| fresh(horizon, known));
            !run.is_empty()
        });
    }
}

fn producer(stamp: Stamp) -> u128 {
    stamp.producer.get()
}

fn fresh(horizon: Option<Instant>, known: &Known) -> bool {
    horizon.is_none_or(|horizon| known.at > horizon)
}
