//! Jobs of the session: work that takes a round trip to the broker, or waits for handlers. One at a time per partition.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::time::{Instant, timeout};

use super::claim::{self, commit_of};
use super::context::{Claimed, DrainReport, SessionContext};
use super::hand_back;
use crate::backend::{Assignment, Lease, LogState, TopicDescription};
use crate::model::{ErrorKind, Position, Result};
use crate::mutant::Mutant;
use crate::observe::BusEvent;
use crate::runtime::Waits;
use crate::subscribe::dead_letter::{self, Kept};
use crate::subscribe::options::StartFrom;
use crate::subscribe::pool::{DeadJob, PartitionProgress};
use crate::subscribe::progress::note::Trying;

/// Waits between repeated calls to the broker.
const fn waits() -> Waits {
    Waits::new(Duration::from_millis(50), Duration::from_secs(5))
}

pub(super) enum SessionJob {
    Open(Box<Assignment>),
    Commit(Box<PartitionProgress>),
    Turn(Trying),
    Read,
    Seek(StartFrom, Logs, SeekReply),
    /// The log is another one: handling begins with its first record.
    Restart(LogState),
    HandBack(Instant),
}

/// Logs of a topic as they were when a seek began, described once for all its partitions.
pub(super) type Logs = Arc<OnceCell<TopicDescription>>;

pub(super) struct LogRead {
    /// The next expected position when the read was requested: records that came before its answer do not count.
    pub(super) expected: Position,
    pub(super) log: LogState,
}

/// The ownership that a job belongs to.
pub(super) struct JobContext {
    pub(super) partition: u32,
    pub(super) generation: u64,
    pub(super) claimed: Option<Claimed>,
    /// Unclean starts that the note must state.
    pub(super) unclean: u32,
    /// Notified when the partition is wanted back: nothing needs to be read of it any more.
    pub(super) wanted_back: Arc<Notify>,
}

type Ownership = (u32, u64);

pub(super) enum JobResult {
    /// Opened; without a log where the partition was wanted back before it was read.
    Opened(Ownership, Result<(Claimed, Option<LogRead>)>),
    Committed(Ownership, Box<PartitionProgress>, Result<()>),
    Granted(Ownership, Trying, Result<()>),
    Read(Ownership, Result<Option<LogRead>>),
    HandedBack(Ownership, DrainReport),
    /// A seek that found no place to go to; nothing was changed.
    NotSought(Ownership),
    DeadLettered,
    /// The handlers of a lost partition are gone, or cannot be dropped.
    Dismissed(DrainReport),
    /// The job's ownership ended before the job did.
    Aborted,
}

impl JobResult {
    pub(super) fn place(&self) -> Option<Ownership> {
        match self {
            Self::Opened(place, _)
            | Self::Committed(place, ..)
            | Self::Granted(place, ..)
            | Self::Read(place, _)
            | Self::NotSought(place)
            | Self::HandedBack(place, _) => Some(*place),
            Self::DeadLettered | Self::Dismissed(_) | Self::Aborted => None,
        }
    }
}

impl SessionJob {
    pub(super) fn start(
        self,
        shared: Arc<SessionContext>,
        at: JobContext,
        lease: Lease,
    ) -> BoxFuture<'static, JobResult> {
        let place = (at.partition, at.generation);
        match self {
            Self::Open(assignment) => async move {
                let opened = shared.until_closed(open(&shared, &at, &assignment)).await;
                JobResult::Opened(place, opened)
            }
            .boxed(),
            Self::Commit(progress) => commit(shared, at, progress).boxed(),
            Self::Turn(trying) => async move {
                let granted = shared.until_closed(turn(&shared, &at)).await;
                JobResult::Granted(place, trying, granted)
            }
            .boxed(),
            Self::Read => async move {
                let log_read = shared.until_closed(read(&shared, &at)).await;
                JobResult::Read(place, log_read)
            }
            .boxed(),
            Self::Seek(to, logs, reply) => async move {
                let target = shared.until_closed(target(&shared, at.partition, &to, &logs)).await;
                let Ok((log, next)) = target else {
                    reply.tell(&target);
                    return JobResult::NotSought(place);
                };
                let result = shared.until_closed(seek(&shared, &at, lease, &log, next)).await;
                reply.tell(&result);
                JobResult::Opened(place, result)
            }
            .boxed(),
            Self::Restart(log) => async move {
                let restarted = shared.until_closed(seek(&shared, &at, lease, &log, log.first)).await;
                JobResult::Opened(place, restarted)
            }
            .boxed(),
            Self::HandBack(deadline) => async move {
                let drained = match at.claimed {
                    Some(claimed) => hand_back::hand_back(shared, claimed, deadline).await,
                    None => {
                        let _ = shared.membership.release(at.partition).await;
                        DrainReport::default()
                    }
                };
                JobResult::HandedBack(place, drained)
            }
            .boxed(),
        }
    }
}

/// Claims the partition, waits for handlers of an earlier ownership, opens the pool, and reads.
async fn open(
    shared: &Arc<SessionContext>,
    at: &JobContext,
    assignment: &Assignment,
) -> Result<(Claimed, Option<LogRead>)> {
    let claimed = claim::claim(shared, assignment).await?;
    shared.workers.pool.at_rest(claimed.partition).await;
    shared.open(&claimed, assignment.lease.clone());
    let log_read = read(shared, at).await?;
    Ok((claimed, log_read))
}

/// Reads on from the newest delivered record, until the broker answers.
async fn read(shared: &SessionContext, at: &JobContext) -> Result<Option<LogRead>> {
    read_from(shared, at, || shared.workers.pool.begin_read(at.partition, shared.settings.lookback)).await
}

/// Reads until the broker answers, or until the partition is wanted back.
async fn read_from(
    shared: &SessionContext,
    at: &JobContext,
    place: impl Fn() -> Option<(Position, Position)>,
) -> Result<Option<LogRead>> {
    tokio::select! {
        biased;
        () = at.wanted_back.notified() => Ok(None),
        log_read = read_until_known(shared, at.partition, place) => log_read.map(Some),
    }
}

/// Reads until the broker answers. Each try asks anew for the position to begin at and the one expected next.
async fn read_until_known(
    shared: &SessionContext,
    partition: u32,
    place: impl Fn() -> Option<(Position, Position)>,
) -> Result<LogRead> {
    let (mut waits, mut failing) = (waits(), None);
    loop {
        let Some((from, expected)) = place() else {
            return Err(crate::Error::new(ErrorKind::Fenced, "the partition is no longer owned"));
        };
        match shared.membership.read(partition, from).await {
            Err(error) if error.is_retryable() => {
                let now = Instant::now();
                let age = now - *failing.get_or_insert(now);
                if age >= shared.settings.session_timeout {
                    shared.report_waiting(Some(partition), age, &error);
                }
                waits.wait().await;
            }
            known => return known.map(|log| LogRead { expected, log }),
        }
    }
}

/// Tries one commit. Progress that it fails to store is stored by the next.
async fn commit(shared: Arc<SessionContext>, at: JobContext, progress: Box<PartitionProgress>) -> JobResult {
    let place = (at.partition, at.generation);
    let result = match &at.claimed {
        None => Ok(()),
        Some(claimed) => match commit_of(&shared, &progress, &claimed.incarnation, 0, false) {
            Ok(commit) => {
                // An answer that comes later than the session lasts is no answer, and a drain waits behind this job.
                let stored = timeout(shared.settings.session_timeout, shared.membership.commit(commit));
                let late = || crate::Error::new(ErrorKind::Unavailable, "a commit was not answered");
                shared.until_closed(async { stored.await.unwrap_or_else(|_| Err(late())) }).await
            }
            Err(error) => Err(error),
        },
    };
    JobResult::Committed(place, progress, result)
}

/// Writes the note that names the envelope whose turn it is (S2, one at a time).
async fn turn(shared: &Arc<SessionContext>, at: &JobContext) -> Result<()> {
    let (Some(claimed), Some(progress)) = (&at.claimed, shared.workers.pool.progress_of(at.partition)) else {
        return Err(crate::Error::new(ErrorKind::Fenced, "the partition is no longer owned"));
    };
    let commit = commit_of(shared, &progress, &claimed.incarnation, at.unclean, false)?;
    claim::commit_until_known(&*shared.membership, commit).await
}

/// Returns the log of a partition, and the position in it that a seek goes to.
async fn target(shared: &SessionContext, partition: u32, to: &StartFrom, logs: &Logs) -> Result<(LogState, Position)> {
    let description = logs.get_or_try_init(|| shared.backend.describe_topic(&shared.topic)).await?;
    let log = description.log(partition)?;
    let next = to.position(&*shared.backend, &shared.topic, partition, &log).await?;
    Ok((log, next))
}

/// Starts a new epoch elsewhere: running handlers finish first, note and memory of copies are cleared (S3).
async fn seek(
    shared: &Arc<SessionContext>,
    at: &JobContext,
    lease: Lease,
    log: &LogState,
    next: Position,
) -> Result<(Claimed, Option<LogRead>)> {
    let Some(old) = &at.claimed else {
        return Err(crate::Error::new(ErrorKind::Fenced, "the partition is no longer owned"));
    };
    let partition = at.partition;
    hand_back::drain(shared, partition, Instant::now() + shared.settings.drain_deadline).await;
    let claimed = claim::claim_anew(shared, old, log, next).await?;
    let pool = &shared.workers.pool;
    pool.at_rest(partition).await;
    // The old delivery goes on until the new one has begun. Parked at the log's end, it brings nothing from below that.
    let parked = log.end;
    if read_from(shared, at, || Some((parked, parked))).await?.is_none() {
        return Ok((claimed, None));
    }
    shared.open(&claimed, lease);
    pool.expect_new_read(partition, parked, shared.settings.lookback);
    // Nothing of the old start is held any more: an intake that was paused for it goes on.
    shared.membership.resume(partition);
    let mut log_read = read(shared, at).await?;
    if let Some(found) = &log_read
        && pool.new_read_began(partition)
        && parked <= found.log.first
    {
        // Retention took every record that would have told the new delivery from the old one.
        log_read = read(shared, at).await?;
    }
    Ok((claimed, log_read))
}

/// Waits for the running handlers of a lost partition, and drops them at the deadline.
pub(super) fn dismiss(shared: Arc<SessionContext>, partition: u32, deadline: Instant) -> BoxFuture<'static, JobResult> {
    async move { JobResult::Dismissed(hand_back::drain(&shared, partition, deadline).await) }.boxed()
}

/// Writes a dead letter until it is confirmed; only then is its envelope finished (S2).
pub(super) fn dead_letter_job(shared: Arc<SessionContext>, job: DeadJob) -> BoxFuture<'static, JobResult> {
    async move {
        let mut waits = waits();
        let mut kept = Kept::Whole;
        while let Err(error) = write_letter(&shared, &job, kept).await {
            tracing::warn!(target: "eventbus", %error, "a dead letter is not written yet; its key waits");
            // A record that the topic does not take whole goes as a reference to its position.
            if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Refused) {
                kept = kept.less();
            }
            waits.wait().await;
            if !shared.workers.pool.awaits_letter(job.lane, &job.context) {
                break;
            }
        }
        // The ownership may be over by now: then the new owner decides about the envelope, and nothing is reported
        // here.
        if !shared.workers.pool.awaits_letter(job.lane, &job.context) {
            return JobResult::DeadLettered;
        }
        // The hook is called before the next envelope of the key may start.
        let at = dead_letter::location(&job.context, &job.record);
        shared.workers.hooks.emit(&BusEvent::DeadLettered { at: &at, attempts: job.attempts, error: &job.error });
        shared.workers.telemetry.dead_lettered();
        shared.workers.pool.dead_lettered(job.lane, &job.context, Instant::now());
        JobResult::DeadLettered
    }
    .boxed()
}

async fn write_letter(shared: &SessionContext, job: &DeadJob, kept: Kept) -> Result<()> {
    let Some(topic) = &shared.dead_letters else { return Ok(()) };
    let letter = dead_letter::wrap(&job.record, &job.context, job.attempts, &job.error)?;
    let letter = dead_letter::cut(letter, kept)?;
    let stamp = dead_letter::stamp(&job.context, job.record.position);
    let confirmation = shared.lanes.publish_reserved(topic, stamp, letter);
    if shared.workers.seam.is(Mutant::DeadLetterUnconfirmed) {
        return Ok(());
    }
    confirmation.await.map(|_| ())
}

/// Reply to a seek, sent when all partitions have done it, or at the first error.
#[derive(Clone)]
pub(super) struct SeekReply(Option<Arc<SeekState>>);

struct SeekState {
    left: AtomicUsize,
    reply: Mutex<Option<oneshot::Sender<Result<()>>>>,
}

impl SeekReply {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(partitions: usize, reply: oneshot::Sender<Result<()>>) -> Self {
        if partitions == 0 {
            let _ = reply.send(Ok(()));
            return Self::none();
        }
        Self(Some(Arc::new(SeekState { left: AtomicUsize::new(partitions), reply: Mutex::new(Some(reply)) })))
    }

    fn tell<T>(&self, result: &Result<T>) {
        let Some(state) = &self.0 else { return };
        let last = state.left.fetch_sub(1, Ordering::AcqRel) == 1;
        let mut reply = state.reply.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(error) => drop(reply.take().map(|reply| reply.send(Err(error.clone())))),
            Ok(_) if last => drop(reply.take().map(|reply| reply.send(Ok(())))),
            Ok(_) => {}
        }
    }
}
