//! O2, a rewind is a suffix replay: the numbers of a key that a group is handed are contiguous
//! rising runs; a run begins at most one above the last number of the run before; and a run
//! begins only with a newer session of the partition. Within a session a key's numbers rise by
//! one, further attempts of an unfinished one apart.
//!
//! Deliveries are taken in the order of their start checks: a member that was suspended between
//! check and start is late, not out of order. A stale start is refuted by O4 and not looked at
//! here. A record that is finished without a handler call counts as handed out.

use super::facts::{Delivery, HistoryFacts, NONE, Step};
use super::report::{About, Report};
use super::verdict::Rule;

/// A group's place in a key.
#[derive(Clone, Copy)]
struct Last {
    rank: u32,
    session: u32,
    segment: u32,
    /// Losses of the partition reported so far: a new one opens a segment.
    losses: u32,
    attempt: u32,
    /// The delivery, or [`NONE`] for a record finished without one.
    delivery: u32,
}

pub(super) fn judge(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    let mut walk =
        Walk { facts, losses: vec![0; facts.views.len()], last: vec![None; facts.groups.len() * facts.streams.len()] };
    for (index, step) in in_order_of_checks(facts) {
        match step {
            Step::Start(delivery) => walk.delivery(delivery, report),
            Step::Finish(finish) => walk.finish(finish, index),
            Step::Loss(view) => walk.losses[view as usize] += 1,
            _ => {}
        }
    }
}

fn in_order_of_checks(facts: &HistoryFacts<'_>) -> Vec<(u32, Step)> {
    let mut steps: Vec<(u32, Step)> = (0_u32..)
        .zip(&facts.steps)
        .filter_map(|(index, &step)| match step {
            Step::Start(delivery) => Some((facts.deliveries[delivery as usize].check, step)),
            Step::Finish(_) | Step::Loss(_) => Some((index, step)),
            _ => None,
        })
        .collect();
    steps.sort_by_key(|&(index, _)| index);
    steps
}

struct Walk<'f, 'h> {
    facts: &'f HistoryFacts<'h>,
    losses: Vec<u32>,
    last: Vec<Option<Last>>,
}

impl Walk<'_, '_> {
    fn delivery(&mut self, index: u32, report: &mut Report<'_, '_>) {
        let facts = self.facts;
        let delivery = &facts.deliveries[index as usize];
        let rank = facts.recs[delivery.rec as usize].rank;
        let stream = &facts.streams[delivery.stream as usize];
        if !stream.is_keyed() || rank == NONE || delivery.is_stale() {
            return;
        }
        let now = Last {
            rank,
            session: delivery.session,
            segment: delivery.segment,
            losses: self.losses[delivery.view as usize],
            attempt: delivery.attempt,
            delivery: index,
        };
        let place = delivery.group as usize * facts.streams.len() + delivery.stream as usize;
        let Some(last) = self.last[place].replace(now) else {
            return;
        };
        if (last.segment, last.losses) != (now.segment, now.losses) {
            return;
        }
        let Some(problem) = self.problem(&last, &now, delivery) else {
            return;
        };
        let before = facts.recs[stream.line[last.rank as usize] as usize].number;
        let number = facts.recs[delivery.rec as usize].number;
        let start = facts.deliveries.get(last.delivery as usize).map_or(NONE, |d| d.start);
        let about = About { group: Some(delivery.group), stream: Some(delivery.stream) };
        report.add(Rule::O2, about, &[start, delivery.start], || format!("{number} after {before}: {problem}"));
    }

    fn problem(&self, last: &Last, now: &Last, delivery: &Delivery) -> Option<&'static str> {
        let newer = now.session != NONE && (last.session == NONE || now.session > last.session);
        if newer {
            let leaves_out = now.rank > last.rank + 1 && !self.lost_between(last.rank, now.rank, delivery);
            return leaves_out.then_some("a new run leaves out what is stored between");
        }
        if now.rank == last.rank {
            let finished = match self.facts.deliveries.get(last.delivery as usize) {
                None => true,
                Some(before) => before.finished && !before.open_at(delivery.check),
            };
            return if finished {
                Some("handed out again in the same session after it was finished")
            } else {
                (now.attempt <= last.attempt)
                    .then_some("handed out again in the same session, not as a further attempt")
            };
        }
        let next =
            now.rank == last.rank + 1 || now.rank > last.rank && self.lost_between(last.rank, now.rank, delivery);
        (!next).then_some("not the next one, in the same session")
    }

    /// Whether all records stored between two ranks were reported lost. The report may come long before records that
    /// were delivered already are handled, so the numbers go on on both sides of the loss within one session.
    fn lost_between(&self, last: u32, now: u32, delivery: &Delivery) -> bool {
        let facts = self.facts;
        let line = &facts.streams[delivery.stream as usize].line;
        let view = &facts.views[delivery.view as usize];
        line[last as usize + 1..now as usize].iter().all(|&rec| {
            let slot = facts.slots.get(facts.recs[rec as usize].slot as usize);
            slot.is_some_and(|slot| slot.part == view.part && view.lost(slot.position))
        })
    }

    /// Takes a record finished without a call (or after its last failed one): the line has moved past it.
    fn finish(&mut self, index: u32, at: u32) {
        let facts = self.facts;
        let finish = &facts.finishes[index as usize];
        if finish.slot == NONE || finish.dropped_copy {
            return;
        }
        let rec = &facts.recs[facts.slots[finish.slot as usize].rec as usize];
        if rec.rank == NONE {
            return;
        }
        let view = &facts.views[finish.view as usize];
        let session = view.sessions.iter().rev();
        let session = session.copied().find(|&session| facts.sessions[session as usize].at < at).unwrap_or(NONE);
        if session != NONE && facts.sessions[session as usize].process != finish.process {
            // A superseded owner finished it: its successor's run goes on where it stands.
            return;
        }
        let now = Last {
            rank: rec.rank,
            session,
            segment: finish.segment,
            losses: self.losses[finish.view as usize],
            attempt: 0,
            delivery: NONE,
        };
        let place = view.group as usize * facts.streams.len() + rec.stream as usize;
        let moves = self.last[place].is_none_or(|last| {
            let same = (last.segment, last.losses) == (now.segment, now.losses);
            // Never backwards, and never over a gap: the next delivery would then be excused.
            !same || now.rank == last.rank + 1 || (now.rank == last.rank && last.session == session)
        });
        if moves {
            self.last[place] = Some(now);
        }
    }
}
