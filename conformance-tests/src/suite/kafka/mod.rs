//! Kafka as a provider of worlds: real brokers, and the faults that strike them.
//!
//! A world is a prefix of names on a broker, and a client of the suite's own beside it ([`admin`]). Each connection,
//! which is one process as the cases see it, has a proxy of its own, whose address stands for the broker's. Faults on
//! publishes are made by the proxies, faults on logs by the client. A member loses its session as members do: it is
//! kept silent for so long. A case that restarts the broker has one of its own.

mod acls;
mod admin;
mod config;
mod fixture;
mod log;
mod names;
mod operator;
mod raw;
mod reader;

use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::{Error, ErrorKind};
use eventbus_kafka::{KafkaConfig, REFUSED};

use self::admin::Admin;
pub use self::config::{GroupProtocol, kafka_config};
use self::fixture::KafkaFixture;
use self::names::Names;
pub use self::raw::{RawRecord, produce};
use super::ability::{Abilities, Ability};
use super::fixture::{Clock, Fixture, Provider, Setup};
use super::served::{Servers, Source, address_in, prefix};
use crate::brokers::KafkaServer;

/// A provider of worlds on Kafka.
#[derive(Debug)]
pub struct KafkaProvider {
    name: String,
    protocol: GroupProtocol,
    servers: Servers<KafkaServer>,
    governed: bool,
}

impl KafkaProvider {
    /// Makes worlds on brokers in containers.
    #[must_use]
    pub fn containers(protocol: GroupProtocol) -> Self {
        Self::of(KafkaServer::new(), protocol)
    }

    /// Makes worlds on brokers in containers, whose permissions can be changed.
    #[must_use]
    pub fn governed(protocol: GroupProtocol) -> Self {
        Self { governed: true, ..Self::of(KafkaServer::new().governed(), protocol) }
    }

    fn of(server: KafkaServer, protocol: GroupProtocol) -> Self {
        let name = format!("kafka {} {}", KafkaServer::TAG, protocol.as_str());
        Self { name, protocol, servers: Servers::new(Source::Container(server)), governed: false }
    }

    /// Makes worlds on a broker that runs already, by its URL: `kafka://HOST:PORT`. It is never harmed.
    ///
    /// # Errors
    /// `InvalidConfig` for a URL that names no address.
    pub fn running(url: &str, protocol: GroupProtocol) -> Result<Self, Error> {
        let wrong = "expected kafka://HOST:PORT of a broker without credentials, advertised as 127.0.0.1 or localhost";
        let address = address_in(url, "kafka://", 9092).ok_or_else(|| Error::new(ErrorKind::InvalidConfig, wrong))?;
        Ok(Self {
            name: format!("kafka {}", protocol.as_str()),
            protocol,
            servers: Servers::new(Source::Running(address)),
            governed: false,
        })
    }
}

#[async_trait]
impl Provider for KafkaProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn abilities(&self) -> Abilities {
        let mut abilities = self.servers.abilities();
        abilities.insert(Ability::AddPartitions);
        if self.governed {
            abilities.insert(Ability::Permissions);
        }
        abilities
    }

    fn clock(&self) -> Clock {
        Clock::Real
    }

    async fn refusals(&self) -> Vec<(String, bool)> {
        let fine = || KafkaConfig::new("127.0.0.1:9092");
        let mut wrong = vec![("no brokers".to_owned(), KafkaConfig::new(""))];
        let properties = REFUSED.iter().map(|(name, _)| (format!("{name} from outside"), fine().property(*name, "1")));
        wrong.extend(properties);
        wrong.into_iter().map(|(name, config)| (name, config.validate().is_ok())).collect()
    }

    fn resolves_by_itself(&self) -> bool {
        true
    }

    async fn world(&self, setup: Setup) -> Result<Arc<dyn Fixture>, Error> {
        let server = self.servers.of(&setup).await?;
        // The backend puts names behind the prefix as they are.
        let prefix = format!("{}.", prefix());
        let admin = Admin::connect(server.address, Names::new(&prefix))?;
        Ok(Arc::new(KafkaFixture::new(server, self.protocol, prefix, admin, setup)))
    }
}
