//! O6, no invention: a record that is handed out was offered before, under this topic, key and number, and its bytes
//! are the offered ones. One position holds one record, whoever reads it.

use super::facts::{HistoryFacts, NONE};
use super::report::{About, Report};
use super::verdict::Rule;

pub(super) fn judge(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    for delivery in &facts.deliveries {
        let rec = &facts.recs[delivery.rec as usize];
        let about = About { group: Some(delivery.group), stream: Some(delivery.stream) };
        if rec.offered == NONE || rec.offered > delivery.start {
            report.add(Rule::O6, about, &[delivery.start], || format!("{} was never offered", delivery.number));
        } else if rec.digest != delivery.digest {
            report.add(Rule::O6, about, &[rec.offered, delivery.start], || {
                format!("the bytes of {} are not the offered ones", delivery.number)
            });
        }
    }
    for &(slot, record) in &facts.conflicts {
        let slot = &facts.slots[slot as usize];
        let about = About { group: None, stream: Some(facts.recs[slot.rec as usize].stream) };
        report.add(Rule::O6, about, &[slot.seen, record], || {
            let partition = facts.parts[slot.part as usize].partition;
            format!("partition {partition} holds two records at position {}", slot.position)
        });
    }
}
