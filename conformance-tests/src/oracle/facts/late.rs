//! Facts about deliveries that show only when the whole history is known.

use crate::history::Kind;

use super::names::Tables;
use super::{Fate, HistoryFacts, NONE};

/// Finds for each delivery the first handler start under a later epoch of its view.
pub(super) fn mark_superseded(facts: &mut HistoryFacts<'_>) {
    for view in &mut facts.views {
        // By epoch, each with the earliest start of it or of a later one.
        view.first_starts.sort_unstable();
        let mut earliest = NONE;
        for (_, start) in view.first_starts.iter_mut().rev() {
            earliest = earliest.min(*start);
            *start = earliest;
        }
    }
    for delivery in &mut facts.deliveries {
        let starts = &facts.views[delivery.view as usize].first_starts;
        let later = starts.partition_point(|&(epoch, _)| epoch <= delivery.epoch);
        delivery.superseded = starts.get(later).map_or(NONE, |&(_, start)| start);
    }
}

/// Gives each replay the offer of the envelope that it replays: their bytes are the same.
pub(super) fn find_originals<'h>(facts: &mut HistoryFacts<'h>, tables: &Tables<'h>) {
    for index in 0..facts.recs.len() {
        let rec = &facts.recs[index];
        let stream = &facts.streams[rec.stream as usize];
        if !stream.replayed || rec.slot == NONE {
            continue;
        }
        let seen = facts.slots[rec.slot as usize].seen;
        let number = match &facts.events[seen as usize].kind {
            Kind::Start(start) => start.number,
            Kind::LogRecord { number, .. } => *number,
            _ => continue,
        };
        if let Some(original) = tables.find_rec(stream.topic, stream.key, number) {
            let original = &facts.recs[original as usize];
            let (offered, digest) = (original.offered, original.digest);
            let rec = &mut facts.recs[index];
            (rec.offered, rec.digest, rec.fate) = (offered, digest, Fate::Unknown);
        }
    }
}
