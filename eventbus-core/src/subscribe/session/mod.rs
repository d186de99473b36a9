//! The session: one future per subscription, on the bus's own thread, between the backend's membership and the pool.
//!
//! It takes events, offers records, commits, writes dead letters and moves partitions between owners.
//!
//! **Invariant.** One job at a time per partition: opening, committing, reading again, seeking and handing back are
//! jobs in one queue per partition ([`OwnedPartition`]), and the next starts when the last has ended. So two commits of
//! a partition never overtake each other, and the final commit is the last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{AbortHandle, BoxFuture, abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::defects;
use super::options::StartFrom;
use super::pool::PartitionProgress;
use super::progress::note::Trying;
use crate::backend::{Assignment, GroupEvent, Inbound, Lease};
use crate::model::{Error, ErrorKind, Position, Result};
use crate::mutant::Mutant;
use crate::observe::{BusEvent, OwnershipChange};

mod claim;
mod closing;
mod context;
mod hand_back;
mod jobs;
mod resume;

pub(super) use context::DrainReport;
use context::{Claimed, Closing, Ended};
pub(crate) use context::{CloseBy, SessionContext};
pub(crate) use hand_back::HAND_BACK_GRACE;
use jobs::{JobResult, LogRead, SessionJob};

/// Commands from a subscription's handle to its session.
#[derive(Debug)]
pub(crate) enum SessionCommand {
    /// Close within this time.
    Close(Duration, oneshot::Sender<DrainReport>),
    /// Go on from another place.
    Seek(StartFrom, oneshot::Sender<Result<()>>),
}

struct OwnedPartition {
    lease: Lease,
    claimed: Option<Claimed>,
    /// Whether progress was committed since the claim: then the next start is no unclean one.
    progressed: bool,
    busy: bool,
    queue: VecDeque<SessionJob>,
    /// The number of this ownership, which tells its jobs from those of an earlier one.
    generation: u64,
    job: UnderWay,
    wanted_back: Arc<Notify>,
    /// The position below which losses were told.
    lost_below: Position,
}

/// The job of an ownership that is under way. A job must not outlive its ownership: its claim, read or opening would be
/// taken for one of the next ownership, which the same member may have by then.
#[derive(Default)]
struct UnderWay(Option<AbortHandle>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(job) = self.0.take() {
            job.abort();
        }
    }
}

pub(crate) struct Session {
    shared: Arc<SessionContext>,
    commands: mpsc::Receiver<SessionCommand>,
    owned: BTreeMap<u32, OwnedPartition>,
    jobs: FuturesUnordered<BoxFuture<'static, JobResult>>,
    generations: u64,
    next_commit: Instant,
    closing: Option<Closing>,
    /// Whether a handle is left that could send commands.
    handled: bool,
    /// Whether the membership has more events. One that is over answers at each call, and the session would hear
    /// nothing else.
    member: bool,
}

impl Session {
    pub(crate) fn new(shared: Arc<SessionContext>, commands: mpsc::Receiver<SessionCommand>) -> Self {
        let next_commit = Instant::now() + shared.settings.commit_interval;
        Self {
            shared,
            commands,
            owned: BTreeMap::new(),
            jobs: FuturesUnordered::new(),
            generations: 0,
            next_commit,
            closing: None,
            handled: true,
            member: true,
        }
    }

    /// Runs until the session is closed or must stop; then leaves the group.
    pub(crate) async fn run(mut self) -> Ended {
        loop {
            let timer = self.duties();
            if self.is_over() {
                break;
            }
            let wake = timer.map_or(self.next_commit, |timer| timer.min(self.next_commit));
            let step = tokio::select! {
                biased;
                command = self.commands.recv(), if self.handled => self.command(command),
                Some(done) = self.jobs.next() => self.done(done),
                event = self.shared.membership.next(), if self.member => match event {
                    Ok(event) => self.event(event),
                    Err(error) => self.membership_over(error),
                },
                () = self.shared.workers.pool.session.notified() => Ok(()),
                () = sleep_until(wake) => Ok(()),
            };
            if let Err(error) = step {
                self.stop(Some(error));
            }
        }
        self.leave().await
    }

    /// Looks at the pool and the clock, and starts every job that is due. Returns when the next retry is due.
    fn duties(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let pool = self.shared.workers.pool.clone();
        let duties = pool.duties(now);
        for job in duties.dead {
            self.jobs.push(jobs::dead_letter_job(self.shared.clone(), job));
        }
        for (partition, trying) in duties.turns {
            self.enqueue(partition, SessionJob::Turn(trying));
        }
        for partition in duties.resume {
            self.shared.membership.resume(partition);
        }
        if let Some(change) = duties.outage {
            self.shared.report_outage(change);
        }
        if duties.commit || now >= self.next_commit {
            self.commit_all();
            self.next_commit = now + self.shared.settings.commit_interval;
            self.shared.report_stalls(now);
        }
        let stop = self.shared.workers.stop.lock().take();
        if let Some(error) = stop {
            self.stop(Some(error));
        }
        duties.timer
    }

    fn commit_all(&mut self) {
        let progress = self.shared.workers.pool.progress(false);
        for progress in progress {
            let idle = self.owned.get(&progress.partition).is_some_and(|stage| !stage.busy);
            if idle {
                self.enqueue(progress.partition, SessionJob::Commit(Box::new(progress)));
            }
        }
    }

    fn command(&mut self, command: Option<SessionCommand>) -> Result<()> {
        match command {
            Some(SessionCommand::Close(within, reply)) => {
                self.close(Instant::now() + within, None);
                if let Some(closing) = &mut self.closing {
                    closing.replies.push(reply);
                }
            }
            Some(SessionCommand::Seek(to, reply)) => self.seek(&to, reply),
            // Every handle is gone: the same as closing at once.
            None => {
                self.handled = false;
                self.close(Instant::now(), None);
            }
        }
        Ok(())
    }

    /// Ends the membership: its partitions are lost.
    fn membership_over(&mut self, error: Error) -> Result<()> {
        self.member = false;
        let partitions: Vec<u32> = self.owned.keys().copied().collect();
        partitions.into_iter().for_each(|partition| self.forget(partition));
        Err(error)
    }

    fn seek(&mut self, to: &StartFrom, reply: oneshot::Sender<Result<()>>) {
        let waiting = jobs::SeekReply::new(self.owned.len(), reply);
        let logs = Arc::new(tokio::sync::OnceCell::new());
        let partitions: Vec<u32> = self.owned.keys().copied().collect();
        for partition in partitions {
            self.enqueue(partition, SessionJob::Seek(to.clone(), logs.clone(), waiting.clone()));
        }
    }

    fn event(&mut self, event: GroupEvent) -> Result<()> {
        match event {
            GroupEvent::Records(records) => self.records(records)?,
            GroupEvent::CaughtUp { partition, next } => self.shared.workers.pool.advance_to(partition, next),
            GroupEvent::Assigned(assignments) => assignments.into_iter().for_each(|given| self.assigned(given)),
            GroupEvent::Revoked(partitions) => {
                let deadline = Instant::now() + self.shared.settings.drain_deadline;
                partitions.into_iter().for_each(|partition| self.hand_back(partition, deadline));
            }
            GroupEvent::Lost(partitions) => partitions.into_iter().for_each(|partition| self.lost(partition)),
            GroupEvent::Interrupted(partitions) => {
                partitions.into_iter().for_each(|partition| self.enqueue(partition, SessionJob::Read));
            }
            GroupEvent::Truncated { partition, first } => self.truncated(partition, first)?,
            GroupEvent::Removed { partition, from, to } => self.removed(partition, from, to)?,
            GroupEvent::Connection(state) => self.shared.workers.hooks.emit(&BusEvent::Connection(state)),
            GroupEvent::Waiting { partition, age, error } => self.shared.report_waiting(partition, age, &error),
        }
        Ok(())
    }

    fn records(&mut self, mut records: Vec<Inbound>) -> Result<()> {
        if self.shared.workers.seam.is(Mutant::ReverseReplay) {
            // Neighbours of a key are swapped without the ledger noticing: positions stay where they are.
            defects::swap_neighbours(&mut records);
        }
        if self.shared.settings.dedup_by_id {
            // Decoded here, once: the pool looks at ids under its lock.
            records.iter_mut().for_each(|record| record.decode(&self.shared.topic));
        }
        let offered = self.shared.workers.pool.offer(records, Instant::now());
        for partition in offered.pause {
            self.shared.membership.pause(partition);
        }
        let Some((partition, position)) = offered.broken else { return Ok(()) };
        // S4: the watermark may have passed the record, so going on would lose it.
        Err(Error::new(ErrorKind::Backend, "the backend delivered a record where it had said that none is left")
            .with("topic", &self.shared.topic)
            .with("partition", partition)
            .with("position", position))
    }

    fn assigned(&mut self, assignment: Assignment) {
        // A leaving member may be offered the partitions that it gave back at once; leaving gives up those that were
        // never opened.
        if self.closing.is_some() {
            return;
        }
        let partition = assignment.partition;
        self.generations += 1;
        let stage = OwnedPartition {
            lease: assignment.lease.clone(),
            claimed: None,
            progressed: false,
            busy: false,
            queue: VecDeque::new(),
            generation: self.generations,
            job: UnderWay::default(),
            wanted_back: Arc::default(),
            lost_below: Position::ZERO,
        };
        self.owned.insert(partition, stage);
        self.enqueue(partition, SessionJob::Open(Box::new(assignment)));
    }

    fn hand_back(&mut self, partition: u32, deadline: Instant) {
        let Some(stage) = self.owned.get_mut(&partition) else { return };
        // Jobs that have not begun need not begin. Draining begins now, whatever is under way.
        stage.queue.clear();
        stage.wanted_back.notify_one();
        self.shared.workers.pool.drain(partition);
        self.enqueue(partition, SessionJob::HandBack(deadline));
    }

    fn lost(&mut self, partition: u32) {
        if !self.shared.workers.seam.is(Mutant::StaleOwner) {
            self.forget(partition);
        }
    }

    fn forget(&mut self, partition: u32) {
        let Some(stage) = self.owned.remove(&partition) else { return };
        stage.lease.revoke();
        self.shared.workers.pool.remove(partition);
        if let Some(claimed) = stage.claimed {
            self.shared.report_ownership(&claimed, OwnershipChange::Lost);
        }
    }

    /// Tells what the log lost at its beginning, once: each read tells it again until a record comes.
    fn truncated(&mut self, partition: u32, first: Position) -> Result<()> {
        let Some(expected) = self.shared.workers.pool.expected(partition) else { return Ok(()) };
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let told = owned.lost_below;
        owned.lost_below = told.max(first);
        self.check_loss(partition, expected.max(told), first).map_err(|error| self.shared.about(partition, error))
    }

    /// Tells records that are missing between others. The session may be beyond them already: they were never delivered.
    /// What was handled before this session, and is read once more to recognise copies, is no loss.
    fn removed(&self, partition: u32, from: Position, to: Position) -> Result<()> {
        let Some(from) = self.shared.workers.pool.unhandled_before(partition, from, to) else { return Ok(()) };
        self.shared.report_loss(partition, from, to);
        let judged = resume::check_loss(from, to, &self.shared.settings);
        judged.map_err(|error| self.shared.about(partition, error))
    }

    fn check_loss(&self, partition: u32, expected: Position, first: Position) -> Result<()> {
        if expected >= first {
            return Ok(());
        }
        self.shared.report_loss(partition, expected, first);
        resume::check_loss(expected, first, &self.shared.settings)
    }

    /// Queues a job of a partition, and starts it if no other is under way there.
    fn enqueue(&mut self, partition: u32, job: SessionJob) {
        let Some(stage) = self.owned.get_mut(&partition) else { return };
        stage.queue.push_back(job);
        self.start_next(partition);
    }

    fn start_next(&mut self, partition: u32) {
        let Some(stage) = self.owned.get_mut(&partition) else { return };
        if stage.busy {
            return;
        }
        let Some(job) = stage.queue.pop_front() else { return };
        stage.busy = true;
        let unclean = match &stage.claimed {
            Some(claimed) if !stage.progressed => claimed.unclean_starts,
            _ => 0,
        };
        let (claimed, wanted_back) = (stage.claimed.clone(), stage.wanted_back.clone());
        let at = jobs::JobContext { partition, generation: stage.generation, claimed, unclean, wanted_back };
        let (job, handle) = abortable(job.start(self.shared.clone(), at, stage.lease.clone()));
        stage.job = UnderWay(Some(handle));
        self.jobs.push(job.map(|done| done.unwrap_or(JobResult::Aborted)).boxed());
    }

    /// Takes in the result of a job, and starts the next one of its partition.
    fn done(&mut self, done: JobResult) -> Result<()> {
        let Some((partition, generation)) = done.place() else {
            if let JobResult::Dismissed(drained) = done {
                self.dismissed(drained);
            }
            return Ok(());
        };
        let stage = match self.owned.get_mut(&partition) {
            Some(stage) if stage.generation == generation => stage,
            _ => return Ok(()),
        };
        (stage.busy, stage.job) = (false, UnderWay::default());
        let result = match done {
            JobResult::Opened(_, result) => self.opened(partition, result),
            JobResult::Committed(_, progress, result) => self.committed(partition, &progress, result),
            JobResult::Granted(_, trying, result) => self.granted(partition, trying, result),
            JobResult::Read(_, result) => self.read(partition, result),
            JobResult::HandedBack(_, drained) => {
                self.handed_back(partition, drained);
                Ok(())
            }
            JobResult::NotSought(..) | JobResult::DeadLettered | JobResult::Dismissed(_) | JobResult::Aborted => Ok(()),
        };
        self.start_next(partition);
        result.map_err(|error| self.shared.about(partition, error))
    }

    fn opened(&mut self, partition: u32, result: Result<(Claimed, Option<LogRead>)>) -> Result<()> {
        let (claimed, log_read) = match result {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::Fenced => {
                self.lost(partition);
                return Ok(());
            }
            Err(_) if self.closing.is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(stage) = self.owned.get_mut(&partition) else { return Ok(()) };
        stage.claimed = Some(claimed);
        stage.progressed = false;
        log_read.map_or(Ok(()), |log_read| self.check_log(partition, &log_read))
    }

    /// Checks the log that a read found: it may have changed under a running ownership (S3).
    fn check_log(&mut self, partition: u32, log_read: &LogRead) -> Result<()> {
        let LogRead { expected, log } = log_read;
        let Some(claimed) = self.owned.get(&partition).and_then(|stage| stage.claimed.as_ref()) else { return Ok(()) };
        if log.is_another_than(&claimed.incarnation) || *expected > log.end {
            if self.shared.settings.on_log_reset == super::options::OnLogReset::Stop {
                return Err(resume::log_reset(*expected, log));
            }
            let stage = self.owned.get(&partition);
            if stage.is_some_and(|stage| stage.queue.iter().any(|job| matches!(job, SessionJob::Restart(_)))) {
                return Ok(());
            }
            self.shared.report_reset(partition);
            // No record of this log may be handled as if it followed on the other one.
            self.shared.workers.pool.drain(partition);
            self.enqueue(partition, SessionJob::Restart(log.clone()));
            return Ok(());
        }
        self.check_loss(partition, *expected, log.first)?;
        self.shared.workers.pool.read_is_good(partition);
        Ok(())
    }

    fn read(&mut self, partition: u32, result: Result<Option<LogRead>>) -> Result<()> {
        match result {
            Ok(Some(log_read)) => self.check_log(partition, &log_read),
            // The partition was wanted back before the read was answered.
            Ok(None) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Fenced => {
                self.lost(partition);
                Ok(())
            }
            Err(_) if self.closing.is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn committed(&mut self, partition: u32, progress: &PartitionProgress, result: Result<()>) -> Result<()> {
        match result {
            Ok(()) => {
                if let Some(stage) = self.owned.get_mut(&partition) {
                    stage.progressed = true;
                }
                self.shared.workers.pool.committed(progress);
            }
            Err(error) if error.kind() == ErrorKind::Fenced => self.lost(partition),
            Err(error) if error.is_retryable() || self.closing.is_some() => {
                tracing::debug!(target: "eventbus", partition, %error, "a commit did not go through; the next one covers it");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn granted(&mut self, partition: u32, trying: Trying, result: Result<()>) -> Result<()> {
        match result {
            Ok(()) => self.shared.workers.pool.grant(partition, trying),
            Err(error) if error.kind() == ErrorKind::Fenced => self.lost(partition),
            Err(_) if self.closing.is_some() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
