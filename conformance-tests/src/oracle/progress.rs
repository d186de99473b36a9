//! Progress of groups: the records that each has finished, as a walk over the steps goes on.

use super::facts::{Delivery, HistoryFacts, NONE, Step};

/// The standing of a record with a group, and what it means for the records after it.
pub(super) enum Standing {
    /// Finished in the current segment.
    Finished,
    /// Reported lost: the record before decides.
    Lost,
    /// Not of this segment: no record before it is, either.
    Outside,
    /// Unfinished, though it should have been finished.
    Unfinished,
}

pub(super) struct Progress<'f, 'h> {
    facts: &'f HistoryFacts<'h>,
    /// The current segment of each view.
    pub(super) segments: Vec<u32>,
    /// Views, by group and part.
    views: Vec<u32>,
    /// By group and record: the segment in which it was last finished, plus one.
    done: Vec<u32>,
}

impl<'f, 'h> Progress<'f, 'h> {
    pub(super) fn new(facts: &'f HistoryFacts<'h>) -> Self {
        let mut views = vec![NONE; facts.groups.len() * facts.parts.len()];
        for (index, view) in (0_u32..).zip(&facts.views) {
            views[view.group as usize * facts.parts.len() + view.part as usize] = index;
        }
        Self { facts, views, segments: facts.first_segments(), done: vec![0; facts.groups.len() * facts.recs.len()] }
    }

    pub(super) fn step(&mut self, step: Step) {
        let facts = self.facts;
        if let Some(segment) = facts.opened(step) {
            let view = facts.segments[segment as usize].view;
            self.segments[view as usize] = segment;
        }
        match step {
            Step::End(delivery) => {
                let delivery = &facts.deliveries[delivery as usize];
                if delivery.finished {
                    self.finish(delivery.group, delivery.rec, delivery.segment);
                }
            }
            Step::Finish(finish) => {
                let finish = &facts.finishes[finish as usize];
                if finish.slot != NONE && !finish.dropped_copy {
                    let group = facts.views[finish.view as usize].group;
                    let rec = facts.slots[finish.slot as usize].rec;
                    self.finish(group, rec, finish.segment);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, group: u32, rec: u32, segment: u32) {
        let place = self.place(group, rec);
        // A superseded owner may end late a record that its successor has finished.
        self.done[place] = self.done[place].max(segment + 1);
    }

    const fn place(&self, group: u32, rec: u32) -> usize {
        group as usize * self.facts.recs.len() + rec as usize
    }

    /// Whether the delivery belongs to its view's current segment.
    pub(super) fn is_current(&self, delivery: &Delivery) -> bool {
        self.segments[delivery.view as usize] == delivery.segment
    }

    /// The standing of a stored record with a group.
    pub(super) fn standing(&self, group: u32, rec: u32) -> Standing {
        let facts = self.facts;
        let done = self.done[self.place(group, rec)];
        let slot = facts.recs[rec as usize].slot;
        if slot == NONE {
            // Confirmed without a position, and seen nowhere.
            return if done > 0 { Standing::Finished } else { Standing::Unfinished };
        }
        let slot = &facts.slots[slot as usize];
        let view = self.views[group as usize * facts.parts.len() + slot.part as usize];
        if view == NONE {
            // No member of the group ever had this partition.
            let there = slot.is_in(facts.parts[slot.part as usize].era);
            return if there { Standing::Unfinished } else { Standing::Outside };
        }
        let current = self.segments[view as usize];
        let segment = &facts.segments[current as usize];
        if !slot.is_in(segment.era) || slot.position < segment.floor {
            Standing::Outside
        } else if done == current + 1 {
            Standing::Finished
        } else if facts.views[view as usize].lost(slot.position) {
            Standing::Lost
        } else {
            Standing::Unfinished
        }
    }
}
