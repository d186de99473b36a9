//! Lookup of newly assigned partitions: their committed progress, and whether the log is still the same (S3).
//!
//! Invariants:
//! * an answer belongs to the assignment that it was asked for; a late one changes nothing of a later assignment;
//! * what a predecessor with the same lasting name owned and did not release is told only once its lease has run out;
//! * a log without the record that was seen in it is another, and gets an incarnation that no log had before.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::commit_metadata::{CommitMetadata, Fingerprint};
use super::rebalance::RebalanceListener;
use super::{Client, not_held};
use crate::backend::{Assignment, GroupEvent, LogState};
use crate::model::Result;

/// The wait before a failed lookup is repeated.
const AGAIN: Duration = Duration::from_millis(100);

impl<C: Client> RebalanceListener<C> {
    /// Looks up the group's committed progress, and tells the core of its new partitions; of those that another may
    /// still hold, not before `until`. Blocks.
    pub(super) fn announce(&self, partitions: &[u32], number: u64, until: Instant) {
        loop {
            let Some(client) = self.client() else { return };
            if !partitions.iter().any(|partition| self.state().of(*partition, number).is_some()) {
                return;
            }
            match self.look_up(&client, partitions, number) {
                Ok(mut assignments) => {
                    self.put_off(&mut assignments, number, until);
                    let mut state = self.state();
                    assignments.retain(|assignment| state.announces(assignment.partition, number));
                    // The core is told under the lock: a loss is told after it, and partitions already wanted back are
                    // not told of at all.
                    return self.tell(GroupEvent::Assigned(assignments));
                }
                Err(error) => {
                    tracing::debug!(target: "eventbus", %error, "committed positions are asked for again");
                    drop(client);
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    /// Takes out the partitions that a predecessor did not release, and looks them up again when its lease is over.
    fn put_off(&self, assignments: &mut Vec<Assignment>, number: u64, until: Instant) {
        if !self.config().inherits || Instant::now() >= until {
            return;
        }
        let mut held = Vec::new();
        assignments.retain(|assignment| {
            let wait = self.state().of(assignment.partition, number).is_some_and(|held| held.predecessor);
            if wait {
                held.push(assignment.partition);
            }
            !wait
        });
        if !held.is_empty() {
            tracing::info!(target: "eventbus", partitions = ?held, "a member before this one did not release them: waiting for the end of its lease");
            self.later(until, move |listener| listener.announce(&held, number, until));
        }
    }

    fn look_up(&self, client: &C, partitions: &[u32], number: u64) -> Result<Vec<Assignment>> {
        let progress = client.committed(partitions)?;
        let mut found = Vec::new();
        for partition in partitions {
            let log = client.ends(*partition)?;
            let (next, text) = progress.get(partition).map(|(next, text)| (*next, text.as_str())).unzip();
            let stored = text.and_then(CommitMetadata::decode).unwrap_or_default();
            found.push((*partition, log, next.map(|next| stored.committed(next)), stored));
        }
        let asked: Vec<_> =
            found.iter().map(|(partition, log, _, stored)| (*partition, log, stored.fingerprint)).collect();
        let same = compare(client, &asked)?;
        let mut assignments = Vec::new();
        for (partition, mut log, committed, stored) in found {
            let same = same.get(&partition).copied().unwrap_or(true);
            log.incarnation = if same && !stored.incarnation.is_empty() { stored.incarnation } else { fresh() };
            let mut state = self.state();
            let Some(held) = state.of(partition, number) else { continue };
            held.incarnation.clone_from(&log.incarnation);
            held.predecessor = !stored.owner.is_empty() && stored.owner != self.config().member;
            held.fingerprint = stored.fingerprint.filter(|_| same);
            (held.epoch, held.compared) = (stored.epoch, true);
            assignments.push(Assignment::new(partition, log, committed, held.lease.clone()));
        }
        Ok(assignments)
    }

    /// Returns the log as it is now, with its incarnation as this member knows it, compared anew: after trouble it may
    /// be another log. Blocks.
    pub(super) fn log(&self, client: &C, partition: u32) -> Result<LogState> {
        let mut log = client.ends(partition)?;
        let (print, number) = {
            let mut state = self.state();
            let held = state.held.get_mut(&partition).ok_or_else(not_held)?;
            log.incarnation.clone_from(&held.incarnation);
            if std::mem::take(&mut held.compared) {
                return Ok(log);
            }
            (held.seen.back().copied().or(held.fingerprint), held.number)
        };
        if compare(client, &[(partition, &log, print)])?.get(&partition).copied().unwrap_or(true) {
            return Ok(log);
        }
        log.incarnation = fresh();
        let mut state = self.state();
        let held = state.of(partition, number).ok_or_else(not_held)?;
        held.incarnation.clone_from(&log.incarnation);
        (held.fingerprint, held.seen) = (None, VecDeque::new());
        Ok(log)
    }
}

/// Returns whether logs still have the records that were seen in them. A record gone by retention or compaction tells
/// nothing.
fn compare<C: Client>(client: &C, asked: &[(u32, &LogState, Option<Fingerprint>)]) -> Result<HashMap<u32, bool>> {
    let mut same = HashMap::new();
    let mut wanted = Vec::new();
    for (partition, log, print) in asked {
        let Some(print) = print else { continue };
        match print.is_of(log) {
            Some(told) => drop(same.insert(*partition, told)),
            None => wanted.push((*partition, *print)),
        }
    }
    let places: Vec<_> = wanted.iter().map(|(partition, print)| (*partition, print.offset)).collect();
    let found = if places.is_empty() { HashMap::new() } else { client.fingerprints(&places)? };
    same.extend(wanted.into_iter().map(|(partition, print)| (partition, print.agrees_with(found.get(&partition)))));
    Ok(same)
}

/// Makes an incarnation that no log had before.
fn fresh() -> String {
    format!("{:016x}", rand::random::<u64>())
}
