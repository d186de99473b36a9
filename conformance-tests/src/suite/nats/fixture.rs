//! A world on a server, and its connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eventbus_core::backend::Backend;
use eventbus_core::wire::WireRecord;
use eventbus_core::{Error, Position};
use eventbus_nats::{Auth, NatsBackend};

use super::admin::Admin;
use super::limited::Limited;
use super::reader::NatsReader;
use super::{Used, names, nats_config, unavailable};
use crate::brokers::{Broker, NatsServer, background};
use crate::harness::LogReader;
use crate::proxy::nats::{Fault, Kind, RuleId, Rules, Scope};
use crate::proxy::{Direction, Proxy};
use crate::suite::fixture::{
    Ability, Armed, Connection, FaultError, Fixture, Missing, PublishFault, Publishes, Setup, UnderWay,
};

type Done = Result<(), FaultError>;

/// How long a cut lets one direction go on, so that what is under way is stored and unanswered.
const LAST_WORDS: Duration = Duration::from_millis(30);

#[derive(Debug)]
pub(super) struct NatsFixture {
    server: Used,
    prefix: String,
    admin: Admin,
    rules: Arc<Rules>,
    armed: Mutex<Vec<RuleId>>,
    connections: Mutex<Vec<Weak<NatsConnection>>>,
    setup: Setup,
}

/// How long a broker that was started may take until all are connected.
const BACK: Duration = Duration::from_secs(20);

fn tried<T>(result: Result<T, impl std::fmt::Display>) -> Result<T, FaultError> {
    result.map_err(|error| FaultError::Failed(error.to_string()))
}

fn url(proxy: &Proxy) -> String {
    format!("nats://{}", proxy.address())
}

/// An error of JetStream's, as it stands in the answer to a publish.
fn refusal(code: u16, err_code: u64, description: &str) -> Fault {
    let answer = serde_json::json!({
        "error": { "code": code, "err_code": err_code, "description": description }, "stream": "", "seq": 0,
    });
    Fault::Answer { headers: Bytes::new(), payload: answer.to_string().into() }
}

impl NatsFixture {
    pub(super) fn new(server: Used, prefix: String, admin: Admin, setup: Setup) -> Self {
        Self {
            server,
            prefix,
            admin,
            rules: Rules::new(),
            armed: Mutex::default(),
            connections: Mutex::default(),
            setup,
        }
    }
}

#[async_trait]
impl Fixture for NatsFixture {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error> {
        let proxy = Proxy::start(self.server.address, self.rules.clone()).await.map_err(|error| unavailable(&error))?;
        let backend: Arc<dyn Backend> = Arc::new(NatsBackend::new(nats_config(&url(&proxy), &self.prefix)));
        let backend = match self.setup.max_record_bytes {
            Some(bytes) => Arc::new(Limited::new(backend, self.admin.clone(), bytes)),
            None => backend,
        };
        let connection = Arc::new(NatsConnection {
            proxy: Arc::new(proxy),
            backend,
            prefix: self.prefix.clone(),
            is_outside: AtomicBool::new(false),
        });
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|known| known.strong_count() > 0);
        connections.push(Arc::downgrade(&connection));
        Ok(connection)
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
        let Some(broker) = self.server.broker.clone() else { return Err(Missing(Ability::RestartBroker).into()) };
        tried(broker.kill().await)?;
        let start = async move {
            tokio::time::sleep(down).await;
            if let Err(error) = broker.start().await {
                tracing::error!(%error, "the broker did not come back");
            }
        };
        tried(background())?.spawn(start);
        Ok(())
    }

    async fn freeze_broker(&self, long: Duration) -> Done {
        let Some(broker) = &self.server.broker else { return Err(Missing(Ability::RestartBroker).into()) };
        tried(broker.pause().await)?;
        tokio::time::sleep(long).await;
        tried(broker.unpause().await)
    }

    async fn back(&self) {
        let connections: Vec<_> = {
            let known = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            known.iter().filter_map(Weak::upgrade).filter(|connection| connection.is_up()).collect()
        };
        let all = async {
            while tokio::net::TcpStream::connect(self.server.address).await.is_err() {
                tokio::time::sleep(LAST_WORDS).await;
            }
            for connection in connections {
                while connection.backend.list_topics().await.is_err_and(|error| error.is_retryable()) {
                    tokio::time::sleep(LAST_WORDS).await;
                }
            }
        };
        // What does not come back in time shows in the case.
        let _ = tokio::time::timeout(BACK, all).await;
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

    async fn reader(&self) -> Result<Option<Arc<dyn LogReader>>, Error> {
        Ok(Some(Arc::new(NatsReader(self.admin.clone()))))
    }

    async fn connect_unauthorized(&self) -> Result<Result<Arc<dyn Connection>, Error>, FaultError> {
        let Some(version) = self.server.guarded else { return Err(Missing(Ability::Credentials).into()) };
        let server = NatsServer::new(version).credentials("conformance", "right");
        let broker = tried(Broker::shared(server).await)?;
        let proxy = Arc::new(tried(Proxy::start(broker.address(), Rules::new()).await)?);
        let connect = |password: &str| {
            let auth = Auth::UserPassword("conformance".into(), password.into());
            NatsBackend::new(nats_config(&url(&proxy), &self.prefix).auth(auth))
        };
        // With the right ones it is let in: what is refused below is nothing else.
        tried(connect("right").open().await)?;
        let wrong = connect("wrong");
        Ok(match wrong.open().await {
            Err(error) => Err(error),
            Ok(()) => Ok(Arc::new(NatsConnection {
                proxy: proxy.clone(),
                backend: Arc::new(wrong),
                prefix: self.prefix.clone(),
                is_outside: AtomicBool::new(false),
            })),
        })
    }
}

#[derive(Debug)]
struct NatsConnection {
    proxy: Arc<Proxy>,
    backend: Arc<dyn Backend>,
    prefix: String,
    /// A process of its own has taken its place.
    is_outside: AtomicBool,
}

impl NatsConnection {
    /// Whether its backend can be connected now.
    fn is_up(&self) -> bool {
        !self.proxy.is_shut() && !self.is_outside.load(Ordering::Relaxed)
    }

    /// Ends the connection so that publishes under way end as asked.
    async fn break_off(&self, under_way: UnderWay) {
        match under_way {
            UnderWay::Stored => {
                self.proxy.stop(Direction::ToClient);
                tokio::time::sleep(LAST_WORDS).await;
            }
            UnderWay::Lost => {
                self.proxy.stop(Direction::ToBroker);
                tokio::time::sleep(LAST_WORDS).await;
            }
            UnderWay::Either => {}
        }
        self.proxy.cut();
    }
}

#[async_trait]
impl Connection for NatsConnection {
    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    fn outside(&self) -> Option<(String, String)> {
        self.is_outside.store(true, Ordering::Relaxed);
        Some((url(&self.proxy), self.prefix.clone()))
    }

    async fn cut(&self, under_way: UnderWay) -> Done {
        self.break_off(under_way).await;
        Ok(())
    }

    async fn heal(&self) -> Done {
        self.proxy.heal();
        Ok(())
    }

    async fn freeze(&self) -> Done {
        self.proxy.freeze();
        Ok(())
    }

    async fn thaw(&self) -> Done {
        self.proxy.heal();
        Ok(())
    }

    async fn kill(&self, under_way: UnderWay) -> Done {
        // The process is dead to its handlers already; here it is to the broker, for good.
        self.break_off(under_way).await;
        Ok(())
    }
}
