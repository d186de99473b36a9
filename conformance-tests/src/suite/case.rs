//! One case of the contract: what it shows, what it needs, how it is run.

use std::fmt;
use std::pin::Pin;

use super::ability::Ability;
use super::failure::Failure;
use super::run::Run;

/// The priority of a case, as the contract sorts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Priority {
    /// Order and loss under fault.
    P0,
    /// Flow, keys, life cycle.
    P1,
    /// The plain contract.
    P2,
}

impl Priority {
    /// The name, as the report shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P0 => "P0",
            Self::P1 => "P1",
            Self::P2 => "P2",
        }
    }
}

/// The runtime and the clock of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaseRuntime {
    /// On the clock of the provider.
    Anywhere,
    /// On a runtime of several threads and the host's clock: handlers block.
    Threads,
    /// On the clock of the provider, with one seed: it is large.
    Large,
}

/// A case that runs.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// One case of the contract, or one part of a case that has several.
#[non_exhaustive]
pub struct Case {
    /// The case's priority.
    pub priority: Priority,
    /// The case's number in the contract, with a letter where the case has several parts; of P1 and P2 a letter and a
    /// count.
    pub number: &'static str,
    /// The case's unique name: module and function.
    pub name: &'static str,
    /// The property that it shows.
    pub title: &'static str,
    /// The abilities that its fixture must have.
    pub needs: &'static [Ability],
    /// The runtime and clock that it runs on.
    pub place: CaseRuntime,
    pub(super) run: fn(Run) -> Running,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("number", &self.number).field("name", &self.name).finish_non_exhaustive()
    }
}
