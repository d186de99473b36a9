//! Defects of the pool that [`Mutant`] names, if they take more than a line: kept away from the code that they break.

use super::PoolState;
use super::lane::NONE;
use super::partition::Partition;
use crate::backend::Inbound;
use crate::model::Stamp;
#[cfg(feature = "mutants")]
use crate::mutant::Mutant;

impl PoolState {
    /// Puts the head of a lane with more than one record behind all others.
    pub(super) fn put_at_tail(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        let head = lane.head;
        lane.head = self.items[head].next;
        let tail = std::mem::replace(&mut lane.tail, head);
        self.items[tail].next = head;
        self.items[head].next = NONE;
    }

    /// Finishes records that were never started.
    pub(super) fn acknowledge_lane(&mut self, lane: usize) {
        let Some(owned) = self.partitions.get_mut(self.lanes[lane].partition) else { return };
        let mut item = self.lanes[lane].head;
        while item != NONE {
            owned.tracker.finish(self.items[item].queued.ordinal);
            item = self.items[item].next;
        }
    }

    /// Begins an epoch with the memory of copies of the one before.
    #[cfg(feature = "mutants")]
    pub(super) fn with_copies_kept(&mut self, mut opened: Partition) -> Partition {
        let before = self.removed.remove(&opened.context.partition);
        if let Some(before) = before.filter(|_| self.seam.is(Mutant::SeekKeepsCopies)) {
            opened.copies = before.copies;
            opened.copies.forget_place();
        }
        opened
    }
}

impl Partition {
    /// Identifies a record by the user's sequence, as if it were a stamp.
    pub(super) fn identity_by_sequence(&self, record: &Inbound, stamp: Stamp) -> (u128, u64) {
        let envelope = record.envelope(&self.context.topic).ok();
        let sequence = envelope.and_then(|envelope| envelope.sequence());
        sequence.map_or((stamp.producer.get(), stamp.number), |sequence| (0, sequence))
    }
}
