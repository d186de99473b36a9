//! Expectations, which tell the oracle about a run what its history does not.

use std::collections::BTreeMap;

use crate::history::Name;

/// A topic's treatment of publishes that follow a refused one of their key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterRefusal {
    /// The key is sealed until an error naming the refusal was returned to the caller.
    #[default]
    Seal,
    /// The key is sealed until it is resumed.
    SealUntilResumed,
    /// Nothing is sealed.
    Continue,
}

/// Demands on a run.
///
/// The default judges everything that holds at any moment of any run, and nothing that needs
/// the run to be over, healed or large.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Expectations {
    pub(super) concurrency: u32,
    pub(super) quiet: bool,
    pub(super) log_read: bool,
    pub(super) one_copy: bool,
    pub(super) strict_sessions: bool,
    pub(super) session_grace: u64,
    pub(super) shared_positions: bool,
    pub(super) overlap: bool,
    pub(super) keys: usize,
    pub(super) partitions: usize,
    pub(super) groups: Vec<(Name, Name)>,
    pub(super) refusals: BTreeMap<Name, AfterRefusal>,
}

impl Expectations {
    /// Expects subscriptions that run at most `concurrency` handlers per member.
    #[must_use]
    pub const fn new(concurrency: u32) -> Self {
        Self {
            concurrency,
            quiet: false,
            log_read: false,
            one_copy: true,
            strict_sessions: false,
            session_grace: 0,
            shared_positions: false,
            overlap: false,
            keys: 0,
            partitions: 0,
            groups: Vec::new(),
            refusals: BTreeMap::new(),
        }
    }

    /// Expects healed faults and idle groups: every confirmed publish must be finished (O5).
    #[must_use]
    pub const fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Expects all that the log holds at the history's end: a confirmed publish must be in it (O5).
    #[must_use]
    pub const fn log_read(mut self) -> Self {
        self.log_read = true;
        self
    }

    /// Allows second copies, where the backend cannot promise one in this run: they are counted (O8).
    #[must_use]
    pub const fn copies_allowed(mut self) -> Self {
        self.one_copy = false;
        self
    }

    /// Fails the run on a session that nothing in the history explains (the simulation's rule); without it, such
    /// sessions are counted. See [`explained_for`](Self::explained_for).
    #[must_use]
    pub const fn strict_sessions(mut self, grace: u64) -> Self {
        self.strict_sessions = true;
        self.explained_for(grace)
    }

    /// Lets a disturbance explain the sessions of the following `grace` nanoseconds, and the first one of each
    /// partition after it however late.
    #[must_use]
    pub const fn explained_for(mut self, grace: u64) -> Self {
        self.session_grace = grace;
        self
    }

    /// Expects partitions that share the positions of one log: what is purged of one may be told as lost of any that had
    /// not come past it (O6).
    #[must_use]
    pub const fn shared_positions(mut self) -> Self {
        self.shared_positions = true;
        self
    }

    /// Expects overlaps, in a case with at least two keys, concurrency and yielding handlers (O9).
    #[must_use]
    pub const fn overlap(mut self) -> Self {
        self.overlap = true;
        self
    }

    /// Expects traffic on so many keys and partitions (O10; the contract asks for 100 and 2).
    #[must_use]
    pub const fn spread(mut self, keys: usize, partitions: usize) -> Self {
        self.keys = keys;
        self.partitions = partitions;
        self
    }

    /// Expects the group to take part, even if the history shows nothing of it (O5).
    #[must_use]
    pub fn group(mut self, topic: impl Into<Name>, group: impl Into<Name>) -> Self {
        self.groups.push((topic.into(), group.into()));
        self
    }

    /// Sets the topic's treatment of publishes after a refusal; unless told, it seals (O8).
    #[must_use]
    pub fn after_refusal(mut self, topic: impl Into<Name>, rule: AfterRefusal) -> Self {
        self.refusals.insert(topic.into(), rule);
        self
    }
}
