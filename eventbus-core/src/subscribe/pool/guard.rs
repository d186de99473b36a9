//! State of the outage guard, as plain data.

use std::time::Duration;

use hashbrown::HashSet;
use tokio::time::Instant;

/// A head that has failed or waited in this ownership.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FailingHead {
    /// When it first did, as far as that is charged.
    pub(super) since: Option<Instant>,
    /// Attempts that are not charged: those that waited, and those of an outage.
    pub(super) uncharged: u32,
    /// Whether its last attempt waited, by the handler's wish.
    pub(super) waits: bool,
    /// Whether it has counted towards a suspension.
    pub(super) spent: bool,
}

/// Change that the session has to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutageChange {
    /// Handlers are suspended: the heads of so many keys failed, and nothing succeeded in between.
    Suspended { keys: usize },
    /// One succeeded, after this time.
    Resumed { after: Duration },
}

#[derive(Debug, Default)]
pub(super) struct OutageGuard {
    /// The number of keys that have to fail; zero switches the guard off.
    pub(super) keys: usize,
    /// Lanes whose heads failed since the last success.
    pub(super) failed: HashSet<usize>,
    pub(super) suspension: Option<Suspension>,
    /// The most handlers at once after a suspension, until all may run.
    pub(super) step: Option<usize>,
    /// Whether anything of the above is set, so that results have to be told to the guard.
    pub(super) active: bool,
    pub(super) change: Option<OutageChange>,
}

#[derive(Debug)]
pub(super) struct Suspension {
    pub(super) since: Instant,
    pub(super) next: Try,
    pub(super) pause: Duration,
}

/// State of a suspended pool's tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Try {
    At(Instant),
    Due,
    /// The head of this lane is being tried.
    Running(usize),
}

impl OutageGuard {
    /// Returns whether results have to be told to the guard.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    #[inline]
    pub(super) fn is_suspended(&self) -> bool {
        self.suspension.is_some()
    }
}
