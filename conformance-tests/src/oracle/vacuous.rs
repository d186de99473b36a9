//! O9 and O10, not vacuous: a run in which nothing could have gone wrong proves nothing.
//!
//! O9: where a case has at least two keys, concurrency and handlers that yield, two handlers of
//! different keys overlapped at least once. O10: as many keys and partitions carried traffic as
//! the case claims.

use super::expect::Expectations;
use super::facts::{HistoryFacts, Step};
use super::report::{About, Report};
use super::verdict::Rule;

pub(super) fn judge(facts: &HistoryFacts<'_>, expect: &Expectations, report: &mut Report<'_, '_>) {
    if expect.overlap && !keys_overlapped(facts) {
        report.add(Rule::O9, About::default(), &[], || "no two handlers of different keys ever overlapped".to_owned());
    }
    let (keys, partitions) = (report.counts().keys, report.counts().partitions);
    if keys < expect.keys || partitions < expect.partitions {
        report.add(Rule::O10, About::default(), &[], || {
            format!(
                "{keys} keys and {partitions} partitions carried traffic, expected {} and {}",
                expect.keys, expect.partitions
            )
        });
    }
}

fn keys_overlapped(facts: &HistoryFacts<'_>) -> bool {
    // By group: the calls under way that end last, of two keys at most: the longest of one key and the longest of any
    // other.
    let mut longest: Vec<[Option<(u32, u32)>; 2]> = vec![[None; 2]; facts.groups.len()];
    for &step in &facts.steps {
        let Step::Start(index) = step else { continue };
        let delivery = &facts.deliveries[index as usize];
        let known = &mut longest[delivery.group as usize];
        let other = known.iter().flatten().any(|&(stream, end)| stream != delivery.stream && end > delivery.start);
        if other {
            return true;
        }
        // A call that never ends has NONE, which is above every index.
        let mine = (delivery.stream, delivery.end);
        match known.iter_mut().flatten().find(|known| known.0 == mine.0) {
            Some(known) => known.1 = known.1.max(mine.1),
            None => {
                known.sort_by_key(|known| known.map(|known| known.1));
                known[0] = Some(mine);
            }
        }
    }
    false
}
