//! Settings of the backend `kafka`, and how they reach it.

use std::fmt;
use std::path::PathBuf;

use eventbus_core::toolkit::settings::{UNCLEAR_LOGIN, invalid, servers};
use eventbus_kafka::{KafkaConfig, Mechanism, Protocol, REFUSED, Sasl, Tls};

use super::ConfigError;
use super::declare::{millis, section, words};
use super::knobs::{Knob, KnobKind, number};
use super::sections::ContentMode;

use KnobKind::{Flag, Text, Word};

section! {
    /// Section `[backend]` for Kafka. A setting without a value has the library's default. `Debug` shows nothing
    /// secret; serializing does, since its output is the configuration.
    pub struct KafkaSection in Backend for KafkaConfig {
        given {
            /// The brokers, `HOST[:PORT]` with commas between them. A user and password before the first and an `@`,
            /// percent-encoded, count for all of them.
            servers: String
        }
        /// what names of topics and groups begin with
        prefix: String = "nothing", Text => KafkaConfig::prefix;
        /// the user to connect as (SASL)
        user: String = "none", Text;
        /// its password
        password: String = "none", Text;
        /// how the password is shown
        sasl: SaslMechanism = "plain", Word(SaslMechanism::WORDS);
        /// encrypt connections
        tls_required: bool = "false", Flag;
        /// a file with the authorities that are trusted
        root_certificates: PathBuf = "the system's", Text;
        /// the client's certificate, for mutual TLS
        client_certificate: PathBuf = "none", Text;
        /// the key of the client's certificate
        client_key: PathBuf = "none", Text;
        /// the clients' name in brokers' logs
        client_name: String = "eventbus", Text => KafkaConfig::name;
        /// how long connecting may take
        connect_timeout_ms: u64 = "5 s", number(10, 600_000) => millis(KafkaConfig::connect_timeout);
        /// how long an answer about topics and groups may take
        request_timeout_ms: u64 = "5 s", number(100, 60_000) => millis(KafkaConfig::request_timeout);
        /// when a silent connection is given up
        socket_timeout_ms: u64 = "5 s", number(100, 60_000) => millis(KafkaConfig::socket_timeout);
        /// how long a record waits for company in its batch
        linger_ms: u64 = "1 ms", number(0, 10_000) => millis(KafkaConfig::linger);
        /// records on their way
        publish_window: usize = "20000", number(1, 1_000_000) => KafkaConfig::publish_window;
        /// the codec of batches
        compression: String = "none", Word(&["none", "gzip", "snappy", "lz4", "zstd"]) => KafkaConfig::compression;
        /// how groups share partitions
        protocol: GroupProtocol = "cooperative",
            Word(GroupProtocol::WORDS) => |config, protocol| config.protocol(protocol.into());
        /// with protocol broker: how long a member trusts its last word
        lease_ms: u64 = "30 s", number(1_000, 600_000) => millis(KafkaConfig::lease);
        /// a static member's name: its restart moves no partition
        group_instance_id: String = "none", Text => |config, id| config.group_instance_id(Some(id));
        /// how long a hand-over may take at most
        max_poll_interval_ms: u64 = "5 min", number(10_000, 86_400_000) => millis(KafkaConfig::max_poll_interval);
        /// kilobytes fetched ahead, each subscription
        fetch_queue_kilobytes: usize = "65536", number(1_024, 2_097_151) => KafkaConfig::fetch_queue_kilobytes;
        /// how often clients say how they fare, as metrics, 0 for never
        statistics_ms: u64 = "10 s", number(0, 86_400_000) => millis(KafkaConfig::statistics_interval);
        /// copies that a confirmed record has, of new topics
        min_insync_replicas: u32 = "the broker's",
            number(1, 99) => |config, copies| config.min_insync_replicas(Some(copies));
        /// how envelopes are written as CloudEvents
        mode: ContentMode = "binary", Word(ContentMode::WORDS) => |config, mode| config.mode(mode.into());
        /// further properties of librdkafka, NAME=VALUE with commas between them
        properties: String = "none", Text;
    }
}

words! {
    /// Mechanism by which a client shows its user and password to a broker.
    #[derive(Default)]
    #[allow(missing_docs)] // the mechanisms' own names
    pub enum SaslMechanism for Mechanism {
        #[default]
        "plain" Plain,
        "scram-sha-256" ScramSha256,
        "scram-sha-512" ScramSha512,
    }
}

words! {
    /// Protocol by which a group shares partitions among its members.
    #[derive(Default)]
    pub enum GroupProtocol for Protocol {
        /// Only the partitions that move stop.
        #[default]
        "cooperative" Cooperative,
        /// All partitions stop when one moves.
        "eager" Eager,
        /// The broker assigns the partitions (KIP-848).
        "broker" Broker,
    }
}

pub(super) const KNOBS: &[Knob] = KafkaSection::KNOBS;

/// Returns the settings that only Kafka has: parameters of a URL, settings of `[backend]`.
#[must_use]
pub fn kafka_knobs() -> &'static [Knob] {
    KNOBS
}

impl KafkaSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let no_user = self.password.is_some() && self.user.is_none();
        ConfigError::value_if(no_user, "password", "a user with it", "no user")?;
        let one = self.client_certificate.is_some() != self.client_key.is_some();
        ConfigError::value_if(one, "client_key", "client_certificate and client_key together", "one of them")?;
        if self.places().0.is_empty() {
            return Err(ConfigError::Backend { error: invalid("servers", UNCLEAR_LOGIN) });
        }
        let no_pair = self.properties().any(|property| property.is_none());
        let pairs = "NAME=VALUE, several with commas between them";
        ConfigError::value_if(no_pair, "properties", pairs, "something else")?;
        self.properties().flatten().try_for_each(|(name, _)| ConfigError::refuse(REFUSED, name))?;
        self.config().validate().map_err(|error| ConfigError::Backend { error })
    }

    fn properties(&self) -> impl Iterator<Item = Option<(&str, &str)>> {
        let all = self.properties.as_deref().unwrap_or_default().split(',');
        all.filter(|property| !property.trim().is_empty()).map(|property| property.trim().split_once('='))
    }

    /// Splits `servers` into the brokers, and the user and password that stand before the first of them.
    fn places(&self) -> (String, Option<(String, String)>) {
        let (urls, user) = servers(&self.servers, "kafka");
        let hosts: Vec<&str> = urls.iter().map(|url| url.strip_prefix("kafka://").unwrap_or(url)).collect();
        (hosts.join(","), user.map(|(user, password)| (user, password.unwrap_or_default())))
    }

    /// Returns the backend's own configuration.
    pub fn config(&self) -> KafkaConfig {
        let (brokers, user) = self.places();
        let user = self.user.clone().map(|user| (user, self.password.clone().unwrap_or_default())).or(user);
        let mechanism = self.sasl.unwrap_or_default().into();
        let config = self.apply(KafkaConfig::new(brokers));
        let config = self.properties().flatten().fold(config, |config, (name, value)| config.property(name, value));
        config.sasl(user.map(|(user, password)| Sasl::new(mechanism, user, password))).tls(Tls {
            required: self.tls_required.unwrap_or_default(),
            root_certificates: self.root_certificates.clone(),
            client_certificate: self.client_certificate.clone().zip(self.client_key.clone()),
            ..Tls::default()
        })
    }

    /// Returns the brokers' URL without user and password.
    pub(super) fn urls(&self) -> String {
        format!("kafka://{}", self.places().0)
    }
}

impl fmt::Debug for KafkaSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaSection").field(&self.config()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{BackendConfig, EventBusConfig, KnobKind};
    use super::*;

    fn section(url: &str) -> KafkaSection {
        match EventBusConfig::from_url(url).unwrap_or_else(|error| panic!("{url}: {error}")).backend {
            BackendConfig::Kafka(section) => *section,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_knob_reaches_the_backend_from_url_and_toml() {
        let default = KafkaConfig::new("a:9092");
        for knob in KNOBS.iter().filter(|knob| !["password", "client_key"].contains(&knob.name)) {
            let value = match knob.kind {
                KnobKind::Number { least, most } => (least + 77).min(most).to_string(),
                KnobKind::Flag => "true".into(),
                KnobKind::Word(words) => words[1].into(),
                KnobKind::Text if knob.name == "properties" => "fetch.min.bytes=7".into(),
                KnobKind::Text => "x1".into(),
            };
            let (also, also_toml) = match knob.name {
                "user" => ("&password=p", "password = \"p\"\n"),
                "sasl" => ("&user=u", "user = \"u\"\n"),
                "client_certificate" => ("&client_key=k", "client_key = \"k\"\n"),
                _ => ("", ""),
            };
            let by_url = section(&format!("kafka://a:9092?{}={value}{also}", knob.name));
            assert!(by_url.config() != default, "{}", knob.name);
            let quoted = !matches!(knob.kind, KnobKind::Number { .. } | KnobKind::Flag);
            let written = if quoted { format!("{value:?}") } else { value };
            let begin = "[backend]\ntype = \"kafka\"\nservers = \"a:9092\"\n";
            let toml = format!("{begin}{} = {written}\n{also_toml}", knob.name);
            let by_toml = EventBusConfig::from_toml(&toml).unwrap().backend;
            assert_eq!(by_toml, BackendConfig::Kafka(Box::new(by_url)), "{}", knob.name);
        }
    }

    #[test]
    fn every_setting_is_a_knob() {
        let written = serde_json::to_value(KafkaSection::default()).unwrap();
        let mut known: BTreeSet<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
        known.remove("servers");
        assert_eq!(known, KNOBS.iter().map(|knob| knob.name).collect());
    }

    #[test]
    fn what_would_break_the_contract_is_refused_by_name_and_says_why() {
        for (name, why) in
            REFUSED.iter().filter(|(name, _)| !KNOBS.iter().any(|knob| knob.name == name.replace('.', "_")))
        {
            for url in [format!("kafka://a?{name}=1"), format!("kafka://a?properties={name}%3D1")] {
                let error = EventBusConfig::from_url(&url).unwrap_err();
                assert!(matches!(&error, ConfigError::Unsafe { name: n, .. } if n == name), "{url}: {error}");
                assert!(error.to_string().contains(why), "{error}");
                assert_eq!(crate::Error::from(error).kind(), crate::ErrorKind::UnsafeConfig);
            }
        }
    }

    #[test]
    fn a_user_may_stand_before_the_brokers_and_is_never_printed() {
        assert_eq!(section("kafka://u:p%40@a:1,b:2").places(), ("a:1,b:2".into(), Some(("u".into(), "p@".into()))));
        for url in ["kafka://u:hunter2@a:1,b:2", "kafka://a?user=u&password=hunter2"] {
            let config = EventBusConfig::from_url(url).unwrap();
            let shown = format!("{config:?} {}", config.backend);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let raw =
            ["u:hunter2,x@a:1", "u:x,hunter2@a:1", "u:x@hunter2,y@a:1", "u:1?hunter2@a:1", "u:1?linger_ms=hunter2@a:1"];
        for place in raw {
            let error = EventBusConfig::from_url(&format!("kafka://{place}")).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2") && shown.contains("percent-encoded"), "{shown}");
        }
        let toml = "[backend]\ntype = \"kafka\"\nservers = \"u:x,hunter2@a:1\"\n";
        let error = EventBusConfig::from_toml(toml).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        for url in ["kafka://u:hunter2@a/b", "kafka://u:hunter2@?x=1", "kafka://a?password=hunter2"] {
            let error = EventBusConfig::from_url(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
