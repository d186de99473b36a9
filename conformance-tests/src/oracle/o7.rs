//! O7, no commit past a hole: everything below a committed position was finished when the commit
//! was handed to the broker. Judged over every position that is known to hold a record, for every
//! commit that the broker confirmed and for the position that is read after the run.
//!
//! A commit made under an epoch that a later session had already replaced, and confirmed all the
//! same, moves the position under its successor's feet: refuted too, whatever it says.

use super::facts::{CommitFact, HistoryFacts, LogSlot, NONE, Step};
use super::report::{About, Report};
use super::verdict::Rule;

pub(super) fn judge(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    let mut walk = Walk {
        facts,
        segments: facts.first_segments(),
        finished: vec![0; facts.groups.len() * facts.slots.len()],
        handed_out: vec![false; facts.groups.len() * facts.slots.len()],
        cursors: vec![0; facts.views.len()],
        epochs: vec![0; facts.views.len()],
    };
    for (index, &step) in (0_u32..).zip(&facts.steps) {
        walk.step(index, step, report);
    }
}

struct Walk<'f, 'h> {
    facts: &'f HistoryFacts<'h>,
    segments: Vec<u32>,
    /// By group and slot: the segment in which it was finished, plus one.
    finished: Vec<u32>,
    /// By group and slot; a replay concerns only the group that it is handed to.
    handed_out: Vec<bool>,
    /// By view: the number of the part's slots that are known to be no hole.
    cursors: Vec<usize>,
    /// By view: the highest epoch of a session.
    epochs: Vec<u64>,
}

impl Walk<'_, '_> {
    fn step(&mut self, index: u32, step: Step, report: &mut Report<'_, '_>) {
        let facts = self.facts;
        if let Some(opened) = facts.opened(step) {
            let view = facts.segments[opened as usize].view as usize;
            self.segments[view] = opened;
            self.cursors[view] = 0;
        }
        match step {
            Step::Session(session) => {
                let session = &facts.sessions[session as usize];
                let highest = &mut self.epochs[session.view as usize];
                *highest = session.epoch.max(*highest);
            }
            Step::Start(delivery) => {
                let delivery = &facts.deliveries[delivery as usize];
                if let Some(place) = self.place(delivery.group, delivery.slot) {
                    self.handed_out[place] = true;
                    if facts.streams[delivery.stream as usize].replayed {
                        self.cursors[delivery.view as usize] = 0;
                    }
                }
            }
            Step::End(delivery) => {
                let delivery = &facts.deliveries[delivery as usize];
                if let (true, Some(place)) = (delivery.finished, self.place(delivery.group, delivery.slot)) {
                    // A superseded owner may end late a record that its successor has finished.
                    self.finished[place] = self.finished[place].max(delivery.segment + 1);
                }
            }
            Step::Finish(finish) => {
                let finish = &facts.finishes[finish as usize];
                let group = facts.views[finish.view as usize].group;
                if let Some(place) = self.place(group, finish.slot) {
                    self.finished[place] = self.finished[place].max(finish.segment + 1);
                }
            }
            Step::Commit(commit) => {
                let commit = &facts.commits[commit as usize];
                if commit.sent == index && commit.confirmed != NONE {
                    self.commit(commit, report);
                }
            }
            _ => {}
        }
    }

    fn commit(&mut self, commit: &CommitFact<'_>, report: &mut Report<'_, '_>) {
        let facts = self.facts;
        let view = &facts.views[commit.view as usize];
        let partition = facts.parts[view.part as usize].partition;
        let about = About { group: Some(view.group), stream: None };
        let newest = self.epochs[commit.view as usize];
        if let Some(epoch) = commit.epoch.filter(|&epoch| epoch < newest) {
            report.add(Rule::O7, about, &[commit.sent, commit.confirmed], || {
                format!(
                    "position {} of partition {partition} was committed under epoch {epoch}, \
                     sent after epoch {newest} had begun",
                    commit.position
                )
            });
            return;
        }
        if self.segments[commit.view as usize] != commit.segment {
            return;
        }
        if let Some(hole) = self.first_hole(commit.view).filter(|hole| hole.position < commit.position) {
            let rec = &facts.recs[hole.rec as usize];
            let about = About { group: Some(view.group), stream: Some(rec.stream) };
            report.add(Rule::O7, about, &[commit.sent, commit.confirmed, hole.seen], || {
                format!(
                    "position {} of partition {partition} was committed while {} at {} was unfinished",
                    commit.position, rec.number, hole.position
                )
            });
        }
    }

    /// The lowest unfinished record of a view. The cursor never goes back within a segment, so a
    /// history costs one pass over the positions.
    fn first_hole(&mut self, view: u32) -> Option<LogSlot> {
        let facts = self.facts;
        let known = &facts.views[view as usize];
        let slots = &facts.parts[known.part as usize].slots;
        let current = self.segments[view as usize];
        let segment = &facts.segments[current as usize];
        let mut cursor = self.cursors[view as usize];
        let hole = loop {
            let Some(&index) = slots.get(cursor) else {
                break None;
            };
            let slot = &facts.slots[index as usize];
            let place = known.group as usize * facts.slots.len() + index as usize;
            let stream = facts.recs[slot.rec as usize].stream;
            let elsewhere = facts.streams[stream as usize].replayed && !self.handed_out[place];
            let outside = !slot.is_in(segment.era) || slot.position < segment.floor;
            let finished = self.finished[place] == current + 1;
            if !(outside || finished || elsewhere || known.lost(slot.position)) {
                break Some(*slot);
            }
            cursor += 1;
        };
        self.cursors[view as usize] = cursor;
        hole
    }

    fn place(&self, group: u32, slot: u32) -> Option<usize> {
        (slot != NONE).then(|| group as usize * self.facts.slots.len() + slot as usize)
    }
}
