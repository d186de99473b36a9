//! The one pass over a history that gives the facts.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::history::{Commit, Event, History, Kind, SessionCause, Start};

use super::late::{find_originals, mark_superseded};
use super::names::{Tables, next};
use super::publish::{decide, lay_out_lines, store};
use super::{CommitFact, Delivery, Finish, HistoryFacts, Loss, NONE, Purge, Segment, Session, Step, View};

/// Open pairs while the history is read, by call: (process, call).
type Calls = HashMap<(u32, u64), u32>;

struct Builder<'h> {
    facts: HistoryFacts<'h>,
    tables: Tables<'h>,
    publishes: Calls,
    handlers: Calls,
    checks: Calls,
    commits: Calls,
    /// Topics of which purges alone take records.
    purged: BTreeSet<&'h str>,
}

impl<'h> HistoryFacts<'h> {
    /// Resolves a history; `groups` take part even if nothing is recorded of them.
    pub(in crate::oracle) fn of(history: &'h History, groups: impl Iterator<Item = (&'h str, &'h str)>) -> Self {
        let events = &history.events;
        let purged = events.iter().filter_map(|event| match &event.kind {
            Kind::Purged { topic, .. } => Some(&**topic),
            _ => None,
        });
        let mut builder = Builder {
            facts: HistoryFacts {
                events,
                steps: Vec::with_capacity(events.len()),
                deliveries: Vec::with_capacity(events.len() / 2),
                ..HistoryFacts::default()
            },
            tables: Tables::default(),
            publishes: Calls::new(),
            handlers: Calls::new(),
            checks: Calls::new(),
            commits: Calls::new(),
            purged: purged.collect(),
        };
        for (topic, group) in groups {
            builder.group(topic, group);
        }
        for (index, event) in (0_u32..).zip(events) {
            let step = builder.step(index, event);
            builder.facts.steps.push(step);
        }
        builder.finish()
    }
}

impl<'h> Builder<'h> {
    fn step(&mut self, index: u32, event: &'h Event) -> Step {
        let process = event.process;
        match &event.kind {
            Kind::StartChecked { call } => {
                self.checks.insert((process, *call), index);
                Step::Nothing
            }
            Kind::Start(start) => self.start(index, process, start),
            Kind::End { call, outcome } => {
                let Some(delivery) = self.handlers.remove(&(process, *call)) else {
                    return self.malformed(index, "a handler call ends that is not running");
                };
                let known = &mut self.facts.deliveries[delivery as usize];
                known.end = index;
                known.finished = outcome.finishes();
                Step::End(delivery)
            }
            Kind::CommitSent(commit) => self.commit(index, process, commit, false),
            Kind::CommitConfirmed(commit) => self.commit(index, process, commit, true),
            Kind::ProcessKilled { victim } => {
                let deliveries = &mut self.facts.deliveries;
                self.handlers.retain(|&(process, _), &mut delivery| {
                    let alive = process != *victim;
                    if !alive {
                        deliveries[delivery as usize].end = index;
                    }
                    alive
                });
                Step::Nothing
            }
            Kind::TopicRecreated { topic } => {
                let topic = self.tables.name(&mut self.facts, topic);
                self.replace_logs(index, topic, None, 0);
                Step::Nothing
            }
            Kind::LogShortened { topic, partition, end } => {
                let topic = self.tables.name(&mut self.facts, topic);
                self.replace_logs(index, topic, Some(*partition), *end);
                Step::Nothing
            }
            Kind::Purged { topic, partition, first } => {
                let part = self.part(topic, *partition);
                let known = &mut self.facts.parts[part as usize].purged;
                let (from, first) = (*known, (*known).max(*first));
                *known = first;
                self.facts.purges.push(Purge { part, from, first });
                Step::Purge(next(&self.facts.purges) - 1)
            }
            kind => self.publish_step(index, process, kind).unwrap_or_else(|| self.view_step(index, process, kind)),
        }
    }

    /// Takes the records of the publishing side, and of the log as read after the run.
    fn publish_step(&mut self, index: u32, process: u32, kind: &'h Kind) -> Option<Step> {
        match kind {
            Kind::Offered { call, bus, topic, key, number, digest, .. } => {
                let rec = self.rec(topic, key, *number);
                let known = &mut self.facts.recs[rec as usize];
                if known.offered != NONE {
                    return Some(self.malformed(index, "a number is offered twice"));
                }
                (known.offered, known.bus, known.digest) = (index, *bus, *digest);
                if self.publishes.insert((process, *call), rec).is_some() {
                    return Some(self.malformed(index, "a publish call is used twice"));
                }
            }
            Kind::Published { call, outcome } => {
                let Some(&rec) = self.publishes.get(&(process, *call)) else {
                    return Some(self.malformed(index, "an outcome without an offer"));
                };
                decide(&mut self.facts, &mut self.tables, rec, outcome, index);
            }
            Kind::Returned { call } => {
                let Some(&rec) = self.publishes.get(&(process, *call)) else {
                    return Some(self.malformed(index, "an outcome without an offer"));
                };
                let known = &mut self.facts.recs[rec as usize];
                known.returned = known.returned.min(index);
            }
            Kind::Sealed { call } => {
                let Some(&rec) = self.publishes.get(&(process, *call)) else {
                    return Some(self.malformed(index, "a seal without an offer"));
                };
                let known = &mut self.facts.recs[rec as usize];
                known.sealed = known.sealed.min(index);
            }
            Kind::Resumed { bus, topic, key } => {
                let topic = self.tables.name(&mut self.facts, topic);
                let stream = self.tables.stream(&mut self.facts, topic, key, false);
                let stream = &mut self.facts.streams[stream as usize];
                stream.resumes.push((*bus, index));
            }
            Kind::LogBounds { topic, partition, first, .. } => {
                let part = self.part(topic, *partition);
                self.facts.parts[part as usize].first_kept = *first;
            }
            Kind::LogRecord { topic, partition, position, key, number, replayed, .. } => {
                let part = self.part(topic, *partition);
                let era = self.facts.parts[part as usize].era;
                let rec =
                    if *replayed { self.replayed_rec(topic, key, *position) } else { self.rec(topic, key, *number) };
                self.facts.recs[rec as usize].in_log = true;
                let at = (part, *position, era);
                store(&mut self.facts, &mut self.tables, at, rec, index);
            }
            _ => return None,
        }
        Some(Step::Nothing)
    }

    /// Takes the records about a partition as a group sees it.
    fn view_step(&mut self, index: u32, process: u32, kind: &'h Kind) -> Step {
        match kind {
            Kind::Finished { topic, group, partition, position, by } => {
                let view = self.view(topic, group, *partition);
                let segment = self.facts.views[view as usize].segment;
                self.facts.finishes.push(Finish {
                    view,
                    process,
                    segment,
                    era: self.facts.segments[segment as usize].era,
                    position: *position,
                    slot: NONE,
                    dropped_copy: *by == crate::history::FinishedBy::DroppedCopy,
                });
                Step::Finish(next(&self.facts.finishes) - 1)
            }
            Kind::CommittedRead { topic, group, partition, position } => {
                let view = self.view(topic, group, *partition);
                self.facts.commits.push(CommitFact {
                    view,
                    segment: self.facts.views[view as usize].segment,
                    position: *position,
                    epoch: None,
                    beyond: &[],
                    sent: index,
                    confirmed: index,
                });
                Step::Commit(next(&self.facts.commits) - 1)
            }
            Kind::SessionStart { .. } => self.session(index, process, kind),
            Kind::Seek { topic, group, partition, to } => {
                let view = self.view(topic, group, *partition);
                self.facts.views[view as usize].pending_seek = Some(*to);
                Step::Nothing
            }
            Kind::StartPosition { topic, group, partition, position }
            | Kind::LogReset { topic, group, partition, position } => {
                let view = self.view(topic, group, *partition);
                let epoch = self.segment_of(view).epoch;
                // What was purged before is not for a group that begins now.
                let purged = self.facts.parts[self.facts.views[view as usize].part as usize].purged;
                Step::Segment(self.open_segment(view, epoch, purged.max(*position)))
            }
            Kind::DataLost { topic, group, partition, from, to } => {
                let view = self.view(topic, group, *partition);
                let (from, told) = (*from, *to);
                let part = &self.facts.parts[self.facts.views[view as usize].part as usize];
                let to = if self.purged.contains(&**topic) { told.min(part.purged) } else { told };
                self.facts.views[view as usize].losses.push(Loss { from, to, told });
                Step::Loss(view)
            }
            _ => Step::Nothing,
        }
    }

    fn start(&mut self, index: u32, process: u32, start: &'h Start) -> Step {
        let view = self.view(&start.topic, &start.group, start.partition);
        let rec = if start.replayed {
            self.replayed_rec(&start.topic, &start.key, start.position)
        } else {
            self.rec(&start.topic, &start.key, start.number)
        };
        let member = self.tables.name(&mut self.facts, &start.member);
        let known = &mut self.facts.views[view as usize];
        known.reached = known.reached.max(start.position.saturating_add(1));
        if !known.first_starts.iter().rev().any(|e| e.0 == start.epoch) {
            known.first_starts.push((start.epoch, index));
        }
        let (group, part) = (known.group, known.part);
        let segment = self.segment_under(view, start.epoch);
        let era = self.facts.segments[segment as usize].era;
        let at = (part, start.position, era);
        let slot = store(&mut self.facts, &mut self.tables, at, rec, index);
        let check = self.check_of(index, process, start);
        let delivery = next(&self.facts.deliveries);
        self.facts.deliveries.push(Delivery {
            rec,
            stream: self.facts.recs[rec as usize].stream,
            view,
            group,
            slot,
            position: start.position,
            number: start.number,
            digest: start.digest,
            attempt: start.attempt,
            epoch: start.epoch,
            check,
            start: index,
            end: NONE,
            finished: false,
            session: self.session_of(view, member, start.epoch, check),
            segment,
            superseded: NONE,
        });
        if self.handlers.insert((process, start.call), delivery).is_some() {
            self.malformed(index, "a handler call starts twice");
        }
        Step::Start(delivery)
    }

    /// The index of the call's ownership check: its own record, or the last one that is not later than the check's
    /// time.
    fn check_of(&mut self, index: u32, process: u32, start: &Start) -> u32 {
        if let Some(check) = self.checks.remove(&(process, start.call)) {
            return check;
        }
        let Some(at) = start.checked else {
            return index;
        };
        let before = &self.facts.events[..index as usize];
        let place = before.partition_point(|event| event.at <= at);
        u32::try_from(place.saturating_sub(1)).unwrap_or(index)
    }

    /// The latest session of this member and epoch that had begun by the check.
    fn session_of(&self, view: u32, member: u32, epoch: u64, check: u32) -> u32 {
        let sessions = &self.facts.views[view as usize].sessions;
        let found = sessions.iter().rev().find(|&&session| {
            let session = &self.facts.sessions[session as usize];
            session.member == member && session.epoch == epoch && session.at <= check
        });
        found.copied().unwrap_or(NONE)
    }

    fn session(&mut self, index: u32, process: u32, kind: &'h Kind) -> Step {
        let Kind::SessionStart { topic, group, partition, member, epoch, cause, from } = kind else {
            return Step::Nothing;
        };
        let view = self.view(topic, group, *partition);
        let member = self.tables.name(&mut self.facts, member);
        // A session that is told late, by an owner that was superseded meanwhile, is over.
        let late = self.facts.views[view as usize]
            .sessions
            .iter()
            .any(|&session| self.facts.sessions[session as usize].epoch > *epoch);
        let known = &mut self.facts.views[view as usize];
        let target = match (known.pending_seek, from) {
            _ if late => None,
            // A seek that was stored takes effect with whatever session comes next.
            (Some(Some(to)), Some(from)) if to == *from => Some(to),
            (Some(to), from) if *cause == SessionCause::Seek => from.or(to),
            (None, from) if *cause == SessionCause::Seek => *from,
            _ => None,
        };
        if target.is_some() {
            known.pending_seek = None;
        }
        let opens = match target {
            Some(floor) => self.open_segment(view, *epoch, floor),
            None if *cause == SessionCause::Seek && !late => {
                self.malformed(index, "a seek's session does not say where it begins");
                NONE
            }
            None => NONE,
        };
        let known = &mut self.facts.views[view as usize];
        let floor = self.facts.segments[known.segment as usize].floor;
        if known.first_starts.is_empty() && known.reached <= floor {
            // Nothing was handed out or committed yet: the view begins with the log as it is now.
            let era = self.facts.parts[known.part as usize].era;
            self.facts.segments[known.segment as usize].era = era;
        }
        let session = next(&self.facts.sessions);
        known.sessions.push(session);
        self.facts.sessions.push(Session { view, process, member, epoch: *epoch, at: index, opens });
        Step::Session(session)
    }

    fn commit(&mut self, index: u32, process: u32, commit: &'h Commit, confirmed: bool) -> Step {
        let sent = self.commits.remove(&(process, commit.call));
        if let (Some(sent), true) = (sent, confirmed) {
            self.facts.commits[sent as usize].confirmed = index;
            return Step::Commit(sent);
        }
        let view = self.view(&commit.topic, &commit.group, commit.partition);
        // A committed position was reached, whether or not there was anything to hand out.
        let known = &mut self.facts.views[view as usize];
        known.reached = known.reached.max(commit.position);
        let fact = next(&self.facts.commits);
        self.facts.commits.push(CommitFact {
            view,
            segment: self.segment_under(view, commit.epoch),
            position: commit.position,
            epoch: Some(commit.epoch),
            beyond: &commit.beyond,
            sent: index,
            confirmed: if confirmed { index } else { NONE },
        });
        if !confirmed {
            self.commits.insert((process, commit.call), fact);
        }
        Step::Commit(fact)
    }

    fn open_segment(&mut self, view: u32, epoch: u64, floor: u64) -> u32 {
        let known = &mut self.facts.views[view as usize];
        let segment = next(&self.facts.segments);
        known.segment = segment;
        known.reached = floor;
        self.facts.segments.push(Segment { view, epoch, floor, era: self.facts.parts[known.part as usize].era });
        segment
    }

    fn segment_of(&self, view: u32) -> &Segment {
        &self.facts.segments[self.facts.views[view as usize].segment as usize]
    }

    /// The segment to which an act under an epoch belongs: not a later owner's.
    fn segment_under(&self, view: u32, epoch: u64) -> u32 {
        let known = &self.facts.views[view as usize];
        let last = known.segment;
        if self.facts.segments[last as usize].epoch <= epoch {
            return last;
        }
        let segments = (known.first_segment..last).rev();
        segments
            .filter(|&segment| self.facts.segments[segment as usize].view == view)
            .find(|&segment| self.facts.segments[segment as usize].epoch <= epoch)
            .unwrap_or(last)
    }

    /// Begins a new era of a topic's logs, in which only positions below `end` are kept.
    fn replace_logs(&mut self, at: u32, topic: u32, partition: Option<u32>, end: u64) {
        // Records fetched from the old log may still be handled before the group notices.
        let noticed = self.resets_after(at, topic);
        let facts = &mut self.facts;
        for (index, part) in (0_u32..).zip(&mut facts.parts) {
            if part.topic != topic || partition.is_some_and(|p| p != part.partition) {
                continue;
            }
            part.era += 1;
            part.ends.push(end);
            part.purged = part.purged.min(end);
            for &slot in &part.slots {
                let slot = &mut facts.slots[slot as usize];
                if slot.position >= end {
                    slot.gone = slot.gone.min(part.era);
                }
            }
            // A group that had not come so far need not notice.
            let number = part.partition;
            let groups = &facts.groups;
            let unaware = |view: &&mut View| {
                let name = facts.names[groups[view.group as usize].name as usize];
                view.part == index && view.reached <= end && !noticed.contains(&(name, number))
            };
            for view in facts.views.iter_mut().filter(unaware) {
                facts.segments[view.segment as usize].era = part.era;
            }
        }
    }

    /// The groups and partitions of a topic that report a reset later on.
    fn resets_after(&self, at: u32, topic: u32) -> BTreeSet<(&'h str, u32)> {
        let name = self.facts.names[topic as usize];
        let later = self.facts.events[at as usize..].iter().map(|event| &event.kind);
        later
            .filter_map(|kind| match kind {
                Kind::LogReset { topic, group, partition, .. } if &**topic == name => Some((&**group, *partition)),
                _ => None,
            })
            .collect()
    }

    fn finish(mut self) -> HistoryFacts<'h> {
        let facts = &mut self.facts;
        for index in 0..facts.finishes.len() {
            let finish = &facts.finishes[index];
            let part = facts.views[finish.view as usize].part;
            let slot = self.tables.slot(facts, part, finish.position, finish.era);
            facts.finishes[index].slot = slot.unwrap_or(NONE);
        }
        mark_superseded(facts);
        find_originals(facts, &self.tables);
        lay_out_lines(facts);
        self.facts
    }

    fn malformed(&mut self, index: u32, what: &'static str) -> Step {
        self.facts.malformed.push((index, what));
        Step::Nothing
    }

    fn part(&mut self, topic: &'h str, partition: u32) -> u32 {
        let topic = self.tables.name(&mut self.facts, topic);
        self.tables.part(&mut self.facts, topic, partition)
    }

    fn group(&mut self, topic: &'h str, group: &'h str) -> u32 {
        let topic = self.tables.name(&mut self.facts, topic);
        let group = self.tables.name(&mut self.facts, group);
        self.tables.group(&mut self.facts, topic, group)
    }

    fn view(&mut self, topic: &'h str, group: &'h str, partition: u32) -> u32 {
        let part = self.part(topic, partition);
        let group = self.group(topic, group);
        self.tables.view(&mut self.facts, group, part)
    }

    fn rec(&mut self, topic: &'h str, key: &'h crate::history::Key, number: u64) -> u32 {
        let topic = self.tables.name(&mut self.facts, topic);
        let stream = self.tables.stream(&mut self.facts, topic, key, false);
        self.tables.rec(&mut self.facts, stream, number)
    }

    fn replayed_rec(&mut self, topic: &'h str, key: &'h crate::history::Key, at: u64) -> u32 {
        let topic = self.tables.name(&mut self.facts, topic);
        let stream = self.tables.stream(&mut self.facts, topic, key, true);
        self.tables.rec(&mut self.facts, stream, at)
    }
}
