//! Defects of handling that [`Mutant`](crate::mutant::Mutant) names, if they take more than a line: kept away from the
//! code that they break.

use tokio::time::Instant;

use super::handler::Delivery;
use super::pool::{Attempt, AttemptResult};
use super::progress::finished::{FinishedSet, Run};
use super::retry::Verdict;
use super::shield::{Control, HandlerEnd};
use super::worker::Workers;
use crate::backend::Inbound;

/// Swaps the contents of neighbouring records of a key in the batch; positions stay in place.
pub(super) fn swap_neighbours(records: &mut [Inbound]) {
    for index in 1..records.len() {
        let (before, after) = records.split_at_mut(index);
        let (a, b) = (&mut before[index - 1], &mut after[0]);
        if a.partition == b.partition && a.key == b.key {
            std::mem::swap(&mut a.body, &mut b.body);
        }
    }
}

/// Claims everything between the first and the last run as finished, too.
pub(super) fn without_hole(finished: &FinishedSet) -> FinishedSet {
    let runs: Vec<Run> = finished.runs().collect();
    match (runs.first(), runs.last()) {
        (Some(first), Some(last)) => FinishedSet::from_runs([Run { first: first.first, last: last.last }]),
        _ => finished.clone(),
    }
}

impl Workers {
    /// Waits for the next attempt without giving back the slot.
    pub(super) async fn attempt_until_decided(
        &self,
        control: &Control,
        job: Attempt,
        delivery: Delivery,
        now: &mut Instant,
    ) -> AttemptResult {
        loop {
            let observed = self.telemetry.start(&delivery, *now);
            let end = self.run(control, job.number, delivery.clone(), &observed).await;
            *now = observed.end(&end);
            match end {
                HandlerEnd::Ok => return job.finished(),
                HandlerEnd::Abandoned => return AttemptResult::Abandoned,
                HandlerEnd::Failed(error) => match self.failed(&job, &error, *now) {
                    Verdict::Again(wait) | Verdict::Wait(wait) => tokio::time::sleep(wait).await,
                    Verdict::Policy => return self.give_up_after(job, &error),
                },
            }
        }
    }
}
