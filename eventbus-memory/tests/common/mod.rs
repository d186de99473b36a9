//! Helpers shared by the tests of the backend's promises: a publisher without lanes, and a member without an engine.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::backend::{
    Assignment, Backend, Body, Commit, Fate, GroupEvent, Inbound, Join, Membership, Outbound, TopicDescription,
    ensure_topic,
};
use eventbus_core::backend::{Ticket, TicketSink};
use eventbus_core::{Envelope, Position, ProducerId, Result, Stamp, Topic, TopicSpec};
use eventbus_memory::{FaultKind, MemoryBackend, MemoryConfig, MemoryWorld};
use tokio::sync::Notify;
use tokio::time::timeout;

pub const TOPIC: &str = "orders";

pub fn topic() -> Topic {
    TOPIC.parse().unwrap()
}

pub async fn world(partitions: u32) -> (MemoryWorld, MemoryBackend) {
    world_with(MemoryConfig::new(), TopicSpec::new(TOPIC).partitions(partitions)).await
}

pub async fn world_with(config: MemoryConfig, spec: TopicSpec) -> (MemoryWorld, MemoryBackend) {
    let world = config.build().unwrap();
    let backend = world.connect();
    ensure_topic(&backend, &spec).await.unwrap();
    (world, backend)
}

/// A sink that keeps fates in the order in which they were told.
#[derive(Default)]
pub struct Fates {
    told: Mutex<Vec<(u64, Fate)>>,
    /// Submissions that no longer stand, as the key lanes would say.
    pub fallen: Mutex<Vec<u64>>,
    changed: Notify,
}

impl TicketSink for Fates {
    fn told(self: Arc<Self>, id: u64, fate: Fate) {
        let mut told = self.told.lock().unwrap();
        assert!(told.iter().all(|(known, _)| *known != id), "ticket {id} was told twice");
        told.push((id, fate));
        self.changed.notify_waiters();
    }

    fn stands(&self, id: u64) -> bool {
        self.fallen.lock().unwrap().iter().all(|fallen| *fallen != id)
    }
}

impl Fates {
    pub fn get(&self, id: u64) -> Option<Fate> {
        self.told.lock().unwrap().iter().find(|(known, _)| *known == id).map(|(_, fate)| fate.clone())
    }

    /// The ids told so far, in the order of telling.
    pub fn order(&self) -> Vec<u64> {
        self.told.lock().unwrap().iter().map(|(id, _)| *id).collect()
    }

    pub async fn of(&self, id: u64) -> Fate {
        loop {
            let changed = self.changed.notified();
            if let Some(fate) = self.get(id) {
                return fate;
            }
            timeout(Duration::from_secs(3600), changed).await.unwrap_or_else(|_| panic!("ticket {id} is never told"));
        }
    }
}

/// A publisher without lanes. Each send has a ticket of its own, also when a stamp is sent again.
pub struct Publisher {
    pub backend: MemoryBackend,
    pub fates: Arc<Fates>,
    sends: AtomicU64,
}

pub fn envelope(key: &str, number: u64) -> Envelope {
    Envelope::builder("Placed", "/test").key(key).payload(Bytes::from(number.to_string())).build().unwrap()
}

pub fn stamp(number: u64) -> Stamp {
    Stamp::new(ProducerId::new(7), number)
}

impl Publisher {
    pub fn new(backend: &MemoryBackend) -> Self {
        Self { backend: backend.clone(), fates: Arc::default(), sends: AtomicU64::new(0) }
    }

    /// Sends the publish of this number, to a partition, under the key `k`. Returns the send's id.
    pub fn send(&self, partition: u32, number: u64) -> u64 {
        self.send_key(partition, "k", number)
    }

    pub fn send_key(&self, partition: u32, key: &str, number: u64) -> u64 {
        let id = self.sends.fetch_add(1, Ordering::Relaxed);
        let record = Outbound::new(topic(), partition, stamp(number), envelope(key, number));
        self.backend.submit(record, Ticket::new(Arc::clone(&self.fates) as Arc<dyn TicketSink>, id));
        id
    }

    pub async fn stored(&self, partition: u32, number: u64) -> Position {
        position(&self.fates.of(self.send(partition, number)).await)
    }
}

pub fn position(fate: &Fate) -> Position {
    match fate {
        Fate::Stored { position, .. } => *position,
        other => panic!("expected stored, got {other:?}"),
    }
}

pub fn is_duplicate(fate: &Fate) -> bool {
    matches!(fate, Fate::Stored { duplicate: true, .. })
}

/// A member with the simplest engine: it claims and reads every partition that it is given.
pub struct TestMember {
    pub membership: Arc<dyn Membership>,
    pub owned: BTreeMap<u32, Assignment>,
    /// The partitions of the newest `Assigned`, whose assignments are in `owned`.
    newly: Vec<u32>,
}

pub async fn describe(backend: &MemoryBackend) -> TopicDescription {
    backend.describe_topic(&topic()).await.unwrap()
}

pub async fn join(backend: &MemoryBackend, member: &str) -> TestMember {
    join_as(backend, member, |_| ()).await
}

pub async fn join_as(backend: &MemoryBackend, member: &str, change: impl FnOnce(&mut Join)) -> TestMember {
    let mut join = Join::new(describe(backend).await, "billing".parse().unwrap(), member);
    change(&mut join);
    TestMember { membership: backend.join(join).await.unwrap(), owned: BTreeMap::new(), newly: Vec::new() }
}

impl TestMember {
    pub async fn next(&mut self) -> GroupEvent {
        let event = timeout(Duration::from_secs(3600), self.membership.next()).await.expect("an event").unwrap();
        match event {
            GroupEvent::Assigned(assigned) => {
                let partitions: Vec<u32> = assigned.iter().map(|assignment| assignment.partition).collect();
                self.owned.extend(assigned.into_iter().map(|assignment| (assignment.partition, assignment)));
                self.newly = partitions;
                GroupEvent::Assigned(Vec::new())
            }
            GroupEvent::Lost(partitions) => {
                partitions.iter().for_each(|partition| drop(self.owned.remove(partition)));
                GroupEvent::Lost(partitions)
            }
            other => other,
        }
    }

    /// Asserts that no event comes within a second.
    pub async fn hears_nothing(&mut self) {
        let event = timeout(Duration::from_secs(1), self.membership.next()).await;
        assert!(event.is_err(), "expected no event, got {event:?}");
    }

    pub async fn assigned(&mut self) -> Vec<u32> {
        match self.next().await {
            GroupEvent::Assigned(_) => self.newly.clone(),
            other => panic!("expected assigned, got {other:?}"),
        }
    }

    pub async fn revoked(&mut self) -> Vec<u32> {
        match self.next().await {
            GroupEvent::Revoked(partitions) => partitions,
            other => panic!("expected revoked, got {other:?}"),
        }
    }

    pub async fn lost(&mut self) -> Vec<u32> {
        match self.next().await {
            GroupEvent::Lost(partitions) => partitions,
            other => panic!("expected lost, got {other:?}"),
        }
    }

    pub async fn interrupted(&mut self) -> Vec<u32> {
        match self.next().await {
            GroupEvent::Interrupted(partitions) => partitions,
            other => panic!("expected interrupted, got {other:?}"),
        }
    }

    pub async fn records(&mut self) -> Vec<Inbound> {
        match self.next().await {
            GroupEvent::Records(records) => records,
            other => panic!("expected records, got {other:?}"),
        }
    }

    /// Waits for the next batch, and returns the numbers of its records.
    pub async fn numbers(&mut self) -> Vec<u64> {
        self.records().await.iter().map(number).collect()
    }

    /// Claims a partition with an epoch, keeping its progress.
    pub async fn claim(&self, partition: u32, epoch: u64) -> Result<()> {
        let committed = self.owned.get(&partition).and_then(|assignment| assignment.committed.clone());
        let next = committed.map_or(Position::ZERO, |committed| committed.next);
        self.membership.commit(Commit::new(partition, next, epoch, Bytes::new()).claiming()).await
    }

    pub async fn commit(&self, partition: u32, next: u64, epoch: u64) -> Result<()> {
        self.membership.commit(Commit::new(partition, Position::new(next), epoch, Bytes::from_static(b"note"))).await
    }

    /// Takes over partition 0 of a topic that has no other, and reads it from a position.
    pub async fn own_the_only(&mut self, epoch: u64, from: u64) {
        assert_eq!(self.assigned().await, [0]);
        self.claim(0, epoch).await.unwrap();
        self.membership.read(0, Position::new(from)).await.unwrap();
    }

    pub fn lease_holds(&self, partition: u32) -> bool {
        self.owned.get(&partition).is_some_and(|assignment| assignment.lease.is_valid())
    }
}

pub fn number(record: &Inbound) -> u64 {
    match &record.body {
        Body::Envelope(envelope) => String::from_utf8_lossy(envelope.payload()).parse().unwrap(),
        other => panic!("expected an envelope, got {other:?}"),
    }
}

/// The kinds of faults that took effect, in order.
pub fn watch(world: &MemoryWorld) -> Arc<Mutex<Vec<FaultKind>>> {
    let seen: Arc<Mutex<Vec<FaultKind>>> = Arc::default();
    let into = Arc::clone(&seen);
    world.faults().on_fault(move |fault| into.lock().unwrap().push(fault.kind));
    seen
}
