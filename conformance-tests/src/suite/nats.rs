//! NATS as a provider of worlds: real servers, and what can be done to them.
//!
//! A world is a prefix of names on a server, and a client of the suite's own beside it ([`admin`]). Each connection, which is
//! one process as the cases see it, has a proxy of its own; faults on publishes are the proxies', faults on logs and members
//! the client's, and a case that restarts the broker has one of its own.

mod admin;
mod fixture;
mod limited;
mod names;
mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::{Error, ErrorKind};
use eventbus_nats::NatsConfig;
use tokio::sync::Mutex;

use super::fixture::{Abilities, Ability, Clock, Fixture, Provider, Setup};
use crate::brokers::{Broker, BrokerError, NatsServer, NatsVersion};
use admin::Admin;
use fixture::NatsFixture;

/// Makes worlds on NATS.
pub struct NatsProvider {
    name: String,
    server: Server,
    /// The broker of a case that harms it, as long as a world of the case lives.
    own: Mutex<BTreeMap<&'static str, Arc<Mutex<Weak<Broker>>>>>,
}

/// Where the server comes from.
#[derive(Debug)]
enum Server {
    Container(NatsVersion),
    /// One that runs already, and is not to be harmed.
    Running(SocketAddr),
}

/// A server in use by a world.
#[derive(Clone, Debug)]
pub(super) struct Used {
    pub(super) address: SocketAddr,
    /// The container, where it is the world's to be harmed.
    pub(super) broker: Option<Arc<Broker>>,
    /// The server of the same version that demands credentials, where there can be one.
    pub(super) guarded: Option<NatsVersion>,
}

fn unavailable(error: &BrokerError) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string())
}

impl NatsProvider {
    /// Servers of this version in containers.
    #[must_use]
    pub fn containers(version: NatsVersion) -> Self {
        Self { name: format!("nats {version}"), server: Server::Container(version), own: Mutex::default() }
    }

    /// A server that runs already, by its URL: `nats://HOST:PORT`. It is never harmed.
    ///
    /// # Errors
    /// A URL that names no address.
    pub fn running(url: &str) -> Result<Self, Error> {
        let host = url.strip_prefix("nats://").unwrap_or(url).trim_end_matches('/');
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:4222") };
        let found =
            std::net::ToSocketAddrs::to_socket_addrs(&host).ok().and_then(|mut all| all.find(SocketAddr::is_ipv4));
        let wrong =
            || Error::new(ErrorKind::InvalidConfig, "expected nats://HOST:PORT of a server without credentials");
        let address = found.ok_or_else(wrong)?;
        Ok(Self { name: "nats".into(), server: Server::Running(address), own: Mutex::default() })
    }

    async fn server(&self, setup: &Setup) -> Result<Used, Error> {
        let version = match self.server {
            Server::Running(address) => return Ok(Used { address, broker: None, guarded: None }),
            Server::Container(version) => version,
        };
        if !setup.needs.contains(&Ability::RestartBroker) {
            // Shared: it goes with the run, and nothing here may harm it.
            let broker = Broker::shared(NatsServer::new(version)).await;
            let address = broker.map_err(|error| unavailable(&error))?.address();
            return Ok(Used { address, broker: None, guarded: Some(version) });
        }
        let broker = {
            // Worlds of one case wait for one another here, those of different cases for their turn.
            let of_case = self.own.lock().await.entry(setup.case).or_default().clone();
            let mut own = of_case.lock().await;
            match own.upgrade() {
                Some(broker) => broker,
                None => {
                    let broker = Broker::own(NatsServer::new(version)).await;
                    let broker = Arc::new(broker.map_err(|error| unavailable(&error))?);
                    *own = Arc::downgrade(&broker);
                    broker
                }
            }
        };
        Ok(Used { address: broker.address(), broker: Some(broker), guarded: Some(version) })
    }
}

impl fmt::Debug for NatsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsProvider").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A prefix that no other world has, in this run or in one before it on the same server.
fn prefix() -> String {
    static WORLDS: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("t{:x}-{:x}-{}", since.as_millis(), std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed))
}

/// The settings of every bus under test on NATS: what is waited for is short, all else is the default.
pub fn nats_config(server: &str, prefix: &str) -> NatsConfig {
    NatsConfig::new(server)
        .prefix(prefix)
        .request_timeout(Duration::from_secs(1))
        .publish_timeout(Duration::from_secs(1))
        .heartbeat(Duration::from_millis(500))
        .ping_interval(Duration::from_secs(1))
        .reconnect_delay(Duration::from_millis(100))
}

#[async_trait]
impl Provider for NatsProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn abilities(&self) -> Abilities {
        use Ability::{
            Credentials, CutConnection, DuplicateWindow, ExpireMember, FreezeProcess, HoldPublish, KillProcess,
            LimitRecords, LoseConfirmation, Recreate, RefusePublish, RestartBroker, StoreCopy, StoreRaw, TakePartition,
            TopicDown, Truncate,
        };
        let mut abilities = Abilities::from([
            RefusePublish,
            LoseConfirmation,
            HoldPublish,
            TopicDown,
            CutConnection,
            FreezeProcess,
            KillProcess,
            ExpireMember,
            TakePartition,
            Truncate,
            Recreate,
            DuplicateWindow,
            StoreCopy,
            StoreRaw,
            LimitRecords,
        ]);
        if matches!(self.server, Server::Container(_)) {
            abilities.extend([RestartBroker, Credentials]);
        }
        abilities
    }

    fn clock(&self) -> Clock {
        Clock::Real
    }

    async fn refusals(&self) -> Vec<(String, bool)> {
        let fine = || NatsConfig::new("nats://127.0.0.1:4222");
        let wrong = [
            ("rotating connections", fine().connections(2)),
            ("a publish window beyond what a server takes", fine().publish_window(10_000)),
            ("readers that end while a member stalls", fine().inactive_threshold(Duration::from_secs(1))),
            ("heartbeats that never come", fine().heartbeat(Duration::ZERO)),
        ];
        wrong.into_iter().map(|(name, config)| (name.to_owned(), config.validate().is_ok())).collect()
    }

    async fn world(&self, setup: Setup) -> Result<Arc<dyn Fixture>, Error> {
        let server = self.server(&setup).await?;
        let prefix = prefix();
        let admin = Admin::connect(server.address, &prefix).await?;
        Ok(Arc::new(NatsFixture::new(server, prefix, admin, setup)))
    }
}
