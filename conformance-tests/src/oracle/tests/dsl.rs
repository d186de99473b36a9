//! A few words to write histories with. Topic, group and partition are fixed unless named;
//! position and number are given as a pair where a key's numbers are not its positions.

use crate::history::{Commit, EndOutcome, Event, FinishedBy, History, Key, Kind, PublishOutcome, SessionCause, Start};
use crate::oracle::{Expectations, Oracle, Rule, Verdict};

/// The digest that envelope `number` of `key` is given.
pub(super) fn bytes_of(key: &str, number: u64) -> u64 {
    crate::history::digest(format!("{key}/{number}").as_bytes())
}

/// A history under construction; time is the record's index.
#[derive(Clone, Default)]
pub(super) struct Tape {
    pub(super) events: Vec<Event>,
    calls: u64,
    pub(super) expect: Option<Expectations>,
    /// The member that handles.
    member: &'static str,
    process: u32,
    pub(super) epoch: u64,
    pub(super) partition: u32,
    pub(super) group: &'static str,
    pub(super) replayed: bool,
}

pub(super) fn tape() -> Tape {
    Tape { member: "m1", epoch: 1, group: "g", ..Tape::default() }
}

impl Tape {
    pub(super) fn add(mut self, kind: Kind) -> Self {
        let at = self.events.len() as u64;
        let process = self.process;
        self.events.push(Event { at, process, kind });
        self
    }

    pub(super) fn expect(mut self, expect: Expectations) -> Self {
        self.expect = Some(expect);
        self
    }

    /// Sets the member, its process and its epoch for all that follows.
    pub(super) fn by(mut self, member: &'static str, process: u32, epoch: u64) -> Self {
        (self.member, self.process, self.epoch) = (member, process, epoch);
        self
    }

    pub(super) fn in_partition(mut self, partition: u32) -> Self {
        self.partition = partition;
        self
    }

    pub(super) fn in_group(mut self, group: &'static str) -> Self {
        self.group = group;
        self
    }

    pub(super) fn replays(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }

    /// The number of a publish call, apart from those of handler calls: the key's first byte and the number.
    fn publish_call(key: &str, number: u64) -> u64 {
        u64::from(key.as_bytes().first().copied().unwrap_or_default()) << 32 | number
    }

    pub(super) fn offer(self, key: &str, number: u64) -> Self {
        self.add(Kind::Offered {
            call: Self::publish_call(key, number),
            bus: 0,
            topic: "t".into(),
            key: key.into(),
            number,
            id: "i".into(),
            digest: bytes_of(key, number),
        })
    }

    pub(super) fn outcome(self, key: &str, number: u64, outcome: PublishOutcome) -> Self {
        let call = Self::publish_call(key, number);
        self.add(Kind::Published { call, outcome })
    }

    pub(super) fn confirm(self, key: &str, number: u64, position: u64) -> Self {
        let partition = self.partition;
        let position = Some(position);
        let duplicate = false;
        self.outcome(key, number, PublishOutcome::Confirmed { partition, position, duplicate })
    }

    pub(super) fn refuse(self, key: &str, number: u64, root: Option<u64>) -> Self {
        let class = "refused".into();
        self.outcome(key, number, PublishOutcome::Refused { class, root })
    }

    pub(super) fn sealed(self, key: &str, number: u64) -> Self {
        let call = Self::publish_call(key, number);
        self.add(Kind::Sealed { call })
    }

    pub(super) fn returned(self, key: &str, number: u64) -> Self {
        let call = Self::publish_call(key, number);
        self.add(Kind::Returned { call })
    }

    /// Offers and confirms numbers `1..=count` of the key, from this position on.
    pub(super) fn stored(mut self, key: &str, count: u64, first: u64) -> Self {
        for number in 1..=count {
            let position = first + number - 1;
            self = self.offer(key, number).confirm(key, number, position);
        }
        self
    }

    pub(super) fn log(self, key: &str, number: u64, position: u64) -> Self {
        let (partition, replayed) = (self.partition, self.replayed);
        self.add(Kind::LogRecord {
            topic: "t".into(),
            partition,
            position,
            key: key.into(),
            number,
            digest: bytes_of(key, number),
            replayed,
        })
    }

    pub(super) fn session(self, cause: SessionCause, from: Option<u64>) -> Self {
        let (partition, member, epoch) = (self.partition, self.member.into(), self.epoch);
        let group = self.group.into();
        self.add(Kind::SessionStart { topic: "t".into(), group, partition, member, epoch, cause, from })
    }

    pub(super) fn assigned(self) -> Self {
        self.session(SessionCause::Assigned, None)
    }

    /// The record of a start, with the newest call number.
    fn start_record(&self, key: &str, number: u64, position: u64, attempt: u32) -> Start {
        Start {
            call: self.calls,
            topic: "t".into(),
            group: self.group.into(),
            key: Key::from(key),
            number,
            digest: bytes_of(key, number),
            attempt,
            member: self.member.into(),
            epoch: self.epoch,
            partition: self.partition,
            position,
            replayed: self.replayed,
            checked: None,
        }
    }

    /// Starts a call; it is ended with `end(call)`, calls being numbered 1, 2, 3 … on the tape.
    pub(super) fn start(mut self, key: &str, number: u64, position: u64) -> Self {
        self.calls += 1;
        let start = self.start_record(key, number, position, 1);
        self.add(Kind::Start(start))
    }

    /// Records the check of the next call to start.
    pub(super) fn check(self) -> Self {
        let call = self.calls + 1;
        self.add(Kind::StartChecked { call })
    }

    /// Starts a call of which only the time of its check is known: that of the record with this index.
    pub(super) fn start_checked_at(mut self, record: usize, key: &str, number: u64, position: u64) -> Self {
        self.calls += 1;
        let checked = self.events.get(record).map(|event| event.at);
        let start = self.start_record(key, number, position, 1);
        self.add(Kind::Start(Start { checked, ..start }))
    }

    /// Starts a call whose check is recorded elsewhere on the tape.
    pub(super) fn start_as(self, call: u64, key: &str, number: u64, position: u64) -> Self {
        let start = self.start_record(key, number, position, 1);
        self.add(Kind::Start(Start { call, ..start }))
    }

    pub(super) fn end(self, call: u64, outcome: EndOutcome) -> Self {
        self.add(Kind::End { call, outcome })
    }

    pub(super) fn attempt(mut self, key: &str, number: u64, position: u64, attempt: u32, outcome: EndOutcome) -> Self {
        self.calls += 1;
        let (call, start) = (self.calls, self.start_record(key, number, position, attempt));
        self.add(Kind::Start(start)).end(call, outcome)
    }

    /// Handles numbers with success, one after another; position is `first + number - 1`.
    pub(super) fn handle(mut self, key: &str, numbers: impl IntoIterator<Item = u64>, first: u64) -> Self {
        for number in numbers {
            self = self.attempt(key, number, first + number - 1, 1, EndOutcome::Ok);
        }
        self
    }

    pub(super) fn finished(self, position: u64, by: FinishedBy) -> Self {
        let (partition, group) = (self.partition, self.group.into());
        let topic = "t".into();
        self.add(Kind::Finished { topic, group, partition, position, by })
    }

    fn commit_record(&self, position: u64, beyond: &[(u64, u64)]) -> Commit {
        Commit {
            call: position,
            topic: "t".into(),
            group: self.group.into(),
            partition: self.partition,
            position,
            epoch: self.epoch,
            member: self.member.into(),
            beyond: beyond.to_vec(),
        }
    }

    pub(super) fn commit(self, position: u64, beyond: &[(u64, u64)]) -> Self {
        let commit = self.commit_record(position, beyond);
        self.add(Kind::CommitConfirmed(commit))
    }

    pub(super) fn commit_sent(self, position: u64) -> Self {
        let commit = self.commit_record(position, &[]);
        self.add(Kind::CommitSent(commit))
    }

    pub(super) fn kill(self, victim: u32) -> Self {
        self.add(Kind::ProcessKilled { victim })
    }

    pub(super) fn seek(self, to: u64) -> Self {
        let (partition, group) = (self.partition, self.group.into());
        let topic = "t".into();
        self.add(Kind::Seek { topic, group, partition, to: Some(to) })
    }

    pub(super) fn lost(self, from: u64, to: u64) -> Self {
        let (partition, group) = (self.partition, self.group.into());
        let topic = "t".into();
        self.add(Kind::DataLost { topic, group, partition, from, to })
    }

    pub(super) fn purge(self, first: u64) -> Self {
        let partition = self.partition;
        self.add(Kind::Purged { topic: "t".into(), partition, first })
    }

    pub(super) fn judge(&self) -> Verdict {
        let expect = self.expect.clone().unwrap_or(Expectations::new(2));
        Oracle::judge(&History::new(self.events.clone()), &expect)
    }

    #[track_caller]
    pub(super) fn passes(self) {
        let verdict = self.judge();
        assert!(verdict.is_legal(), "should be legal:\n{verdict}");
    }

    #[track_caller]
    pub(super) fn refutes(self, rule: Rule) {
        self.refutes_all(&[rule]);
    }

    #[track_caller]
    pub(super) fn refutes_all(self, rules: &[Rule]) {
        let verdict = self.judge();
        assert_eq!(verdict.rules(), rules, "should refute {rules:?} alone:\n{verdict}");
    }
}
