//! Member that reconnects: another follows where a client came to an end that a new one would not
//! ([`ReconnectingMember`], S5).
//!
//! Invariants:
//! * a member's partitions are lost before any event of the next member is told;
//! * members that fail one after another are made after waits that double, and what they say is told.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};

use super::member::Member;
use super::refusals::Refusals;
use super::{Client, member_left};
use crate::backend::{Commit, GroupEvent, LogState, Membership};
use crate::model::{Error, ErrorKind, Position, Result};
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
    /// The time at which another takes its place; `None` while it is well.
    renew_at: Option<Instant>,
    refusals: Refusals,
}

impl<C: Client> ReconnectingMember<C> {
    /// Joins by `make`, which is called again, within [`next`](Membership::next), for every member that follows.
    ///
    /// # Errors
    /// The errors of `make`; those of a later call end the membership.
    pub fn join(make: impl Fn() -> Result<Member<C>> + Send + Sync + 'static) -> Result<Self> {
        let (member, owned, refusals) = (Arc::new(make()?), BTreeSet::new(), Refusals::default());
        let state = CurrentMember { member, owned, left: false, renew_at: None, refusals };
        Ok(Self { make: Box::new(make), state: Mutex::new(state) })
    }

    fn member(&self) -> Arc<Member<C>> {
        Arc::clone(&self.state.lock().member)
    }

    /// Puts another member in place.
    fn renew(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.left {
            return Err(member_left());
        }
        let member = Arc::new((self.make)()?);
        let before = std::mem::replace(&mut state.member, member);
        state.renew_at = None;
        drop(state);
        // The old member leaves by itself, on its own thread.
        drop(before);
        Ok(())
    }

    /// Takes in the end of a member that another could outlast. Returns what the core is to be told at once, if there
    /// is anything, and whether another takes its place at once.
    fn ended(&self, error: &Error) -> (Option<GroupEvent>, bool) {
        tracing::warn!(target: "eventbus", %error, "a member is at its end, and another takes its place");
        let mut state = self.state.lock();
        let waiting = state.refusals.refused(error);
        let wait = state.refusals.wait();
        state.renew_at = Some(Instant::now() + wait);
        let lost: Vec<u32> = std::mem::take(&mut state.owned).into_iter().collect();
        (if lost.is_empty() { waiting } else { Some(GroupEvent::Lost(lost)) }, wait.is_zero())
    }

    /// Takes in an event that is handed on.
    fn told(&self, event: &GroupEvent) {
        if let GroupEvent::Assigned(given) = event {
            let mut state = self.state.lock();
            state.owned.extend(given.iter().map(|given| given.partition));
            state.refusals.over();
        }
    }
}

#[async_trait]
impl<C: Client> Membership for ReconnectingMember<C> {
    async fn next(&self) -> Result<GroupEvent> {
        loop {
            let renew_at = self.state.lock().renew_at;
            if let Some(at) = renew_at {
                sleep_until(at).await;
                self.renew()?;
            }
            match self.member().next().await {
                Ok(event) => {
                    self.told(&event);
                    return Ok(event);
                }
                Err(error) if error.kind() == ErrorKind::Unavailable && error.is_retryable() => {
                    let (told, at_once) = self.ended(&error);
                    if at_once {
                        self.renew()?;
                    }
                    if let Some(event) = told {
                        return Ok(event);
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
