//! The settings of a backend: [`KafkaConfig`].
//!
//! Invariant: a configuration that would break the contract does not become a backend (S8). Each refusal says why. The
//! properties that the contract rests on are refused, so that nothing passed through can change them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eventbus_core::toolkit::credentials::Secret;
pub use eventbus_core::toolkit::credentials::{Mechanism, Sasl, Tls};
use eventbus_core::toolkit::settings::{invalid, is_host, millis, one_of, prefix};
use eventbus_core::wire::Mode;
use eventbus_core::{Group, Result, Topic, settings};
use rdkafka::ClientConfig;

use crate::properties;
pub use crate::properties::REFUSED;

/// The largest batch, and the largest record of topics whose limit is not known.
pub(crate) const BATCH_BYTES: usize = 1_000_000;

/// The most records of a batch.
pub(crate) const BATCH_RECORDS: usize = 10_000;

/// The protocol by which a group shares partitions. All members of a group must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// The classic protocol, cooperative: only partitions that move stop. The default.
    #[default]
    Cooperative,
    /// The classic protocol, eager: all partitions stop when one moves.
    Eager,
    /// The broker assigns (`group.protocol=consumer`, KIP-848; brokers from 4.0 on). The session is the broker's, 45 s
    /// unless configured there.
    Broker,
}

settings! {
    /// Settings of a bus on Kafka; all but the brokers have defaults. [`validate`](Self::validate) checks them, and so
    /// does connecting.
    ///
    /// ```
    /// use eventbus_kafka::KafkaConfig;
    ///
    /// let config = KafkaConfig::new("localhost:9092").linger(std::time::Duration::from_millis(5));
    /// config.validate()?;
    /// # Ok::<(), eventbus_core::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[must_use]
    pub struct KafkaConfig {
        given {
            brokers: String,
            /// Properties passed through to librdkafka; some are secret.
            properties: BTreeMap<String, Secret>,
        }
        text {
            /// Sets the name under which brokers log the clients (`client.id`). Default `eventbus`.
            name = "eventbus";
            /// Sets the prefix of topics' and groups' names: buses with different prefixes see nothing of each other.
            /// At most 32 characters of `A-Z a-z 0-9 . _ -`. Default: nothing, names are as they are.
            prefix = "";
            /// Sets the codec of batches: `none`, `gzip`, `snappy`, `lz4` or `zstd`. Default `none`.
            compression = "none";
        }
        value {
            /// Sets the credentials. Default: none.
            sasl: Option<Sasl> = None;
            /// Sets the encryption of connections. Default: none.
            tls: Tls = Tls::default();
            /// Sets the time that opening the bus waits for a broker. Default 5 s.
            connect_timeout: Duration = Duration::from_secs(5), in millis(10, 600_000);
            /// Sets the time-out of questions about topics, groups and logs. Default 5 s.
            request_timeout: Duration = Duration::from_secs(5), in millis(100, 60_000);
            /// Sets the time after which a silent connection is given up and its records are sent again. Default 5 s.
            /// Short is safe: the broker recognises the records that it has.
            socket_timeout: Duration = Duration::from_secs(5), in millis(100, 60_000);
            /// Sets the time that a record waits for company in its batch. Default 1 ms.
            linger: Duration = Duration::from_millis(1), in millis(0, 10_000);
            /// Sets the most records on their way. Default 20 000.
            publish_window: usize = 20_000, in 1..=1_000_000;
            /// Sets the protocol by which groups share partitions. Default cooperative.
            protocol: Protocol = Protocol::default();
            /// Sets, with [`Protocol::Broker`], the time for which a member trusts its last word from the coordinator.
            /// Below the broker's session. Default 30 s.
            lease: Duration = Duration::from_secs(30), in millis(1_000, 600_000);
            /// Makes members static (`group.instance.id`): a member that is back within its session moves no partition.
            /// Unique for each process and subscription of a group. Default none.
            group_instance_id: Option<String> = None;
            /// Sets the longest time of a hand-over before the coordinator goes on without this member. Default 5 min.
            max_poll_interval: Duration = Duration::from_secs(300), in millis(10_000, 86_400_000);
            /// Sets the kilobytes that each subscription fetches ahead. Default 65 536.
            fetch_queue_kilobytes: usize = 65_536, in 1_024..=2_097_151;
            /// Sets the interval of producers' and members' statistics as metrics (`statistics.interval.ms`); zero:
            /// never. A client that has lost all brokers for good is found in twice this time, or in 20 s where it is
            /// zero. Default 10 s.
            statistics_interval: Duration = Duration::from_secs(10), in millis(0, 86_400_000);
            /// Sets `min.insync.replicas` of topics that the bus makes. Default: the broker's.
            min_insync_replicas: Option<u32> = None;
            /// Sets how envelopes are written; both ways are read. Default binary.
            mode: Mode = Mode::Binary;
        }
    }
}

impl KafkaConfig {
    /// Settings for a bus on these brokers, `HOST:PORT` with commas between them; any of a cluster will do.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self::with_defaults(brokers.into(), BTreeMap::new())
    }

    /// The brokers.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Passes a property of librdkafka through, as it is. [`validate`](Self::validate) refuses those that would break
    /// the contract; see [`REFUSED`].
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), Secret::from(value));
        self
    }

    /// Checks every value (S8).
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig`, naming the setting, what was expected and why.
    pub fn validate(&self) -> Result<()> {
        if !self.brokers.split(',').all(is_host) {
            return Err(invalid(
                "brokers",
                "expected HOST[:PORT], several with commas between them, a port of 1 to 65535",
            ));
        }
        prefix(&self.prefix, 0, "._-")?;
        one_of("compression", &self.compression, &["none", "gzip", "snappy", "lz4", "zstd"])?;
        self.properties.keys().try_for_each(|name| properties::check(name))?;
        self.check_ranges()
    }

    /// The properties of the bus's producer, secrets included, for a bare client that is to be like it.
    #[must_use]
    pub fn producer_properties(&self) -> BTreeMap<String, String> {
        told(&self.producer(BATCH_BYTES, self.linger, BATCH_RECORDS))
    }

    /// The properties of the bus's consumer of a group, secrets included.
    #[must_use]
    pub fn consumer_properties(&self, group: &Group) -> BTreeMap<String, String> {
        told(&self.consumer(&self.group(group)))
    }

    /// A topic's name on the broker.
    pub(crate) fn topic(&self, topic: &Topic) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// A group's name on the broker.
    pub(crate) fn group(&self, group: &Group) -> String {
        format!("{}{group}", self.prefix)
    }

    /// The time for which a member trusts its last word from the coordinator (S5): less than others wait for it.
    pub(crate) fn lease_of(&self, session: Duration) -> Duration {
        if self.protocol == Protocol::Broker { self.lease } else { session.mul_f64(0.8) }
    }

    /// The settings that all clients share.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", &self.name);
        let mut protocol = if self.tls.is_on() { "ssl" } else { "plaintext" }.to_owned();
        if let Some(sasl) = &self.sasl {
            protocol.insert_str(0, "sasl_");
            client.set("sasl.mechanism", sasl.mechanism.as_str());
            client.set("sasl.username", sasl.user.reveal()).set("sasl.password", sasl.password.reveal());
        }
        client.set("security.protocol", protocol);
        let path = |path: &Path| path.to_string_lossy().into_owned();
        if let Some(roots) = &self.tls.root_certificates {
            client.set("ssl.ca.location", path(roots));
        }
        if let Some((certificate, key)) = &self.tls.client_certificate {
            client.set("ssl.certificate.location", path(certificate)).set("ssl.key.location", path(key));
        }
        // A broker that is back is found within half a second; with the library's defaults it took up to ten.
        client.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "500");
        client.set("retry.backoff.ms", "50").set("retry.backoff.max.ms", "500");
        client.set("socket.timeout.ms", self.socket_timeout.as_millis().to_string());
        client.set("socket.connection.setup.timeout.ms", "3000").set("allow.auto.create.topics", "false");
        // A topic that was made again, or has grown, is found soon.
        client.set("topic.metadata.refresh.interval.ms", "2000");
        self.pass_through(client)
    }

    /// The interval of clients' statistics, which are needed also without metrics.
    fn looks_every(&self) -> Duration {
        let interval = self.statistics_interval;
        if interval.is_zero() { Duration::from_secs(10) } else { interval }
    }

    /// Adds the user's properties, which go before the defaults that are set here. All but those that only tune have been
    /// refused.
    fn pass_through(&self, mut client: ClientConfig) -> ClientConfig {
        client.extend(self.properties.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())));
        client
    }

    /// Settings of a producer that keeps order without a hole (P1, P2), for records and batches of at most so many
    /// bytes.
    pub(crate) fn producer(&self, batch_bytes: usize, linger: Duration, batch_records: usize) -> ClientConfig {
        let mut client = self.client();
        client.set("enable.idempotence", "true").set("enable.gapless.guarantee", "true").set("acks", "all");
        // A time-out of the client's own would leave a hole: the key waits instead.
        client.set("message.timeout.ms", "0").set("max.in.flight.requests.per.connection", "5");
        client.set("linger.ms", (linger.as_secs_f64() * 1e3).to_string()).set("compression.type", &self.compression);
        client.set("batch.num.messages", batch_records.to_string());
        client.set("message.max.bytes", batch_bytes.to_string()).set("batch.size", batch_bytes.to_string());
        // The client's queue is never full before the core's window is.
        client.set("queue.buffering.max.messages", (2 * self.publish_window).to_string());
        client.set("queue.buffering.max.kbytes", "2147483647");
        client.set("statistics.interval.ms", self.looks_every().as_millis().to_string());
        self.pass_through(client)
    }

    /// Settings of a group's consumer, which commits nothing by itself and never starts anywhere in silence.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut client = self.client();
        client.set("group.id", group).set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        client.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        client.set("max.poll.interval.ms", self.max_poll_interval.as_millis().to_string());
        client.set("statistics.interval.ms", self.looks_every().as_millis().to_string());
        client.set("queued.max.messages.kbytes", self.fetch_queue_kilobytes.to_string());
        // A batch that a disk or a network changed is noticed, and not handed on.
        client.set("check.crcs", "true");
        // A request that is open at a broker holds back new assignments: by default the first records wait 500 ms.
        client.set("fetch.wait.max.ms", "50").set("fetch.queue.backoff.ms", "50").set("fetch.error.backoff.ms", "100");
        match self.protocol {
            Protocol::Cooperative => client.set("partition.assignment.strategy", "cooperative-sticky"),
            Protocol::Eager => client.set("partition.assignment.strategy", "range"),
            Protocol::Broker => client.set("group.protocol", "consumer"),
        };
        if let Some(id) = &self.group_instance_id {
            client.set("group.instance.id", id);
        }
        self.pass_through(client)
    }
}

fn told(client: &ClientConfig) -> BTreeMap<String, String> {
    // The map itself hides secret values.
    let names = client.config_map().into_keys();
    names.filter_map(|name| Some((name.to_owned(), client.get(name)?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use eventbus_core::ErrorKind;

    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let config = KafkaConfig::new("a:1")
            .sasl(Some(Sasl::new(Mechanism::ScramSha512, "me", "s3cret")))
            .property("ssl.key.password", "s3cret");
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    }

    #[test]
    fn what_would_break_the_contract_is_refused_by_name() {
        for (name, why) in REFUSED {
            let error = KafkaConfig::new("a:1").property(*name, "1").validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{name}");
            assert!(error.to_string().contains(name) && error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let config = KafkaConfig::new("a:1");
        assert!(config.validate().is_ok());
        for (wrong, name) in [
            (KafkaConfig::new(""), "brokers"),
            (KafkaConfig::new("a:1,"), "brokers"),
            (KafkaConfig::new("http://a"), "brokers"),
            (config.clone().prefix("a/b"), "prefix"),
            (config.clone().compression("rar"), "compression"),
            (config.clone().publish_window(0), "publish_window"),
            (config.clone().socket_timeout(Duration::ZERO), "socket_timeout"),
            (config.clone().max_poll_interval(Duration::ZERO), "max_poll_interval"),
        ] {
            let error = wrong.validate().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn what_the_contract_rests_on_reaches_the_client() {
        let producer =
            KafkaConfig::new("a:1").property("socket.keepalive.enable", "true").producer(1_000, Duration::ZERO, 1);
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("enable.gapless.guarantee", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "0"),
            ("message.max.bytes", "1000"),
            ("batch.size", "1000"),
            ("batch.num.messages", "1"),
            ("socket.keepalive.enable", "true"),
        ] {
            assert_eq!(producer.get(name), Some(value), "{name}");
        }
        let consumer = KafkaConfig::new("a:1").consumer("g");
        assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
    }
}
