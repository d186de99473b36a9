//! O5, no loss: every confirmed publish is finished by every group of its topic. Judged when the
//! faults are healed and the groups are quiet.
//!
//! Where the log was read after the run, a confirmed publish must also be in it, unless
//! retention, a recreation, or a purge or cut of the log by the test took it.

use super::expect::Expectations;
use super::facts::{Fate, HistoryFacts, Rec};
use super::progress::{Progress, Standing};
use super::report::{About, Report};
use super::verdict::Rule;

pub(super) fn judge(facts: &HistoryFacts<'_>, expect: &Expectations, report: &mut Report<'_, '_>) {
    if expect.log_read {
        for rec in facts.recs.iter().filter(|rec| is_confirmed(facts, rec)) {
            if !rec.in_log && should_be_kept(facts, rec) {
                let about = About { group: None, stream: Some(rec.stream) };
                report.add(Rule::O5, about, &[rec.offered, rec.decided], || {
                    format!("{} was confirmed and is not in the log", rec.number)
                });
            }
        }
    }
    if expect.quiet {
        all_finished(facts, report);
    }
}

fn all_finished(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    let mut progress = Progress::new(facts);
    for &step in &facts.steps {
        progress.step(step);
    }
    for (index, group) in (0_u32..).zip(&facts.groups) {
        for (rec_index, rec) in (0_u32..).zip(&facts.recs) {
            let stream = &facts.streams[rec.stream as usize];
            if stream.topic != group.topic || !is_confirmed(facts, rec) {
                continue;
            }
            if let Standing::Unfinished = progress.standing(index, rec_index) {
                let about = About { group: Some(index), stream: Some(rec.stream) };
                report.add(Rule::O5, about, &[rec.offered, rec.decided], || {
                    format!("{} was confirmed and never finished", rec.number)
                });
            }
        }
    }
}

fn is_confirmed(facts: &HistoryFacts<'_>, rec: &Rec) -> bool {
    rec.fate == Fate::Confirmed && !facts.streams[rec.stream as usize].replayed
}

fn should_be_kept(facts: &HistoryFacts<'_>, rec: &Rec) -> bool {
    let Some(slot) = facts.slots.get(rec.slot as usize) else {
        return true;
    };
    let part = &facts.parts[slot.part as usize];
    slot.is_in(part.era) && slot.position >= part.first_kept.max(part.purged)
}
