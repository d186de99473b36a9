//! The report of violations: all are counted, the first of each rule are described.

use super::facts::HistoryFacts;
use super::verdict::{Counts, Rule, Verdict, Violation};

/// The subject of a violation.
#[derive(Clone, Copy, Default)]
pub(super) struct About {
    /// Index of the group, if it is about one.
    pub(super) group: Option<u32>,
    /// Index of the stream, if it is about one.
    pub(super) stream: Option<u32>,
}

pub(super) struct Report<'f, 'h> {
    facts: &'f HistoryFacts<'h>,
    verdict: Verdict,
}

impl<'f, 'h> Report<'f, 'h> {
    pub(super) fn new(facts: &'f HistoryFacts<'h>) -> Self {
        Self { facts, verdict: Verdict::default() }
    }

    /// Counts a violation and, while there is room for it, keeps its description.
    pub(super) fn add(&mut self, rule: Rule, about: About, records: &[u32], detail: impl FnOnce() -> String) {
        let count = &mut self.verdict.by_rule[rule as usize];
        *count += 1;
        if *count > Verdict::KEPT {
            return;
        }
        let facts = self.facts;
        let group = about.group.map(|group| &facts.groups[group as usize]);
        let stream = about.stream.map(|stream| &facts.streams[stream as usize]);
        let topic = group.map(|g| g.topic).or(stream.map(|s| s.topic));
        let mut records: Vec<usize> =
            records.iter().filter(|&&record| record != super::facts::NONE).map(|&record| record as usize).collect();
        records.sort_unstable();
        records.dedup();
        self.verdict.violations.push(Violation {
            rule,
            topic: topic.map(|topic| facts.names[topic as usize].into()),
            group: group.map(|group| facts.names[group.name as usize].into()),
            key: stream.map(|stream| stream.key.clone()).unwrap_or_default(),
            detail: detail(),
            records,
        });
    }

    pub(super) const fn counts(&mut self) -> &mut Counts {
        &mut self.verdict.counts
    }

    pub(super) fn finish(mut self) -> Verdict {
        self.verdict.violations.sort_by_key(|v| v.rule);
        self.verdict
    }
}
