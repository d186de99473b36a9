//! Listener for rebalances: the state of a member, shared by its threads and the coordinator's callbacks (S5).
//!
//! Invariants:
//! * the coordinator is answered only when the core has released all revoked partitions (or its time for that is over),
//!   so that the next owner starts after this one has finished and committed;
//! * the lease of a lost partition ends before anybody is told;
//! * no lock is held while the client is called.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::assignments::{Assignments, OwnedPartition, PendingRevocation, Rejoin};
use super::containment::contained;
use super::{Client, MemberConfig, member_left};
use crate::backend::{ConnectionState, GroupEvent, Inbound};
use crate::model::{Error, ErrorKind, Position};
use crate::runtime::Mutex;
use crate::runtime::sync::MutexGuard;
use crate::runtime::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Items that the threads hand to the core.
pub(super) enum MemberItem {
    Event(GroupEvent),
    /// Records, each with the number of its read.
    Records(Vec<(u64, Inbound)>),
    /// Nothing of the partition is left below this position, according to this read.
    CaughtUp(u64, u32, Position),
    /// The member is at its end.
    Over(Error),
}

/// Listener that a client calls with its coordinator's decisions. It never keeps the client alive.
pub struct RebalanceListener<C>(Arc<ListenerState<C>>);

struct ListenerState<C> {
    config: MemberConfig,
    state: Mutex<Assignments>,
    items: mpsc::UnboundedSender<MemberItem>,
    /// Records that the core has not taken yet.
    waiting: AtomicUsize,
    disconnected: AtomicBool,
    client: OnceLock<Weak<C>>,
    /// The error with which one of the threads ended.
    failure: OnceLock<Error>,
    runtime: Handle,
}

/// Time at which revoked partitions must be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[allow(clippy::exhaustive_enums)] // there is no third
pub enum Revocation {
    /// Later, by [`Client::unassign`], once the core has released them.
    Later,
    /// At once, by the caller: the member leaves, or has left.
    Now,
}

impl<C> Clone for RebalanceListener<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> fmt::Debug for RebalanceListener<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RebalanceListener").field("member", &self.0.config.member).finish_non_exhaustive()
    }
}

impl<C> RebalanceListener<C> {
    pub(super) fn config(&self) -> &MemberConfig {
        &self.0.config
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Assignments> {
        self.0.state.lock()
    }

    pub(super) fn waiting(&self) -> &AtomicUsize {
        &self.0.waiting
    }

    pub(super) fn hand(&self, item: MemberItem) {
        let _ = self.0.items.send(item);
    }

    pub(super) fn tell(&self, event: GroupEvent) {
        self.hand(MemberItem::Event(event));
    }
}

impl<C: Client> RebalanceListener<C> {
    /// Makes a listener. Must be called within a runtime, on whose threads the state of new partitions is looked up.
    pub(super) fn new(ask: MemberConfig, items: mpsc::UnboundedSender<MemberItem>) -> Self {
        Self(Arc::new(ListenerState {
            config: ask,
            state: Mutex::default(),
            items,
            waiting: AtomicUsize::new(0),
            disconnected: AtomicBool::new(false),
            client: OnceLock::new(),
            failure: OnceLock::new(),
            runtime: Handle::current(),
        }))
    }

    pub(super) fn taken_by(&self, client: &Arc<C>) {
        let _ = self.0.client.set(Arc::downgrade(client));
    }

    /// Returns the client, as long as the member has not left.
    pub(super) fn client(&self) -> Option<Arc<C>> {
        self.0.client.get()?.upgrade()
    }

    fn apart(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let listener = self.clone();
        self.0.runtime.spawn_blocking(move || {
            if let Err(error) = contained("a lookup", || work(&listener)) {
                listener.fail(error);
            }
        });
    }

    /// Does blocking work at this time.
    pub(super) fn later(&self, at: Instant, work: impl FnOnce(&Self) + Send + 'static) {
        let listener = self.clone();
        self.0.runtime.spawn(async move {
            sleep_until(at).await;
            listener.apart(work);
        });
    }

    /// Takes in partitions that the coordinator has assigned and the client has taken. The core hears of them when the
    /// group's committed positions are known. To be called within [`Client::poll`].
    pub fn assigned(&self, partitions: &[u32]) {
        let number = {
            let mut state = self.state();
            state.assignments += 1;
            state.refusals.over();
            if state.closing {
                return;
            }
            let number = state.assignments;
            state.held.extend(partitions.iter().map(|partition| (*partition, OwnedPartition::new(number))));
            number
        };
        if !partitions.is_empty() {
            // A predecessor's commits are refused since this member joined, so its lease ends before this.
            let (partitions, until) = (partitions.to_vec(), Instant::now() + self.config().lease);
            self.apart(move |listener| listener.announce(&partitions, number, until));
        }
    }

    /// Takes in a refusal that may pass, and tells the core if it has lasted.
    pub(super) fn refused(&self, error: &Error) {
        let told = self.state().refusals.refused(error);
        if let Some(waiting) = told {
            self.tell(waiting);
        }
    }

    /// Takes in partitions that the coordinator wants back or, if `lost`, has given to others already. To be called
    /// within [`Client::poll`], or while the client ends.
    pub fn revoked(&self, partitions: &[u32], lost: bool) -> Revocation {
        let wanted: HashSet<u32> = partitions.iter().copied().collect();
        let mut state = self.state();
        if state.keeping {
            return Revocation::Later;
        }
        // Partitions that the core has not heard of need no release, and the core is not told of them any more.
        state.held.retain(|partition, held| held.announced || !wanted.contains(partition));
        if state.closing {
            state.revocation = None;
            return Revocation::Now;
        }
        let held: Vec<u32> = wanted.iter().copied().filter(|partition| state.held.contains_key(partition)).collect();
        let now = Instant::now();
        let (left, until) =
            if lost { (HashSet::new(), now) } else { (held.iter().copied().collect(), now + self.config().drain) };
        state.revocation = Some(PendingRevocation { partitions: wanted, left, until });
        drop(state);
        if lost {
            self.lose(&held);
        } else if !held.is_empty() {
            self.tell(GroupEvent::Revoked(held));
        }
        Revocation::Later
    }

    /// Answers the coordinator when all is released, or when it can wait no longer. Waits for a commit under way as
    /// long as the client may hold it back: a later one of its tries could come after the next owner's commit.
    pub(super) fn hand_over(&self, client: &C) {
        let over = {
            let mut state = self.state();
            let Some(revocation) = &state.revocation else { return };
            let now = Instant::now();
            let released = revocation.left.is_empty() || now >= revocation.until;
            let answered = revocation.partitions.is_disjoint(&state.committing);
            if !released || !(answered || now >= revocation.until + self.config().session) {
                return;
            }
            state.revocation.take()
        };
        let Some(PendingRevocation { partitions, left, .. }) = over else { return };
        self.lose(&left.into_iter().collect::<Vec<_>>());
        client.unassign(&partitions.into_iter().collect::<Vec<_>>());
        let bare = {
            let state = self.state();
            state.held.is_empty() && !state.closing
        };
        if bare {
            self.apart(Self::end_without_topic);
        }
    }

    /// Leaves the group and joins it again, if a rejoin is wanted: the client hands its partitions over as if the
    /// coordinator had asked, and begins anew the ones that it is then given.
    pub(super) fn rejoin(&self, client: &C) {
        let mut state = self.state();
        if state.revocation.is_some() {
            return;
        }
        match state.rejoin {
            Rejoin::Wanted => {
                state.rejoin = Rejoin::Leaving;
                drop(state);
                client.unsubscribe();
            }
            Rejoin::Leaving if state.held.is_empty() => {
                state.rejoin = Rejoin::No;
                drop(state);
                if let Err(error) = client.subscribe() {
                    self.hand(MemberItem::Over(error));
                }
            }
            Rejoin::No | Rejoin::Leaving => {}
        }
    }

    /// Loses these partitions; the core is told of those that it still had.
    fn lose(&self, partitions: &[u32]) {
        self.lose_where(|partition, _| partitions.contains(&partition));
    }

    /// Loses the partitions up to this assignment: the coordinator does not know its member any more, and they have
    /// other owners.
    pub(super) fn lose_until(&self, number: u64) {
        self.lose_where(|_, held| held.number <= number);
    }

    fn lose_where(&self, lost: impl Fn(u32, &OwnedPartition) -> bool) {
        let mut state = self.state();
        let gone = state.held.extract_if(|partition, held| lost(*partition, held));
        let lost: Vec<u32> = gone
            .map(|(partition, held)| {
                held.lease.revoke();
                partition
            })
            .collect();
        if let Some(revocation) = &mut state.revocation {
            revocation.left.retain(|partition| !lost.contains(partition));
        }
        if !lost.is_empty() {
            self.tell(GroupEvent::Lost(lost));
        }
    }

    /// Releases a partition that the core has finished with.
    pub(super) fn release(&self, partition: u32) {
        let mut state = self.state();
        if let Some(held) = state.held.remove(&partition) {
            held.lease.revoke();
        }
        if let Some(revocation) = &mut state.revocation {
            revocation.left.remove(&partition);
        }
    }

    /// Closes the member: no handler starts from now on, no partition is taken, and each is given up as soon as it is
    /// wanted back. Returns whether a partition was claimed and not released. Such a one may have a handler that still
    /// runs: none is given up before [`let_go`](Self::let_go).
    pub(super) fn close(&self) -> bool {
        let mut state = self.state();
        state.closing = true;
        state.revocation = None;
        state.keeping = state.held.values().any(|held| held.last.is_some());
        for (_, held) in state.held.drain() {
            held.lease.revoke();
        }
        state.keeping
    }

    /// Lets go of the partitions that a closed member kept.
    pub(super) fn let_go(&self) {
        self.state().keeping = false;
    }

    /// Ends the member with this error: leases end, the core is told, and later callers get the error, too.
    pub(super) fn fail(&self, error: Error) {
        tracing::error!(target: "eventbus", %error, member = self.config().member, "a member is at its end");
        let _ = self.0.failure.set(error.clone());
        self.close();
        self.hand(MemberItem::Over(error));
    }

    /// Returns the error for a caller who comes too late.
    pub(super) fn left(&self) -> Error {
        self.0.failure.get().cloned().unwrap_or_else(member_left)
    }

    /// Asks whether the topic still exists, for a member without partitions: a coordinator takes them away when their
    /// topic is deleted, and says no more. Blocks.
    fn end_without_topic(&self) {
        if self.client().is_some_and(|client| client.is_gone()) {
            self.hand(MemberItem::Over(Error::new(ErrorKind::UnknownTopic, "the topic was deleted")));
        }
    }

    /// Reports a connection that was lost, or is there again.
    pub(super) fn connected(&self, client: &C, connected: bool) {
        // Called again and again, this nearly always ends after one load.
        if self.0.disconnected.load(Ordering::Acquire) == connected {
            self.0.disconnected.store(!connected, Ordering::Release);
            client.reached(connected);
            let now = if connected { ConnectionState::Connected } else { ConnectionState::Disconnected };
            self.tell(GroupEvent::Connection(now));
        }
    }
}
