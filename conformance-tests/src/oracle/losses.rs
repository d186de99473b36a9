//! O6's other half: no loss is invented. Where purges alone take records of a topic, a loss that is told has a purge
//! before it that took something which the group had not finished, as far as the broker had confirmed, and the told
//! positions hold some of that. A purge of what was finished is no loss.
//!
//! O5 demands the opposite: what a purge took unfinished is told.

use super::committed::CommittedWalk;
use super::expect::Expectations;
use super::facts::{HistoryFacts, Step};
use super::report::{About, Report};
use super::verdict::Rule;

/// The unfinished records that a purge took from a group.
struct Taken {
    group: u32,
    part: u32,
    /// Positions, ascending.
    positions: Vec<u64>,
}

pub(super) fn judge(facts: &HistoryFacts<'_>, expect: &Expectations, report: &mut Report<'_, '_>) {
    report.counts().purges = facts.purges.len();
    let mut walk = CommittedWalk::new(facts);
    let mut taken: Vec<Taken> = Vec::new();
    let mut told = vec![0_usize; facts.views.len()];
    for (index, &step) in (0_u32..).zip(&facts.steps) {
        walk.step(index, step);
        match step {
            Step::Purge(purge) => {
                let by_purge = taken_by(facts, &walk, purge);
                report.counts().purged_unfinished += by_purge.iter().map(|taken| taken.positions.len()).sum::<usize>();
                taken.extend(by_purge);
            }
            Step::Loss(view) => {
                judge_one(facts, expect, &taken, (index, view, told[view as usize]), report);
                told[view as usize] += 1;
            }
            _ => {}
        }
    }
}

/// The unfinished records that a purge takes, by group.
fn taken_by(facts: &HistoryFacts<'_>, walk: &CommittedWalk<'_, '_>, purge: u32) -> Vec<Taken> {
    let purge = &facts.purges[purge as usize];
    let part = &facts.parts[purge.part as usize];
    let views = (0..).zip(&facts.views).filter(|(_, view)| view.part == purge.part);
    let of_view = views.map(|(index, view): (usize, _)| {
        let known = &walk.committed[index];
        let slots = part.slots.iter().map(|&slot| &facts.slots[slot as usize]);
        let slots = slots.skip_while(|slot| slot.position < known.watermark.max(purge.from));
        let slots = slots.take_while(|slot| slot.position < purge.first);
        let positions = slots.map(|slot| slot.position).filter(|&position| !known.covers(position)).collect();
        Taken { group: view.group, part: purge.part, positions }
    });
    of_view.filter(|taken| !taken.positions.is_empty()).collect()
}

fn judge_one(
    facts: &HistoryFacts<'_>,
    expect: &Expectations,
    taken: &[Taken],
    (index, view, nth): (u32, u32, usize),
    report: &mut Report<'_, '_>,
) {
    let view = &facts.views[view as usize];
    let topic = facts.parts[view.part as usize].topic;
    if !facts.purges.iter().any(|purge| facts.parts[purge.part as usize].topic == topic) {
        return;
    }
    let loss = &view.losses[nth];
    let could_be_of =
        |part: u32| part == view.part || expect.shared_positions && facts.parts[part as usize].topic == topic;
    let explains = |taken: &&Taken| {
        let within = |position: &u64| (loss.from..loss.told).contains(position);
        taken.group == view.group && could_be_of(taken.part) && taken.positions.iter().any(within)
    };
    if !taken.iter().any(|taken| explains(&taken)) {
        report.add(Rule::O6, About { group: Some(view.group), stream: None }, &[index], || {
            let partition = facts.parts[view.part as usize].partition;
            format!(
                "{}..{} of partition {partition} are told as lost, and nothing unfinished was purged there",
                loss.from, loss.told
            )
        });
    }
}
