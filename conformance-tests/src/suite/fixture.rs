//! Fixtures, which a backend's author supplies so that the cases can run: worlds, connections to them, and faults.
//!
//! A [`Provider`] makes [`Fixture`]s. A fixture is one isolated bus world (a broker, as the cases see it), and
//! [`Fixture::connect`] is one process's [`Connection`] to it. Faults are methods with a default: a fault that a
//! fixture cannot make answers [`Missing`], and its provider leaves the [`Ability`] out of [`Provider::abilities`]. A
//! case states its needs, so that a missing ability is a printed SKIP and nothing else is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eventbus_core::backend::Backend;
use eventbus_core::wire::WireRecord;
use eventbus_core::{Env, Error, Position};

pub(super) use super::ability::{Abilities, Ability, FaultError, Missing};
use super::operator::{NoOperator, Operator};
use crate::harness::LogReader;

/// The clock of the cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// Tokio's clock, paused, on one thread: waits cost nothing and a seed repeats a run.
    Paused,
    /// The host's clock.
    Real,
}

/// The settings of a world.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setup {
    /// The seed of the run.
    pub seed: u64,
    /// Time of day and randomness for the world, where it takes them.
    pub env: Arc<dyn Env>,
    /// The clock of this run.
    pub clock: Clock,
    /// The largest record that the broker is to take; `None` without a limit.
    pub max_record_bytes: Option<usize>,
    /// The largest note that the broker is to take, if the backend has a choice; `None` without a limit.
    pub note_bytes: Option<usize>,
    /// The case that the world is for. Worlds of one case may share a broker that is its own.
    pub case: &'static str,
    /// The abilities that the case needs.
    pub needs: &'static [Ability],
}

impl Setup {
    /// Makes the same settings for this case.
    #[must_use]
    pub fn for_case(mut self, case: &'static str, needs: &'static [Ability]) -> Self {
        (self.case, self.needs) = (case, needs);
        self
    }

    /// Makes the settings of a world without limits.
    #[must_use]
    pub fn new(seed: u64, env: Arc<dyn Env>, clock: Clock) -> Self {
        Self { seed, env, clock, max_record_bytes: None, note_bytes: None, case: "", needs: &[] }
    }
}

/// Time after which a case on the real clock counts as hung. The longest take 40 s where nothing else runs, and several
/// times that beside others on a busy machine.
pub(in crate::suite) const HANGS_AFTER: Duration = Duration::from_secs(600);

/// A provider of worlds of one kind.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// The column's name in the matrix.
    fn name(&self) -> &str;

    /// The abilities of its fixtures.
    fn abilities(&self) -> Abilities;

    /// The clock of its cases. A case that needs threads runs on the real one anyway.
    fn clock(&self) -> Clock;

    /// Time after which a case counts as hung, on [`clock`](Self::clock).
    fn patience(&self) -> Duration {
        match self.clock() {
            Clock::Paused => Duration::from_secs(900),
            Clock::Real => HANGS_AFTER,
        }
    }

    /// Tries configurations of the backend itself that would break the contract (S8). Returns what is wrong with each,
    /// and whether it was accepted. Default: the backend has none.
    async fn refusals(&self) -> Vec<(String, bool)> {
        Vec::new()
    }

    /// Whether the backend itself sends records again that got no answer, so that the bus hears of no unknown outcome
    /// as long as it lives. Default: the bus sees to it.
    fn resolves_by_itself(&self) -> bool {
        false
    }

    /// Makes a world: empty, and not seen by any other.
    ///
    /// # Errors
    /// The broker's error.
    async fn world(&self, setup: Setup) -> Result<Arc<dyn Fixture>, Error>;
}

/// The publishes that a fault strikes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Publishes {
    /// The topic.
    pub topic: String,
    /// Only publishes of this key.
    pub key: Option<Vec<u8>>,
    /// The first publish that is struck, counted from 1 among those that match.
    pub nth: u64,
    /// Number of publishes from there on; `None` for all, until the fault is lifted.
    pub times: Option<u64>,
}

impl Publishes {
    /// Covers the next publish to this topic.
    #[must_use]
    pub fn to(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), key: None, nth: 1, times: Some(1) }
    }

    /// Limits the fault to this key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// Begins at the n-th match from now on, counted from 1.
    #[must_use]
    pub const fn nth(mut self, n: u64) -> Self {
        self.nth = n;
        self
    }

    /// Strikes so many, one after another.
    #[must_use]
    pub const fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Strikes all, until the fault is lifted.
    #[must_use]
    pub const fn all(mut self) -> Self {
        self.times = None;
        self
    }
}

/// A fault of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishFault {
    /// The publish is refused for good. Needs [`Ability::RefusePublish`].
    Refuse,
    /// The publish is stored, and its confirmation lost. Needs [`Ability::LoseConfirmation`].
    LoseConfirmation,
    /// The publish is held until [`Fixture::release`]. Needs [`Ability::HoldPublish`].
    Hold,
    /// The publish is not stored, and may be sent again. Needs [`Ability::TopicDown`].
    NotStored,
}

impl PublishFault {
    /// The ability that a fixture needs for it.
    #[must_use]
    pub const fn ability(self) -> Ability {
        match self {
            Self::Refuse => Ability::RefusePublish,
            Self::LoseConfirmation => Ability::LoseConfirmation,
            Self::Hold => Ability::HoldPublish,
            Self::NotStored => Ability::TopicDown,
        }
    }
}

/// A fault that was armed and can be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed(pub u64);

/// The outcome of publishes under way when a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnderWay {
    /// All are stored, if the fixture has a choice.
    Stored,
    /// All are lost, if the fixture has a choice.
    Lost,
    /// Some are, some are not.
    Either,
}

pub(super) type Done = Result<(), FaultError>;

/// One isolated bus world.
#[async_trait]
pub trait Fixture: fmt::Debug + Send + Sync + 'static {
    /// Makes one more process's connection. Each has a backend of its own.
    ///
    /// # Errors
    /// The broker's error.
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error>;

    /// Arms a fault for publishes to come.
    ///
    /// # Errors
    /// If the fixture cannot.
    async fn on_publish(&self, fault: PublishFault, which: Publishes) -> Result<Armed, FaultError> {
        let _ = which;
        Err(Missing(fault.ability()).into())
    }

    /// Lifts an armed fault.
    async fn lift(&self, armed: Armed) {
        let _ = armed;
    }

    /// Lets all held publishes go.
    async fn release(&self) -> Done {
        Err(Missing(Ability::HoldPublish).into())
    }

    /// Ends the session of a member, from outside.
    async fn expire(&self, topic: &str, group: &str, member: &str) -> Done {
        let _ = (topic, group, member);
        Err(Missing(Ability::ExpireMember).into())
    }

    /// Takes one partition away from its owner without asking, and gives it out anew.
    async fn take_away(&self, topic: &str, group: &str, member: &str, partition: u32) -> Done {
        let _ = (topic, group, member, partition);
        Err(Missing(Ability::TakePartition).into())
    }

    /// Kills the broker and starts it again after some time.
    async fn restart(&self, under_way: UnderWay, down: Duration) -> Done {
        let _ = (under_way, down);
        Err(Missing(Ability::RestartBroker).into())
    }

    /// Freezes the broker for some time: connections stay, and nothing is answered.
    async fn freeze_broker(&self, long: Duration) -> Done {
        let _ = long;
        Err(Missing(Ability::RestartBroker).into())
    }

    /// Waits until a broker that was restarted answers again, and every process that is not cut off is connected.
    /// Default: returns at once, for brokers that are back as soon as their time down is over.
    async fn back(&self) {}

    /// Moves a leader or coordinator.
    async fn change_leader(&self, topic: &str, group: &str) -> Done {
        let _ = (topic, group);
        Err(Missing(Ability::ChangeLeader).into())
    }

    /// Removes the records of a partition below `first`.
    async fn truncate(&self, topic: &str, partition: u32, first: Position) -> Done {
        let _ = (topic, partition, first);
        Err(Missing(Ability::Truncate).into())
    }

    /// Deletes the topic and creates it again, empty; the groups' progress stays as far as the broker keeps it.
    async fn recreate(&self, topic: &str) -> Done {
        let _ = topic;
        Err(Missing(Ability::Recreate).into())
    }

    /// Stores a second copy of the record at this position at the partition's end, stamp and all.
    async fn store_copy(&self, topic: &str, partition: u32, position: Position) -> Done {
        let _ = (topic, partition, position);
        Err(Missing(Ability::StoreCopy).into())
    }

    /// Stores bytes that no bus of this library wrote.
    async fn store_raw(&self, topic: &str, partition: u32, record: WireRecord) -> Done {
        let _ = (topic, partition, record);
        Err(Missing(Ability::StoreRaw).into())
    }

    /// Stores a record with this key, whose headers have any bytes as names and values.
    async fn store_bytes(&self, topic: &str, partition: u32, key: Bytes, headers: Vec<(Bytes, Bytes)>) -> Done {
        let _ = (topic, partition, key, headers);
        Err(Missing(Ability::StoreBytes).into())
    }

    /// The hand of the broker's operator. Default: one who can do nothing.
    fn operator(&self) -> &dyn Operator {
        &NoOperator
    }

    /// A reader of the broker's logs by a client of the suite's own. Default: none, and a connection of the backend
    /// reads.
    ///
    /// # Errors
    /// The broker's error.
    async fn reader(&self) -> Result<Option<Arc<dyn LogReader>>, Error> {
        Ok(None)
    }

    /// Connects with wrong credentials. Returns the connection, or the error of making it.
    async fn connect_unauthorized(&self) -> Result<Result<Arc<dyn Connection>, Error>, FaultError> {
        Err(Missing(Ability::Credentials).into())
    }
}

/// One process's connection to a world.
#[async_trait]
pub trait Connection: fmt::Debug + Send + Sync + 'static {
    /// The backend; always the same.
    fn backend(&self) -> Arc<dyn Backend>;

    /// The server's URL and the prefix of names by which a separate process takes this connection's place, so that
    /// faults of the connection strike it. Default: none can.
    fn outside(&self) -> Option<(String, String)> {
        None
    }

    /// Cuts the connection until [`heal`](Self::heal).
    async fn cut(&self, under_way: UnderWay) -> Done {
        let _ = under_way;
        Err(Missing(Ability::CutConnection).into())
    }

    /// Ends a cut.
    async fn heal(&self) -> Done {
        Err(Missing(Ability::CutConnection).into())
    }

    /// Freezes the process until [`thaw`](Self::thaw), as far as the broker can see: nothing is sent, nothing is heard.
    async fn freeze(&self) -> Done {
        Err(Missing(Ability::FreezeProcess).into())
    }

    /// Ends a freeze: everything that came meanwhile arrives.
    async fn thaw(&self) -> Done {
        Err(Missing(Ability::FreezeProcess).into())
    }

    /// Ends the process as kill -9 would, as far as the broker can see: nothing is released, nothing is said.
    async fn kill(&self, under_way: UnderWay) -> Done {
        let _ = under_way;
        Err(Missing(Ability::KillProcess).into())
    }
}
