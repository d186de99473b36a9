//! O2's other half: a session needs a cause that the history knows - an injected fault, a change
//! of membership, a seek. Otherwise a bus that starts over whenever it is lost would pass.
//!
//! The simulation fails on an unexplained session; elsewhere they are counted.

use std::collections::BTreeMap;

use super::expect::Expectations;
use super::facts::{HistoryFacts, Step};
use super::report::{About, Report};
use super::verdict::Rule;
use crate::history::Kind;

/// The last event that explains sessions: record index and time.
type Disturbed = Option<(u32, u64)>;

#[derive(Default)]
struct Disturbances<'h> {
    everywhere: Disturbed,
    /// By the group's name.
    group: BTreeMap<&'h str, Disturbed>,
    /// By topic, group and partition.
    view: BTreeMap<(&'h str, &'h str, u32), Disturbed>,
    /// Faults that last.
    lasting: Vec<&'h str>,
}

impl<'h> Disturbances<'h> {
    fn take(&mut self, index: u32, at: u64, kind: &'h Kind) {
        let now = Some((index, at));
        match kind {
            Kind::Fault { name, lasting } => {
                self.everywhere = now;
                if *lasting {
                    self.lasting.push(name);
                }
            }
            Kind::Healed { name } => {
                self.everywhere = now;
                if let Some(place) = self.lasting.iter().position(|&other| other == &**name) {
                    self.lasting.swap_remove(place);
                }
            }
            Kind::ProcessStarted
            | Kind::ProcessKilled { .. }
            | Kind::TopicRecreated { .. }
            | Kind::LogShortened { .. } => self.everywhere = now,
            Kind::MemberJoined { group, .. } | Kind::MemberLeft { group, .. } => {
                self.group.insert(group, now);
            }
            Kind::Seek { topic, group, partition, .. }
            | Kind::DataLost { topic, group, partition, .. }
            | Kind::LogReset { topic, group, partition, .. } => {
                self.view.insert((topic, group, *partition), now);
            }
            _ => {}
        }
    }

    fn last(&self, topic: &str, group: &str, partition: u32) -> Disturbed {
        let of_group = self.group.get(group).copied().flatten();
        let of_view = self.view.get(&(topic, group, partition)).copied().flatten();
        self.everywhere.max(of_group).max(of_view)
    }
}

pub(super) fn judge(facts: &HistoryFacts<'_>, expect: &Expectations, report: &mut Report<'_, '_>) {
    let mut disturbances = Disturbances::default();
    // By view: the session before.
    let mut before: Vec<Option<u32>> = vec![None; facts.views.len()];
    for ((index, event), &step) in (0_u32..).zip(facts.events).zip(&facts.steps) {
        disturbances.take(index, event.at, &event.kind);
        let Step::Session(session) = step else {
            continue;
        };
        let session = &facts.sessions[session as usize];
        let view = &facts.views[session.view as usize];
        let group = &facts.groups[view.group as usize];
        let last = disturbances.last(
            facts.names[group.topic as usize],
            facts.names[group.name as usize],
            facts.parts[view.part as usize].partition,
        );
        let previous = before[session.view as usize].replace(index);
        let fresh = last.is_some_and(|(cause, at)| {
            previous.is_none_or(|previous| cause > previous) || event.at.saturating_sub(at) < expect.session_grace
        });
        if previous.is_none() || fresh || !disturbances.lasting.is_empty() {
            continue;
        }
        report.counts().unexplained_sessions += 1;
        if expect.strict_sessions {
            let about = About { group: Some(view.group), stream: None };
            report.add(Rule::O2, about, &[previous.unwrap_or(index), index], || {
                let partition = facts.parts[view.part as usize].partition;
                format!("a session of partition {partition} begins that nothing explains")
            });
        }
    }
}
