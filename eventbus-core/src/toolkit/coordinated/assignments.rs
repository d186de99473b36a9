//! What a member owns, and where it stands with the coordinator.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;

use super::commit_metadata::Fingerprint;
use crate::backend::Lease;
use crate::model::Position;

/// A partition that this member owns.
pub(super) struct OwnedPartition {
    /// Which assignment it came with: what is said of an earlier one is not about this one.
    pub(super) number: u64,
    /// The core was told of it, and will release it when it is wanted back.
    pub(super) announced: bool,
    pub(super) lease: Lease,
    pub(super) incarnation: String,
    /// Of a late record below what is committed.
    pub(super) fingerprint: Option<Fingerprint>,
    /// Of some of what was delivered beyond it.
    pub(super) seen: VecDeque<Fingerprint>,
    /// The fingerprint was compared with the log, and nothing was read since.
    pub(super) compared: bool,
    pub(super) epoch: u64,
    /// What was last committed, to be said again while nothing else is to be said.
    pub(super) last: Option<(Position, String)>,
    /// The number of the read under way; 0 where there is none.
    pub(super) read: u64,
    /// The next position that may be delivered.
    pub(super) next: Position,
}

/// What the coordinator wants back.
pub(super) struct PendingRevocation {
    pub(super) partitions: HashSet<u32>,
    /// What the core has not released yet.
    pub(super) left: HashSet<u32>,
    pub(super) until: Instant,
}

/// Where a member stands that leaves to join again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rejoin {
    #[default]
    No,
    Wanted,
    Leaving,
}

/// All that changes of a member.
#[derive(Default)]
pub(super) struct Assignments {
    pub(super) held: HashMap<u32, OwnedPartition>,
    pub(super) revocation: Option<PendingRevocation>,
    pub(super) rejoin: Rejoin,
    /// What the request to the coordinator that is under way commits: not given up before its answer.
    pub(super) committing: HashSet<u32>,
    pub(super) reads: u64,
    pub(super) closing: bool,
    /// Rises with each assignment, so that a late answer about an earlier one is left out.
    pub(super) assignments: u64,
}

impl Assignments {
    /// The partition, if it is still of this assignment.
    pub(super) fn of(&mut self, partition: u32, number: u64) -> Option<&mut OwnedPartition> {
        self.held.get_mut(&partition).filter(|held| held.number == number)
    }

    /// Whether a partition is in this read.
    pub(super) fn reads(&self, partition: u32, read: u64) -> bool {
        self.held.get(&partition).is_some_and(|held| held.read == read)
    }

    /// Whether a partition is still of this assignment, of which the core is told now.
    pub(super) fn announces(&mut self, partition: u32, number: u64) -> bool {
        self.of(partition, number).map(|held| held.announced = true).is_some()
    }
}

impl OwnedPartition {
    /// Until a claim is accepted nothing may start.
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            announced: false,
            lease: Lease::until(Instant::now()),
            incarnation: String::new(),
            fingerprint: None,
            seen: VecDeque::new(),
            compared: false,
            epoch: 0,
            last: None,
            read: 0,
            next: Position::ZERO,
        }
    }
}
