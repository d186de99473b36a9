//! O4, no overlap: two handler intervals of one key never intersect, within a member or across
//! members. An interval ends at its end, at the drop of its future, or at its process's kill.
//!
//! The one exception: an interval that began under an epoch valid at its start check and was
//! superseded while it ran. No bus can stop it; such intervals are counted, and one owner leaves
//! at most `concurrency` of them. A start whose check came after its successor's first start is
//! refuted, whether or not anything overlaps; so is an owner whose epoch does not rise above
//! those before, since then nothing tells it from them.

use std::collections::BTreeMap;

use super::facts::{Delivery, HistoryFacts, Step};
use super::report::{About, Report};
use super::verdict::Rule;

pub(super) fn judge(facts: &HistoryFacts<'_>, concurrency: u32, report: &mut Report<'_, '_>) {
    let mut open: Vec<Vec<u32>> = vec![Vec::new(); facts.groups.len() * facts.streams.len()];
    let mut exempt: BTreeMap<(u32, u64), Vec<u32>> = BTreeMap::new();
    for &step in &facts.steps {
        let Step::Start(index) = step else { continue };
        let delivery = &facts.deliveries[index as usize];
        if delivery.is_stale() {
            report.add(Rule::O4, about(delivery), &[delivery.superseded, delivery.start], || {
                format!("{} started under epoch {} after its successor had begun", delivery.number, delivery.epoch)
            });
        }
        if !facts.streams[delivery.stream as usize].is_keyed() {
            continue;
        }
        let place = delivery.group as usize * facts.streams.len() + delivery.stream as usize;
        let running = &mut open[place];
        running.retain(|&other| facts.deliveries[other as usize].open_at(delivery.start));
        for &other_index in &*running {
            let other = &facts.deliveries[other_index as usize];
            let (old, old_index) = if other.epoch < delivery.epoch { (other, other_index) } else { (delivery, index) };
            if other.view == delivery.view && other.epoch != delivery.epoch {
                // A stale interval is refuted above, or was when it started.
                if !old.is_stale() {
                    let known = exempt.entry((old.view, old.epoch)).or_default();
                    if !known.contains(&old_index) {
                        known.push(old_index);
                    }
                }
                continue;
            }
            report.add(Rule::O4, about(delivery), &[other.start, delivery.start, other.end], || {
                format!("{} started while {} was being handled", delivery.number, other.number)
            });
        }
        running.push(index);
    }
    for ((_, epoch), intervals) in exempt {
        report.counts().exempt_overlaps += intervals.len();
        if intervals.len() > concurrency as usize {
            let records: Vec<u32> =
                intervals.iter().map(|&interval| facts.deliveries[interval as usize].start).collect();
            let first = &facts.deliveries[intervals[0] as usize];
            let about = About { group: Some(first.group), stream: None };
            report.add(Rule::O4, about, &records, || {
                format!("{} intervals of epoch {epoch} ran on into its successor's, {concurrency} may", intervals.len())
            });
        }
    }
    epochs_rise(facts, report);
}

fn epochs_rise(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    for view in &facts.views {
        let mut highest: Option<(u64, u32, u32)> = None;
        for &session in &view.sessions {
            let session = &facts.sessions[session as usize];
            if let Some((epoch, member, at)) = highest {
                if session.epoch <= epoch && session.member != member {
                    let about = About { group: Some(view.group), stream: None };
                    report.add(Rule::O4, about, &[at, session.at], || {
                        let partition = facts.parts[view.part as usize].partition;
                        let (new, old) = (session.epoch, epoch);
                        format!("partition {partition} has a new owner with epoch {new} after {old}")
                    });
                }
                if session.epoch < epoch {
                    continue;
                }
            }
            highest = Some((session.epoch, session.member, session.at));
        }
    }
}

const fn about(delivery: &Delivery) -> About {
    About { group: Some(delivery.group), stream: Some(delivery.stream) }
}
