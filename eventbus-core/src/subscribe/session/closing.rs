//! End of a session (S7).
//!
//! **Invariants.** A session is over when every partition is given back or lost, and every handler that it ever started
//! has ended, was dropped at the deadline, or is named as one that cannot be dropped. All callers that ask a session to
//! close get the same answer.

use tokio::time::Instant;

use super::context::{Closing, DrainReport, Ended};
use super::hand_back::CALL_GRACE;
use super::{Session, SessionCommand, jobs};
use crate::model::Error;
use crate::observe::OwnershipChange;

impl Session {
    pub(super) fn handed_back(&mut self, partition: u32, drained: DrainReport) {
        let stuck = !drained.stuck.is_empty();
        if let Some(stage) = self.owned.remove(&partition) {
            // A stuck handler keeps its partition: no other member may have it before this member's session ends.
            stage.lease.revoke();
            if let Some(claimed) = stage.claimed.filter(|_| !stuck) {
                self.shared.report_ownership(&claimed, OwnershipChange::Released);
            }
        }
        self.drained(drained);
    }

    /// Adds a partition's drain to the closing's report.
    fn drained(&mut self, drained: DrainReport) {
        for (partition, position) in &drained.stuck {
            tracing::error!(target: "eventbus", partition, %position, "a handler blocks its thread and keeps its partition");
        }
        if let Some(closing) = &mut self.closing {
            closing.drained.merge(drained);
        }
    }

    /// Ends the subscription with an error: running handlers finish and are committed first.
    pub(super) fn stop(&mut self, error: Option<Error>) {
        self.shared.workers.pool.set_paused(true);
        self.close(Instant::now() + self.shared.settings.drain_deadline, error);
    }

    pub(super) fn close(&mut self, deadline: Instant, error: Option<Error>) {
        let closing = self.closing.get_or_insert(Closing {
            deadline,
            replies: Vec::new(),
            drained: DrainReport::default(),
            error: None,
            orphans: None,
        });
        closing.deadline = closing.deadline.min(deadline);
        closing.error = closing.error.take().or(error);
        let deadline = closing.deadline;
        self.shared.close_by.set(deadline);
        let partitions: Vec<u32> = self.owned.keys().copied().collect();
        for partition in partitions {
            self.hand_back(partition, deadline);
        }
    }

    /// Returns whether all partitions are given back, and no handler runs any more.
    pub(super) fn is_over(&mut self) -> bool {
        self.closing.is_some() && self.owned.is_empty() && self.orphans_are_gone()
    }

    /// Returns whether the handlers of lost partitions have ended. They are waited for as others are, once nothing can
    /// be lost any more.
    fn orphans_are_gone(&mut self) -> bool {
        let Some(closing) = &mut self.closing else { return false };
        let left = closing.orphans.get_or_insert_with(|| {
            let partitions = self.shared.workers.pool.orphaned();
            for partition in &partitions {
                self.jobs.push(jobs::dismiss(self.shared.clone(), *partition, closing.deadline));
            }
            partitions.len()
        });
        *left == 0
    }

    /// Counts a lost partition whose handlers are gone.
    pub(super) fn dismissed(&mut self, drained: DrainReport) {
        if let Some(closing) = &mut self.closing {
            closing.orphans = closing.orphans.map(|left| left.saturating_sub(1));
        }
        self.drained(drained);
    }

    pub(super) async fn leave(mut self) -> Ended {
        self.shared.workers.pool.close();
        if self.shared.workers.pool.is_suspended() {
            self.shared.workers.telemetry.suspended(false);
        }
        let left = tokio::time::timeout(CALL_GRACE, self.shared.membership.leave()).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::debug!(target: "eventbus", group = %self.shared.group, "leaving the group failed; its session will expire");
        }
        // Callers that asked while the session was closing get the same answer.
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let (SessionCommand::Close(_, reply), Some(closing)) = (command, &mut self.closing) {
                closing.replies.push(reply);
            }
        }
        let closing = self.closing?;
        for reply in closing.replies {
            let _ = reply.send(closing.drained.clone());
        }
        closing.error
    }
}
