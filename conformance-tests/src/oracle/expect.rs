//! What the judge is told about a run, beyond its history.

use std::collections::BTreeMap;

use crate::history::Name;

/// What a topic does with publishes that follow a refused one of their key.
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

/// What may be demanded of a run.
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
    pub(super) overlap: bool,
    pub(super) keys: usize,
    pub(super) partitions: usize,
    pub(super) groups: Vec<(Name, Name)>,
    pub(super) refusals: BTreeMap<Name, AfterRefusal>,
}

impl Expectations {
    /// For subscriptions that run at most `concurrency` handlers per member.
    #[must_use]
    pub const fn new(concurrency: u32) -> Self {
        Self {
            concurrency,
            quiet: false,
            log_read: false,
            one_copy: true,
            strict_sessions: false,
            session_grace: 0,
            overlap: false,
            keys: 0,
            partitions: 0,
            groups: Vec::new(),
            refusals: BTreeMap::new(),
        }
    }

    /// Faults are healed and the groups idle: every confirmed publish must be finished (O5).
    #[must_use]
    pub const fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// The history ends with all that the log holds: a confirmed publish must be in it (O5).
    #[must_use]
    pub const fn log_read(mut self) -> Self {
        self.log_read = true;
        self
    }

    /// The backend cannot promise one copy in this run: second copies are counted (O8).
    #[must_use]
    pub const fn copies_allowed(mut self) -> Self {
        self.one_copy = false;
        self
    }

    /// A session that nothing in the history explains fails the run (the simulation's rule);
    /// without it, such sessions are counted. See [`explained_for`](Self::explained_for).
    #[must_use]
    pub const fn strict_sessions(mut self, grace: u64) -> Self {
        self.strict_sessions = true;
        self.explained_for(grace)
    }

    /// A disturbance explains the sessions of the following `grace` nanoseconds, and the first
    /// one of each partition after it however late.
    #[must_use]
    pub const fn explained_for(mut self, grace: u64) -> Self {
        self.session_grace = grace;
        self
    }

    /// The case has at least two keys, concurrency and yielding handlers: some must overlap (O9).
    #[must_use]
    pub const fn overlap(mut self) -> Self {
        self.overlap = true;
        self
    }

    /// The case has so many keys and partitions: that many must carry traffic (O10; the contract
    /// asks for 100 and 2).
    #[must_use]
    pub const fn spread(mut self, keys: usize, partitions: usize) -> Self {
        self.keys = keys;
        self.partitions = partitions;
        self
    }

    /// The group takes part, even if the history shows nothing of it (O5).
    #[must_use]
    pub fn group(mut self, topic: impl Into<Name>, group: impl Into<Name>) -> Self {
        self.groups.push((topic.into(), group.into()));
        self
    }

    /// What the topic does after a refusal; unless told, it seals (O8).
    #[must_use]
    pub fn after_refusal(mut self, topic: impl Into<Name>, rule: AfterRefusal) -> Self {
        self.refusals.insert(topic.into(), rule);
        self
    }
}
