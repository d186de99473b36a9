//! Fair room for envelopes that are published and not yet confirmed (P5).
//!
//! Room is a budget of envelopes and bytes. Whoever publishes takes room at the call or waits for it
//! in a line; what holds room gives it back when its fate is known.
//!
//! # Invariants
//!
//! - **A key that waits delays nobody else.** A key may hold a share of the budget, or one envelope of
//!   any size; what is beyond waits in the key's own line, which is not looked at before the key holds
//!   less. Keyless envelopes are related to nothing and have no share.
//! - **Call order.** Within a key room is granted first come, first served. Among keys below their share
//!   the oldest waiting call comes first (`Room::grant` is the only place that lets a waiter in).
//! - **No starvation.** Where the oldest such call needs more bytes than are free, it keeps what is
//!   freed until it fits, and no later call passes it.
//! - **Refused before a place is taken.** An envelope larger than the whole budget, and one that would
//!   wait where the most that may wait do, leave no trace; a batch takes all its places or none.
//!
//! The structure wakes nobody: [`Room::release`] and [`Room::withdraw`] report whom they let in. Without
//! waiters everything is O(1) and allocates only for keys that hold nothing; with waiters it is
//! O(log n) in the number of waiting keys. A key that neither holds nor waits is forgotten.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use slab::Slab;

pub(crate) use super::budget_limits::{RoomError, RoomLimits};

/// Capacity that a room keeps when nothing is in it.
const KEPT_CAPACITY: usize = 1_024;

/// What became of a call for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Room is held now.
    Granted,
    /// A place in the line is held; a later release or withdrawal reports the ticket.
    Waiting,
    /// Refused: as many wait as may.
    Overloaded,
    /// Refused: larger than the whole budget.
    TooLarge,
}

/// Why no envelope of a batch took a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRefused {
    /// The first envelope that could take none, counted from 0.
    pub index: usize,
    /// [`Admission::Overloaded`] or [`Admission::TooLarge`].
    pub admission: Admission,
}

/// A budget and the lines before it. See the [module](self) for the invariants.
pub(crate) struct Room<K> {
    limits: RoomLimits,
    /// Most envelopes, and most bytes unless it is one envelope, that one key may hold.
    share: (usize, usize),
    used: (usize, usize),
    hasher: DefaultHashBuilder,
    /// Indexes into `lines`, by key.
    keys: HashTable<usize>,
    lines: Slab<Line<K>>,
    /// The line of keyless envelopes, which is always there.
    keyless: usize,
    waiters: Slab<Waiter>,
    /// Indexes into `waiters`, by ticket.
    tickets: HashMap<u64, usize>,
    /// The first waiter of each line that is below its share: ticket and line, oldest first.
    eligible: BTreeMap<u64, usize>,
}

/// What one key holds, and who of it waits.
struct Line<K> {
    /// Absent for keyless envelopes.
    key: Option<(u64, K)>,
    held: (usize, usize),
    /// First and last of a list of waiters.
    ends: Option<(usize, usize)>,
    /// The ticket under which the line is in `eligible`.
    listed: Option<u64>,
}

impl<K> Line<K> {
    fn new(key: Option<(u64, K)>) -> Self {
        Line { key, held: (0, 0), ends: None, listed: None }
    }
}

struct Waiter {
    ticket: u64,
    bytes: usize,
    line: usize,
    before: Option<usize>,
    behind: Option<usize>,
}

impl<K> std::fmt::Debug for Room<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("limits", &self.limits)
            .field("used", &self.used)
            .field("waiting", &self.waiters.len())
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone> Room<K> {
    /// An empty room.
    ///
    /// # Errors
    ///
    /// [`RoomError`] for limits that [`RoomLimits::validate`] refuses.
    pub(crate) fn new(limits: RoomLimits) -> Result<Self, RoomError> {
        limits.validate()?;
        let mut lines = Slab::new();
        let keyless = lines.insert(Line::new(None));
        Ok(Room {
            limits,
            share: ((limits.envelopes / limits.share).max(1), limits.bytes / limits.share),
            used: (0, 0),
            hasher: DefaultHashBuilder::default(),
            keys: HashTable::new(),
            lines,
            keyless,
            waiters: Slab::new(),
            tickets: HashMap::new(),
            eligible: BTreeMap::new(),
        })
    }

    /// Asks room for one envelope of `key` (`None`: keyless). Tickets rise from call to call and are
    /// never used twice.
    pub(crate) fn admit(&mut self, key: Option<&K>, bytes: usize, ticket: u64) -> Admission {
        if bytes > self.limits.bytes {
            return Admission::TooLarge;
        }
        let hash = key.map(|key| self.hasher.hash_one(key));
        let known = self.find(key, hash);
        let (below_share, first) = match known {
            Some(index) => (self.below_share(index, bytes), self.lines[index].ends.is_none()),
            None => (true, true),
        };
        let granted = below_share && first && self.eligible.is_empty() && self.fits(bytes);
        if !granted && self.waiters.len() >= self.limits.waiting {
            return Admission::Overloaded;
        }
        let index = known.unwrap_or_else(|| self.open(key, hash));
        if granted {
            self.hold(index, bytes);
            return Admission::Granted;
        }
        self.join(index, bytes, ticket);
        self.list(index);
        Admission::Waiting
    }

    /// Asks room for a batch, whose envelopes take the tickets from `first_ticket` on: all take a place
    /// (each is granted or waits), or none does. The tickets of those granted are added to `granted`.
    ///
    /// # Errors
    ///
    /// [`BatchRefused`]; nothing was taken.
    pub(crate) fn admit_batch<'a>(
        &mut self,
        batch: impl Iterator<Item = (Option<&'a K>, usize)> + Clone,
        first_ticket: u64,
        granted: &mut Vec<u64>,
    ) -> Result<(), BatchRefused>
    where
        K: 'a,
    {
        if let Some(index) = batch.clone().position(|(_, bytes)| bytes > self.limits.bytes) {
            return Err(BatchRefused { index, admission: Admission::TooLarge });
        }
        let before = granted.len();
        for (index, (key, bytes)) in batch.clone().enumerate() {
            let ticket = first_ticket + index as u64;
            match self.admit(key, bytes, ticket) {
                Admission::Granted => granted.push(ticket),
                Admission::Waiting => {}
                admission => {
                    self.take_back(batch.take(index), first_ticket);
                    granted.truncate(before);
                    return Err(BatchRefused { index, admission });
                }
            }
        }
        Ok(())
    }

    /// Gives back the room of one granted envelope, with the key and size that it was granted for, and
    /// adds the tickets of those who are let in to `granted`, in the order in which they are.
    pub(crate) fn release(&mut self, key: Option<&K>, bytes: usize, granted: &mut Vec<u64>) {
        let hash = key.map(|key| self.hasher.hash_one(key));
        if let Some(index) = self.find(key, hash) {
            self.give_back(index, bytes);
            self.grant(granted);
            self.close_if_idle(index);
        } else {
            debug_assert!(false, "room was released for a key that holds none");
        }
    }

    /// Gives up a place in the line, and adds the tickets of those who are let in by that to
    /// `granted`. False where the ticket does not wait (any more); then nothing changes.
    pub(crate) fn withdraw(&mut self, ticket: u64, granted: &mut Vec<u64>) -> bool {
        let Some(index) = self.leave(ticket) else {
            return false;
        };
        self.list(index);
        self.grant(granted);
        self.close_if_idle(index);
        true
    }

    /// Envelopes and bytes that hold room.
    #[must_use]
    pub(crate) fn used(&self) -> (usize, usize) {
        self.used
    }

    /// Envelopes that wait.
    #[must_use]
    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Envelopes and bytes that `key` holds (`None`: the keyless ones).
    #[must_use]
    pub(crate) fn held(&self, key: Option<&K>) -> (usize, usize) {
        let hash = key.map(|key| self.hasher.hash_one(key));
        self.find(key, hash).map_or((0, 0), |index| self.lines[index].held)
    }

    /// Keys that hold room or wait for it.
    #[must_use]
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Lets waiters in, the oldest of those below their share first, until one does not fit.
    fn grant(&mut self, granted: &mut Vec<u64>) {
        while let Some((&ticket, &index)) = self.eligible.first_key_value() {
            let Some(&waiter) = self.tickets.get(&ticket) else {
                return;
            };
            let bytes = self.waiters[waiter].bytes;
            if !self.fits(bytes) {
                return;
            }
            self.leave(ticket);
            self.hold(index, bytes);
            self.list(index);
            granted.push(ticket);
        }
    }

    /// Undoes the admission of a batch's first envelopes. Who waited before could not get in before,
    /// so nobody is let in by this.
    fn take_back<'a>(&mut self, batch: impl Iterator<Item = (Option<&'a K>, usize)>, first_ticket: u64)
    where
        K: 'a,
    {
        for (ticket, (key, bytes)) in (first_ticket..).zip(batch) {
            let index = match self.leave(ticket) {
                Some(index) => {
                    self.list(index);
                    index
                }
                None => {
                    let hash = key.map(|key| self.hasher.hash_one(key));
                    let Some(index) = self.find(key, hash) else {
                        continue;
                    };
                    self.give_back(index, bytes);
                    index
                }
            };
            self.close_if_idle(index);
        }
    }

    fn fits(&self, bytes: usize) -> bool {
        self.used.0 < self.limits.envelopes && bytes <= self.limits.bytes - self.used.1
    }

    /// Whether the line may hold an envelope of this size besides what it holds.
    fn below_share(&self, index: usize, bytes: usize) -> bool {
        let line = &self.lines[index];
        let (envelopes, held) = line.held;
        let within = envelopes < self.share.0 && held.saturating_add(bytes) <= self.share.1;
        line.key.is_none() || envelopes == 0 || within
    }

    fn hold(&mut self, index: usize, bytes: usize) {
        let held = &mut self.lines[index].held;
        *held = (held.0 + 1, held.1 + bytes);
        self.used = (self.used.0 + 1, self.used.1 + bytes);
    }

    fn give_back(&mut self, index: usize, bytes: usize) {
        let held = &mut self.lines[index].held;
        debug_assert!(held.0 > 0 && held.1 >= bytes, "more room was released than was granted");
        *held = (held.0.saturating_sub(1), held.1.saturating_sub(bytes));
        self.used = (self.used.0.saturating_sub(1), self.used.1.saturating_sub(bytes));
        self.list(index);
    }

    /// Puts the line where its first waiter belongs: among the eligible, or not.
    fn list(&mut self, index: usize) {
        let first = self.lines[index].ends.map(|(first, _)| &self.waiters[first]);
        let eligible = first.filter(|waiter| self.below_share(index, waiter.bytes));
        let wanted = eligible.map(|waiter| waiter.ticket);
        let listed = std::mem::replace(&mut self.lines[index].listed, wanted);
        if listed == wanted {
            return;
        }
        if let Some(ticket) = listed {
            self.eligible.remove(&ticket);
        }
        if let Some(ticket) = wanted {
            self.eligible.insert(ticket, index);
        }
    }

    /// Puts a waiter at the end of its line.
    fn join(&mut self, line: usize, bytes: usize, ticket: u64) {
        let ends = self.lines[line].ends;
        let last = ends.map(|(_, last)| last);
        let waiter = self.waiters.insert(Waiter { ticket, bytes, line, before: last, behind: None });
        if let Some(last) = last {
            self.waiters[last].behind = Some(waiter);
        }
        self.lines[line].ends = Some((ends.map_or(waiter, |(first, _)| first), waiter));
        self.tickets.insert(ticket, waiter);
    }

    /// Takes a waiter out of its line, which is returned and must be listed anew.
    fn leave(&mut self, ticket: u64) -> Option<usize> {
        let waiter = self.tickets.remove(&ticket)?;
        let Waiter { line, before, behind, .. } = self.waiters.remove(waiter);
        if let Some(before) = before {
            self.waiters[before].behind = behind;
        }
        if let Some(behind) = behind {
            self.waiters[behind].before = before;
        }
        let ends = &mut self.lines[line].ends;
        *ends = ends.and_then(|(first, last)| {
            let first = if first == waiter { behind } else { Some(first) };
            let last = if last == waiter { before } else { Some(last) };
            first.zip(last)
        });
        Some(line)
    }

    fn find(&self, key: Option<&K>, hash: Option<u64>) -> Option<usize> {
        let (Some(key), Some(hash)) = (key, hash) else {
            return Some(self.keyless);
        };
        let same = |index: &usize| self.lines[*index].key.as_ref().is_some_and(|(_, known)| known == key);
        self.keys.find(hash, same).copied()
    }

    /// A line for a key that has none.
    fn open(&mut self, key: Option<&K>, hash: Option<u64>) -> usize {
        let (Some(key), Some(hash)) = (key, hash) else {
            return self.keyless;
        };
        let index = self.lines.insert(Line::new(Some((hash, key.clone()))));
        let lines = &self.lines;
        self.keys.insert_unique(hash, index, |index| lines[*index].key.as_ref().map_or(0, |(hash, _)| *hash));
        index
    }

    /// Forgets a key that neither holds nor waits, and after the last one the memory of a crowd.
    fn close_if_idle(&mut self, index: usize) {
        let line = &self.lines[index];
        if line.held.0 > 0 || line.ends.is_some() {
            return;
        }
        if let Some((hash, _)) = line.key {
            if let Ok(entry) = self.keys.find_entry(hash, |known| *known == index) {
                entry.remove();
            }
            self.lines.remove(index);
        }
        if self.used.0 == 0 && self.waiters.is_empty() {
            self.shrink();
        }
    }

    /// Only the line of keyless envelopes is left, and it is idle.
    fn shrink(&mut self) {
        if self.lines.capacity() > KEPT_CAPACITY {
            self.keys = HashTable::new();
            self.lines = Slab::new();
            self.keyless = self.lines.insert(Line::new(None));
        }
        if self.waiters.capacity() > KEPT_CAPACITY {
            self.waiters = Slab::new();
            self.tickets = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests;
