//! The publish budget: fair room for envelopes that are published and not yet confirmed (P5).
//!
//! A publish takes room at its call, or waits for room in a line. The room comes back when the fate of the envelope is
//! known.
//!
//! # Invariants
//!
//! - **A key that waits delays nobody else.** A key may hold a share of the budget, or one envelope of any size.
//!   Further envelopes wait in the key's own line, which is not looked at before the key holds less. Keyless envelopes
//!   are related to nothing and have no share.
//! - **Call order.** Within a key, room is granted first come, first served. Among keys below their share, the oldest
//!   waiting call comes first ([`Lines::grant`] is the only place that lets a waiter in).
//! - **No starvation.** Where that oldest call needs more bytes than are free, all freed room is kept for it until it
//!   fits, and no later call passes it.
//! - **Refused before a place is taken.** An envelope that is larger than the whole budget leaves no trace, nor does
//!   one that would have to wait when the limit of waiting envelopes is reached. A batch takes all its places or none.
//!
//! A key is known by the id of its lane, since a lane lives as long as its key has work. Without waiters everything is
//! O(1); with waiters it is O(log n) in the number of waiting keys. A key that neither holds nor waits is forgotten.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::runtime::Mutex;

/// The capacity that an empty budget keeps.
const KEPT_CAPACITY: usize = 1_024;

/// The limits of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BudgetLimits {
    /// The most envelopes that may hold room.
    pub(super) envelopes: usize,
    /// The most bytes that may be held.
    pub(super) bytes: usize,
    /// The divisor of a key's share: one key may hold the budget divided by this, or one envelope.
    pub(super) share: usize,
    /// The most envelopes that may wait for room.
    pub(super) waiting: usize,
}

impl BudgetLimits {
    /// Returns the limits of a reserve beside this budget, for envelopes that must go on when the budget is taken: a
    /// sixteenth of it, and at least 64 envelopes.
    pub(super) fn reserve(&self) -> Self {
        let envelopes = (self.envelopes / 16).max(64);
        let waiting = envelopes.saturating_mul(10);
        Self { envelopes, bytes: (self.bytes / 16).max(1), share: self.share, waiting }
    }
}

/// A request for room, by one publish.
#[derive(Debug, Clone, Copy)]
pub(super) struct BudgetRequest {
    /// The lane of the envelope's key; `None` for a keyless envelope.
    pub(super) lane: Option<u64>,
    pub(super) bytes: usize,
    /// The number of the call: it rises from call to call, and is never used twice.
    pub(super) ticket: u64,
}

/// The answer to a request for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Room is held now.
    Granted,
    /// A place in the line is held.
    Waiting,
    /// Refused: the limit of waiting envelopes is reached.
    Overloaded,
    /// Refused: the envelope is larger than the whole budget.
    TooLarge,
}

/// The reason why no envelope of a batch took a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchUnplaced {
    /// The first envelope that could take no place, counted from 0.
    pub(super) index: usize,
    /// [`Admission::Overloaded`] or [`Admission::TooLarge`].
    pub(super) admission: Admission,
}

/// A budget behind its lock, and the lines of publishes that wait for room. `W` finds a waiting publish again.
pub(super) struct Budget<W>(Mutex<Lines<W>>);

impl<W> Budget<W> {
    pub(super) fn new(limits: BudgetLimits) -> Self {
        Self(Mutex::new(Lines::new(limits)))
    }

    /// Asks for room. Where the publish has to wait, `waiter` is kept.
    pub(super) fn admit(&self, request: BudgetRequest, waiter: impl FnOnce() -> W) -> Admission {
        self.0.lock().admit(request, waiter)
    }

    /// Asks for room for a batch: all its envelopes take places, or none does. Returns for each, in the batch's order,
    /// whether room was granted; the others wait.
    pub(super) fn admit_batch(
        &self,
        requests: &[BudgetRequest],
        waiter: impl FnMut(usize) -> W,
    ) -> Result<Vec<bool>, BatchUnplaced> {
        self.0.lock().admit_batch(requests, waiter)
    }

    /// Ends a publish: gives back its room or its place in the line, and returns the waiters that this lets in, in
    /// order.
    pub(super) fn leave(&self, request: BudgetRequest, admitted: bool) -> Vec<W> {
        let mut lines = self.0.lock();
        let mut granted = Vec::new();
        // The lane may not know yet that room was granted a moment ago. A publish that no longer waits holds room.
        if admitted || !lines.withdraw(request.ticket, &mut granted) {
            lines.release(request, &mut granted);
        }
        granted
    }
}

/// The room that is held, and the lines of waiters.
struct Lines<W> {
    limits: BudgetLimits,
    /// The share: the most envelopes that one key may hold, and the most bytes unless it holds a single envelope.
    share: (usize, usize),
    used: (usize, usize),
    by_lane: HashMap<u64, Line>,
    keyless: Line,
    /// The waiters, by ticket.
    waiters: HashMap<u64, Waiter<W>>,
    /// The first waiter of each line that is below its share: ticket and lane, oldest first.
    eligible: BTreeMap<u64, Option<u64>>,
}

/// The room that one key holds, and its list of waiters.
#[derive(Default)]
struct Line {
    held: (usize, usize),
    /// The tickets of the first and the last waiter in the list.
    ends: Option<(u64, u64)>,
    /// The ticket under which the line stands in `eligible`.
    listed: Option<u64>,
}

struct Waiter<W> {
    lane: Option<u64>,
    bytes: usize,
    /// The tickets of the neighbours in the line.
    before: Option<u64>,
    behind: Option<u64>,
    waiter: W,
}

impl Line {
    /// Whether the line may hold an envelope of this size besides those that it holds.
    fn is_below(&self, share: (usize, usize), lane: Option<u64>, bytes: usize) -> bool {
        let (envelopes, held) = self.held;
        let within = envelopes < share.0 && held.saturating_add(bytes) <= share.1;
        lane.is_none() || envelopes == 0 || within
    }

    fn is_idle(&self) -> bool {
        self.held.0 == 0 && self.ends.is_none()
    }
}

impl<W> Lines<W> {
    fn new(limits: BudgetLimits) -> Self {
        let parts = limits.share.max(1);
        Self {
            limits,
            share: ((limits.envelopes / parts).max(1), limits.bytes / parts),
            used: (0, 0),
            by_lane: HashMap::new(),
            keyless: Line::default(),
            waiters: HashMap::new(),
            eligible: BTreeMap::new(),
        }
    }

    fn admit(&mut self, request: BudgetRequest, waiter: impl FnOnce() -> W) -> Admission {
        let BudgetRequest { lane, bytes, .. } = request;
        if bytes > self.limits.bytes {
            return Admission::TooLarge;
        }
        let free = self.eligible.is_empty() && self.fits(bytes);
        let may_wait = self.waiters.len() < self.limits.waiting;
        let line = match lane.map(|id| self.by_lane.entry(id)) {
            None => &mut self.keyless,
            Some(Entry::Vacant(_)) if !free && !may_wait => return Admission::Overloaded,
            Some(line) => line.or_default(),
        };
        if free && line.ends.is_none() && line.is_below(self.share, lane, bytes) {
            line.held = (line.held.0 + 1, line.held.1 + bytes);
            self.used = (self.used.0 + 1, self.used.1 + bytes);
            return Admission::Granted;
        }
        if !may_wait {
            return Admission::Overloaded;
        }
        self.join(request, waiter());
        self.list(lane);
        Admission::Waiting
    }

    fn admit_batch(
        &mut self,
        requests: &[BudgetRequest],
        mut waiter: impl FnMut(usize) -> W,
    ) -> Result<Vec<bool>, BatchUnplaced> {
        if let Some(index) = requests.iter().position(|request| request.bytes > self.limits.bytes) {
            return Err(BatchUnplaced { index, admission: Admission::TooLarge });
        }
        let mut granted = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            match self.admit(*request, || waiter(index)) {
                Admission::Granted => granted.push(true),
                Admission::Waiting => granted.push(false),
                admission => {
                    self.take_back(&requests[..index]);
                    return Err(BatchUnplaced { index, admission });
                }
            }
        }
        Ok(granted)
    }

    /// Gives back the room of one granted envelope, and adds the waiters that this lets in to `granted`, in the order
    /// in which they are let in.
    fn release(&mut self, request: BudgetRequest, granted: &mut Vec<W>) {
        self.give_back(request);
        self.grant(granted);
        self.shrink();
    }

    /// Gives up a place in the line, and adds the waiters that this lets in to `granted`. Returns false where the
    /// ticket does not wait (any more); then nothing changes.
    fn withdraw(&mut self, ticket: u64, granted: &mut Vec<W>) -> bool {
        let Some(Waiter { lane, .. }) = self.take(ticket) else { return false };
        self.list(lane);
        self.forget_if_idle(lane);
        self.grant(granted);
        self.shrink();
        true
    }

    /// Lets waiters in, the oldest of those below their share first, until one does not fit.
    fn grant(&mut self, granted: &mut Vec<W>) {
        while let Some((&ticket, &lane)) = self.eligible.first_key_value() {
            if !self.waiters.get(&ticket).is_some_and(|waiter| self.fits(waiter.bytes)) {
                return;
            }
            let Some(Waiter { bytes, waiter, .. }) = self.take(ticket) else { return };
            if let Some(line) = self.line(lane) {
                line.held = (line.held.0 + 1, line.held.1 + bytes);
            }
            self.used = (self.used.0 + 1, self.used.1 + bytes);
            self.list(lane);
            granted.push(waiter);
        }
    }

    /// Undoes the admission of a batch's first envelopes. Nobody is let in by this: the waiters before the batch could
    /// not get in before it, either.
    fn take_back(&mut self, requests: &[BudgetRequest]) {
        for request in requests {
            if let Some(Waiter { lane, .. }) = self.take(request.ticket) {
                self.list(lane);
                self.forget_if_idle(lane);
            } else {
                self.give_back(*request);
            }
        }
        self.shrink();
    }

    fn give_back(&mut self, request: BudgetRequest) {
        let BudgetRequest { lane, bytes, .. } = request;
        let Some(line) = self.line(lane) else {
            debug_assert!(false, "room was released for a key that holds none");
            return;
        };
        debug_assert!(line.held.0 > 0 && line.held.1 >= bytes, "more room was released than was granted");
        line.held = (line.held.0.saturating_sub(1), line.held.1.saturating_sub(bytes));
        let (waits, idle) = (line.ends.is_some(), line.is_idle());
        self.used = (self.used.0.saturating_sub(1), self.used.1.saturating_sub(bytes));
        if waits {
            self.list(lane);
        } else if let Some(id) = lane.filter(|_| idle) {
            self.by_lane.remove(&id);
        }
    }

    fn fits(&self, bytes: usize) -> bool {
        self.used.0 < self.limits.envelopes && bytes <= self.limits.bytes - self.used.1
    }

    fn line(&mut self, lane: Option<u64>) -> Option<&mut Line> {
        match lane {
            Some(id) => self.by_lane.get_mut(&id),
            None => Some(&mut self.keyless),
        }
    }

    /// Lists the line in `eligible` by its first waiter, or not at all.
    fn list(&mut self, lane: Option<u64>) {
        let line = match lane {
            Some(id) => self.by_lane.get_mut(&id),
            None => Some(&mut self.keyless),
        };
        let Some(line) = line else { return };
        let first = line.ends.map(|(first, _)| first);
        let bytes = first.and_then(|first| self.waiters.get(&first)).map_or(0, |waiter| waiter.bytes);
        let wanted = first.filter(|_| line.is_below(self.share, lane, bytes));
        let listed = std::mem::replace(&mut line.listed, wanted);
        if listed == wanted {
            return;
        }
        if let Some(ticket) = listed {
            self.eligible.remove(&ticket);
        }
        if let Some(ticket) = wanted {
            self.eligible.insert(ticket, lane);
        }
    }

    /// Puts a waiter at the end of its line. The caller must list the line anew.
    fn join(&mut self, request: BudgetRequest, waiter: W) {
        let BudgetRequest { lane, bytes, ticket } = request;
        let Some(line) = self.line(lane) else { return };
        let before = line.ends.map(|(_, last)| last);
        line.ends = Some((line.ends.map_or(ticket, |(first, _)| first), ticket));
        if let Some(last) = before.and_then(|last| self.waiters.get_mut(&last)) {
            last.behind = Some(ticket);
        }
        self.waiters.insert(ticket, Waiter { lane, bytes, before, behind: None, waiter });
    }

    /// Takes a waiter out of its line. The caller must list the line anew.
    fn take(&mut self, ticket: u64) -> Option<Waiter<W>> {
        let waiter = self.waiters.remove(&ticket)?;
        let Waiter { lane, before, behind, .. } = waiter;
        if let Some(before) = before.and_then(|before| self.waiters.get_mut(&before)) {
            before.behind = behind;
        }
        if let Some(behind) = behind.and_then(|behind| self.waiters.get_mut(&behind)) {
            behind.before = before;
        }
        if let Some(line) = self.line(lane) {
            line.ends = line.ends.and_then(|(first, last)| {
                let first = if first == ticket { behind } else { Some(first) };
                let last = if last == ticket { before } else { Some(last) };
                first.zip(last)
            });
        }
        Some(waiter)
    }

    /// Forgets a key that neither holds nor waits.
    fn forget_if_idle(&mut self, lane: Option<u64>) {
        if let Some(id) = lane
            && self.by_lane.get(&id).is_some_and(Line::is_idle)
        {
            self.by_lane.remove(&id);
        }
    }

    /// Gives back the memory of a burst once nothing is held and nobody waits.
    fn shrink(&mut self) {
        if self.used.0 == 0 && self.waiters.is_empty() {
            if self.by_lane.capacity() > KEPT_CAPACITY {
                self.by_lane = HashMap::new();
            }
            if self.waiters.capacity() > KEPT_CAPACITY {
                self.waiters = HashMap::new();
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/budget.rs"]
mod tests;
