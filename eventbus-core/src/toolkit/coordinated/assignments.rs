//! Assignments: a member's partitions, and its state towards the coordinator.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;

use super::commit_metadata::Fingerprint;
use super::refusals::Refusals;
use crate::backend::Lease;
use crate::model::Position;

pub(super) struct OwnedPartition {
    /// The number of the assignment that it came with: news of an earlier one is not about this one.
    pub(super) number: u64,
    /// Whether the core was told of it, and will release it when it is wanted back.
    pub(super) announced: bool,
    /// Whether another member committed last, and did not release it.
    pub(super) predecessor: bool,
    pub(super) lease: Lease,
    pub(super) incarnation: String,
    /// The fingerprint of a late record below the committed position.
    pub(super) fingerprint: Option<Fingerprint>,
    /// The fingerprints of some records delivered beyond it.
    pub(super) seen: VecDeque<Fingerprint>,
    /// Whether the fingerprint was compared with the log, and nothing was read since.
    pub(super) compared: bool,
    pub(super) epoch: u64,
    /// The number of partitions that the topic had when the group began, where it is known.
    pub(super) partitions: Option<u32>,
    /// The position and text last committed, to be repeated while there is nothing else to commit.
    pub(super) last: Option<(Position, String)>,
    /// The number of the read under way; 0 where there is none.
    pub(super) read: u64,
    /// The next position that may be delivered.
    pub(super) next: Position,
}

/// Revocation that the coordinator waits for.
pub(super) struct PendingRevocation {
    pub(super) partitions: HashSet<u32>,
    /// The partitions that the core has not released yet.
    pub(super) left: HashSet<u32>,
    pub(super) until: Instant,
}

/// Progress of a member that leaves in order to join again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rejoin {
    #[default]
    No,
    Wanted,
    Leaving,
}

/// State of a member that changes.
#[derive(Default)]
pub(super) struct Assignments {
    pub(super) held: HashMap<u32, OwnedPartition>,
    pub(super) revocation: Option<PendingRevocation>,
    pub(super) rejoin: Rejoin,
    /// The partitions that the request under way commits: they are not given up before its answer.
    pub(super) committing: HashSet<u32>,
    pub(super) reads: u64,
    pub(super) closing: bool,
    /// Whether a partition that was claimed and not released is kept until the lease has run out.
    pub(super) keeping: bool,
    /// The coordinator's refusals since the last assignment.
    pub(super) refusals: Refusals,
    /// Assignments so far, so that a late answer about an earlier one is left out.
    pub(super) assignments: u64,
}

impl Assignments {
    /// Returns the partition, if it is still of this assignment.
    pub(super) fn of(&mut self, partition: u32, number: u64) -> Option<&mut OwnedPartition> {
        self.held.get_mut(&partition).filter(|held| held.number == number)
    }

    /// Returns whether this is the partition's read under way.
    pub(super) fn reads(&self, partition: u32, read: u64) -> bool {
        self.held.get(&partition).is_some_and(|held| held.read == read)
    }

    /// Marks a partition as announced to the core. Returns false if it is no longer of this assignment.
    pub(super) fn announces(&mut self, partition: u32, number: u64) -> bool {
        self.of(partition, number).map(|held| held.announced = true).is_some()
    }
}

impl OwnedPartition {
    /// Makes a partition with a lease that has ended: no handler may start until a claim is accepted.
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            announced: false,
            predecessor: false,
            lease: Lease::until(Instant::now()),
            incarnation: String::new(),
            fingerprint: None,
            seen: VecDeque::new(),
            compared: false,
            epoch: 0,
            partitions: None,
            last: None,
            read: 0,
            next: Position::ZERO,
        }
    }
}
