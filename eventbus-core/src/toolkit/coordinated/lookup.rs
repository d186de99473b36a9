//! Lookup of newly assigned partitions: their committed progress, and whether the log is still the same (S3).
//!
//! Invariants:
//! * an answer belongs to the assignment that it was asked for; a late one changes nothing of a later assignment;
//! * a partition that the topic was given after the group had begun has progress at its first record, though none is
//!   committed there;
//! * what a predecessor with the same lasting name owned and did not release is told only once its lease has run out;
//! * a log without the record that was seen in it is another, and gets an incarnation that no log had before.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::commit_metadata::{CommitMetadata, Fingerprint};
use super::rebalance::RebalanceListener;
use super::{Client, not_held};
use crate::backend::{Assignment, GroupEvent, LogState};
use crate::model::{Error, Position, Result};

/// The waits before a failed lookup is repeated.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

impl<C: Client> RebalanceListener<C> {
    /// Looks up the group's committed progress, and tells the core of its new partitions: each as soon as its log can
    /// be asked for, since a partition whose broker is away stops no other (P5), and one that another may still hold not
    /// before `until`. Blocks.
    pub(super) fn announce(&self, partitions: &[u32], number: u64, until: Instant) {
        let mut left = partitions.to_vec();
        let mut wait = AGAIN.0;
        loop {
            let Some(client) = self.client() else { return };
            left.retain(|partition| self.state().of(*partition, number).is_some());
            if left.is_empty() {
                return;
            }
            let mut away = Vec::new();
            match self.look_up(&client, &left, number, &mut away) {
                Ok(mut assignments) => {
                    self.put_off(&mut assignments, number, until);
                    let mut state = self.state();
                    assignments.retain(|assignment| state.announces(assignment.partition, number));
                    // The core is told under the lock: a loss is told after it, and partitions already wanted back are
                    // not told of at all.
                    if !assignments.is_empty() {
                        self.tell(GroupEvent::Assigned(assignments));
                    }
                    drop(state);
                    left.retain(|partition| away.iter().any(|(other, _)| other == partition));
                    if left.is_empty() {
                        return;
                    }
                    // A partition that was just made has a leader in a moment.
                    for (partition, error) in away.iter().filter(|_| wait == AGAIN.1) {
                        tracing::warn!(target: "eventbus", partition, %error, "a partition cannot be read yet");
                    }
                }
                Err(error) => {
                    tracing::debug!(target: "eventbus", %error, "committed positions are asked for again");
                }
            }
            drop(client);
            std::thread::sleep(wait);
            wait = (wait * 2).min(AGAIN.1);
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

    /// Looks up partitions. Those whose logs cannot be asked for go to `away`.
    fn look_up(
        &self,
        client: &C,
        partitions: &[u32],
        number: u64,
        away: &mut Vec<(u32, Error)>,
    ) -> Result<Vec<Assignment>> {
        let count = client.count()?;
        let all = (0..count).chain(partitions.iter().copied().filter(|partition| *partition >= count));
        let progress = client.committed(&all.collect::<Vec<_>>())?;
        let of = |(_, text): &(Position, String)| CommitMetadata::decode(text)?.partitions;
        let began_with = progress.values().filter_map(of).min();
        let mut found = Vec::new();
        for partition in partitions {
            let log = match client.ends(*partition) {
                Ok(log) => log,
                Err(error) => {
                    away.push((*partition, error));
                    continue;
                }
            };
            let (next, text) = progress.get(partition).map(|(next, text)| (*next, text.as_str())).unzip();
            let mut stored = text.and_then(CommitMetadata::decode).unwrap_or_default();
            stored.partitions = Some(began_with.unwrap_or(count));
            // All that a partition younger than the group holds was stored for it, wherever the group began to read.
            let younger = began_with.is_some_and(|first| *partition >= first).then_some(log.first);
            found.push((*partition, log, next.or(younger).map(|next| stored.committed(next)), stored));
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
            (held.epoch, held.compared, held.partitions) = (stored.epoch, true, stored.partitions);
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
