//! A world on a server, and its connections.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eventbus_core::backend::Backend;
use eventbus_core::wire::WireRecord;
use eventbus_core::{Error, Position};
use eventbus_nats::{Auth, NatsBackend};

use super::admin::Admin;
use super::config::nats_config;
use super::names;
use super::reader::NatsReader;
use crate::brokers::{Broker, NatsServer};
use crate::harness::LogReader;
use crate::proxy::Proxy;
use crate::proxy::nats::{Fault, Kind, RuleId, Rules, Scope};
use crate::suite::ability::Ability;
use crate::suite::backends::backend_at;
use crate::suite::fixture::{
    Armed, Connection, FaultError, Fixture, Missing, PublishFault, Publishes, Setup, UnderWay,
};
use crate::suite::limited::Limited;
use crate::suite::operator::Operator;
use crate::suite::served::{Connections, Done, Proxied, Used, tried, unavailable};

/// Bytes of a message that the backend counts beside the record's own.
const FRAME: usize = 512;

#[derive(Debug)]
pub(super) struct NatsFixture {
    pub(super) server: Used<NatsServer>,
    pub(super) prefix: String,
    pub(super) admin: Admin,
    rules: Arc<Rules>,
    armed: Mutex<Vec<RuleId>>,
    connections: Connections,
    /// The subjects to which the buses may not publish now.
    pub(super) denied: Mutex<BTreeSet<String>>,
    setup: Setup,
}

fn url(proxy: &Proxy) -> String {
    format!("nats://{}", proxy.address())
}

/// Makes an answer to a publish, with an error of JetStream's.
fn refusal(code: u16, err_code: u64, description: &str) -> Fault {
    let answer = serde_json::json!({
        "error": { "code": code, "err_code": err_code, "description": description }, "stream": "", "seq": 0,
    });
    Fault::Answer { headers: Bytes::new(), payload: answer.to_string().into() }
}

impl NatsFixture {
    pub(super) fn new(server: Used<NatsServer>, prefix: String, admin: Admin, setup: Setup) -> Self {
        let (rules, armed, connections) = (Rules::new(), Mutex::default(), Connections::default());
        Self { server, prefix, admin, rules, armed, connections, denied: Mutex::default(), setup }
    }

    fn connection(&self, proxy: Arc<Proxy>, backend: Arc<dyn Backend>) -> Proxied {
        let outside = (url(&proxy), self.prefix.clone());
        Proxied::new(proxy, backend, outside)
    }
}

#[async_trait]
impl Fixture for NatsFixture {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error> {
        let proxy = Proxy::start(self.server.address, self.rules.clone()).await.map_err(unavailable)?;
        let backend = backend_at(&url(&proxy), &self.prefix)?;
        let backend = match self.setup.max_record_bytes {
            Some(bytes) => Arc::new(Limited { inner: backend, by: self.admin.clone(), bytes: bytes + FRAME }),
            None => backend,
        };
        Ok(self.connections.add(self.connection(Arc::new(proxy), backend)))
    }

    async fn on_publish(&self, fault: PublishFault, which: Publishes) -> Result<Armed, FaultError> {
        let fault = match fault {
            PublishFault::Refuse => refusal(400, 10_060, "told to refuse"),
            PublishFault::NotStored => refusal(503, 10_023, "told to have no room"),
            PublishFault::LoseConfirmation => Fault::LoseAnswer,
            PublishFault::Hold => Fault::Hold,
        };
        let mut scope = Scope::subject(names::subjects(&self.prefix, &which.topic)).nth(which.nth).times(which.times);
        scope.key = which.key;
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

    async fn release(&self) -> Done {
        for held in self.rules.take_held() {
            let Kind::Publish { subject, reply } = held.frame.kind else { continue };
            tried(self.admin.send_on(subject, reply, &held.frame.headers, held.frame.payload).await)?;
        }
        self.rules.release();
        Ok(())
    }

    async fn expire(&self, topic: &str, group: &str, member: &str) -> Done {
        // A member that owns nothing has nothing to lose.
        tried(self.admin.supersede(topic, group, member, None).await).map(drop)
    }

    async fn take_away(&self, topic: &str, group: &str, member: &str, partition: u32) -> Done {
        tried(self.admin.supersede(topic, group, member, Some(partition)).await).map(drop)
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

    async fn truncate(&self, topic: &str, _: u32, first: Position) -> Done {
        tried(self.admin.truncate(topic, first).await)
    }

    async fn recreate(&self, topic: &str) -> Done {
        tried(self.admin.recreate(topic).await)
    }

    async fn store_copy(&self, topic: &str, _: u32, position: Position) -> Done {
        tried(self.admin.store_copy(topic, position).await)
    }

    async fn store_raw(&self, topic: &str, partition: u32, record: WireRecord) -> Done {
        tried(self.admin.store_raw(topic, partition, record).await)
    }

    async fn store_bytes(&self, topic: &str, partition: u32, key: Bytes, mut headers: Vec<(Bytes, Bytes)>) -> Done {
        headers.push((Bytes::from_static(b"ce-partitionkey"), key));
        tried(self.admin.store_bytes(topic, partition, headers, Bytes::from_static(b"{}")).await)
    }

    fn operator(&self) -> &dyn Operator {
        self
    }

    async fn reader(&self) -> Result<Option<Arc<dyn LogReader>>, Error> {
        Ok(Some(Arc::new(NatsReader(self.admin.clone()))))
    }

    async fn connect_unauthorized(&self) -> Result<Result<Arc<dyn Connection>, Error>, FaultError> {
        let Some(server) = self.server.kind.clone() else { return Err(Missing(Ability::Credentials).into()) };
        let broker = tried(Broker::shared(server.credentials("conformance", "right")).await)?;
        let proxy = Arc::new(tried(Proxy::start(broker.address(), Rules::new()).await)?);
        let connect = |password: &str| {
            let auth = Auth::UserPassword("conformance".into(), password.into());
            NatsBackend::new(nats_config(&url(&proxy), &self.prefix).auth(auth))
        };
        // The right credentials are let in, so the refusal below is about the wrong ones.
        tried(connect("right").open().await)?;
        let wrong = connect("wrong");
        Ok(match wrong.open().await {
            Err(error) => Err(error),
            Ok(()) => Ok(Arc::new(self.connection(proxy.clone(), Arc::new(wrong)))),
        })
    }
}
