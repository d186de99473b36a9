//! A pool, workers that are moved by hand, and a session that looks whenever it is notified.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::backend::{Body, Inbound, Lease};
use crate::model::{Envelope, Key, Position};
use crate::mutant::Seam;
use crate::subscribe::handler::DeliveryContext;
use crate::subscribe::pool::job::{Attempt, AttemptResult, DeadJob, NextAttempt, RecordBox};
use crate::subscribe::pool::partition::Opening;
use crate::subscribe::pool::{OutageChange, Pool};
use crate::subscribe::progress::finished::FinishedSet;
use crate::subscribe::progress::note::Trying;

pub(super) const PARTITIONS: usize = 3;

pub(super) struct Rig {
    pub(super) pool: Pool,
    pub(super) now: Instant,
    pub(super) leases: [Lease; PARTITIONS],
    pub(super) running: Vec<Option<Attempt>>,
    /// Dead letters that the session has taken, not yet confirmed.
    pub(super) letters: Vec<DeadJob>,
    /// Envelopes whose notes are being written.
    pub(super) turns: Vec<(u32, Trying)>,
    /// Beginnings and ends of outages that the session was told.
    pub(super) outages: Vec<OutageChange>,
    epochs: u64,
}

thread_local! {
    static ENVELOPE: Envelope = Envelope::builder("Tested", "/pool").build().expect("a valid envelope");
}

pub(super) fn record(partition: u32, position: u64, key: Option<&str>) -> Inbound {
    let body = Body::Envelope(ENVELOPE.with(Envelope::clone));
    let mut record = Inbound::new(partition, Position::new(position), 0, body);
    record.key = key.map(|key| Key::try_from(key).expect("a valid key"));
    record.bytes = 10;
    record
}

pub(super) fn opening(partition: u32, epoch: u64, lease: &Lease, suspect_until: Option<u64>) -> Opening {
    let context = DeliveryContext {
        topic: "tested".parse().expect("a valid topic"),
        group: "group".parse().expect("a valid group"),
        member: "member".into(),
        partition,
        epoch,
        incarnation: "one".into(),
    };
    Opening {
        context: Arc::new(context),
        lease: lease.clone(),
        watermark: Position::new(1),
        finished: FinishedSet::from_runs([]),
        budget_bytes: 1 << 20,
        suspect_until: suspect_until.map(Position::new),
        tried: None,
        dedup_by_id: false,
        seam: Seam::default(),
    }
}

pub(super) fn letter(job: &Attempt) -> DeadJob {
    let (lane, record, context) = (job.lane, RecordBox(Box::new(Some(job.record.clone()))), job.context.clone());
    DeadJob { lane, record, attempts: job.attempt, error: "refuted".into(), context }
}

impl Rig {
    pub(super) fn new(concurrency: usize) -> Self {
        Self::with_window(concurrency, 1_000_000)
    }

    pub(super) fn with_window(concurrency: usize, window: usize) -> Self {
        let rig = Self {
            pool: Pool::new(concurrency, window, 2, Seam::default()),
            now: Instant::now(),
            leases: std::array::from_fn(|_| Lease::unlimited()),
            running: (0..8).map(|_| None).collect(),
            letters: Vec::new(),
            turns: Vec::new(),
            outages: Vec::new(),
            epochs: 0,
        };
        rig.pool.set_concurrency(8);
        rig.pool.set_concurrency(concurrency);
        rig
    }

    /// Makes a rig whose pool is suspended when the heads of so many keys failed.
    pub(super) fn guarded(concurrency: usize, keys: usize) -> Self {
        let mut rig = Self::new(concurrency);
        rig.pool = rig.pool.with_outage_guard(keys);
        rig
    }

    pub(super) fn open(&mut self, partition: u32) {
        self.open_with(partition, None);
    }

    pub(super) fn open_suspect(&mut self, partition: u32, until: u64) {
        self.open_with(partition, Some(until));
    }

    pub(super) fn open_with(&mut self, partition: u32, suspect_until: Option<u64>) {
        self.epochs += 1;
        let opening = opening(partition, self.epochs, &self.leases[partition as usize], suspect_until);
        self.pool.open(opening);
    }

    /// Offers a batch, then looks, as the session does. Returns the partitions whose intake must pause.
    pub(super) fn offer(&mut self, partition: u32, records: &[(u64, &str)]) -> Vec<u32> {
        let records = records.iter().map(|(position, key)| record(partition, *position, Some(key))).collect();
        let offered = self.pool.offer(records, self.now);
        self.look();
        offered.pause
    }

    pub(super) fn offer_one(&mut self, partition: u32, position: u64, key: Option<&str>) {
        self.pool.offer(vec![record(partition, position, key)], self.now);
        self.look();
    }

    /// Returns whether the session was notified.
    pub(super) fn told(&self) -> bool {
        self.pool.session.notified().now_or_never().is_some()
    }

    /// Looks at the pool's duties, as the session does.
    pub(super) fn look(&mut self) {
        let duties = self.pool.duties(self.now);
        self.letters.extend(duties.dead);
        self.turns.extend(duties.turns);
        self.outages.extend(duties.outage);
    }

    /// Grants the turns whose notes were being written.
    pub(super) fn grant(&mut self) {
        for (partition, trying) in std::mem::take(&mut self.turns) {
            self.pool.grant(partition, trying);
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.look();
    }

    /// Takes work for an idle worker. Returns its position.
    pub(super) fn take(&mut self, worker: usize) -> Option<u64> {
        assert!(self.running[worker].is_none(), "it is at work");
        let position = match self.pool.next(worker, None, self.now) {
            NextAttempt::Run(job) => {
                let position = job.record.position.get();
                self.running[worker] = Some(job);
                Some(position)
            }
            NextAttempt::Idle | NextAttempt::Exit => None,
        };
        if self.told() {
            self.look();
        }
        position
    }

    pub(super) fn job(&self, worker: usize) -> &Attempt {
        self.running[worker].as_ref().expect("it is at work")
    }

    /// Ends a worker's attempt without taking work or looking.
    pub(super) fn end(&mut self, worker: usize, outcome: impl FnOnce(Attempt) -> AttemptResult) {
        let job = self.running[worker].take().expect("it is at work");
        let lane = job.lane;
        // The attempt ends while no handler may start, so that ending and taking are two steps of a test.
        let paused = std::mem::replace(&mut self.pool.state.lock().paused, true);
        let next = self.pool.next(worker, Some((lane, outcome(job))), self.now);
        assert!(!matches!(next, NextAttempt::Run(_)));
        self.pool.state.lock().paused = paused;
    }

    fn end_and_look(&mut self, worker: usize, outcome: impl FnOnce(Attempt) -> AttemptResult) {
        self.end(worker, outcome);
        if self.told() {
            self.look();
        }
    }

    pub(super) fn finish(&mut self, worker: usize) {
        self.end_and_look(worker, Attempt::finished);
    }

    pub(super) fn retry(&mut self, worker: usize, wait: Duration) {
        let at = self.now + wait;
        self.end_and_look(worker, |job| AttemptResult::Retry(at, job.record));
    }

    pub(super) fn dead_letter(&mut self, worker: usize) {
        self.end_and_look(worker, |job| AttemptResult::DeadLetter(Box::new(letter(&job))));
    }

    pub(super) fn abandon(&mut self, worker: usize) {
        self.end_and_look(worker, |_| AttemptResult::Abandoned);
    }

    pub(super) fn watermark(&self, partition: u32) -> Position {
        self.pool.progress_of(partition).expect("it is owned").next
    }

    pub(super) fn finished_beyond(&self, partition: u32) -> Vec<(u64, u64)> {
        let progress = self.pool.progress_of(partition).expect("it is owned");
        progress.finished.runs().map(|run| (run.first.get(), run.last.get())).collect()
    }

    pub(super) fn assert_empty(&self) {
        let state = self.pool.state.lock();
        assert_eq!(state.running, 0, "running");
        assert!(state.lanes.is_empty(), "lanes: {:?}", state.lanes);
        assert!(state.items.is_empty(), "items");
        assert!(state.index.is_empty(), "index");
        assert!(state.ready.is_empty(), "ready");
        assert!(state.timers.is_empty(), "timers");
        assert!(state.dead.is_empty(), "dead letters");
        assert!(state.orphans.is_empty(), "orphans");
        assert!(state.partitions.values().all(|owned| owned.held.is_empty() && owned.bytes == 0), "held, bytes");
    }
}
