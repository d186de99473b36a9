//! Kafka as a provider of worlds: real brokers, and what can be done to them.
//!
//! A world is a prefix of names on a broker, and a client of the suite's own beside it ([`admin`]). Each connection, which is
//! one process as the cases see it, has a proxy of its own, in whose place the broker is never named; faults on publishes are
//! the proxies', faults on logs the client's, and a member loses its session as members do: it is kept silent for so long. A
//! case that restarts the broker has one of its own.

mod admin;
mod fixture;
mod names;
mod reader;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::{Error, ErrorKind};
use eventbus_kafka::{KafkaConfig, Protocol, REFUSED};

use super::fixture::{Abilities, Clock, Fixture, Provider, Setup};
use super::served::{Servers, Source, address_in, prefix};
use crate::brokers::KafkaServer;
use admin::Admin;
use fixture::KafkaFixture;
use names::Names;

/// The session of every member: the shortest that a broker takes from a classic one by default. Those under KIP-848 have the
/// broker's, which is set to the same.
const SESSION: Duration = Duration::from_secs(6);

/// How a group's members and its coordinator agree on who owns what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// The members decide, cooperative-sticky.
    Classic,
    /// The broker decides: KIP-848.
    Consumer,
}

impl GroupProtocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Consumer];

    /// As the client's setting has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }

    /// What a bus connects to.
    fn url(self, address: SocketAddr) -> String {
        format!("kafka://{address}?group.protocol={}", self.as_str())
    }
}

/// Makes worlds on Kafka.
#[derive(Debug)]
pub struct KafkaProvider {
    name: String,
    protocol: GroupProtocol,
    servers: Servers<KafkaServer>,
}

impl KafkaProvider {
    /// Brokers in containers.
    #[must_use]
    pub fn containers(protocol: GroupProtocol) -> Self {
        let servers = Servers::new(Source::Container(KafkaServer::new()));
        Self { name: format!("kafka {} {}", KafkaServer::TAG, protocol.as_str()), protocol, servers }
    }

    /// A broker that runs already, by its URL: `kafka://HOST:PORT`. It is never harmed.
    ///
    /// # Errors
    /// A URL that names no address.
    pub fn running(url: &str, protocol: GroupProtocol) -> Result<Self, Error> {
        let wrong = "expected kafka://HOST:PORT of a broker without credentials, advertised as 127.0.0.1 or localhost";
        let address = address_in(url, "kafka://", 9092).ok_or_else(|| Error::new(ErrorKind::InvalidConfig, wrong))?;
        Ok(Self {
            name: format!("kafka {}", protocol.as_str()),
            protocol,
            servers: Servers::new(Source::Running(address)),
        })
    }
}

/// The settings of every bus under test on Kafka, by a URL as connections have it: what is waited for is short, all else is
/// the default. A connection and what is asked on it are given time: the machine may be busy with the other cases.
///
/// # Errors
/// A URL that is none.
pub fn kafka_config(url: &str, prefix: &str) -> Result<KafkaConfig, Error> {
    let wrong =
        || Error::new(ErrorKind::InvalidConfig, format!("expected kafka://HOST:PORT?group.protocol=P, got {url}"));
    let (brokers, protocol) = url.strip_prefix("kafka://").and_then(|url| url.split_once('?')).ok_or_else(wrong)?;
    let protocol = protocol.strip_prefix("group.protocol=").ok_or_else(wrong)?;
    let protocol = GroupProtocol::ALL.into_iter().find(|known| known.as_str() == protocol).ok_or_else(wrong)?;
    Ok(KafkaConfig::new(brokers)
        .prefix(prefix)
        .protocol(match protocol {
            GroupProtocol::Classic => Protocol::Cooperative,
            GroupProtocol::Consumer => Protocol::Broker,
        })
        .lease(SESSION.mul_f64(0.8))
        .connect_timeout(Duration::from_secs(30))
        .request_timeout(Duration::from_secs(20))
        .statistics_interval(Duration::from_secs(1))
        .socket_timeout(Duration::from_secs(1)))
}

#[async_trait]
impl Provider for KafkaProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn abilities(&self) -> Abilities {
        self.servers.abilities()
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
        // Names are put behind it as they are.
        let prefix = format!("{}.", prefix());
        let admin = Admin::connect(server.address, Names::new(&prefix))?;
        Ok(Arc::new(KafkaFixture::new(server, self.protocol, prefix, admin, setup)))
    }
}
