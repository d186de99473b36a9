//! The verdict on a history.

use std::fmt;

use crate::history::{Key, Name};

/// The rules, by the names of the ordering contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The history contradicts itself: its writer has a bug, nothing else can be believed.
    Malformed,
    /// No skip.
    O1,
    /// A rewind is a suffix replay.
    O2,
    /// A rewind is bounded by what was committed.
    O3,
    /// No overlap within a key.
    O4,
    /// No loss.
    O5,
    /// No invention.
    O6,
    /// No commit past a hole.
    O7,
    /// No hole in the log, one copy.
    O8,
    /// Handlers of different keys did overlap.
    O9,
    /// Enough keys and partitions carried traffic.
    O10,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::O1,
        Self::O2,
        Self::O3,
        Self::O4,
        Self::O5,
        Self::O6,
        Self::O7,
        Self::O8,
        Self::O9,
        Self::O10,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One refutation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The rule that is refuted.
    pub rule: Rule,
    /// The topic, where it is about one.
    pub topic: Option<Name>,
    /// The group, where it is about one.
    pub group: Option<Name>,
    /// The key, where it is about one.
    pub key: Key,
    /// The problem, in words.
    pub detail: String,
    /// Indices of the records that show it.
    pub records: Vec<usize>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        if let Some(topic) = &self.topic {
            write!(f, " topic {topic}")?;
        }
        if let Some(group) = &self.group {
            write!(f, " group {group}")?;
        }
        if self.key.bytes().is_some() {
            write!(f, " key {}", self.key)?;
        }
        write!(f, ": {} (records {:?})", self.detail, self.records)
    }
}

/// Figures of a history, whether or not it was legal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Records of the history.
    pub records: usize,
    /// Publishes offered.
    pub offered: usize,
    /// Publishes confirmed.
    pub confirmed: usize,
    /// Publishes refused.
    pub refused: usize,
    /// Publishes withdrawn.
    pub withdrawn: usize,
    /// Publishes unknown at the end, or never answered.
    pub unknown: usize,
    /// Unknown publishes that were found stored.
    pub unknown_stored: usize,
    /// Copies in the log beyond the first.
    pub copies: usize,
    /// Handler calls.
    pub deliveries: usize,
    /// Handler calls of a record that its group had already begun under another session.
    pub repeats: usize,
    /// Further attempts within a session.
    pub retries: usize,
    /// Records finished outside a handler call.
    pub finished_unhandled: usize,
    /// Intervals of a superseded owner that ran on into its successor's (O4's exemption).
    pub exempt_overlaps: usize,
    /// Sessions.
    pub sessions: usize,
    /// Sessions that nothing explains.
    pub unexplained_sessions: usize,
    /// Commits confirmed.
    pub commits: usize,
    /// Segments opened by a seek, a start position or a log reset.
    pub segments: usize,
    /// Reports of lost data.
    pub losses: usize,
    /// Purges of partitions.
    pub purges: usize,
    /// Records that purges took from groups that had not finished them, as far as commits had told.
    pub purged_unfinished: usize,
    /// Keys with handler calls.
    pub keys: usize,
    /// Partitions with handler calls.
    pub partitions: usize,
}

/// The judgement of one history.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verdict {
    /// The first violations of each rule, at most [`Verdict::KEPT`] per rule.
    pub violations: Vec<Violation>,
    /// The figures of the history.
    pub counts: Counts,
    pub(super) by_rule: [usize; Rule::ALL.len()],
}

impl Verdict {
    /// The most violations of one rule that are kept; all are counted.
    pub const KEPT: usize = 20;

    /// Whether nothing was refuted.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        self.by_rule.iter().all(|&count| count == 0)
    }

    /// The number of times that a rule was refuted.
    #[must_use]
    pub const fn count(&self, rule: Rule) -> usize {
        self.by_rule[rule as usize]
    }

    /// The rules that were refuted, in their order.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        Rule::ALL.into_iter().filter(|&rule| self.count(rule) > 0).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_legal() {
            return write!(f, "legal; {:?}", self.counts);
        }
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        for rule in self.rules() {
            write!(f, "{rule}: {} ", self.count(rule))?;
        }
        write!(f, "\n{:?}", self.counts)
    }
}
