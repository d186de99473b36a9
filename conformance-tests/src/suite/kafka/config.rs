//! The settings of every bus under test on Kafka.

use std::net::SocketAddr;
use std::time::Duration;

use eventbus_core::{Error, ErrorKind};
use eventbus_kafka::{KafkaConfig, Protocol};

/// The session of every member: the shortest that a broker takes from a classic member by default. Members under
/// KIP-848 have the broker's session, which is set to the same.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// The time for which a producer gathers records. The client's thread polls without a pause from then on until the
/// partition's answer is there: with the default of one millisecond, a few cases that await answers take all cores.
const LINGER: Duration = Duration::from_millis(25);

/// The protocol by which a group's members and its coordinator agree on ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// The members decide, cooperative-sticky.
    Classic,
    /// The broker decides: KIP-848.
    Consumer,
}

impl GroupProtocol {
    /// Both protocols.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Consumer];

    /// The protocol's name in the client's setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }

    /// The URL that a bus connects to.
    pub(super) fn url(self, address: SocketAddr) -> String {
        format!("kafka://{address}?group.protocol={}", self.as_str())
    }
}

/// The settings of every bus under test on Kafka, by the URL of a connection: all waits but the producer's linger
/// are short, all else is the default. A connection and requests over it are given time: the machine may be busy with
/// the other cases.
///
/// # Errors
/// `InvalidConfig` for any other URL.
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
        .socket_timeout(Duration::from_secs(1))
        .linger(LINGER))
}
