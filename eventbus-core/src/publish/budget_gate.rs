//! The room (P5) behind its lock, with who waits for it.

use hashbrown::HashMap;

use super::budget::{Admission, BatchRefused, Room};
use super::budget_limits::RoomLimits;
use crate::model::{Error, ErrorKind, Result};
use crate::runtime::Mutex;

/// `W` finds a waiting publish again. Keys of the room are the ids of lanes: a lane lives as long as its key has work.
pub(super) struct Gate<W>(Mutex<State<W>>);

struct State<W> {
    room: Room<u64>,
    waiting: HashMap<u64, W>,
    granted: Vec<u64>,
}

/// One publish that asks for room: its lane (`None`: keyless), its bytes and its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) lane: Option<u64>,
    pub(super) bytes: usize,
    pub(super) number: u64,
}

impl<W> Gate<W> {
    pub(super) fn new(limits: RoomLimits) -> Result<Self> {
        let room = Room::new(limits)
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, error.to_string()).with("setting", error.name))?;
        Ok(Self(Mutex::new(State { room, waiting: HashMap::new(), granted: Vec::new() })))
    }

    /// Asks for room; `waiter` is kept where it has to be waited for.
    pub(super) fn admit(&self, ask: Ask, waiter: impl FnOnce() -> W) -> Admission {
        let mut state = self.0.lock();
        let admission = state.room.admit(ask.lane.as_ref(), ask.bytes, ask.number);
        if admission == Admission::Waiting {
            state.waiting.insert(ask.number, waiter());
        }
        admission
    }

    /// Asks for room for all or none, with rising consecutive numbers. `admitted` is called for each with whether it
    /// holds room; it names the waiter of those that do not.
    pub(super) fn admit_batch(
        &self,
        asks: &[Ask],
        mut admitted: impl FnMut(usize, bool) -> W,
    ) -> std::result::Result<(), BatchRefused> {
        let Some(first) = asks.first().map(|ask| ask.number) else { return Ok(()) };
        let mut state = self.0.lock();
        let mut granted = Vec::new();
        let batch = asks.iter().map(|ask| (ask.lane.as_ref(), ask.bytes));
        state.room.admit_batch(batch, first, &mut granted)?;
        let mut granted = granted.into_iter().peekable();
        for (index, ask) in asks.iter().enumerate() {
            let has_room = granted.next_if_eq(&ask.number).is_some();
            let waiter = admitted(index, has_room);
            if !has_room {
                state.waiting.insert(ask.number, waiter);
            }
        }
        Ok(())
    }

    /// A publish is over: gives its room back, or its place in the line, and returns whom that lets in, in order.
    pub(super) fn leave(&self, ask: Ask, admitted: bool) -> Vec<W> {
        let mut state = self.0.lock();
        let State { room, waiting, granted } = &mut *state;
        // Not admitted as far as its lane knows, it may have been granted room a moment ago.
        if admitted || !room.withdraw(ask.number, granted) {
            room.release(ask.lane.as_ref(), ask.bytes, granted);
        } else {
            waiting.remove(&ask.number);
        }
        if granted.is_empty() {
            return Vec::new();
        }
        let let_in = granted.drain(..).filter_map(|number| waiting.remove(&number)).collect();
        if waiting.is_empty() {
            waiting.shrink_to(256);
        }
        let_in
    }
}
