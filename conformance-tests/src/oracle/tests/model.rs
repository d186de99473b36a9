//! A perfect bus, small enough to be right: whatever it does, the judge must find legal.
//!
//! Publishes of a key are stored in call order; members handle one record of a key at a time,
//! commit what is finished, are killed, are superseded while they run, seek. Everything is drawn
//! from one seed.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::dsl::bytes_of;
use crate::history::{Commit, EndOutcome, Event, FinishedBy, History, Kind, PublishOutcome, SessionCause, Start};
use crate::oracle::Expectations;

const PARTITIONS: usize = 2;
const KEYS: usize = 5;
const CONCURRENCY: usize = 3;

/// The expectations of a valid run of the model.
pub(super) fn expectations() -> Expectations {
    Expectations::new(2 * CONCURRENCY as u32).quiet().log_read().strict_sessions(0).group("t", "g")
}

/// Runs so many steps, and then to a quiet end.
pub(super) fn run(seed: u64, steps: usize) -> History {
    let mut model = Model {
        rng: ChaCha8Rng::seed_from_u64(seed),
        events: Vec::new(),
        calls: 0,
        published: [0; KEYS],
        logs: Default::default(),
        owners: Default::default(),
        left_behind: Vec::new(),
        processes: 0,
    };
    for partition in 0..PARTITIONS {
        model.assign(partition, SessionCause::Assigned, None);
    }
    for _ in 0..steps {
        model.step();
    }
    model.drain();
    History::new(model.events)
}

/// One owner of one partition.
#[derive(Default)]
struct Owner {
    process: u32,
    epoch: u64,
    watermark: u64,
    finished: BTreeSet<u64>,
    /// Position to call and attempt.
    running: BTreeMap<u64, (u64, u32)>,
    /// Attempts that failed, of records that are not finished.
    attempts: BTreeMap<u64, u32>,
    committed: u64,
    beyond: Vec<(u64, u64)>,
}

struct Model {
    rng: ChaCha8Rng,
    events: Vec<Event>,
    calls: u64,
    published: [u64; KEYS],
    logs: [Vec<(usize, u64)>; PARTITIONS],
    owners: [Owner; PARTITIONS],
    /// Calls of superseded owners that still run, with their process.
    left_behind: Vec<(u32, u64)>,
    processes: u32,
}

impl Model {
    fn step(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        match self.rng.random_range(0..100) {
            0..30 => self.publish(),
            30..60 => self.start(partition),
            60..85 => self.end(partition, true),
            85..91 => self.commit(partition),
            91..94 => self.crash(partition),
            94..96 => self.supersede(partition),
            96..97 => self.seek(partition),
            _ => self.end_left_behind(),
        }
    }

    fn record(&mut self, process: u32, kind: Kind) {
        let at = self.events.len() as u64;
        self.events.push(Event { at, process, kind });
    }

    fn publish(&mut self) {
        let key = self.rng.random_range(0..KEYS);
        self.published[key] += 1;
        let (number, name) = (self.published[key], key_name(key));
        let call = (key as u64) << 32 | number;
        let offered = Kind::Offered {
            call,
            bus: 0,
            topic: "t".into(),
            key: name.as_str().into(),
            number,
            id: "i".into(),
            digest: bytes_of(&name, number),
        };
        self.record(0, offered);
        let log = &mut self.logs[key % PARTITIONS];
        let position = log.len() as u64;
        let fate = self.rng.random_range(0..10);
        if fate != 0 && fate != 1 {
            log.push((key, number));
        }
        let outcome = match fate {
            0 => PublishOutcome::Refused { class: "refused".into(), root: None },
            1 | 2 => PublishOutcome::Unknown,
            _ => PublishOutcome::Confirmed {
                partition: (key % PARTITIONS) as u32,
                position: Some(position),
                duplicate: false,
            },
        };
        self.record(0, Kind::Published { call, outcome });
        self.record(0, Kind::Returned { call });
    }

    /// Starts the lowest unfinished record of a key that does not run.
    fn start(&mut self, partition: usize) {
        let (owner, log) = (&self.owners[partition], &self.logs[partition]);
        if owner.running.len() >= CONCURRENCY {
            return;
        }
        let mut seen = BTreeSet::new();
        let open = (owner.watermark..log.len() as u64).filter(|p| !owner.finished.contains(p));
        let heads: Vec<u64> =
            open.filter(|&p| seen.insert(log[p as usize].0)).filter(|p| !owner.running.contains_key(p)).collect();
        if heads.is_empty() {
            return;
        }
        let position = heads[self.rng.random_range(0..heads.len())];
        self.calls += 1;
        let call = self.calls;
        let owner = &mut self.owners[partition];
        let attempt = owner.attempts.get(&position).copied().unwrap_or_default() + 1;
        owner.running.insert(position, (call, attempt));
        let (key, number) = log[position as usize];
        let start = Start {
            call,
            topic: "t".into(),
            group: "g".into(),
            key: key_name(key).as_str().into(),
            number,
            digest: bytes_of(&key_name(key), number),
            attempt,
            member: format!("m{}", owner.process).into(),
            epoch: owner.epoch,
            partition: partition as u32,
            position,
            replayed: false,
            checked: None,
        };
        let process = owner.process;
        self.record(process, Kind::StartChecked { call });
        self.record(process, Kind::Start(start));
    }

    fn end(&mut self, partition: usize, may_fail: bool) {
        let owner = &mut self.owners[partition];
        let count = owner.running.len();
        if count == 0 {
            return;
        }
        let nth = self.rng.random_range(0..count);
        let Some((&position, &(call, attempt))) = owner.running.iter().nth(nth) else {
            return;
        };
        owner.running.remove(&position);
        let process = owner.process;
        let fails = may_fail && self.rng.random_range(0..4) == 0;
        let outcome = if fails { EndOutcome::Failed } else { EndOutcome::Ok };
        if fails && attempt < 3 {
            owner.attempts.insert(position, attempt);
        } else {
            owner.finish(position);
        }
        self.record(process, Kind::End { call, outcome });
        if fails && attempt >= 3 {
            let finished = Kind::Finished {
                topic: "t".into(),
                group: "g".into(),
                partition: partition as u32,
                position,
                by: FinishedBy::DeadLettered,
            };
            self.record(process, finished);
        }
    }

    fn commit(&mut self, partition: usize) {
        let call = self.calls + 1_000_000;
        self.calls += 1;
        let owner = &mut self.owners[partition];
        owner.committed = owner.watermark;
        owner.beyond = owner.finished.iter().map(|&p| (p, p + 1)).collect();
        // Cut, as a small note has to be: complete up to a horizon.
        owner.beyond.truncate(4);
        let commit = Commit {
            call,
            topic: "t".into(),
            group: "g".into(),
            partition: partition as u32,
            position: owner.committed,
            epoch: owner.epoch,
            member: format!("m{}", owner.process).into(),
            beyond: owner.beyond.clone(),
        };
        let process = owner.process;
        self.record(process, Kind::CommitSent(commit.clone()));
        self.record(process, Kind::CommitConfirmed(commit));
    }

    /// Kills the owner's process; its successor goes on from the committed progress.
    fn crash(&mut self, partition: usize) {
        let victim = self.owners[partition].process;
        self.record(0, Kind::ProcessKilled { victim });
        self.left_behind.retain(|&(process, _)| process != victim);
        self.owners[partition].running.clear();
        self.assign(partition, SessionCause::Assigned, None);
    }

    /// Takes the partition from its owner, which does not know: its handlers run on.
    fn supersede(&mut self, partition: usize) {
        let cut = Kind::Fault { name: "cut".into(), lasting: false };
        self.record(0, cut);
        let owner = &mut self.owners[partition];
        let process = owner.process;
        let running = std::mem::take(&mut owner.running);
        self.left_behind.extend(running.values().map(|&(call, _)| (process, call)));
        self.assign(partition, SessionCause::Assigned, None);
    }

    fn end_left_behind(&mut self) {
        if !self.left_behind.is_empty() {
            let nth = self.rng.random_range(0..self.left_behind.len());
            let (process, call) = self.left_behind.swap_remove(nth);
            let outcome = EndOutcome::Abandoned;
            self.record(process, Kind::End { call, outcome });
        }
    }

    fn seek(&mut self, partition: usize) {
        let to = self.rng.random_range(0..=self.owners[partition].watermark);
        let seek = Kind::Seek { topic: "t".into(), group: "g".into(), partition: partition as u32, to: Some(to) };
        self.record(0, seek);
        while !self.owners[partition].running.is_empty() {
            self.end(partition, false);
        }
        self.assign(partition, SessionCause::Seek, Some(to));
    }

    fn assign(&mut self, partition: usize, cause: SessionCause, from: Option<u64>) {
        self.processes += 1;
        let process = self.processes;
        let owner = &mut self.owners[partition];
        if let Some(to) = from {
            (owner.committed, owner.beyond) = (to, Vec::new());
        }
        *owner = Owner {
            process,
            epoch: owner.epoch + 1,
            watermark: owner.committed,
            finished: owner.beyond.iter().map(|run| run.0).collect(),
            committed: owner.committed,
            beyond: std::mem::take(&mut owner.beyond),
            ..Owner::default()
        };
        let session = Kind::SessionStart {
            topic: "t".into(),
            group: "g".into(),
            partition: partition as u32,
            member: format!("m{process}").into(),
            epoch: owner.epoch,
            cause,
            from,
        };
        self.record(process, session);
    }

    fn drain(&mut self) {
        for partition in 0..PARTITIONS {
            while self.owners[partition].watermark < self.logs[partition].len() as u64 {
                self.start(partition);
                self.end(partition, false);
            }
            self.commit(partition);
            let read = Kind::CommittedRead {
                topic: "t".into(),
                group: "g".into(),
                partition: partition as u32,
                position: self.owners[partition].committed,
            };
            self.record(0, read);
            for (position, (key, number)) in (0..).zip(self.logs[partition].clone()) {
                let record = Kind::LogRecord {
                    topic: "t".into(),
                    partition: partition as u32,
                    position,
                    key: key_name(key).as_str().into(),
                    number,
                    digest: bytes_of(&key_name(key), number),
                    replayed: false,
                };
                self.record(0, record);
            }
        }
    }
}

impl Owner {
    fn finish(&mut self, position: u64) {
        self.attempts.remove(&position);
        self.finished.insert(position);
        while self.finished.remove(&self.watermark) {
            self.watermark += 1;
        }
    }
}

fn key_name(key: usize) -> String {
    format!("key-{key}")
}
