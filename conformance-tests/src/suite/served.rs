//! Worlds on servers: the server of each world, and connections that go through a proxy.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::Backend;
use eventbus_core::{Error, ErrorKind};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::ability::{Abilities, Ability};
use super::fixture::{Connection, FaultError, Missing, Setup, UnderWay};
use crate::brokers::{Broker, Server, background};
use crate::proxy::{Direction, Proxy};

pub(super) type Done = Result<(), FaultError>;

/// Time for which a cut lets one direction go on, so that publishes under way are stored and stay unanswered.
const LAST_WORDS: Duration = Duration::from_millis(30);

/// Time that connections may take to return after a broker was started.
const BACK: Duration = Duration::from_secs(60);

pub(super) fn tried<T>(result: Result<T, impl fmt::Display>) -> Result<T, FaultError> {
    result.map_err(|error| FaultError::Failed(error.to_string()))
}

pub(super) fn unavailable(error: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string())
}

/// Returns a prefix that no other world has, in this run or in an earlier one on the same server.
pub(super) fn prefix() -> String {
    static WORLDS: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("t{:x}-{:x}-{}", since.as_millis(), std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed))
}

/// Finds the first IPv4 address in a URL of this scheme, or in one without a scheme.
pub(super) fn address_in(url: &str, scheme: &str, port: u16) -> Option<SocketAddr> {
    let host = url.strip_prefix(scheme).unwrap_or(url).trim_end_matches('/');
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
    std::net::ToSocketAddrs::to_socket_addrs(&host).ok()?.find(SocketAddr::is_ipv4)
}

/// The place that servers come from.
#[derive(Debug)]
pub(super) enum Source<S> {
    /// Containers.
    Container(S),
    /// A server that runs already, and is not to be harmed.
    Running(SocketAddr),
}

/// The servers of a provider.
pub(super) struct Servers<S> {
    pub(super) source: Source<S>,
    /// The broker of each case that harms it. It lives as long as a world of the case.
    own: Mutex<BTreeMap<&'static str, Arc<Mutex<Weak<Broker>>>>>,
}

/// A server in use by a world.
#[derive(Clone, Debug)]
pub(super) struct Used<S> {
    pub(super) address: SocketAddr,
    /// The container, if this world may harm it.
    broker: Option<Arc<Broker>>,
    /// The kind of server, of which more can be had; `None` for one that runs already.
    pub(super) kind: Option<S>,
    /// The task that starts the broker again.
    starting: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl<S: Server + Clone> Servers<S> {
    pub(super) fn new(source: Source<S>) -> Self {
        Self { source, own: Mutex::default() }
    }

    /// The abilities on servers of every kind; a server that runs already is spared those that harm it.
    pub(super) fn abilities(&self) -> Abilities {
        use Ability::{
            Credentials, CutConnection, ExpireMember, FreezeProcess, KillProcess, LimitRecords, LoseConfirmation,
            LowerLimit, Purge, Recreate, RefusePublish, RestartBroker, Retain, StoreBytes, StoreCopy, StoreRaw,
            TakePartition, TopicDown, Truncate,
        };
        let mut abilities = Abilities::from([
            RefusePublish,
            LoseConfirmation,
            TopicDown,
            CutConnection,
            FreezeProcess,
            KillProcess,
            ExpireMember,
            TakePartition,
            Truncate,
            Purge,
            Retain,
            Recreate,
            StoreCopy,
            StoreRaw,
            StoreBytes,
            LimitRecords,
            LowerLimit,
        ]);
        if matches!(self.source, Source::Container(_)) {
            abilities.extend([RestartBroker, Credentials]);
        }
        abilities
    }

    pub(super) async fn of(&self, setup: &Setup) -> Result<Used<S>, Error> {
        let used = |address, broker, kind| Used { address, broker, kind, starting: Arc::default() };
        let server = match &self.source {
            Source::Running(address) => return Ok(used(*address, None, None)),
            Source::Container(server) => server.clone(),
        };
        if !setup.needs.contains(&Ability::RestartBroker) {
            // A shared broker goes with the run, and nothing here may harm it.
            let broker = Broker::shared(server.clone()).await.map_err(unavailable)?;
            return Ok(used(broker.address(), None, Some(server)));
        }
        let broker = {
            // Worlds of one case wait for one another here; those of different cases wait in `Broker::own` for their
            // turn.
            let of_case = self.own.lock().await.entry(setup.case).or_default().clone();
            let mut own = of_case.lock().await;
            match own.upgrade() {
                Some(broker) => broker,
                None => {
                    let broker = Arc::new(Broker::own(server.clone()).await.map_err(unavailable)?);
                    *own = Arc::downgrade(&broker);
                    broker
                }
            }
        };
        Ok(used(broker.address(), Some(broker), Some(server)))
    }
}

impl<S: fmt::Debug> fmt::Debug for Servers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<S> Used<S> {
    fn broker(&self) -> Result<Arc<Broker>, FaultError> {
        self.broker.clone().ok_or_else(|| Missing(Ability::RestartBroker).into())
    }

    /// Kills the broker, and starts it again after a time.
    pub(super) async fn restart(&self, down: Duration) -> Done {
        let broker = self.broker()?;
        tried(broker.kill().await)?;
        let start = async move {
            tokio::time::sleep(down).await;
            if let Err(error) = broker.start().await {
                tracing::error!(%error, "the broker did not come back");
            }
        };
        *self.starting.lock().await = Some(tried(background())?.spawn(start));
        Ok(())
    }

    /// Has the broker read its configuration again.
    pub(super) async fn reload(&self) -> Done {
        tried(self.broker()?.reload().await)
    }

    /// Freezes the broker for a time.
    pub(super) async fn freeze(&self, long: Duration) -> Done {
        let broker = self.broker()?;
        tried(broker.pause().await)?;
        tokio::time::sleep(long).await;
        tried(broker.unpause().await)
    }

    /// Waits until a restarted broker answers on these connections, for 60 s at the most.
    pub(super) async fn back(&self, connections: &Connections) {
        let up = connections.all().into_iter().filter(|connection| connection.is_up());
        let all = async {
            if let Some(starting) = self.starting.lock().await.take() {
                // The task has logged what went wrong.
                let _ = starting.await;
            }
            for connection in up {
                while connection.backend.list_topics().await.is_err_and(|error| error.is_retryable()) {
                    tokio::time::sleep(LAST_WORDS).await;
                }
            }
        };
        // A connection that does not come back in time shows in the case.
        let _ = tokio::time::timeout(BACK, all).await;
    }
}

/// The connections of a world.
#[derive(Debug, Default)]
pub(super) struct Connections(std::sync::Mutex<Vec<Weak<Proxied>>>);

impl Connections {
    pub(super) fn add(&self, connection: Proxied) -> Arc<Proxied> {
        let connection = Arc::new(connection);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.strong_count() > 0);
        known.push(Arc::downgrade(&connection));
        connection
    }

    fn all(&self) -> Vec<Arc<Proxied>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(Weak::upgrade).collect()
    }
}

/// A connection through a proxy of its own.
#[derive(Debug)]
pub(super) struct Proxied {
    proxy: Arc<Proxy>,
    backend: Arc<dyn Backend>,
    /// Address and prefix of names for a separate process that takes this connection's place.
    outside: (String, String),
    /// Whether such a process has taken its place.
    is_outside: AtomicBool,
}

impl Proxied {
    pub(super) fn new(proxy: Arc<Proxy>, backend: Arc<dyn Backend>, outside: (String, String)) -> Self {
        Self { proxy, backend, outside, is_outside: AtomicBool::new(false) }
    }

    /// Whether the backend can be connected now.
    fn is_up(&self) -> bool {
        !self.proxy.is_shut() && !self.is_outside.load(Ordering::Relaxed)
    }

    /// Ends the connection so that publishes under way end in the given way.
    async fn break_off(&self, under_way: UnderWay) {
        let last = match under_way {
            UnderWay::Stored => Some(Direction::ToClient),
            UnderWay::Lost => Some(Direction::ToBroker),
            UnderWay::Either => None,
        };
        if let Some(last) = last {
            self.proxy.stop(last);
            tokio::time::sleep(LAST_WORDS).await;
        }
        self.proxy.cut();
    }
}

#[async_trait]
impl Connection for Proxied {
    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    fn outside(&self) -> Option<(String, String)> {
        self.is_outside.store(true, Ordering::Relaxed);
        Some(self.outside.clone())
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
        // The process is dead to its handlers already; here the broker loses it for good.
        self.break_off(under_way).await;
        Ok(())
    }
}
