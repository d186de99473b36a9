//! Tables from names and keys to small numbers.

use hashbrown::HashMap;

use crate::history::Key;

use super::{Group, HistoryFacts, NONE, Part, Rec, Segment, Stream, View};

/// The tables that exist only while facts are built. None of them is ever iterated in an order
/// that could show.
#[derive(Default)]
pub(super) struct Tables<'h> {
    names: HashMap<&'h str, u32>,
    streams: HashMap<(u32, &'h Key, bool), u32>,
    parts: HashMap<(u32, u32), u32>,
    groups: HashMap<(u32, u32), u32>,
    views: HashMap<(u32, u32), u32>,
    recs: HashMap<(u32, u64), u32>,
    pub(super) slots: HashMap<(u32, u64), u32>,
}

/// The index of `vec`'s next element.
pub(super) fn next<T>(vec: &[T]) -> u32 {
    // A history of four thousand million records does not fit into memory.
    u32::try_from(vec.len()).unwrap_or(NONE)
}

impl<'h> Tables<'h> {
    pub(super) fn name(&mut self, facts: &mut HistoryFacts<'h>, name: &'h str) -> u32 {
        *self.names.entry(name).or_insert_with(|| {
            facts.names.push(name);
            next(&facts.names) - 1
        })
    }

    pub(super) fn stream(&mut self, facts: &mut HistoryFacts<'h>, topic: u32, key: &'h Key, replayed: bool) -> u32 {
        *self.streams.entry((topic, key, replayed)).or_insert_with(|| {
            facts.streams.push(Stream { topic, key, replayed, line: Vec::new(), resumes: Vec::new(), refusals: false });
            next(&facts.streams) - 1
        })
    }

    pub(super) fn part(&mut self, facts: &mut HistoryFacts<'h>, topic: u32, partition: u32) -> u32 {
        *self.parts.entry((topic, partition)).or_insert_with(|| {
            facts.parts.push(Part {
                topic,
                partition,
                era: 0,
                ends: Vec::new(),
                slots: Vec::new(),
                first_kept: 0,
                purged: 0,
            });
            next(&facts.parts) - 1
        })
    }

    pub(super) fn group(&mut self, facts: &mut HistoryFacts<'h>, topic: u32, name: u32) -> u32 {
        *self.groups.entry((topic, name)).or_insert_with(|| {
            facts.groups.push(Group { topic, name });
            next(&facts.groups) - 1
        })
    }

    pub(super) fn view(&mut self, facts: &mut HistoryFacts<'h>, group: u32, part: u32) -> u32 {
        *self.views.entry((group, part)).or_insert_with(|| {
            let view = next(&facts.views);
            let segment = next(&facts.segments);
            facts.segments.push(Segment { view, epoch: 0, floor: 0, era: facts.parts[part as usize].era });
            facts.views.push(View {
                group,
                part,
                first_segment: segment,
                segment,
                losses: Vec::new(),
                first_starts: Vec::new(),
                sessions: Vec::new(),
                pending_seek: None,
                reached: 0,
            });
            view
        })
    }

    pub(super) fn rec(&mut self, facts: &mut HistoryFacts<'h>, stream: u32, number: u64) -> u32 {
        *self.recs.entry((stream, number)).or_insert_with(|| {
            facts.recs.push(Rec::new(stream, number));
            next(&facts.recs) - 1
        })
    }

    pub(super) fn find_rec(&self, topic: u32, key: &'h Key, number: u64) -> Option<u32> {
        let stream = *self.streams.get(&(topic, key, false))?;
        self.recs.get(&(stream, number)).copied()
    }

    /// The slot at a position in an era.
    pub(super) fn slot(&self, facts: &HistoryFacts<'h>, part: u32, position: u64, era: u32) -> Option<u32> {
        let mut slot = *self.slots.get(&(part, position))?;
        while slot != NONE {
            let here = &facts.slots[slot as usize];
            if here.is_in(era) {
                return Some(slot);
            }
            slot = here.next;
        }
        None
    }
}
