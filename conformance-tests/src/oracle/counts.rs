//! The figures of a history, beside the judgement. No rule.

use super::facts::{Fate, HistoryFacts, NONE};
use super::verdict::Counts;

pub(super) fn count(facts: &HistoryFacts<'_>, counts: &mut Counts) {
    counts.records = facts.events.len();
    publishes(facts, counts);
    deliveries(facts, counts);
    counts.finished_unhandled = facts.finishes.len();
    counts.sessions = facts.sessions.len();
    let confirmed = |commit: &&super::facts::CommitFact<'_>| commit.confirmed != NONE && commit.epoch.is_some();
    counts.commits = facts.commits.iter().filter(confirmed).count();
    counts.segments = facts.segments.len() - facts.views.len();
    counts.losses = facts.views.iter().map(|view| view.losses.len()).sum();
}

fn publishes(facts: &HistoryFacts<'_>, counts: &mut Counts) {
    for rec in &facts.recs {
        if rec.offered == NONE || facts.streams[rec.stream as usize].replayed {
            continue;
        }
        counts.offered += 1;
        counts.copies += (rec.slots as usize).saturating_sub(1);
        match rec.fate {
            Fate::Confirmed => counts.confirmed += 1,
            Fate::Refused => counts.refused += 1,
            Fate::Withdrawn => counts.withdrawn += 1,
            Fate::Pending | Fate::Unknown => {
                counts.unknown += 1;
                counts.unknown_stored += usize::from(rec.slot != NONE);
            }
        }
    }
}

fn deliveries(facts: &HistoryFacts<'_>, counts: &mut Counts) {
    counts.deliveries = facts.deliveries.len();
    // By group and record: the session of its last delivery, plus one.
    let mut last = vec![0_u32; facts.groups.len() * facts.recs.len()];
    let mut keys = vec![false; facts.streams.len()];
    let mut parts = vec![false; facts.parts.len()];
    for delivery in &facts.deliveries {
        let place = delivery.group as usize * facts.recs.len() + delivery.rec as usize;
        let session = delivery.session.wrapping_add(1).max(1);
        match std::mem::replace(&mut last[place], session) {
            0 => {}
            before if before == session => counts.retries += 1,
            _ => counts.repeats += 1,
        }
        let stream = &facts.streams[delivery.stream as usize];
        keys[delivery.stream as usize] |= stream.is_keyed() && !stream.replayed;
        parts[facts.views[delivery.view as usize].part as usize] = true;
    }
    counts.keys = keys.into_iter().filter(|&carried| carried).count();
    counts.partitions = parts.into_iter().filter(|&carried| carried).count();
}
