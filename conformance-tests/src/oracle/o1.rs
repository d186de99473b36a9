//! O1, no skip: a record is handed out for the first time only after the one before it - of its
//! key, among those that are stored - was finished.
//!
//! "First" and "finished" are counted anew in each segment, so that after a seek back the whole
//! line is demanded again. A record before the segment's beginning, or one reported lost, need
//! not be finished.

use super::facts::{HistoryFacts, Step};
use super::progress::{Progress, Standing};
use super::report::{About, Report};
use super::verdict::Rule;

pub(super) fn judge(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    let mut progress = Progress::new(facts);
    // By group and record: the segment of its first delivery, plus one.
    let mut begun = vec![0_u32; facts.groups.len() * facts.recs.len()];
    for &step in &facts.steps {
        progress.step(step);
        let Step::Start(index) = step else { continue };
        let delivery = &facts.deliveries[index as usize];
        let rec = &facts.recs[delivery.rec as usize];
        let stream = &facts.streams[delivery.stream as usize];
        let unordered = !stream.is_keyed() || rec.rank == super::facts::NONE;
        if unordered || delivery.is_stale() || !progress.is_current(delivery) {
            continue;
        }
        let place = delivery.group as usize * facts.recs.len() + delivery.rec as usize;
        if std::mem::replace(&mut begun[place], delivery.segment + 1) == delivery.segment + 1 {
            continue;
        }
        for &before in stream.line[..rec.rank as usize].iter().rev() {
            match progress.standing(delivery.group, before) {
                Standing::Lost => continue,
                Standing::Finished | Standing::Outside => {}
                Standing::Unfinished => {
                    let before = facts.recs[before as usize].number;
                    let about = About { group: Some(delivery.group), stream: Some(delivery.stream) };
                    report.add(Rule::O1, about, &[delivery.start], || {
                        format!("{} started before {before} was finished", rec.number)
                    });
                }
            }
            break;
        }
    }
}
