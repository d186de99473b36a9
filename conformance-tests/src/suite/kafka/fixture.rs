//! A world on a broker, and its connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eventbus_core::backend::ForwardBackend;
use eventbus_core::backend::Ticket;
use eventbus_core::backend::{Backend, Join, Membership, Outbound};
use eventbus_core::toolkit::poll_until_blocking;
use eventbus_core::wire::WireRecord;
use eventbus_core::{Error, ErrorKind, Position};
use eventbus_kafka::{KafkaBackend, Mechanism, Sasl};

use super::admin::Admin;
use super::config::{GroupProtocol, SESSION, kafka_config};
use super::log::PATIENCE;
use super::raw::{RawRecord, produce};
use super::reader::KafkaReader;
use crate::brokers::{Broker, KafkaServer};
use crate::harness::LogReader;
use crate::proxy::Proxy;
use crate::proxy::kafka::{Fault, RuleId, Rules, Scope, id_header};
use crate::suite::ability::Ability;
use crate::suite::backends::backend_at;
use crate::suite::fixture::{
    Armed, Connection, FaultError, Fixture, Missing, PublishFault, Publishes, Setup, UnderWay,
};
use crate::suite::limited::Limited;
use crate::suite::operator::Operator;
use crate::suite::served::{Connections, Done, Proxied, Used, tried, unavailable};

/// Bytes that the broker, and the client on top of that, count beside a record's own.
const FRAME: usize = 1_024;

/// Codes of the broker: for a record that its rules keep out, and for one that not enough replicas can take, or have.
const INVALID_RECORD: i16 = 87;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;

/// The proxies of members, by their names.
type Members = Arc<Mutex<BTreeMap<String, Weak<Proxy>>>>;

#[derive(Debug)]
pub(super) struct KafkaFixture {
    pub(super) server: Used<KafkaServer>,
    protocol: GroupProtocol,
    prefix: String,
    pub(super) admin: Admin,
    rules: Arc<Rules>,
    armed: Mutex<Vec<RuleId>>,
    connections: Connections,
    members: Members,
    setup: Setup,
}

impl KafkaFixture {
    pub(super) fn new(
        server: Used<KafkaServer>,
        protocol: GroupProtocol,
        prefix: String,
        admin: Admin,
        setup: Setup,
    ) -> Self {
        let (rules, armed, connections, members) =
            (Rules::new(), Mutex::default(), Connections::default(), Members::default());
        Self { server, protocol, prefix, admin, rules, armed, connections, members, setup }
    }

    fn connection(&self, proxy: Arc<Proxy>, backend: Arc<dyn Backend>) -> Proxied {
        let outside = (self.protocol.url(proxy.address()), self.prefix.clone());
        Proxied::new(proxy, backend, outside)
    }

    /// Keeps a member silent until its session is over, since the coordinator alone ends sessions. A member that is cut
    /// off already is about to lose its own.
    async fn silence(&self, member: &str) -> Done {
        let known = self.members.lock().unwrap_or_else(PoisonError::into_inner).get(member).cloned();
        if let Some(proxy) = known.and_then(|proxy| proxy.upgrade())
            && !proxy.is_shut()
        {
            proxy.freeze();
            tokio::time::sleep(SESSION + Duration::from_secs(1)).await;
            proxy.heal();
        }
        Ok(())
    }
}

/// A layer that tells the rules of its backend's records, and the fixture of its members.
#[derive(Debug)]
struct Told {
    inner: Arc<dyn Backend>,
    rules: Arc<Rules>,
    members: Members,
    proxy: Weak<Proxy>,
}

#[async_trait]
impl ForwardBackend for Told {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        let key = record.envelope.key().map(|key| key.as_bytes());
        self.rules.submitted(record.topic.as_str(), key, &id_header(record.envelope.id()));
        self.inner.submit(record, ticket);
    }

    async fn join(&self, mut join: Join) -> Result<Arc<dyn Membership>, Error> {
        join.session_timeout = join.session_timeout.max(SESSION);
        self.members.lock().unwrap_or_else(PoisonError::into_inner).insert(join.member.clone(), self.proxy.clone());
        self.inner.join(join).await
    }
}

#[async_trait]
impl Fixture for KafkaFixture {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error> {
        let proxy = Proxy::start(self.server.address, self.rules.clone()).await.map_err(unavailable)?;
        let proxy = Arc::new(proxy);
        let backend = backend_at(&self.protocol.url(proxy.address()), &self.prefix)?;
        let backend = match self.setup.max_record_bytes {
            Some(bytes) => Arc::new(Limited { inner: backend, by: self.admin.clone(), bytes: bytes + FRAME }),
            None => backend,
        };
        let (rules, members) = (self.rules.clone(), self.members.clone());
        let told = Told { inner: backend, rules, members, proxy: Arc::downgrade(&proxy) };
        Ok(self.connections.add(self.connection(proxy, Arc::new(told))))
    }

    async fn on_publish(&self, fault: PublishFault, which: Publishes) -> Result<Armed, FaultError> {
        let fault = match fault {
            PublishFault::Refuse => Fault::Refuse(INVALID_RECORD),
            PublishFault::NotStored => Fault::Answer(NOT_ENOUGH_REPLICAS),
            // An answer that is lost for long takes the connection with it. The code for records that are stored, but
            // not on enough replicas, is no confirmation either, and concerns its partition alone.
            PublishFault::LoseConfirmation if which.times.is_none() => Fault::Deny(NOT_ENOUGH_REPLICAS_AFTER_APPEND),
            PublishFault::LoseConfirmation => Fault::LoseAnswer,
            other => return Err(Missing(other.ability()).into()),
        };
        let scope = Scope::topic(which.topic).key(which.key).nth(which.nth).times(which.times);
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        armed.push(self.rules.arm(fault, scope));
        Ok(Armed(armed.len() as u64 - 1))
    }

    async fn lift(&self, armed: Armed) {
        let known = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let id = usize::try_from(armed.0).ok().and_then(|index| known.get(index).copied());
        if let Some(id) = id {
            self.rules.disarm(id);
        }
    }

    async fn expire(&self, _: &str, _: &str, member: &str) -> Done {
        self.silence(member).await
    }

    /// Takes away all that the partition's owner has, since a coordinator knows members only.
    async fn take_away(&self, topic: &str, group: &str, member: &str, partition: u32) -> Done {
        let control = tried(backend_at(&self.protocol.url(self.server.address), &self.prefix))?;
        tried(control.open().await)?;
        let described = control.describe_group(&tried(topic.parse())?, &tried(group.parse())?).await;
        // The description is all that is needed of this backend.
        let _ = control.close().await;
        let partitions = match described {
            // The broker tells no members of a group that it assigns, and this one has no progress yet.
            Err(error) if error.kind() == ErrorKind::UnknownGroup => return Ok(()),
            described => tried(described)?.partitions,
        };
        let owner = partitions.into_iter().find(|one| one.partition == partition);
        match owner.and_then(|one| one.owner) {
            Some(owner) if owner == member => self.silence(member).await,
            _ => Ok(()),
        }
    }

    async fn restart(&self, _: UnderWay, down: Duration) -> Done {
        self.server.restart(down).await
    }

    async fn freeze_broker(&self, long: Duration) -> Done {
        self.server.freeze(long).await
    }

    async fn back(&self) {
        self.server.back(&self.connections).await;
    }

    async fn truncate(&self, topic: &str, partition: u32, first: Position) -> Done {
        tried(self.admin.truncate(topic, partition, first).await)
    }

    async fn recreate(&self, topic: &str) -> Done {
        tried(self.admin.recreate(topic).await)
    }

    async fn store_copy(&self, topic: &str, partition: u32, position: Position) -> Done {
        tried(self.admin.store_copy(topic, partition, position).await)
    }

    async fn store_raw(&self, topic: &str, partition: u32, record: WireRecord) -> Done {
        tried(self.admin.store_raw(topic, partition, record).await)
    }

    async fn store_bytes(&self, topic: &str, partition: u32, key: Bytes, headers: Vec<(Bytes, Bytes)>) -> Done {
        let headers = headers.into_iter().map(|(name, value)| (name.to_vec(), Some(value.to_vec()))).collect();
        let record = RawRecord { key: Some(key.to_vec()), value: Some(b"{}".to_vec()), headers, time: -1 };
        let (address, name) = (self.server.address.to_string(), self.admin.names.topic(topic));
        let partition = tried(i32::try_from(partition))?;
        // The broker that was just told of a topic does not lead it yet.
        let storing =
            move || poll_until_blocking(PATIENCE, Result::is_err, |_| produce(&address, &name, partition, &record));
        tried(tried(tokio::task::spawn_blocking(storing).await)?).map(drop)
    }

    fn operator(&self) -> &dyn Operator {
        self
    }

    async fn reader(&self) -> Result<Option<Arc<dyn LogReader>>, Error> {
        Ok(Some(Arc::new(KafkaReader(self.admin.clone()))))
    }

    async fn connect_unauthorized(&self) -> Result<Result<Arc<dyn Connection>, Error>, FaultError> {
        let Some(server) = self.server.kind.clone() else { return Err(Missing(Ability::Credentials).into()) };
        let broker = tried(Broker::shared(server.credentials("conformance", "right")).await)?;
        let proxy = Arc::new(tried(Proxy::start(broker.address(), Rules::new()).await)?);
        let connect = |password: &str| {
            let sasl = Sasl::new(Mechanism::Plain, "conformance", password);
            let config = kafka_config(&self.protocol.url(proxy.address()), &self.prefix)?.sasl(Some(sasl));
            Ok::<_, Error>(KafkaBackend::new(config))
        };
        // The right credentials are let in, so the refusal below is about the wrong ones.
        tried(tried(connect("right"))?.open().await)?;
        let wrong = tried(connect("wrong"))?;
        Ok(match wrong.open().await {
            Err(error) => Err(error),
            Ok(()) => Ok(Arc::new(self.connection(proxy.clone(), Arc::new(wrong)))),
        })
    }
}
