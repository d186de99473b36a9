//! O3, bounded rewind: the first record that a session hands out of a key is at or above the watermark, and outside the
//! finished-beyond set, that the broker had confirmed before. Only records that were not yet committed may be repeated.
//!
//! The newest confirmed set counts: an older one may have reached further (a note is cut at its high end to fit). A
//! seek, a start position or a log reset begins anew at its position. Starts that a superseded owner had checked before
//! are O4's.

use super::facts::{HistoryFacts, NONE, Step};
use super::report::{About, Report};
use super::verdict::Rule;

#[derive(Clone, Copy, Default)]
struct Committed<'h> {
    watermark: u64,
    beyond: &'h [(u64, u64)],
    epoch: u64,
    /// Index of the commit.
    record: Option<u32>,
}

pub(super) fn judge(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    let mut segments = facts.first_segments();
    let mut committed = vec![Committed::default(); facts.views.len()];
    // By group and stream: the session in which it was last handed out, plus one.
    let mut handed_in = vec![0_u32; facts.groups.len() * facts.streams.len()];
    for (index, &step) in (0_u32..).zip(&facts.steps) {
        if let Some(opened) = facts.opened(step) {
            let segment = &facts.segments[opened as usize];
            segments[segment.view as usize] = opened;
            committed[segment.view as usize] = Committed { watermark: segment.floor, ..Committed::default() };
        }
        match step {
            Step::Commit(commit) => {
                let commit = &facts.commits[commit as usize];
                let known = &mut committed[commit.view as usize];
                let current = segments[commit.view as usize] == commit.segment;
                let Some(epoch) = commit.epoch.filter(|&epoch| epoch >= known.epoch) else {
                    continue;
                };
                if current && commit.confirmed == index {
                    *known = Committed {
                        watermark: known.watermark.max(commit.position),
                        beyond: commit.beyond,
                        epoch,
                        record: Some(index),
                    };
                }
            }
            Step::Start(delivery) => {
                let delivery = &facts.deliveries[delivery as usize];
                let place = delivery.group as usize * facts.streams.len() + delivery.stream as usize;
                let superseded = delivery.superseded < delivery.start;
                if superseded || segments[delivery.view as usize] != delivery.segment {
                    continue;
                }
                let session = delivery.session.wrapping_add(1).max(1);
                let first = std::mem::replace(&mut handed_in[place], session) != session;
                let keyed = facts.streams[delivery.stream as usize].is_keyed();
                let known = &committed[delivery.view as usize];
                if (first || !keyed) && covers(known, delivery.position) {
                    let about = About { group: Some(delivery.group), stream: Some(delivery.stream) };
                    let records = [known.record.unwrap_or(NONE), delivery.start];
                    report.add(Rule::O3, about, &records, || {
                        format!(
                            "{} at position {} is handed out again, committed were {} and {:?}",
                            delivery.number, delivery.position, known.watermark, known.beyond
                        )
                    });
                }
            }
            _ => {}
        }
    }
}

fn covers(committed: &Committed<'_>, position: u64) -> bool {
    let after = committed.beyond.partition_point(|run| run.0 <= position);
    let in_set = after > 0 && position < committed.beyond[after - 1].1;
    position < committed.watermark || in_set
}
