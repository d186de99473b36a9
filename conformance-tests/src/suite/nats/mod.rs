//! NATS as a provider of worlds: real servers, and the faults that strike them.
//!
//! A world is a prefix of names on a server, and a client of the suite's own beside it ([`admin`]). Each connection,
//! which is one process as the cases see it, has a proxy of its own. Faults on publishes are made by the proxies,
//! faults on logs and members by the client. A case that restarts the broker has one of its own.

mod admin;
mod config;
mod fixture;
mod names;
mod operator;
mod raw;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::{Error, ErrorKind};
use eventbus_nats::NatsConfig;

use self::admin::Admin;
pub use self::config::nats_config;
use self::fixture::NatsFixture;
use super::ability::{Abilities, Ability};
use super::fixture::{Clock, Fixture, Provider, Setup};
use super::served::{Servers, Source, address_in, prefix};
use crate::brokers::{NatsServer, NatsVersion};

/// A provider of worlds on NATS.
#[derive(Debug)]
pub struct NatsProvider {
    name: String,
    servers: Servers<NatsServer>,
    governed: bool,
}

impl NatsProvider {
    /// Makes worlds on servers of this version in containers.
    #[must_use]
    pub fn containers(version: NatsVersion) -> Self {
        let servers = Servers::new(Source::Container(NatsServer::new(version)));
        Self { name: format!("nats {version}"), servers, governed: false }
    }

    /// Makes worlds on servers of this version in containers, whose permissions can be changed.
    ///
    /// # Errors
    /// If the host has no room for their configuration.
    pub fn governed(version: NatsVersion) -> std::io::Result<Self> {
        let server = NatsServer::new(version).governed()?;
        Ok(Self { servers: Servers::new(Source::Container(server)), governed: true, ..Self::containers(version) })
    }

    /// Makes worlds on a server that runs already, by its URL: `nats://HOST:PORT`. It is never harmed.
    ///
    /// # Errors
    /// `InvalidConfig` for a URL that names no address.
    pub fn running(url: &str) -> Result<Self, Error> {
        let wrong = "expected nats://HOST:PORT of a server without credentials";
        let address = address_in(url, "nats://", 4222).ok_or_else(|| Error::new(ErrorKind::InvalidConfig, wrong))?;
        Ok(Self { name: "nats".into(), servers: Servers::new(Source::Running(address)), governed: false })
    }
}

#[async_trait]
impl Provider for NatsProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn abilities(&self) -> Abilities {
        use Ability::{
            BlackHoleKey, DuplicateWindow, HoldPublish, KeepProgress, Permissions, RemoveProgress, RemoveReaders,
            RemoveRecord, SpoilTopic,
        };
        let mut abilities = self.servers.abilities();
        abilities.extend([BlackHoleKey, DuplicateWindow, HoldPublish, KeepProgress]);
        abilities.extend([RemoveProgress, RemoveReaders, RemoveRecord, SpoilTopic]);
        if self.governed {
            abilities.insert(Permissions);
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
        let server = self.servers.of(&setup).await?;
        let prefix = prefix();
        let admin = Admin::connect(server.address, &prefix, self.governed).await?;
        Ok(Arc::new(NatsFixture::new(server, prefix, admin, setup)))
    }
}
