//! Hand-back of a partition: drain, commit, release (S5 planned, S7).
//!
//! **Invariants.** No handler of the partition starts after the drain began. Running handlers are waited for until the
//! deadline; then their futures are dropped, and only when they are gone is the partition released. Queued and dropped
//! envelopes stay unfinished in the ledger, so the final commit cannot acknowledge them. A key in back-off is not
//! running and not waited for. A handler that cannot be dropped, because it blocks its thread, keeps the partition and
//! is named.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::claim::{commit_of, commit_until_known};
use super::context::{Claimed, DrainReport, SessionContext};
use crate::backend::Join;
use crate::model::Result;
use crate::subscribe::pool::PartitionProgress;

/// The longest time that a dropped future may take to go away before its handler counts as blocking.
const DROP_GRACE: Duration = Duration::from_secs(1);
/// The time that the last calls to the broker (the final commit, the release, the leaving) may take at least, beyond
/// the deadline if need be.
pub(crate) const CALL_GRACE: Duration = Duration::from_secs(2);

/// The time that a hand-over may take beyond its deadline: the backend fences only after that.
pub(crate) const HAND_BACK_GRACE: Duration = Join::HAND_BACK_GRACE;

/// Waits until no handler of the partition runs, and drops running ones at the deadline.
pub(crate) async fn drain(shared: &Arc<SessionContext>, partition: u32, deadline: Instant) -> DrainReport {
    let mut drained = DrainReport::default();
    let pool = &shared.workers.pool;
    pool.drain(partition);
    if by(shared, deadline, Duration::ZERO, pool.at_rest(partition)).await.is_some() {
        return drained;
    }
    for (worker, job, position) in pool.busy_with(partition) {
        drained.abandoned.push((partition, position));
        shared.workers.abandon(worker, job);
    }
    if timeout_at(Instant::now() + DROP_GRACE, pool.at_rest(partition)).await.is_err() {
        drained.stuck.extend(pool.busy_with(partition).into_iter().map(|(_, _, position)| (partition, position)));
        drained.abandoned.retain(|entry| !drained.stuck.contains(entry));
    }
    drained
}

/// Returns the result of `work` by the deadline, or within this grace from now where that is later; `None` where it
/// takes longer. Closing may bring the deadline forward.
async fn by<T>(
    shared: &SessionContext,
    deadline: Instant,
    grace: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let least = Instant::now() + grace;
    loop {
        let close_by = shared.close_by.get();
        let limit = close_by.map_or(deadline, |close_by| close_by.min(deadline));
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = shared.close_by.changed(close_by) => {}
            () = sleep_until(limit.max(least)) => return None,
        }
    }
}

/// Gives a partition back, or keeps it where a handler cannot be dropped.
pub(crate) async fn hand_back(shared: Arc<SessionContext>, claimed: Claimed, deadline: Instant) -> DrainReport {
    let partition = claimed.partition;
    let mut drained = drain(&shared, partition, deadline).await;
    if !drained.stuck.is_empty() {
        return drained;
    }
    if let Some(progress) = shared.workers.pool.progress_of(partition)
        && progress.epoch == claimed.epoch
    {
        let stored = last_commit(&shared, &claimed, &progress);
        if by(&shared, deadline, CALL_GRACE, stored).await.is_some_and(|stored| stored.is_ok()) {
            shared.workers.pool.committed(&progress);
        } else {
            tracing::warn!(target: "eventbus", partition, "the last commit of a partition did not go through");
            drained.uncommitted.push(partition);
        }
    }
    shared.workers.pool.remove(partition);
    let released = by(&shared, deadline, CALL_GRACE, shared.membership.release(partition)).await;
    if !matches!(released, Some(Ok(()))) {
        tracing::debug!(target: "eventbus", partition, "a partition could not be released; its session will expire");
    }
    drained
}

async fn last_commit(shared: &SessionContext, claimed: &Claimed, progress: &PartitionProgress) -> Result<()> {
    let commit = commit_of(shared, progress, &claimed.incarnation, 0, true)?;
    commit_until_known(&*shared.membership, commit).await
}
