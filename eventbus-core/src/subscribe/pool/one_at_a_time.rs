//! Lanes that must not start yet: they wait for the lease (S5), or for their turn in a partition that handles one
//! envelope at a time after unclean starts (S2).
//!
//! **Invariant.** In a partition that handles one at a time, a head starts only under a turn that names its position. A
//! turn is granted only after the note that names it is stored, and the next is requested only when no handler runs.

use super::lane::LaneState;
use super::partition::OneAtATime;
use super::{Pool, PoolState, wake_workers};
use crate::subscribe::progress::note::Trying;

impl Pool {
    /// Grants the turn to `trying`, because the note that names it is stored.
    pub(crate) fn grant(&self, partition: u32, trying: Trying) {
        let mut state = self.state.lock();
        state.grant(partition, trying);
        wake_workers(state);
    }
}

impl PoolState {
    fn grant(&mut self, partition: u32, trying: Trying) {
        let Some(owned) = self.partitions.get_mut(partition) else { return };
        let Some(alone) = owned.alone.as_mut().filter(|alone| alone.turn == OneAtATime::Writing(trying)) else {
            return;
        };
        let Some(lane) = owned.held.remove(&trying.position) else {
            alone.turn = OneAtATime::Free;
            return;
        };
        alone.turn = OneAtATime::Granted(trying);
        self.make_ready(lane);
    }

    /// Puts lanes that waited for a lease into the ready queue, where it is valid again.
    pub(super) fn revive(&mut self) {
        let waiting = self.partitions.values_mut().filter(|owned| owned.alone.is_none());
        let lanes: Vec<usize> = waiting.flat_map(|owned| owned.revived().into_values()).collect();
        self.requeue(lanes);
    }

    /// Returns the envelopes whose notes are to be written next. Ends one at a time in partitions whose suspects are
    /// passed.
    pub(super) fn turns(&mut self) -> Vec<(u32, Trying)> {
        if !self.any_alone {
            return Vec::new();
        }
        let mut turns = Vec::new();
        let mut back = Vec::new();
        for owned in self.partitions.values_mut() {
            let next = owned.held.first_key_value().map(|(position, _)| *position);
            let next = next.filter(|position| owned.is_read(*position) && owned.lease.is_valid());
            // A process that ends here charges this start, and not the failures that it survived.
            let next = next.map(|position| Trying { position, attempts: owned.charged(position) + 1 });
            let Some(alone) = &mut owned.alone else { continue };
            if owned.tracker.watermark() >= alone.until {
                owned.alone = None;
                back.extend(std::mem::take(&mut owned.held).into_values());
                continue;
            }
            if alone.turn != OneAtATime::Free || owned.running > 0 || owned.draining {
                continue;
            }
            if let Some(trying) = next {
                alone.turn = OneAtATime::Writing(trying);
                turns.push((owned.context.partition, trying));
            }
        }
        self.any_alone &= self.partitions.values().any(|owned| owned.alone.is_some());
        self.requeue(back);
        turns
    }

    fn requeue(&mut self, lanes: Vec<usize>) {
        for lane in lanes {
            debug_assert_eq!(self.lanes[lane].state, LaneState::Held);
            self.make_ready(lane);
        }
    }
}
