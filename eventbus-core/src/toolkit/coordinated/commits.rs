//! Commits of a member: the thread that sends them (S4, S5).
//!
//! Invariants:
//! * only partitions assigned now are committed, under no lower epoch than before: the coordinator would take more from
//!   a live member;
//! * a lease counts from before the sending of the last commit that the coordinator accepted. A member that has
//!   committed nothing for a third of the lease repeats its last commits; one that is not known any more has lost
//!   everything;
//! * a member with a lasting name takes its own from a partition's last commit before it releases it: a name that is
//!   left there says that the owner may go on until its lease ends;
//! * commits wait for the coordinator on a thread of their own, one request at a time, so they arrive in order.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::assignments::OwnedPartition;
use super::commit_metadata::CommitMetadata;
use super::containment::contained;
use super::rebalance::RebalanceListener;
use super::{Client, CommitEntry, CommitError, not_held};
use crate::backend::Commit;
use crate::model::{Error, ErrorKind, Position, Result};

/// The wait before a repeated commit that was not accepted is sent again.
pub(super) const AGAIN: Duration = Duration::from_millis(250);

pub(super) type Reply = oneshot::Sender<Result<()>>;

pub(super) enum Order {
    Commit(Commit, Reply),
    /// Release a partition, after all its commits.
    Release(u32, Reply),
}

pub(super) struct Committing<C> {
    listener: RebalanceListener<C>,
    /// The time at which the last commits are repeated.
    pub(super) probe_at: Instant,
}

impl<C: Client> Committing<C> {
    pub(super) fn new(listener: RebalanceListener<C>) -> Self {
        let probe_at = Instant::now() + listener.config().lease / 3;
        Self { listener, probe_at }
    }

    /// Carries out orders until nobody can send any more. A panic ends the member, and its error is told.
    pub(super) fn run(mut self, waiting: &mpsc::Receiver<Order>) {
        let listener = self.listener.clone();
        if let Err(error) = contained("committing", || self.carry_out(waiting)) {
            listener.fail(error);
        }
    }

    fn carry_out(&mut self, waiting: &mpsc::Receiver<Order>) {
        loop {
            let first = match waiting.recv_timeout(self.probe_at.saturating_duration_since(Instant::now())) {
                Ok(first) => Some(first),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            self.turn(first.into_iter().chain(waiting.try_iter()));
        }
    }

    /// Sends all these commits in one request, repeats the last ones if it is time, then releases.
    pub(super) fn turn(&mut self, orders: impl Iterator<Item = Order>) {
        let (mut commits, mut releases) = (Vec::new(), Vec::new());
        for order in orders {
            match order {
                Order::Commit(commit, reply) => commits.push((commit, reply)),
                Order::Release(partition, reply) => releases.push((partition, reply)),
            }
        }
        let third = self.listener.config().lease / 3;
        if let Some(client) = self.listener.client() {
            self.listener.commit(&client, commits);
            let begun = Instant::now();
            if begun >= self.probe_at {
                let said = self.listener.say_again(&client).unwrap_or(true);
                self.probe_at = if said { begun + third } else { Instant::now() + AGAIN };
            }
        } else {
            // The member has left.
            commits.into_iter().for_each(|(_, reply)| drop(reply.send(Err(not_held()))));
            self.probe_at = Instant::now() + third;
        }
        if let Some(client) = self.listener.client().filter(|_| self.listener.config().inherits) {
            self.listener.disown(&client, releases.iter().map(|(partition, _)| *partition));
        }
        for (partition, reply) in releases {
            self.listener.release(partition);
            let _ = reply.send(Ok(()));
        }
    }
}

impl<C: Client> RebalanceListener<C> {
    /// Repeats the last commits unchanged: accepted, they show that the member is still one. They also undo a late copy
    /// of an earlier request: a client sends a request that timed out again, and the coordinator may come upon the
    /// first copy after all others. Returns whether they were accepted; `None` where there is nothing to repeat.
    fn say_again(&self, client: &C) -> Option<bool> {
        let said = |(partition, held): (&u32, &OwnedPartition)| Some((*partition, held.last.clone()?));
        let last: Vec<_> = self.state().held.iter().filter_map(said).collect();
        let entries =
            last.iter().map(|(partition, (next, text))| CommitEntry { partition: *partition, next: *next, text });
        let entries: Vec<_> = entries.collect();
        (!entries.is_empty()).then(|| self.send(client, &entries).is_ok())
    }

    /// Repeats the last commits of these partitions as written by nobody, so that the next owner need not wait for the
    /// end of this one's lease. Where this fails, it waits.
    fn disown(&self, client: &C, partitions: impl Iterator<Item = u32>) {
        let state = self.state();
        let last = |partition| Some((partition, state.held.get(&partition)?.last.clone()?));
        let last: Vec<(u32, (Position, String))> = partitions.filter_map(last).collect();
        drop(state);
        let disowned = last.into_iter().filter_map(|(partition, (next, text))| {
            let stored = CommitMetadata { owner: String::new(), ..CommitMetadata::decode(&text)? };
            Some((partition, next, stored.encode()))
        });
        let disowned: Vec<_> = disowned.collect();
        let entries =
            disowned.iter().map(|(partition, next, text)| CommitEntry { partition: *partition, next: *next, text });
        let entries: Vec<_> = entries.collect();
        if !entries.is_empty()
            && let Err(error) = self.send(client, &entries)
        {
            tracing::debug!(target: "eventbus", %error, "the next owner waits for the end of a lease");
        }
    }

    /// Commits in one request, and answers every order.
    fn commit(&self, client: &C, commits: Vec<(Commit, Reply)>) {
        let mut asked: BTreeMap<u32, (Commit, String, Reply)> = BTreeMap::new();
        for (commit, reply) in commits {
            match self.prepare(&commit) {
                Ok(text) => {
                    if let Some((_, _, earlier)) = asked.insert(commit.partition, (commit, text, reply)) {
                        // A later commit of the partition takes its place in the request.
                        let _ = earlier.send(Err(Error::new(ErrorKind::Unavailable, "a later commit took its place")));
                    }
                }
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        if asked.is_empty() {
            return;
        }
        let entries = asked.iter().map(|(partition, (commit, text, _))| CommitEntry {
            partition: *partition,
            next: commit.next,
            text,
        });
        let entries: Vec<_> = entries.collect();
        let outcome = self.send(client, &entries);
        for (_, (commit, text, reply)) in asked {
            if let Ok(number) = outcome {
                self.stored(&commit, text, number);
            }
            let _ = reply.send(outcome.clone().map(drop));
        }
    }

    /// Makes the text beside a commit. `Fenced` where the commit may not be made.
    fn prepare(&self, commit: &Commit) -> Result<String> {
        let mut state = self.state();
        let held = state.held.get_mut(&commit.partition).ok_or_else(not_held)?;
        if commit.epoch < held.epoch || (commit.claim && commit.epoch == held.epoch && held.last.is_none()) {
            return Err(Error::new(ErrorKind::Fenced, "the epoch has been superseded"));
        }
        let print = held.seen.iter().take_while(|print| print.at() < commit.next).last().copied().or(held.fingerprint);
        let stored = CommitMetadata {
            epoch: commit.epoch,
            incarnation: held.incarnation.clone(),
            fingerprint: print.filter(|print| print.at() < commit.next),
            owner: self.config().member.clone(),
            note: commit.note.clone(),
            partitions: held.partitions,
        };
        Ok(stored.encode())
    }

    /// Records an accepted commit: it is the next to be repeated, and fingerprints below it are done with.
    fn stored(&self, commit: &Commit, text: String, number: u64) {
        let mut state = self.state();
        let Some(held) = state.held.get_mut(&commit.partition).filter(|held| held.number <= number) else { return };
        held.epoch = commit.epoch;
        while let Some(print) = held.seen.front().copied().filter(|print| print.at() < commit.next) {
            held.fingerprint = Some(print);
            held.seen.pop_front();
        }
        held.fingerprint = held.fingerprint.filter(|print| print.at() < commit.next);
        held.last = Some((commit.next, text));
    }

    /// Sends one request to the coordinator. If accepted, it extends the leases of all partitions owned then, from
    /// before it was sent. Returns the number of the assignment that it was sent under.
    pub(super) fn send(&self, client: &C, entries: &[CommitEntry<'_>]) -> Result<u64> {
        let number = {
            let mut state = self.state();
            // A partition may have been lost since the commit was prepared; then it is not this member's to commit.
            if let Some(lost) = entries.iter().find(|entry| !state.held.contains_key(&entry.partition)) {
                tracing::debug!(target: "eventbus", partition = lost.partition, "lost before its commit was sent");
                return Err(Error::new(ErrorKind::Unavailable, "a partition was lost before the commit was sent"));
            }
            state.committing = entries.iter().map(|entry| entry.partition).collect();
            state.assignments
        };
        let before = Instant::now();
        let sent = client.commit(entries);
        let mut state = self.state();
        state.committing.clear();
        if let Err(refused) = sent {
            drop(state);
            return Err(self.understood(refused, number));
        }
        for held in state.held.values().filter(|held| held.number <= number) {
            held.lease.extend(before + self.config().lease);
        }
        drop(state);
        self.connected(client, true);
        Ok(number)
    }

    /// Turns a refusal into an error for the caller, and draws its consequences for the member of that assignment.
    fn understood(&self, refused: CommitError, number: u64) -> Error {
        match refused {
            CommitError::Fenced(why) => {
                self.lose_until(number);
                Error::new(ErrorKind::Fenced, format!("the coordinator says: {why}"))
            }
            CommitError::UnknownTopic => {
                self.interrupt();
                Error::new(ErrorKind::UnknownTopic, "no such topic")
            }
            CommitError::PermissionDenied(why) => Error::new(ErrorKind::PermissionDenied, format!("committing: {why}")),
            CommitError::TooLarge(why) => Error::new(ErrorKind::Backend, format!("the note is too large: {why}")),
            CommitError::Later(why) => Error::new(ErrorKind::Unavailable, format!("committing: {why}")),
        }
    }
}
