//! O3, bounded rewind: the first record that a session hands out of a key is at or above the watermark, and outside the
//! finished-beyond set, that the broker had confirmed before ([`committed`](super::committed)). Only records that were
//! not yet committed may be repeated.
//!
//! Starts that a superseded owner had checked before are O4's.

use super::committed::CommittedWalk;
use super::facts::{HistoryFacts, NONE, Step};
use super::report::{About, Report};
use super::verdict::Rule;

pub(super) fn judge(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    let mut walk = CommittedWalk::new(facts);
    // By group and stream: the session in which it was last handed out, plus one.
    let mut handed_in = vec![0_u32; facts.groups.len() * facts.streams.len()];
    for (index, &step) in (0_u32..).zip(&facts.steps) {
        walk.step(index, step);
        let Step::Start(delivery) = step else { continue };
        let delivery = &facts.deliveries[delivery as usize];
        let place = delivery.group as usize * facts.streams.len() + delivery.stream as usize;
        let superseded = delivery.superseded < delivery.start;
        if superseded || walk.segments[delivery.view as usize] != delivery.segment {
            continue;
        }
        let session = delivery.session.wrapping_add(1).max(1);
        let first = std::mem::replace(&mut handed_in[place], session) != session;
        let keyed = facts.streams[delivery.stream as usize].is_keyed();
        let known = &walk.committed[delivery.view as usize];
        if (first || !keyed) && known.covers(delivery.position) {
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
}
