//! A store in memory on tokio's clock, seen through handles: each member has its own, which can be cut off, and whose
//! writes can go wrong.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::backend::{ConnectionState, LogState, TopicDescription};
use crate::model::{Error, ErrorKind, Group, Position, Result, TopicSpec};
use crate::toolkit::lease::{
    CasOutcome, LeaseStore, ReadPacing, Source, SourceEvent, StoreKey, StoredEntry, StoredKey,
};

/// The store's clock at its beginning.
const BEGIN: u64 = 1_700_000_000_000;

/// Fault of a write.
#[derive(Debug)]
pub(super) enum Fault {
    /// The write is done, and the answer is lost.
    Lost,
    /// The write is not answered, and done so much later.
    Late(Duration),
    /// The write is not answered, and never done.
    Never,
    /// The write is done, and answered so much later.
    Slow(Duration),
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    revisions: u64,
    /// Revision, time, value.
    slots: HashMap<StoreKey, (u64, u64, Bytes)>,
    /// The number of the place that holds the slots, and whether it was removed and not made again.
    place: u32,
    removed: bool,
    logs: Vec<LogState>,
    last: Option<Position>,
    /// Looks for a next record so far, and the time from what each sees to its answer.
    looks: (usize, Duration),
    removals: Arc<[(Position, Position)]>,
    /// Readers in the order of their opening.
    feeds: Vec<Arc<Feed>>,
}

impl Shared {
    fn now(&self) -> u64 {
        BEGIN + u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    fn write(&mut self, slot: &StoreKey, revision: Option<u64>, value: Bytes) -> CasOutcome {
        let found = self.slots.get(slot).map_or(0, |(revision, ..)| *revision);
        if revision.is_some_and(|revision| revision != found) {
            return CasOutcome::Conflict;
        }
        self.revisions += 1;
        self.slots.insert(slot.clone(), (self.revisions, self.now(), value));
        CasOutcome::Done(self.revisions)
    }
}

/// One handle on the store.
#[derive(Debug)]
pub(super) struct Fake {
    shared: Arc<Mutex<Shared>>,
    connection: watch::Sender<ConnectionState>,
    cut: AtomicBool,
    sealed: AtomicBool,
    faults: Mutex<VecDeque<Fault>>,
    /// The slots of all tries to swap by this handle.
    swaps: Mutex<Vec<StoreKey>>,
}

impl Fake {
    /// Makes a store for a topic `t` with so many partitions, and its first handle.
    pub(super) fn new(partitions: u32) -> Arc<Self> {
        let log = LogState { incarnation: "i".into(), first: Position::new(1), end: Position::new(1) };
        Self::on(Arc::new(Mutex::new(Shared {
            begun: Instant::now(),
            revisions: 0,
            slots: HashMap::new(),
            place: 1,
            removed: false,
            logs: vec![log; partitions as usize],
            last: None,
            looks: (0, Duration::ZERO),
            removals: Arc::default(),
            feeds: Vec::new(),
        })))
    }

    fn on(shared: Arc<Mutex<Shared>>) -> Arc<Self> {
        let connection = watch::Sender::new(ConnectionState::Connected);
        let cut = AtomicBool::new(false);
        let sealed = AtomicBool::new(false);
        Arc::new(Self { shared, connection, cut, sealed, faults: Mutex::default(), swaps: Mutex::default() })
    }

    pub(super) fn another(&self) -> Arc<Self> {
        Self::on(Arc::clone(&self.shared))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// Lets nothing through this handle any more, or lets all through again.
    pub(super) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    pub(super) fn swaps_of(&self, slot: &StoreKey) -> usize {
        self.swaps.lock().unwrap().iter().filter(|swap| *swap == slot).count()
    }

    pub(super) fn value(&self, slot: &StoreKey) -> Option<(u64, Bytes)> {
        self.shared().slots.get(slot).map(|(revision, _, value)| (*revision, value.clone()))
    }

    /// Sets the runs of removed records.
    pub(super) fn set_removals(&self, runs: &[(u64, u64)]) {
        self.shared().removals = runs.iter().map(|run| (Position::new(run.0), Position::new(run.1))).collect();
    }

    /// Removes the place with all slots; makes another one, if told so.
    pub(super) fn remove_place(&self, make_again: bool) {
        let mut shared = self.shared();
        shared.slots.clear();
        shared.place += 1;
        shared.removed = !make_again;
    }

    /// Refuses all writes for good, or takes them again.
    pub(super) fn seal(&self, sealed: bool) {
        self.sealed.store(sealed, Ordering::Relaxed);
    }

    /// Sets all partitions' logs, and the last record that a look finds.
    pub(super) fn set_log(&self, first: u64, end: u64, last: Option<u64>) {
        let mut shared = self.shared();
        for log in &mut shared.logs {
            (log.first, log.end) = (Position::new(first), Position::new(end));
        }
        shared.last = last.map(Position::new);
    }

    /// Lets each look for a next record take so long from now on. Returns the number of looks so far.
    pub(super) fn slow_looks(&self, takes: Duration) -> usize {
        let mut shared = self.shared();
        shared.looks.1 = takes;
        shared.looks.0
    }

    pub(super) fn looks(&self) -> usize {
        self.shared().looks.0
    }

    /// Returns the reader that was opened last.
    pub(super) fn feed(&self) -> Arc<Feed> {
        Arc::clone(self.shared().feeds.last().unwrap())
    }

    fn takes_writes(&self) -> Result<()> {
        if self.sealed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Backend, "invalid operation on sealed place"));
        }
        match self.shared().removed {
            true => Err(Error::new(ErrorKind::Unavailable, "nobody is there")),
            false => Ok(()),
        }
    }

    fn reach(&self) -> Result<()> {
        match self.cut.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "cut off")),
            false => Ok(()),
        }
    }
}

/// The test's end of a reader.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) from: Position,
    pub(super) send: mpsc::UnboundedSender<SourceEvent>,
    /// Records requested so far.
    pub(super) asked: Arc<AtomicUsize>,
    /// The limits of bytes of the requests so far.
    pub(super) limits: Arc<Mutex<Vec<Option<usize>>>>,
}

pub(super) struct FakeSource<R> {
    asked: Arc<AtomicUsize>,
    limits: Arc<Mutex<Vec<Option<usize>>>>,
    items: mpsc::UnboundedReceiver<SourceEvent<R>>,
}

impl<R> FakeSource<R> {
    /// Makes a source that gives the sent events.
    pub(super) fn new() -> (Self, mpsc::UnboundedSender<SourceEvent<R>>) {
        let (send, items) = mpsc::unbounded_channel();
        (Self { asked: Arc::default(), limits: Arc::default(), items }, send)
    }
}

#[async_trait]
impl<R: Send + 'static> Source<R> for FakeSource<R> {
    async fn request(&mut self, records: usize, bytes: Option<usize>) -> Result<()> {
        self.asked.fetch_add(records, Ordering::Relaxed);
        self.limits.lock().unwrap().push(bytes);
        Ok(())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SourceEvent<R>> {
        self.items.poll_recv(context).map(|item| item.unwrap())
    }
}

#[async_trait]
impl LeaseStore for Fake {
    fn read_pacing(&self) -> ReadPacing {
        ReadPacing { batch: 100, look: Duration::from_secs(1), silence: Duration::from_secs(2) }
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.connection.subscribe()
    }

    async fn ensure(&self, _: &TopicDescription, begin_anew: bool) -> Result<String> {
        self.reach()?;
        let mut shared = self.shared();
        if shared.removed && !begin_anew {
            return Err(Error::new(ErrorKind::LogReset, "the place was removed"));
        }
        shared.removed = false;
        Ok(shared.place.to_string())
    }

    async fn place(&self) -> Result<Option<String>> {
        self.reach()?;
        let shared = self.shared();
        Ok((!shared.removed).then(|| shared.place.to_string()))
    }

    async fn describe(&self) -> Result<TopicDescription> {
        self.reach()?;
        let logs = self.shared().logs.clone();
        let partitions = u32::try_from(logs.len()).unwrap();
        let mut topic = TopicDescription::new(TopicSpec::new("t").partitions(partitions), "i", logs);
        topic.removed = self.shared().removals.clone();
        Ok(topic)
    }

    async fn now(&self) -> Result<u64> {
        self.reach()?;
        Ok(self.shared().now())
    }

    async fn compare_and_swap(&self, slot: &StoreKey, revision: u64, value: Bytes, patience: Duration) -> CasOutcome {
        self.swaps.lock().unwrap().push(slot.clone());
        let unknown = || CasOutcome::Unknown(Error::new(ErrorKind::Unavailable, "no answer"));
        if self.reach().is_err() {
            sleep(patience).await;
            return unknown();
        }
        let fault = self.faults.lock().unwrap().pop_front();
        if let Err(error) = self.takes_writes() {
            return CasOutcome::NotDone(error);
        }
        match fault {
            None => self.shared().write(slot, Some(revision), value),
            Some(Fault::Lost) => {
                self.shared().write(slot, Some(revision), value);
                unknown()
            }
            Some(Fault::Never) => unknown(),
            Some(Fault::Slow(wait)) => {
                let swap = self.shared().write(slot, Some(revision), value);
                sleep(wait).await;
                swap
            }
            Some(Fault::Late(wait)) => {
                let (shared, slot) = (Arc::clone(&self.shared), slot.clone());
                tokio::spawn(async move {
                    sleep(wait).await;
                    shared.lock().unwrap().write(&slot, Some(revision), value);
                });
                unknown()
            }
        }
    }

    async fn put(&self, slot: &StoreKey, value: Bytes) -> Result<()> {
        self.reach()?;
        self.takes_writes()?;
        self.shared().write(slot, None, value);
        Ok(())
    }

    async fn get(&self, slot: &StoreKey) -> Result<Option<(u64, Bytes)>> {
        self.reach()?;
        Ok(self.value(slot))
    }

    async fn snapshot(&self, group: Option<&Group>) -> Result<Vec<StoredEntry>> {
        self.reach()?;
        let shared = self.shared();
        let entries = shared.slots.iter().filter_map(|(slot, (revision, written, value))| {
            let (of, key) = match slot {
                StoreKey::Partition(of, partition) => (of, StoredKey::Partition(*partition)),
                StoreKey::Member(of, _) => (of, StoredKey::Member),
            };
            let entry = StoredEntry { key, revision: *revision, written: *written, value: value.clone() };
            group.is_none_or(|group| group == of).then_some(entry)
        });
        Ok(entries.collect())
    }

    async fn remove(&self, slot: &StoreKey, up_to: Option<u64>) -> Result<()> {
        self.reach()?;
        let mut shared = self.shared();
        if shared.slots.get(slot).is_some_and(|(revision, ..)| *revision <= up_to.unwrap_or(u64::MAX)) {
            shared.slots.remove(slot);
        }
        Ok(())
    }

    async fn clear(&self, group: &Group) -> Result<()> {
        self.reach()?;
        self.shared().slots.retain(|slot, _| match slot {
            StoreKey::Partition(of, _) | StoreKey::Member(of, _) => of != group,
        });
        Ok(())
    }

    async fn next(&self, _: u32, from: Position) -> Result<Option<Position>> {
        self.reach()?;
        let (seen, takes) = {
            let mut shared = self.shared();
            shared.looks.0 += 1;
            (shared.last.filter(|last| *last >= from), shared.looks.1)
        };
        sleep(takes).await;
        Ok(seen)
    }

    async fn backlog(&self, _: u32, from: Position) -> Result<(u64, Option<u64>)> {
        self.reach()?;
        Ok((if from == Position::ZERO { 3 } else { 2 }, Some(BEGIN)))
    }

    async fn open(&self, _: u32, from: Position) -> Result<Box<dyn Source>> {
        self.reach()?;
        let (source, send) = FakeSource::new();
        let feed = Feed { from, send, asked: Arc::clone(&source.asked), limits: Arc::clone(&source.limits) };
        self.shared().feeds.push(Arc::new(feed));
        Ok(Box::new(source))
    }
}
