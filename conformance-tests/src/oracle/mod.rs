//! The judge of histories: rules O1 to O10 of the ordering contract, each in a file of its own.
//!
//! [`Oracle::judge`] knows nothing of the bus. It resolves a [`History`] once into facts (which
//! delivery belongs to which session, what is stored where), and each rule walks them. Groups are
//! judged apart, records of one key by their numbers, watermarks by positions.
//!
//! ```
//! use conformance_tests::history::{History, Kind, Event};
//! use conformance_tests::oracle::{Expectations, Oracle};
//!
//! let history = History::new(vec![Event { at: 1, process: 0, kind: Kind::ProcessStarted }]);
//! let verdict = Oracle::judge(&history, &Expectations::new(16).quiet());
//! assert!(verdict.is_legal(), "{verdict}");
//! ```

mod committed;
mod counts;
mod expect;
mod facts;
mod failure;
mod losses;
mod o1;
mod o2;
mod o3;
mod o4;
mod o5;
mod o6;
mod o7;
mod o8;
mod progress;
mod report;
mod sessions;
mod vacuous;
mod verdict;

pub use expect::{AfterRefusal, Expectations};
pub use failure::{FAILURES_DIR, failures_dir, write_failure};
pub use verdict::{Counts, Rule, Verdict, Violation};

use crate::history::History;
use facts::HistoryFacts;
use report::{About, Report};

/// The judge. It has no state: it goes by a history and the expectations of it alone.
#[derive(Clone, Copy, Debug)]
pub struct Oracle;

impl Oracle {
    /// Judges a history by every rule.
    ///
    /// Costs one pass to resolve the history and one per rule; a history of 200 000 records takes
    /// well under a second.
    #[must_use]
    pub fn judge(history: &History, expect: &Expectations) -> Verdict {
        let groups = expect.groups.iter().map(|(topic, group)| (&**topic, &**group));
        let facts = HistoryFacts::of(history, groups);
        let mut report = Report::new(&facts);
        counts::count(&facts, report.counts());
        for &(record, what) in &facts.malformed {
            report.add(Rule::Malformed, About::default(), &[record], || what.to_owned());
        }
        o1::judge(&facts, &mut report);
        o2::judge(&facts, &mut report);
        sessions::judge(&facts, expect, &mut report);
        o3::judge(&facts, &mut report);
        o4::judge(&facts, expect.concurrency, &mut report);
        o5::judge(&facts, expect, &mut report);
        o6::judge(&facts, &mut report);
        losses::judge(&facts, expect, &mut report);
        o7::judge(&facts, &mut report);
        o8::judge(&facts, expect, &mut report);
        vacuous::judge(&facts, expect, &mut report);
        report.finish()
    }
}

#[cfg(test)]
mod tests;
