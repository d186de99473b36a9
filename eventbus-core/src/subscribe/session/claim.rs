//! Claims: how a member takes over a partition, under a new epoch (S5).
//!
//! **Invariants.** No handler of a partition starts before the claim is stored: [`claim`] and [`claim_anew`] are the
//! only ways to an [`Opening`](crate::subscribe::pool::Opening), and they return after the backend has confirmed a
//! write that a stale owner cannot make. The epoch of a claim is greater than every epoch stored before, and constant
//! while the partition is held. Before the pool is opened, handlers of an earlier ownership by this member have ended.

use std::sync::Arc;
use std::time::Duration;

use super::context::{Claimed, SessionContext};
use super::resume::{self, ResumePoint};
use crate::backend::{Assignment, Commit, LogState, Membership};
use crate::model::{Error, ErrorKind, Position, Result};
use crate::mutant::Mutant;
use crate::runtime::Waits;
use crate::subscribe::defects;
use crate::subscribe::pool::PartitionProgress;
use crate::subscribe::progress::finished::FinishedSet;
use crate::subscribe::progress::note::Note;

/// Unclean starts in a row after which envelopes are handled one at a time: this start and two before it.
const SUSPICIOUS: u32 = 3;

/// Takes over an assigned partition: finds where to resume, raises the epoch, stores the claim.
///
/// # Errors
/// `Fenced` where another member was faster, `LogReset` and `DataLost` where the subscription is to stop on them.
pub(crate) async fn claim(shared: &Arc<SessionContext>, assignment: &Assignment) -> Result<Claimed> {
    let log = &assignment.log;
    let found = resume::find(assignment.committed.as_ref(), log, &shared.settings, shared.workers.seam)?;
    shared.report_found(assignment.partition, &found);
    if let Some((from, to)) = found.lost {
        resume::check_loss(from, to, &shared.settings)?;
    }
    let next = match found.next {
        Some(next) => next,
        None => {
            let start = &shared.settings.start;
            start.position(&*shared.backend, &shared.topic, assignment.partition, log).await?
        }
    };
    let claimed = Claimed {
        partition: assignment.partition,
        epoch: next_epoch(shared, found.epoch),
        incarnation: log.incarnation.clone(),
        next,
        unclean_starts: unclean_starts(&found, &shared.member, next, log),
        suspect_until: None,
        tried: found.note.as_ref().and_then(|note| note.trying),
        finished: found.finished.clone(),
    };
    let claimed = with_suspicion(claimed, &found, shared.settings.window, log);
    store(shared, &*shared.membership, &claimed).await?;
    Ok(claimed)
}

/// Claims a held partition once more, for another start (a seek): with a new epoch and the note cleared.
pub(crate) async fn claim_anew(
    shared: &Arc<SessionContext>,
    old: &Claimed,
    log: &LogState,
    next: Position,
) -> Result<Claimed> {
    let claimed = Claimed {
        epoch: next_epoch(shared, old.epoch),
        incarnation: log.incarnation.clone(),
        next,
        finished: FinishedSet::from_runs([]),
        unclean_starts: 0,
        suspect_until: None,
        tried: None,
        ..old.clone()
    };
    store(shared, &*shared.membership, &claimed).await?;
    Ok(claimed)
}

/// S5: the epoch rises strictly at every change of owner; the clock's milliseconds keep it rising when progress was
/// deleted.
fn next_epoch(shared: &SessionContext, before: u64) -> u64 {
    if shared.workers.seam.is(Mutant::EpochKept) && before > 0 {
        return before;
    }
    before.saturating_add(1).max(shared.workers.env.unix_millis())
}

/// Counts the starts in a row, with this one, that found an unclean end and no progress since. A start with nothing
/// outstanding does not count, nor does the same member's return.
fn unclean_starts(found: &ResumePoint, member: &str, next: Position, log: &LogState) -> u32 {
    match &found.note {
        None => 1,
        Some(note) if note.clean => 1,
        Some(note) if note.owner == member => note.unclean_starts,
        Some(note) if next >= log.end => note.unclean_starts,
        Some(note) => note.unclean_starts.saturating_add(1),
    }
}

/// S2: marks the envelopes that may have ended a process. An envelope that ran had been delivered, so it is below the
/// log's end and within the window.
fn with_suspicion(mut claimed: Claimed, found: &ResumePoint, window: usize, log: &LogState) -> Claimed {
    let before = found.note.as_ref().and_then(|note| note.suspect_until).filter(|until| *until > claimed.next);
    if claimed.unclean_starts >= SUSPICIOUS {
        let reach = Position::new(claimed.next.get().saturating_add(window as u64));
        claimed.suspect_until = before.max(Some(log.end.min(reach)));
    } else {
        claimed.suspect_until = before;
    }
    claimed
}

async fn store(shared: &SessionContext, membership: &dyn Membership, claimed: &Claimed) -> Result<()> {
    let progress = PartitionProgress {
        partition: claimed.partition,
        epoch: claimed.epoch,
        next: claimed.next,
        finished: claimed.finished.clone(),
        count: 0,
        suspect_until: claimed.suspect_until,
        trying: claimed.tried,
    };
    let commit = commit_of(shared, &progress, &claimed.incarnation, claimed.unclean_starts, false)?;
    commit_until_known(membership, commit.claiming()).await
}

/// Makes the commit that stores this progress with its note.
pub(crate) fn commit_of(
    shared: &SessionContext,
    progress: &PartitionProgress,
    incarnation: &str,
    unclean_starts: u32,
    clean: bool,
) -> Result<Commit> {
    let finished = match shared.workers.seam.is(Mutant::NoteWithHoles) {
        true => defects::without_hole(&progress.finished),
        false => progress.finished.clone(),
    };
    let note = Note {
        watermark: progress.next,
        owner: shared.member.to_string(),
        epoch: progress.epoch,
        incarnation: incarnation.to_owned(),
        finished,
        clean,
        unclean_starts,
        trying: progress.trying,
        suspect_until: progress.suspect_until,
    };
    let bytes = note.encode(shared.capabilities.note_bytes).map_err(|error| {
        Error::new(ErrorKind::Backend, "the note does not fit beside the watermark").caused_by(error)
    })?;
    Ok(Commit::new(progress.partition, progress.next, progress.epoch, bytes.into()))
}

/// Commits again until the outcome is known. Ends with the first error that another try cannot help.
pub(crate) async fn commit_until_known(membership: &dyn Membership, commit: Commit) -> Result<()> {
    let mut waits = Waits::new(Duration::from_millis(20), Duration::from_secs(1));
    loop {
        match membership.commit(commit.clone()).await {
            Err(error) if error.is_retryable() => waits.wait().await,
            known => return known,
        }
    }
}
