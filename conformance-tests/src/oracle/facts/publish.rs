//! The publishing side of the facts: offers, their outcomes, and where they are stored.

use crate::history::PublishOutcome;

use super::names::{Tables, next};
use super::{Fate, HistoryFacts, LogSlot, NONE, Rec};

impl Rec {
    pub(super) const fn new(stream: u32, number: u64) -> Self {
        Self {
            stream,
            number,
            bus: NONE,
            offered: NONE,
            digest: 0,
            fate: Fate::Pending,
            decided: NONE,
            sealed: NONE,
            root: None,
            returned: NONE,
            slot: NONE,
            slots: 0,
            in_log: false,
            rank: NONE,
        }
    }
}

/// Notes that `rec` is stored at a position, in the part's era `era`. Returns the slot there.
pub(super) fn store<'h>(
    facts: &mut HistoryFacts<'h>,
    tables: &mut Tables<'h>,
    (part, position, era): (u32, u64, u32),
    rec: u32,
    index: u32,
) -> u32 {
    if let Some(slot) = tables.slot(facts, part, position, era) {
        if facts.slots[slot as usize].rec != rec {
            facts.conflicts.push((slot, index));
        }
        return slot;
    }
    let slot = next(&facts.slots);
    let other = tables.slots.insert((part, position), slot);
    // A record fetched from a log may be seen first when the log is replaced already.
    let gone = facts.parts[part as usize].gone(position, era);
    facts.slots.push(LogSlot { part, position, rec, born: era, gone, seen: index, next: other.unwrap_or(NONE) });
    facts.parts[part as usize].slots.push(slot);
    let known = &mut facts.recs[rec as usize];
    known.slots += 1;
    let first = known.slot == NONE || {
        let first = &facts.slots[known.slot as usize];
        first.part == part && first.born == era && position < first.position
    };
    if first {
        known.slot = slot;
    }
    slot
}

/// Records how a publish ended. A final answer replaces *unknown*; nothing replaces a final one.
pub(super) fn decide<'h>(
    facts: &mut HistoryFacts<'h>,
    tables: &mut Tables<'h>,
    rec: u32,
    outcome: &PublishOutcome,
    index: u32,
) {
    let known = &mut facts.recs[rec as usize];
    if !matches!(known.fate, Fate::Pending | Fate::Unknown) {
        // The hook and the caller may both report it; they must agree.
        let same = matches!(
            (known.fate, outcome),
            (Fate::Confirmed, PublishOutcome::Confirmed { .. })
                | (Fate::Refused, PublishOutcome::Refused { .. })
                | (Fate::Withdrawn, PublishOutcome::Withdrawn)
                | (_, PublishOutcome::Unknown)
        );
        if !same {
            facts.malformed.push((index, "a publish has two outcomes"));
        }
        return;
    }
    known.decided = index;
    match outcome {
        PublishOutcome::Unknown => known.fate = Fate::Unknown,
        PublishOutcome::Withdrawn => known.fate = Fate::Withdrawn,
        PublishOutcome::Refused { root, .. } => {
            known.fate = Fate::Refused;
            known.root = *root;
            facts.streams[known.stream as usize].refusals = true;
        }
        PublishOutcome::Confirmed { partition, position, .. } => {
            known.fate = Fate::Confirmed;
            if let Some(position) = position {
                let topic = facts.streams[known.stream as usize].topic;
                let part = tables.part(facts, topic, *partition);
                let era = facts.parts[part as usize].era;
                store(facts, tables, (part, *position, era), rec, index);
            }
        }
    }
}

/// Lays out each stream's line: the offered records that are stored, by number.
pub(super) fn lay_out_lines(facts: &mut HistoryFacts<'_>) {
    for (index, rec) in (0_u32..).zip(&facts.recs) {
        let stream = &mut facts.streams[rec.stream as usize];
        let offered = rec.offered != NONE || stream.replayed;
        if offered && (rec.slot != NONE || rec.fate == Fate::Confirmed) {
            stream.line.push(index);
        }
    }
    for stream in &mut facts.streams {
        let recs = &mut facts.recs;
        stream.line.sort_by_key(|&rec| recs[rec as usize].number);
        for (rank, &rec) in (0_u32..).zip(&stream.line) {
            recs[rec as usize].rank = rank;
        }
    }
    for part in &mut facts.parts {
        let slots = &facts.slots;
        part.slots.sort_by_key(|&slot| {
            let slot = &slots[slot as usize];
            (slot.position, slot.born)
        });
    }
}
