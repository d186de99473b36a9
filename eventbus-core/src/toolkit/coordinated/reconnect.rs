//! Member that reconnects: another follows where a client came to an end that a new one would not
//! ([`ReconnectingMember`], S5).
//!
//! Invariant: a member's partitions are lost before any event of the next member is told.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::member::Member;
use super::{Client, member_left};
use crate::backend::{Commit, GroupEvent, LogState, Membership};
use crate::model::{ErrorKind, Position, Result};
use crate::runtime::Mutex;

/// A member that is replaced by another, with a client of its own, when its client ends for a passing reason: when
/// [`Polled::Over`](super::Polled::Over) came with a retryable `Unavailable`. Its partitions are lost then, and it
/// leaves if it can.
pub struct ReconnectingMember<C> {
    make: Box<dyn Fn() -> Result<Member<C>> + Send + Sync>,
    state: Mutex<CurrentMember<C>>,
}

struct CurrentMember<C> {
    member: Arc<Member<C>>,
    /// The partitions that it was given and has not released.
    owned: BTreeSet<u32>,
    /// Whether it was made to leave: no other takes its place.
    left: bool,
}

impl<C: Client> ReconnectingMember<C> {
    /// Joins by `make`, which is called again, within [`next`](Membership::next), for every member that follows.
    ///
    /// # Errors
    /// The errors of `make`; those of a later call end the membership.
    pub fn join(make: impl Fn() -> Result<Member<C>> + Send + Sync + 'static) -> Result<Self> {
        let state = CurrentMember { member: Arc::new(make()?), owned: BTreeSet::new(), left: false };
        Ok(Self { make: Box::new(make), state: Mutex::new(state) })
    }

    fn member(&self) -> Arc<Member<C>> {
        Arc::clone(&self.state.lock().member)
    }

    /// Puts another member in place. Returns the partitions of the one before.
    fn renew(&self) -> Result<Vec<u32>> {
        let mut state = self.state.lock();
        if state.left {
            return Err(member_left());
        }
        let member = Arc::new((self.make)()?);
        let before = std::mem::replace(&mut state.member, member);
        let owned = std::mem::take(&mut state.owned);
        drop(state);
        // The old member leaves by itself, on its own thread.
        drop(before);
        Ok(owned.into_iter().collect())
    }
}

#[async_trait]
impl<C: Client> Membership for ReconnectingMember<C> {
    async fn next(&self) -> Result<GroupEvent> {
        loop {
            match self.member().next().await {
                Ok(event) => {
                    if let GroupEvent::Assigned(given) = &event {
                        self.state.lock().owned.extend(given.iter().map(|given| given.partition));
                    }
                    return Ok(event);
                }
                Err(error) if error.kind() == ErrorKind::Unavailable && error.is_retryable() => {
                    tracing::warn!(target: "eventbus", %error, "a member is at its end, and another takes its place");
                    let lost = self.renew()?;
                    if !lost.is_empty() {
                        return Ok(GroupEvent::Lost(lost));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        self.member().read(partition, from).await
    }

    fn pause(&self, partition: u32) {
        self.member().pause(partition);
    }

    fn resume(&self, partition: u32) {
        self.member().resume(partition);
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        self.member().commit(commit).await
    }

    async fn release(&self, partition: u32) -> Result<()> {
        self.state.lock().owned.remove(&partition);
        self.member().release(partition).await
    }

    async fn leave(&self) -> Result<()> {
        let member = {
            let mut state = self.state.lock();
            state.left = true;
            Arc::clone(&state.member)
        };
        member.leave().await
    }
}

impl<C> fmt::Debug for ReconnectingMember<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectingMember").finish_non_exhaustive()
    }
}
