//! A client in memory, which notes the calls to it and yields the events that the test gives it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::backend::{Body, Inbound};
use crate::model::{Envelope, Error};
use crate::toolkit::coordinated::{Client, CommitEntry};

#[derive(Debug, Clone)]
pub(super) struct Record(u32, u64);

pub(super) fn record(partition: u32, position: u64) -> Polled<Record> {
    Polled::Record(Record(partition, position))
}

impl Record {
    fn print(&self) -> Fingerprint {
        Fingerprint::of(self.1.try_into().unwrap(), 1, b"k", b"p")
    }
}

/// The broker of a member's client, as far as the test sees it.
pub(super) struct Broker {
    pub(super) polled: Mutex<VecDeque<Polled<Record>>>,
    pub(super) polls: AtomicUsize,
    /// The calls to the client, in order.
    said: Mutex<Vec<String>>,
    sent: mpsc::UnboundedSender<Vec<(u32, u64)>>,
    answers: Mutex<threads::Receiver<Result<(), CommitError>>>,
    /// The group's committed progress.
    pub(super) committed: Mutex<HashMap<u32, (u64, String)>>,
    /// A receiver on which lookups of that progress wait, if there is one.
    pub(super) looks: Mutex<Option<threads::Receiver<()>>>,
    /// The end of each log; 100 where none is named.
    pub(super) ends: Mutex<HashMap<u32, u64>>,
    pub(super) first: AtomicUsize,
    pub(super) prints: Mutex<HashMap<u32, Fingerprint>>,
    pub(super) looked: AtomicUsize,
    pub(super) stuck: AtomicBool,
    pub(super) gone: AtomicBool,
    pub(super) count: AtomicUsize,
    /// The partitions whose logs cannot be asked for.
    pub(super) away: Mutex<HashSet<u32>>,
    /// The call that panics, if there is one.
    pub(super) panics: Mutex<Option<&'static str>>,
    /// The name of the thread on which the client was dropped, and the answer to its last callback.
    pub(super) dropped: Mutex<Option<(String, Revocation)>>,
}

type Parts = (Arc<Broker>, mpsc::UnboundedReceiver<Vec<(u32, u64)>>, threads::Sender<Result<(), CommitError>>);

impl Broker {
    pub(super) fn new() -> Parts {
        let (sent, requests) = mpsc::unbounded_channel();
        let (answers, received) = threads::channel();
        let broker = Self {
            polled: Mutex::default(),
            polls: AtomicUsize::new(0),
            said: Mutex::default(),
            sent,
            answers: Mutex::new(received),
            committed: Mutex::default(),
            looks: Mutex::default(),
            ends: Mutex::default(),
            first: AtomicUsize::new(0),
            prints: Mutex::default(),
            looked: AtomicUsize::new(0),
            stuck: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            count: AtomicUsize::new(3),
            away: Mutex::default(),
            panics: Mutex::default(),
            dropped: Mutex::default(),
        };
        (Arc::new(broker), requests, answers)
    }

    pub(super) fn client(self: &Arc<Self>, listener: RebalanceListener<Fake>) -> Fake {
        Fake { broker: Arc::clone(self), listener }
    }

    pub(super) fn comes(&self, polled: impl IntoIterator<Item = Polled<Record>>) {
        self.polled.lock().unwrap().extend(polled);
    }

    fn panics_in(&self, call: &'static str) {
        let now = *self.panics.lock().unwrap_or_else(PoisonError::into_inner) == Some(call);
        assert!(!now, "{call}");
    }

    fn say(&self, what: String) {
        self.said.lock().unwrap().push(what);
    }

    /// Takes the calls to the client since the last one of this.
    pub(super) fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap())
    }

    /// Returns the group's committed position and the metadata beside it.
    pub(super) fn stored(&self, partition: u32) -> Option<(u64, CommitMetadata)> {
        let committed = self.committed.lock().unwrap();
        committed.get(&partition).map(|(next, text)| (*next, CommitMetadata::decode(text).unwrap()))
    }
}

pub(super) struct Fake {
    broker: Arc<Broker>,
    listener: RebalanceListener<Fake>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        let answer = self.listener.revoked(&[0], false);
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        *self.broker.dropped.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, answer));
    }
}

fn sorted(partitions: &[u32]) -> Vec<u32> {
    let mut sorted = partitions.to_vec();
    sorted.sort_unstable();
    sorted
}

impl Client for Fake {
    type Record<'a> = Record;

    fn place(record: &Record) -> (u32, Position) {
        (record.0, Position::new(record.1))
    }

    fn fingerprint(record: &Record) -> Fingerprint {
        record.print()
    }

    fn inbound(record: &Record) -> Inbound {
        let envelope = Envelope::builder("T", "/s").build().unwrap();
        Inbound::new(record.0, Position::new(record.1), 0, Body::Envelope(envelope))
    }

    fn poll(&self, _: Duration) -> Polled<Record> {
        self.broker.polls.fetch_add(1, Ordering::Relaxed);
        self.broker.panics_in("poll");
        self.broker.polled.lock().unwrap().pop_front().unwrap_or(Polled::Nothing)
    }

    fn seek(&self, partition: u32, from: Position) -> Result<bool> {
        self.broker.say(format!("seek {partition} {from}"));
        Ok(!self.broker.stuck.load(Ordering::Acquire))
    }

    fn pause(&self, partition: u32, paused: bool) {
        self.broker.say(format!("pause {partition} {paused}"));
    }

    fn unassign(&self, partitions: &[u32]) {
        self.broker.say(format!("unassign {:?}", sorted(partitions)));
    }

    fn subscribe(&self) -> Result<()> {
        self.broker.say("subscribe".into());
        Ok(())
    }

    fn unsubscribe(&self) {
        self.broker.say("unsubscribe".into());
    }

    fn leave(&self) {
        self.broker.say("leave".into());
    }

    fn commit(&self, entries: &[CommitEntry<'_>]) -> Result<(), CommitError> {
        self.broker.panics_in("commit");
        let _ = self.broker.sent.send(entries.iter().map(|entry| (entry.partition, entry.next.get())).collect());
        self.broker.answers.lock().unwrap().recv().unwrap_or_else(|_| away())?;
        let committed = entries.iter().map(|entry| (entry.partition, (entry.next.get(), entry.text.to_owned())));
        self.broker.committed.lock().unwrap().extend(committed);
        Ok(())
    }

    fn committed(&self, partitions: &[u32]) -> Result<HashMap<u32, (Position, String)>> {
        self.broker.panics_in("committed");
        if let Some(looks) = &*self.broker.looks.lock().unwrap() {
            self.broker.say("look".into());
            let _ = looks.recv();
        }
        let committed = self.broker.committed.lock().unwrap();
        let of = |partition| committed.get(partition).map(|(next, text)| (Position::new(*next), text.clone()));
        Ok(partitions.iter().filter_map(|partition| Some((*partition, of(partition)?))).collect())
    }

    fn count(&self) -> Result<u32> {
        Ok(self.broker.count.load(Ordering::Acquire) as u32)
    }

    fn ends(&self, partition: u32) -> Result<LogState> {
        if self.broker.away.lock().unwrap().contains(&partition) {
            return Err(Error::new(ErrorKind::Unavailable, "no leader"));
        }
        let end = self.broker.ends.lock().unwrap().get(&partition).copied().unwrap_or(100);
        let first = self.broker.first.load(Ordering::Acquire) as u64;
        Ok(LogState { first: Position::new(first), end: Position::new(end), ..LogState::default() })
    }

    fn fingerprints(&self, places: &[(u32, i64)]) -> Result<HashMap<u32, Fingerprint>> {
        self.broker.looked.fetch_add(1, Ordering::Relaxed);
        let other = self.broker.prints.lock().unwrap();
        let print = |(partition, offset): &(u32, i64)| {
            let there = Record(*partition, (*offset).try_into().unwrap()).print();
            (*partition, other.get(partition).copied().unwrap_or(there))
        };
        if places.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "asked for nothing"));
        }
        Ok(places.iter().map(print).collect())
    }

    fn is_gone(&self) -> bool {
        self.broker.gone.load(Ordering::Acquire)
    }

    fn reached(&self, reached: bool) {
        self.broker.say(format!("reached {reached}"));
    }
}
