//! The in-memory backend as a provider of worlds, in the shapes that brokers have.

mod raw;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::{Backend, Body, Fate, GroupEvent, Join, Outbound, Pipelining};
use eventbus_core::backend::{Ticket, TicketSink};
use eventbus_core::wire::WireRecord;
use eventbus_core::{Error, ErrorKind, Position, Topic};
use eventbus_memory::{
    Copies, FaultId, Latency, MemoryBackend, MemoryConfig, MemoryWorld, OnCut, Positions, Scope, SubmitFault, Wait,
};
use tokio::sync::oneshot;

use super::ability::{Abilities, Ability};
use super::fixture::{
    Armed, Clock, Connection, FaultError, Fixture, Missing, Provider, PublishFault, Publishes, Setup, UnderWay,
};
use raw::WithRaw;

/// The shape of a memory world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryKind {
    /// The default settings, and delays: positions per partition, a duplicate window.
    Plain,
    /// As on a stream server: positions shared by a topic's partitions, a duplicate window, one in flight per key,
    /// delays.
    Streams,
    /// As on a log server: positions per partition, pipelined producers whose copies are always dropped, delays,
    /// records that still come after a pause.
    Logs,
}

/// A provider of memory worlds.
#[derive(Clone, Copy, Debug)]
pub struct MemoryProvider {
    kind: MemoryKind,
    clock: Clock,
}

impl MemoryProvider {
    /// Makes worlds of this kind on a paused clock.
    #[must_use]
    pub const fn new(kind: MemoryKind) -> Self {
        Self { kind, clock: Clock::Paused }
    }

    /// Puts the worlds on the host's clock.
    #[must_use]
    pub const fn on_real_clock(mut self) -> Self {
        self.clock = Clock::Real;
        self
    }

    fn config(self, setup: &Setup) -> MemoryConfig {
        let micros = |least, most| Wait::between(Duration::from_micros(least), Duration::from_micros(most));
        let mut latency = Latency::default();
        latency.submit = micros(50, 2_000);
        latency.answer = micros(50, 1_000);
        latency.call = micros(50, 1_500);
        latency.fetch = micros(50, 500);
        let config = MemoryConfig::new().env(setup.env.clone());
        let config = match self.kind {
            MemoryKind::Plain => config.latency(latency),
            MemoryKind::Streams => config.positions(Positions::Shared).latency(latency).fetch_batch(64),
            MemoryKind::Logs => config
                .pipelining(Pipelining::PerPartition)
                .copies(Copies::Dropped)
                .latency(latency)
                .fetch_batch(100)
                .overshoot(50),
        };
        let config = setup.note_bytes.map_or(config.clone(), |bytes| config.note_bytes(bytes));
        setup.max_record_bytes.map_or(config.clone(), |bytes| config.max_record_bytes(bytes))
    }
}

#[async_trait]
impl Provider for MemoryProvider {
    fn name(&self) -> &str {
        match self.kind {
            MemoryKind::Plain => "memory",
            MemoryKind::Streams => "memory as streams",
            MemoryKind::Logs => "memory as logs",
        }
    }

    fn abilities(&self) -> Abilities {
        use Ability::{
            BlackHoleKey, CutConnection, DuplicateWindow, ExpireMember, FreezeProcess, HoldPublish, KeepProgress,
            KillProcess, LimitRecords, LoseConfirmation, Recreate, RefusePublish, RestartBroker, StoreCopy, StoreRaw,
            TakePartition, TopicDown, Truncate,
        };
        let mut abilities = Abilities::from([
            RefusePublish,
            LoseConfirmation,
            BlackHoleKey,
            HoldPublish,
            TopicDown,
            CutConnection,
            FreezeProcess,
            KillProcess,
            ExpireMember,
            TakePartition,
            RestartBroker,
            Truncate,
            Recreate,
            KeepProgress,
            StoreRaw,
            LimitRecords,
        ]);
        if self.kind != MemoryKind::Logs {
            abilities.extend([DuplicateWindow, StoreCopy]);
        }
        abilities
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    async fn world(&self, setup: Setup) -> Result<Arc<dyn Fixture>, Error> {
        let world = self.config(&setup).build()?;
        Ok(Arc::new(MemoryFixture { world, armed: Mutex::default() }))
    }
}

#[derive(Debug)]
struct MemoryFixture {
    world: MemoryWorld,
    armed: Mutex<Vec<FaultId>>,
}

fn on_cut(under_way: UnderWay) -> OnCut {
    match under_way {
        UnderWay::Stored => OnCut::Stored,
        UnderWay::Lost => OnCut::Lost,
        UnderWay::Either => OnCut::Drawn,
    }
}

fn there(was: bool, ability: Ability) -> Result<(), FaultError> {
    if was { Ok(()) } else { Err(Missing(ability).into()) }
}

#[async_trait]
impl Fixture for MemoryFixture {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error> {
        let backend = self.world.connect();
        let seen: Arc<dyn Backend> = Arc::new(WithRaw::new(Arc::new(backend.clone())));
        Ok(Arc::new(MemoryConnection { world: self.world.clone(), backend, seen }))
    }

    async fn on_publish(&self, fault: PublishFault, which: Publishes) -> Result<Armed, FaultError> {
        let fault = match fault {
            PublishFault::Refuse => SubmitFault::Refuse,
            PublishFault::LoseConfirmation => SubmitFault::LoseConfirmation,
            PublishFault::Hold => SubmitFault::Hold,
            PublishFault::NotStored => SubmitFault::NotStored,
        };
        let mut scope = Scope::topic(which.topic).nth(which.nth);
        if let Some(key) = which.key {
            scope = scope.key(key);
        }
        scope = match which.times {
            Some(times) => scope.times(times),
            None => scope.always(),
        };
        let id = self.world.faults().submit(fault, scope);
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        armed.push(id);
        Ok(Armed(armed.len() as u64 - 1))
    }

    async fn lift(&self, armed: Armed) {
        let known = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let id = usize::try_from(armed.0).ok().and_then(|index| known.get(index).copied());
        id.map(|id| self.world.faults().disarm(id));
    }

    async fn release(&self) -> Result<(), FaultError> {
        self.world.faults().release_held();
        Ok(())
    }

    async fn expire(&self, topic: &str, group: &str, member: &str) -> Result<(), FaultError> {
        there(self.world.faults().expire_session(topic, group, member), Ability::ExpireMember)
    }

    async fn take_away(&self, topic: &str, group: &str, member: &str, partition: u32) -> Result<(), FaultError> {
        there(self.world.faults().take_away(topic, group, member, partition), Ability::TakePartition)
    }

    async fn restart(&self, under_way: UnderWay, down: Duration) -> Result<(), FaultError> {
        self.world.faults().restart_broker(on_cut(under_way), down);
        Ok(())
    }

    async fn truncate(&self, topic: &str, partition: u32, first: Position) -> Result<(), FaultError> {
        self.world.faults().truncate(topic, partition, first).map_err(|error| FaultError::Failed(error.to_string()))
    }

    async fn recreate(&self, topic: &str) -> Result<(), FaultError> {
        self.world.faults().recreate(topic).map_err(|error| FaultError::Failed(error.to_string()))
    }

    async fn store_copy(&self, topic: &str, partition: u32, position: Position) -> Result<(), FaultError> {
        let copied = copy(&self.world.connect(), topic, partition, position).await;
        copied.map_err(|error| FaultError::Failed(error.to_string()))
    }

    async fn store_raw(&self, topic: &str, partition: u32, record: WireRecord) -> Result<(), FaultError> {
        let stored = match raw::disguise(topic, partition, record) {
            Ok(outbound) => submit(&self.world.connect(), outbound).await,
            Err(error) => Err(error),
        };
        stored.map(drop).map_err(|error| FaultError::Failed(error.to_string()))
    }
}

/// Sends the record at a position once more under its stamp, after the broker has forgotten that.
async fn copy(backend: &MemoryBackend, topic: &str, partition: u32, position: Position) -> Result<(), Error> {
    let topic: Topic = topic.parse()?;
    let described = backend.describe_topic(&topic).await?;
    let window = described.spec.duplicate_window;
    let member = backend.join(Join::new(described, "copier".parse()?, "copier")).await?;
    let found = loop {
        match member.next().await? {
            GroupEvent::Assigned(_) => drop(member.read(partition, position).await?),
            GroupEvent::Records(records) => {
                let found = records.into_iter().find(|record| record.position == position);
                break found.ok_or_else(|| Error::new(ErrorKind::Backend, "no such record"))?;
            }
            _ => {}
        }
    };
    member.leave().await?;
    backend.delete_group(&topic, &"copier".parse()?).await?;
    let (Some(stamp), Body::Envelope(envelope)) = (found.stamp, found.body) else {
        return Err(Error::new(ErrorKind::Backend, "the record has no stamp"));
    };
    tokio::time::sleep(window + Duration::from_millis(1)).await;
    submit(backend, Outbound::new(topic, partition, stamp, envelope)).await.map(drop)
}

struct One(Mutex<Option<oneshot::Sender<Fate>>>);

impl TicketSink for One {
    fn told(self: Arc<Self>, _: u64, fate: Fate) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = sender.send(fate);
        }
    }

    fn stands(&self, _: u64) -> bool {
        true
    }
}

async fn submit(backend: &MemoryBackend, record: Outbound) -> Result<Position, Error> {
    let (sender, fate) = oneshot::channel();
    backend.submit(record, Ticket::new(Arc::new(One(Mutex::new(Some(sender)))), 0));
    match fate.await {
        Ok(Fate::Stored { position, duplicate: false }) => Ok(position),
        other => Err(Error::new(ErrorKind::Backend, format!("not stored anew: {other:?}"))),
    }
}

#[derive(Debug)]
struct MemoryConnection {
    world: MemoryWorld,
    backend: MemoryBackend,
    seen: Arc<dyn Backend>,
}

#[async_trait]
impl Connection for MemoryConnection {
    fn backend(&self) -> Arc<dyn Backend> {
        self.seen.clone()
    }

    async fn cut(&self, under_way: UnderWay) -> Result<(), FaultError> {
        self.world.faults().cut(&self.backend, on_cut(under_way));
        Ok(())
    }

    async fn heal(&self) -> Result<(), FaultError> {
        self.world.faults().heal(&self.backend);
        Ok(())
    }

    async fn freeze(&self) -> Result<(), FaultError> {
        self.world.faults().freeze(&self.backend);
        Ok(())
    }

    async fn thaw(&self) -> Result<(), FaultError> {
        self.world.faults().thaw(&self.backend);
        Ok(())
    }

    async fn kill(&self, under_way: UnderWay) -> Result<(), FaultError> {
        self.world.faults().kill(&self.backend, on_cut(under_way));
        Ok(())
    }
}
