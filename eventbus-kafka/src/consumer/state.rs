//! What a member owns, and where it stands with the coordinator.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use eventbus_core::backend::Lease;

use crate::note::Print;

/// A partition that this member owns.
pub(crate) struct Held {
    /// Which assignment it came with: what is said of an earlier one is not about this one.
    pub(crate) number: u64,
    /// The core was told of it, and will release it when it is wanted back.
    pub(super) announced: bool,
    pub(crate) lease: Lease,
    pub(crate) incarnation: String,
    /// Of a late record below what is committed.
    pub(crate) print: Option<Print>,
    /// Of some of what was delivered beyond it.
    pub(crate) seen: VecDeque<Print>,
    /// The print was compared with the log, and nothing was read since.
    pub(super) compared: bool,
    pub(crate) epoch: u64,
    /// What was last committed, to be said again while nothing else is to be said.
    pub(crate) last: Option<(i64, String)>,
    /// The number of the read under way; 0 where there is none.
    pub(super) read: u64,
    /// The next offset that may be delivered.
    pub(super) next: i64,
}

/// What the coordinator wants back.
pub(super) struct Revocation {
    pub(super) partitions: HashSet<u32>,
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

#[derive(Default)]
pub(crate) struct State {
    pub(crate) held: HashMap<u32, Held>,
    pub(super) revocation: Option<Revocation>,
    pub(super) rejoin: Rejoin,
    /// What the request to the coordinator that is under way commits: not given up before its answer.
    pub(crate) committing: HashSet<u32>,
    pub(super) reads: u64,
    pub(super) closing: bool,
    /// Rises with each assignment, so that a late answer about an earlier one is left out.
    pub(crate) assignments: u64,
}

impl State {
    pub(super) fn holds(&self, partition: u32, number: u64) -> bool {
        self.held.get(&partition).is_some_and(|held| held.number == number)
    }

    /// Whether a partition is still of this assignment, of which the core is told now.
    pub(super) fn announces(&mut self, partition: u32, number: u64) -> bool {
        let held = self.held.get_mut(&partition).filter(|held| held.number == number);
        held.map(|held| held.announced = true).is_some()
    }
}

impl Held {
    /// Until a claim is accepted nothing may start.
    pub(super) fn new(number: u64) -> Self {
        let lease = Lease::until(tokio::time::Instant::now());
        Self {
            number,
            announced: false,
            lease,
            incarnation: String::new(),
            print: None,
            seen: VecDeque::new(),
            compared: false,
            epoch: 0,
            last: None,
            read: 0,
            next: 0,
        }
    }
}
