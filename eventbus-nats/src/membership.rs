//! One member of a group: what it owns, what it is told, and the tasks that keep both true (S5).
//!
//! Invariants:
//! * a partition is this member's from a successful compare-and-swap to its release, its loss, or the end of its lease;
//!   the record decides, never a view of the bucket;
//! * what a read of before, or of an earlier ownership, queued is not handed out: reads are numbered;
//! * an owner above its share asks the core to hand back; the next owner takes a partition only when it was released or
//!   its lease ran out.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::{Assignment, Commit, GroupEvent, Join, LogState, Membership};
use eventbus_core::{Error, ErrorKind, Position, Result};
use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::bucket::{Bucket, Member, Snapshot, lease_ms};
use crate::consumer::{Consumer, Start};
use crate::error::{Failure, NO_STREAM};
use crate::reader::{Ends, Flow, Reader, Told};
use crate::record::{Held, Record, Swap};
use crate::spread::{Seen, plan};
use crate::topics::stream_info;

/// How often the bucket is looked at, at most and at least.
const LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// After how many of its leases a member that is silent is forgotten.
const FORGOTTEN: u32 = 10;

/// A member. Its tasks end with it.
pub(crate) struct NatsMember {
    core: Arc<Core>,
    queue: tokio::sync::Mutex<Queue>,
    tasks: Mutex<JoinSet<()>>,
}

struct Queue {
    items: mpsc::UnboundedReceiver<Told>,
    /// Taken out of the queue behind records, and not handed out yet.
    kept: Option<Told>,
}

/// What a member and its tasks share.
struct Core {
    bucket: Bucket,
    join: Join,
    partitions: u32,
    owned: Mutex<BTreeMap<u32, Owned>>,
    queue: mpsc::UnboundedSender<Told>,
    ends: watch::Sender<Ends>,
    numbers: AtomicU64,
}

/// A partition that this member owns.
struct Owned {
    held: Arc<Held>,
    nonce: u64,
    /// The read under way: its number, its flow and its task.
    read: Option<(u64, Arc<Flow>, AbortHandle)>,
    paused: bool,
    /// When a revocation that is not answered ends the ownership.
    fence_at: Option<Instant>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Owned {
    fn stop(&mut self) {
        if let Some((_, _, task)) = self.read.take() {
            task.abort();
        }
    }
}

/// What one member knows of the others by its own clock: since when each entry has its revision.
#[derive(Default)]
struct Observed(HashMap<String, (u64, Instant)>);

impl Observed {
    /// How long an entry has not changed.
    fn unchanged(&mut self, key: &str, revision: u64) -> Duration {
        let now = Instant::now();
        let seen = self.0.entry(key.to_owned()).or_insert((revision, now));
        if seen.0 != revision {
            *seen = (revision, now);
        }
        now - seen.1
    }
}

impl fmt::Debug for NatsMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsMember").field("member", &self.core.join.member).finish_non_exhaustive()
    }
}

impl NatsMember {
    pub(crate) async fn join(bucket: Bucket, join: Join) -> Result<Self> {
        bucket.ensure(&join.topic).await?;
        let (queue, items) = mpsc::unbounded_channel();
        let core = Arc::new(Core {
            partitions: join.topic.spec.partitions,
            bucket,
            join,
            owned: Mutex::default(),
            queue,
            ends: watch::Sender::default(),
            numbers: AtomicU64::new(1),
        });
        core.heartbeat().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&core).balance());
        tasks.spawn(Arc::clone(&core).renew());
        tasks.spawn(Arc::clone(&core).watch_log());
        tasks.spawn(Arc::clone(&core).watch_connection());
        Ok(Self { core, queue: Queue { items, kept: None }.into(), tasks: tasks.into() })
    }
}

impl Core {
    fn owned(&self) -> MutexGuard<'_, BTreeMap<u32, Owned>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something about the group as a whole: always handed out.
    fn tell(&self, event: GroupEvent) {
        let _ = self.queue.send(Told { partition: 0, read: 0, event });
    }

    fn not_owned(&self, partition: u32) -> Error {
        self.about(Error::new(ErrorKind::Fenced, "the partition is not owned by this member"), partition)
    }

    fn about(&self, error: Error, partition: u32) -> Error {
        error.with("topic", &self.join.topic.spec.topic).with("group", &self.join.group).with("partition", partition)
    }

    fn held(&self, partition: u32) -> Result<Arc<Held>> {
        let owned = self.owned();
        let owned = owned.get(&partition).ok_or_else(|| self.not_owned(partition))?;
        Ok(Arc::clone(&owned.held))
    }

    /// Says that this member is there.
    async fn heartbeat(&self) -> Result<()> {
        let subject = self.bucket.names.member(&self.join.group, &self.join.member);
        let member = Member {
            group: self.join.group.to_string(),
            name: self.join.member.clone(),
            lease_ms: lease_ms(self.join.session_timeout),
        };
        let body = serde_json::to_vec(&member).map_err(|error| {
            Error::new(ErrorKind::Backend, "a member's name that cannot be written").caused_by(error)
        })?;
        let said = self.bucket.link.ask(subject, async_nats::Request::new().payload(body.into())).await?;
        crate::connection::read::<serde_json::Value>(&said)?;
        Ok(())
    }

    /// Looks at the bucket and puts right what this member owns.
    async fn balance(self: Arc<Self>) {
        let mut observed = Observed::default();
        let mut tried = Vec::new();
        let mut said = Instant::now();
        let every = (self.join.session_timeout / 20).clamp(LOOK[0], LOOK[1]);
        loop {
            if said.elapsed() >= self.join.session_timeout / 3 && self.heartbeat().await.is_ok() {
                said = Instant::now();
            }
            self.end_fenced().await;
            match self.bucket.snapshot(Some(&self.join.group)).await {
                Ok(snapshot) => self.rebalance(snapshot, &mut observed, &mut tried).await,
                Err(failure) => tracing::debug!(target: "eventbus", ?failure, "the bucket could not be read"),
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Ends ownerships whose revocation was not answered in time: others wait for the end of their leases.
    async fn end_fenced(&self) {
        let over = |owned: &Owned| owned.fence_at.is_some_and(|at| at <= Instant::now());
        let fenced: Vec<u32> = self.owned().iter().filter(|(_, owned)| over(owned)).map(|(p, _)| *p).collect();
        for partition in fenced {
            self.lose(partition).await;
        }
    }

    async fn lose(&self, partition: u32) {
        let Some(owned) = self.owned().remove(&partition) else { return };
        owned.held.abandon().await;
        drop(owned);
        self.tell(GroupEvent::Lost(vec![partition]));
    }

    /// `tried` are the nonces of takings whose outcome was not known: what they took is free to be taken again.
    async fn rebalance(&self, snapshot: Snapshot, observed: &mut Observed, tried: &mut Vec<u64>) {
        let me = self.join.member.as_str();
        let mut members = vec![me.to_owned()];
        for (subject, revision, _, member) in &snapshot.members {
            let silent = observed.unchanged(subject, *revision);
            let lease = Duration::from_millis(member.lease_ms);
            if member.name != me && silent < lease {
                members.push(member.name.clone());
            } else if silent > lease * FORGOTTEN {
                let _ = self.bucket.purge(subject, Some(revision + 1)).await;
            }
        }
        let mut slots = vec![Seen::Free; self.partitions as usize];
        let mut records: HashMap<u32, (u64, Record)> = HashMap::new();
        let (mine, leaving) = {
            let owned = self.owned();
            let mine: HashMap<u32, u64> = owned.iter().map(|(partition, owned)| (*partition, owned.nonce)).collect();
            let leaving: Vec<u32> = owned.iter().filter(|(_, o)| o.fence_at.is_some()).map(|(p, _)| *p).collect();
            (mine, leaving)
        };
        for (partition, revision, _, record) in snapshot.records {
            let silent = observed.unchanged(&partition.to_string(), revision);
            let believed = silent < Duration::from_millis(record.lease_ms) && !tried.contains(&record.nonce);
            if let Some(slot) = slots.get_mut(partition as usize).filter(|_| !record.owner.is_empty() && believed) {
                *slot = Seen::Owned(record.owner.clone());
            }
            records.insert(partition, (revision, record));
        }
        for partition in mine.keys() {
            if let Some(slot) = slots.get_mut(*partition as usize) {
                *slot = Seen::Owned(me.to_owned());
            }
        }
        let plan = plan(me, &members, &slots, &leaving);
        self.ask_back(&plan.yields);
        let takes = plan.takes.into_iter().filter(|partition| !mine.contains_key(partition));
        let takes = takes.map(|partition| self.take(partition, records.remove(&partition)));
        let mut given = Vec::new();
        for taken in join_all(takes).await {
            match taken {
                Ok(assignment) => given.extend(assignment),
                Err(nonce) => {
                    // Enough for what the server may still carry out.
                    tried.drain(..tried.len().saturating_sub(self.partitions as usize));
                    tried.push(nonce);
                }
            }
        }
        if !given.is_empty() {
            self.tell(GroupEvent::Assigned(given));
        }
    }

    fn ask_back(&self, partitions: &[u32]) {
        if partitions.is_empty() {
            return;
        }
        let fence_at = Instant::now() + self.join.drain_deadline;
        for partition in partitions {
            if let Some(owned) = self.owned().get_mut(partition) {
                owned.fence_at = Some(fence_at);
            }
        }
        self.tell(GroupEvent::Revoked(partitions.to_vec()));
    }

    /// Takes a partition, unless somebody was faster. Where the outcome is not known, the nonce under which it was tried.
    async fn take(&self, partition: u32, found: Option<(u64, Record)>) -> std::result::Result<Option<Assignment>, u64> {
        // The log first: nothing of it is missed by looking before the partition is ours.
        let Ok(info) = stream_info(&self.bucket.link, &self.bucket.names.stream).await else { return Ok(None) };
        let (revision, before) = found.unwrap_or_default();
        let record = Record {
            group: self.join.group.to_string(),
            owner: self.join.member.clone(),
            nonce: rand::random(),
            write: 1,
            lease_ms: lease_ms(self.join.session_timeout),
            ..before
        };
        let (slot, nonce, sent) =
            (self.bucket.slot(&self.join.group, partition, self.join.session_timeout), record.nonce, Instant::now());
        match slot.swap(revision, &record).await {
            Swap::Done(revision) => {
                let committed = record.committed();
                let held = Arc::new(Held::new(slot, revision, record, sent));
                let lease = held.lease().clone();
                let owned = Owned { held, nonce, read: None, paused: false, fence_at: None };
                self.owned().insert(partition, owned);
                Ok(Some(Assignment::new(partition, info.log(), committed, lease)))
            }
            Swap::Conflict => Ok(None),
            Swap::NotDone(Failure::Unanswered(_)) => Err(nonce),
            Swap::NotDone(_) => Ok(None),
        }
    }

    /// Renews what is owned, each on its own: one that waits for an answer delays no other.
    async fn renew(self: Arc<Self>) {
        let every = (self.join.session_timeout / 12).max(LOOK[0]);
        loop {
            tokio::time::sleep(every).await;
            let held: Vec<(u32, Arc<Held>)> =
                self.owned().iter().map(|(partition, owned)| (*partition, Arc::clone(&owned.held))).collect();
            let renewals = held.into_iter().map(|(partition, held)| async move {
                if let Err(error) = held.renew().await {
                    tracing::debug!(target: "eventbus", partition, %error, "a lease was not renewed");
                    if error.kind() == ErrorKind::Fenced {
                        return Some((partition, held));
                    }
                }
                None
            });
            for (partition, held) in join_all(renewals).await.into_iter().flatten() {
                let ours = self.owned().get(&partition).is_some_and(|owned| Arc::ptr_eq(&owned.held, &held));
                if ours {
                    self.lose(partition).await;
                }
            }
        }
    }

    /// Looks at the log's ends from time to time: for what retention took, and how far idle partitions have come.
    async fn watch_log(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.bucket.link.config.heartbeat).await;
            if self.owned().is_empty() {
                continue;
            }
            if let Ok(info) = stream_info(&self.bucket.link, &self.bucket.names.stream).await {
                let log = info.log();
                let ends = Ends { first: log.first.get(), last: info.state.last_seq };
                self.ends.send_replace(ends);
            }
        }
    }

    async fn watch_connection(self: Arc<Self>) {
        let mut state = self.bucket.link.watch();
        while state.changed().await.is_ok() {
            let now = *state.borrow_and_update();
            self.tell(GroupEvent::Connection(now));
        }
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        let link = &self.bucket.link;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let nonce = {
            let mut owned = self.owned();
            let owned = owned.get_mut(&partition).ok_or_else(|| self.not_owned(partition))?;
            owned.stop();
            owned.nonce
        };
        let names = &self.bucket.names;
        let (stream, subject) = (names.stream.clone(), names.partition(partition));
        let created = Consumer::create(link, &stream, &subject, Start::Sequence(from.get()), false).await;
        let (consumer, _) = self.known(created).await?;
        let pulls = consumer.pulls().await?;
        // After the creation: a start above the log's end is found by this alone.
        let log = self.known(stream_info(link, &stream).await).await?.log();
        let mut owned = self.owned();
        let owned = owned.get_mut(&partition).filter(|owned| owned.nonce == nonce);
        let owned = owned.ok_or_else(|| self.not_owned(partition))?;
        let flow = Arc::new(Flow::default());
        flow.pause(owned.paused);
        let reader = Reader {
            link: Arc::clone(link),
            stream,
            subject,
            partition,
            number,
            flow: Arc::clone(&flow),
            queue: self.queue.clone(),
            ends: self.ends.subscribe(),
            // Below the first position there is nothing, which the core is told by the answer.
            next: from.get().max(log.first.get()),
        };
        let task = tokio::spawn(reader.run(consumer, pulls)).abort_handle();
        owned.stop();
        owned.read = Some((number, flow, task));
        Ok(log)
    }

    /// A stream that is not there is believed when it is still not there a little later: a server that recovers says the
    /// same for a moment.
    async fn known<T>(&self, asked: std::result::Result<T, Failure>) -> Result<T> {
        let failure = match asked {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        if failure.is(NO_STREAM) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let again = stream_info(&self.bucket.link, &self.bucket.names.stream).await;
            if again.is_err_and(|again| again.is(NO_STREAM)) {
                return Err(Error::from(failure).with("topic", &self.join.topic.spec.topic));
            }
        }
        let lasting = matches!(failure, Failure::Denied(_) | Failure::Closed);
        Err(Error::from(failure).retryable(!lasting))
    }

    /// Whether an item is of a read that is under way, and takes its records off what was asked for.
    fn counts(&self, told: &Told) -> bool {
        if told.read == 0 {
            return true;
        }
        let owned = self.owned();
        let read = owned.get(&told.partition).and_then(|owned| owned.read.as_ref());
        let Some((_, flow, _)) = read.filter(|(number, ..)| *number == told.read) else { return false };
        if let GroupEvent::Records(records) = &told.event {
            flow.taken(records.len());
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

#[async_trait]
impl Membership for NatsMember {
    async fn next(&self) -> Result<GroupEvent> {
        /// Records handed out at once.
        const MOST: usize = 2_048;
        let mut queue = self.queue.lock().await;
        loop {
            let told = match queue.kept.take() {
                Some(told) => told,
                None => {
                    let left = || Error::new(ErrorKind::Closed, "the member has left its group");
                    queue.items.recv().await.ok_or_else(left)?
                }
            };
            if !self.core.counts(&told) {
                continue;
            }
            let GroupEvent::Records(mut records) = told.event else { return Ok(told.event) };
            // What is there of other partitions comes along.
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
        held.commit(&commit).await.map_err(|error| self.core.about(error, commit.partition))
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
        released.map_err(|error| self.core.about(error, partition))
    }

    async fn leave(&self) -> Result<()> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        let owned = std::mem::take(&mut *self.core.owned());
        let releases = owned.values().map(|owned| owned.held.release());
        let released: Vec<Result<()>> = join_all(releases).await;
        drop(owned);
        let subject = self.core.bucket.names.member(&self.core.join.group, &self.core.join.member);
        self.core.bucket.purge(&subject, None).await?;
        self.queue.lock().await.items.close();
        released.into_iter().collect()
    }
}
