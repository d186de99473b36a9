//! One member of a group: its partitions and its events (S5).
//!
//! Invariants:
//! * a partition is this member's from a successful compare-and-swap to its release, its loss, or the end of its lease;
//!   the record decides, never a snapshot of the store;
//! * events queued by an earlier read, or in an earlier ownership, are not handed out: reads are numbered;
//! * the member's tasks end with it;
//! * what the broker refuses for good, and the loss of the group's records, end the member with that error.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::delivery::{Delivery, Flow, LogsSeen, Passed, Told, log_of};
use super::record::{Heartbeat, HeldRecord, encode, lasts, lease_ms, passing};
use super::removed::KnownRemovals;
use super::waiting::Failing;
use super::{LeaseStore, StoreKey};
use crate::backend::{Commit, GroupEvent, Join, LogState, Membership};
use crate::model::{Error, ErrorKind, Position, Result};
use crate::runtime::Mutex;
use crate::runtime::sync::MutexGuard;
use crate::runtime::sync::atomic::{AtomicU64, Ordering};

/// Records handed out at once.
const MOST: usize = 2_048;

/// The time after which a missing topic is looked for again before it counts as missing: a broker that recovers says
/// the same for a moment.
const CERTAIN: Duration = Duration::from_millis(500);

pub(super) struct Member {
    core: Arc<MemberCore>,
    queue: tokio::sync::Mutex<Queue>,
    tasks: Mutex<JoinSet<()>>,
}

struct Queue {
    items: mpsc::UnboundedReceiver<Told>,
    /// The event that was taken out of the queue behind records, and is not handed out yet.
    kept: Option<Told>,
}

/// State that a member and its tasks share.
pub(super) struct MemberCore {
    pub(super) store: Arc<dyn LeaseStore>,
    pub(super) join: Join,
    pub(super) partitions: u32,
    owned: Mutex<BTreeMap<u32, Owned>>,
    /// The queue's end for tasks; taken away when the member leaves, so that the queue ends.
    queue: Mutex<Option<mpsc::UnboundedSender<Told>>>,
    logs: watch::Sender<Arc<LogsSeen>>,
    numbers: AtomicU64,
    /// The identity of the place of the group's records when this member joined.
    pub(super) place: String,
    /// The failures of this member's looks at the store.
    pub(super) failing: Mutex<Failing>,
    /// The error that ended the member.
    failed: Mutex<Option<Error>>,
}

pub(super) struct Owned {
    pub(super) held: Arc<HeldRecord>,
    pub(super) nonce: u64,
    /// The read under way: its number, its flow and its task.
    read: Option<(u64, Arc<Flow>, AbortHandle)>,
    paused: bool,
    /// The position at which the ownership began.
    begun: Position,
    /// The removals that need not be told any more.
    known: KnownRemovals,
    /// The time at which a revocation that is not answered ends the ownership.
    pub(super) fence_at: Option<Instant>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Owned {
    pub(super) fn new(held: Arc<HeldRecord>, nonce: u64, begun: Position) -> Self {
        let known = held.known().clone();
        Self { held, nonce, read: None, paused: false, begun, known, fence_at: None }
    }

    fn stop(&mut self) {
        if let Some((_, _, task)) = self.read.take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("member", &self.core.join.member).finish_non_exhaustive()
    }
}

impl Member {
    pub(super) async fn join(store: Arc<dyn LeaseStore>, join: Join) -> Result<Self> {
        let place = store.ensure(&join.topic, join.begin_anew).await?;
        let failing = Failing::new(join.session_timeout);
        let (queue, items) = mpsc::unbounded_channel();
        let core = Arc::new(MemberCore {
            partitions: join.topic.spec.partitions,
            store,
            join,
            owned: Mutex::default(),
            queue: Mutex::new(Some(queue)),
            logs: watch::Sender::default(),
            numbers: AtomicU64::new(1),
            place,
            failing: Mutex::new(failing),
            failed: Mutex::default(),
        });
        core.heartbeat().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&core).rebalance_forever());
        tasks.spawn(Arc::clone(&core).renew());
        tasks.spawn(Arc::clone(&core).watch_logs());
        tasks.spawn(Arc::clone(&core).watch_connection());
        Ok(Self { core, queue: Queue { items, kept: None }.into(), tasks: Mutex::new(tasks) })
    }
}

impl MemberCore {
    pub(super) fn owned(&self) -> MutexGuard<'_, BTreeMap<u32, Owned>> {
        self.owned.lock()
    }

    /// Queues an event about the group as a whole, which is always handed out.
    pub(super) fn tell(&self, event: GroupEvent) {
        if let Some(queue) = &*self.queue.lock() {
            let _ = queue.send(Told { partition: 0, read: 0, event });
        }
    }

    fn held(&self, partition: u32) -> Result<Arc<HeldRecord>> {
        let owned = self.owned();
        let owned = owned.get(&partition).ok_or_else(not_owned)?;
        Ok(Arc::clone(&owned.held))
    }

    pub(super) fn slot(&self) -> StoreKey {
        StoreKey::Member(self.join.group.clone(), self.join.member.clone())
    }

    pub(super) async fn heartbeat(&self) -> Result<()> {
        let (group, name) = (self.join.group.to_string(), self.join.member.clone());
        let word = encode(&Heartbeat { group, name, lease_ms: lease_ms(self.join.session_timeout) })?;
        self.store.put(&self.slot(), word).await
    }

    /// Ends an ownership, telling only the session: others wait for the end of its lease.
    pub(super) async fn lose(&self, partition: u32) {
        let Some(owned) = self.owned().remove(&partition) else { return };
        owned.held.abandon().await;
        drop(owned);
        self.tell(GroupEvent::Lost(vec![partition]));
    }

    /// Ends the member: no handler starts any more, nothing is renewed, and the session gets this error.
    pub(super) async fn fail(&self, error: Error) {
        self.failed.lock().get_or_insert(error);
        let owned = std::mem::take(&mut *self.owned());
        owned.values().for_each(|owned| owned.held.lease().revoke());
        for owned in owned.values() {
            owned.held.abandon().await;
        }
        self.queue.lock().take();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.lock().is_some()
    }

    /// Looks at the logs' ends from time to time: to see what retention took, and how far idle partitions have come.
    async fn watch_logs(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.store.read_pacing().look).await;
            if self.owned().is_empty() {
                continue;
            }
            match self.store.describe().await {
                Ok(topic) => drop(self.logs.send_replace(Arc::new(LogsSeen::of(topic)))),
                // It was changed into something that is no topic.
                Err(error) if lasts(&error) => return self.fail(error).await,
                Err(_) => {}
            }
        }
    }

    async fn watch_connection(self: Arc<Self>) {
        let mut state = self.store.connection();
        while state.changed().await.is_ok() {
            let now = *state.borrow_and_update();
            self.tell(GroupEvent::Connection(now));
        }
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let nonce = {
            let mut owned = self.owned();
            let owned = owned.get_mut(&partition).ok_or_else(not_owned)?;
            owned.stop();
            owned.nonce
        };
        let source = self.known(self.store.open(partition, from).await).await?;
        // Described after the opening: only this finds a start above the log's end.
        let topic = self.known(self.store.describe().await).await?;
        let log = log_of(&topic, partition);
        let mut owned = self.owned();
        let owned = owned.get_mut(&partition).filter(|owned| owned.nonce == nonce);
        let owned = owned.ok_or_else(not_owned)?;
        let queue = self.queue.lock().clone().ok_or_else(not_owned)?;
        let flow = Arc::new(Flow::default());
        flow.pause(owned.paused);
        // Nothing of this read is on its way yet, so what is removed will not come.
        let (next, begun) = (from.max(log.first), owned.begun);
        let known = std::mem::replace(&mut owned.known, KnownRemovals::all(topic.removed.clone()));
        if let Some((from, to)) = known.news(&topic.removed, (next.max(begun), log.end), &[]) {
            let _ = queue.send(Told { partition, read: number, event: GroupEvent::Removed { partition, from, to } });
        }
        let delivery = Delivery {
            store: Arc::clone(&self.store),
            partition,
            number,
            flow: Arc::clone(&flow),
            queue,
            logs: self.logs.subscribe(),
            // Nothing is below the first position, as the session learns from the answer.
            next,
            passed: Passed::new(next, owned.known.clone()),
        };
        let task = tokio::spawn(delivery.run(source)).abort_handle();
        owned.stop();
        owned.read = Some((number, flow, task));
        Ok(log)
    }

    /// Marks errors as retryable. A missing topic is believed only if it is still missing a little later.
    async fn known<T>(&self, asked: Result<T>) -> Result<T> {
        let error = match asked {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::UnknownTopic {
            tokio::time::sleep(CERTAIN).await;
            let again = self.store.describe().await;
            if again.is_err_and(|again| again.kind() == ErrorKind::UnknownTopic) {
                return Err(error);
            }
        }
        Err(passing(error))
    }

    /// Returns whether an event belongs to a read under way, and counts its records as taken.
    fn counts(&self, told: &Told) -> bool {
        if told.read == 0 {
            return true;
        }
        let owned = self.owned();
        let read = owned.get(&told.partition).and_then(|owned| owned.read.as_ref());
        let Some((_, flow, _)) = read.filter(|(number, ..)| *number == told.read) else { return false };
        if let GroupEvent::Records(records) = &told.event {
            flow.taken(records);
        }
        true
    }

    fn set_paused(&self, partition: u32, paused: bool) {
        if let Some(owned) = self.owned().get_mut(&partition) {
            owned.paused = paused;
            if let Some((_, flow, _)) = &owned.read {
                flow.pause(paused);
            }
        }
    }
}

fn not_owned() -> Error {
    Error::new(ErrorKind::Fenced, "the partition is not owned by this member")
}

#[async_trait]
impl Membership for Member {
    async fn next(&self) -> Result<GroupEvent> {
        let mut queue = self.queue.lock().await;
        loop {
            let told = match queue.kept.take() {
                Some(told) => told,
                None => {
                    let left = || Error::new(ErrorKind::Closed, "the member has left its group");
                    let ended = || self.core.failed.lock().clone().unwrap_or_else(left);
                    queue.items.recv().await.ok_or_else(ended)?
                }
            };
            if !self.core.counts(&told) {
                continue;
            }
            let GroupEvent::Records(mut records) = told.event else { return Ok(told.event) };
            // Queued records of other partitions come along.
            while records.len() < MOST
                && let Ok(more) = queue.items.try_recv()
            {
                match more.event {
                    GroupEvent::Records(_) if !self.core.counts(&more) => {}
                    GroupEvent::Records(more) => records.extend(more),
                    _ => {
                        queue.kept = Some(more);
                        break;
                    }
                }
            }
            return Ok(GroupEvent::Records(records));
        }
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        self.core.read(partition, from).await
    }

    fn pause(&self, partition: u32) {
        self.core.set_paused(partition, true);
    }

    fn resume(&self, partition: u32) {
        self.core.set_paused(partition, false);
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        let held = self.core.held(commit.partition)?;
        held.commit(&commit).await
    }

    async fn release(&self, partition: u32) -> Result<()> {
        let held = self.core.held(partition)?;
        if let Some(owned) = self.core.owned().get_mut(&partition) {
            owned.stop();
        }
        let released = held.release().await;
        let mut owned = self.core.owned();
        if owned.get(&partition).is_some_and(|owned| Arc::ptr_eq(&owned.held, &held)) {
            owned.remove(&partition);
        }
        released
    }

    async fn leave(&self) -> Result<()> {
        self.tasks.lock().abort_all();
        let owned = std::mem::take(&mut *self.core.owned());
        let releases = owned.values().map(|owned| owned.held.leave());
        let released: Vec<Result<()>> = join_all(releases).await;
        drop(owned);
        self.core.store.remove(&self.core.slot(), None).await?;
        self.core.queue.lock().take();
        released.into_iter().collect()
    }
}
