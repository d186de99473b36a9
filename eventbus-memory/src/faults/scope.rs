//! Scopes: where an armed fault strikes.

use eventbus_core::{Group, Key, Topic};

use super::event::FaultPlace;

/// The submissions or commits that an armed fault strikes: those that match everything stated. Some may be let pass
/// first; then it strikes once, a number of times, or always.
///
/// A part that is not stated matches anything. Commits have no key; submissions have neither group nor member.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Scope {
    topic: Option<String>,
    partition: Option<u32>,
    key: Option<Vec<u8>>,
    group: Option<String>,
    member: Option<String>,
    connection: Option<u64>,
    pass: u64,
    /// Strikes left: `None` is one, `u64::MAX` always.
    times: Option<u64>,
}

impl Scope {
    /// Matches the next one, wherever it goes.
    pub fn any() -> Self {
        Self::default()
    }

    /// Matches the next one of a topic.
    pub fn topic(topic: impl Into<String>) -> Self {
        Self { topic: Some(topic.into()), ..Self::default() }
    }

    /// Limits the scope to this partition.
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Limits the scope to this key.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// Limits the scope to this group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Limits the scope to this member.
    pub fn member(mut self, member: impl Into<String>) -> Self {
        self.member = Some(member.into());
        self
    }

    /// Limits the scope to the connection of this number.
    pub(super) fn over(mut self, connection: u64) -> Self {
        self.connection = Some(connection);
        self
    }

    /// Strikes the n-th match, counted from 1, instead of the next one.
    pub fn nth(mut self, n: u64) -> Self {
        self.pass = n.saturating_sub(1);
        self
    }

    /// Strikes this many matches, one after another.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Strikes all matches, until the fault is disarmed.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    fn matches(&self, place: &FaultPlace) -> bool {
        fn same<T: PartialEq + ?Sized>(asked: Option<&T>, has: Option<&T>) -> bool {
            asked.is_none_or(|asked| has.is_some_and(|has| asked == has))
        }
        same(self.topic.as_deref(), place.topic.as_ref().map(Topic::as_str))
            && same(self.partition.as_ref(), place.partition.as_ref())
            && same(self.key.as_deref(), place.key.as_ref().map(Key::as_bytes))
            && same(self.group.as_deref(), place.group.as_ref().map(Group::as_str))
            && same(self.member.as_deref(), place.member.as_deref())
            && same(self.connection.as_ref(), place.connection.as_ref())
    }
}

/// The id of an armed fault, by which it is disarmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId(pub(crate) u64);

/// Armed faults of one sort, in the order of their arming.
#[derive(Debug)]
pub(crate) struct Rules<F>(Vec<(FaultId, Scope, F)>);

impl<F> Default for Rules<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F: Copy> Rules<F> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn arm(&mut self, id: FaultId, scope: Scope, fault: F) {
        if scope.times != Some(0) {
            self.0.push((id, scope, fault));
        }
    }

    pub(crate) fn disarm(&mut self, id: FaultId) -> bool {
        let before = self.0.len();
        self.0.retain(|(armed, ..)| *armed != id);
        self.0.len() < before
    }

    /// Finds the fault that strikes here. Every scope that matches counts the match, also behind the fault that
    /// strikes.
    pub(crate) fn strike(&mut self, place: &FaultPlace) -> Option<F> {
        let mut striking = None;
        for (index, (_, scope, _)) in self.0.iter_mut().enumerate() {
            if !scope.matches(place) {
                continue;
            }
            if scope.pass > 0 {
                scope.pass -= 1;
            } else {
                striking = striking.or(Some(index));
            }
        }
        let index = striking?;
        let (_, scope, fault) = self.0.get_mut(index)?;
        let fault = *fault;
        let left = scope.times.unwrap_or(1).saturating_sub(u64::from(scope.times != Some(u64::MAX)));
        scope.times = Some(left);
        if left == 0 {
            drop(self.0.remove(index));
        }
        Some(fault)
    }
}
