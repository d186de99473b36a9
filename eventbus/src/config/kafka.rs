//! The settings of the backend `kafka`, and how they reach it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use eventbus_core::wire::Mode;
use eventbus_kafka::{KafkaConfig, Mechanism, Protocol, REFUSED, Sasl, Tls};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::knobs::{Knob, flag, number, text, word};
use super::sections::ContentMode;
use super::{ConfigError, Section};

/// Kafka, and how it is reached. What is not said is the library's default; [`kafka_knobs`](super::kafka_knobs) tells each
/// one's. `Debug` shows nothing secret; serializing it does, since it is the configuration.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[allow(missing_docs)] // told once, in `KNOBS`
pub struct KafkaSection {
    /// `HOST[:PORT]`, several with commas between them; what stands before an `@` counts for all.
    pub servers: String,
    pub prefix: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub sasl: Option<SaslMechanism>,
    pub tls_required: Option<bool>,
    pub root_certificates: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub client_name: Option<String>,
    pub connect_timeout_ms: Option<u64>,
    pub request_timeout_ms: Option<u64>,
    pub socket_timeout_ms: Option<u64>,
    pub linger_ms: Option<u64>,
    pub publish_window: Option<usize>,
    pub compression: Option<String>,
    pub protocol: Option<GroupProtocol>,
    pub lease_ms: Option<u64>,
    pub group_instance_id: Option<String>,
    pub max_poll_interval_ms: Option<u64>,
    pub fetch_queue_kilobytes: Option<usize>,
    pub statistics_ms: Option<u64>,
    pub min_insync_replicas: Option<u32>,
    pub mode: Option<ContentMode>,
    pub properties: Option<String>,
}

/// How a user and its password are shown to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[allow(missing_docs)] // the mechanisms' own names
pub enum SaslMechanism {
    #[default]
    Plain,
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// How a group shares partitions among its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GroupProtocol {
    /// Only partitions that move stop.
    #[default]
    Cooperative,
    /// All partitions stop when one moves.
    Eager,
    /// The broker assigns (KIP-848).
    Broker,
}

use Section::Backend;

/// All that may be set of it.
pub(super) const KNOBS: &[Knob] = &[
    text(Backend, "prefix", "what names of topics and groups begin with; nothing"),
    text(Backend, "user", "the user to connect as (SASL); none"),
    text(Backend, "password", "its password; none"),
    word(Backend, "sasl", &["plain", "scram-sha-256", "scram-sha-512"], "how the password is shown; plain"),
    flag(Backend, "tls_required", "encrypt connections; false"),
    text(Backend, "root_certificates", "a file with the authorities that are trusted; the system's"),
    text(Backend, "client_certificate", "the client's certificate, for mutual TLS; none"),
    text(Backend, "client_key", "the key of the client's certificate; none"),
    text(Backend, "client_name", "the clients' name in brokers' logs; eventbus"),
    number(Backend, "connect_timeout_ms", 10, 600_000, "how long connecting may take; 5 s"),
    number(Backend, "request_timeout_ms", 100, 60_000, "how long an answer about topics and groups may take; 5 s"),
    number(Backend, "socket_timeout_ms", 100, 60_000, "when a silent connection is given up; 5 s"),
    number(Backend, "linger_ms", 0, 10_000, "how long a record waits for company in its batch; 1 ms"),
    number(Backend, "publish_window", 1, 1_000_000, "records on their way; 20000"),
    word(Backend, "compression", &["none", "gzip", "snappy", "lz4", "zstd"], "the codec of batches; none"),
    word(Backend, "protocol", &["cooperative", "eager", "broker"], "how groups share partitions; cooperative"),
    number(Backend, "lease_ms", 1_000, 600_000, "with protocol broker: how long a member trusts its last word; 30 s"),
    text(Backend, "group_instance_id", "a static member's name: its restart moves no partition; none"),
    number(Backend, "max_poll_interval_ms", 10_000, 86_400_000, "how long a hand-over may take at most; 5 min"),
    number(Backend, "fetch_queue_kilobytes", 1_024, 2_097_151, "kilobytes fetched ahead, each subscription; 65536"),
    number(
        Backend,
        "statistics_ms",
        0,
        86_400_000,
        "how often clients say how they fare, as metrics, 0 for never; 10 s",
    ),
    number(Backend, "min_insync_replicas", 1, 99, "copies that a confirmed record has, of new topics; the broker's"),
    word(Backend, "mode", &["binary", "structured"], "how envelopes are written as CloudEvents; binary"),
    text(Backend, "properties", "further properties of librdkafka, NAME=VALUE with commas between them; none"),
];

/// Why a setting of Kafka has no place here, if it is one that would break the contract.
pub(super) fn refused(name: &str) -> Option<ConfigError> {
    let (name, why) = REFUSED.iter().find(|(refused, _)| *refused == name || refused.replace('.', "_") == name)?;
    Some(ConfigError::Unsafe { name, why })
}

impl KafkaSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let only = |name, expected: &str, got: &str| {
            Err(ConfigError::Value { name, expected: expected.into(), got: got.into() })
        };
        if self.password.is_some() && self.user.is_none() {
            return only("password", "a user with it", "no user");
        }
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return only("client_key", "client_certificate and client_key together", "one of them");
        }
        if self.properties().any(|property| property.is_none()) {
            return only("properties", "NAME=VALUE, several with commas between them", "something else");
        }
        for (name, _) in self.properties().flatten() {
            if let Some(error) = refused(name) {
                return Err(error);
            }
        }
        self.config().validate().map_err(|error| ConfigError::Backend { error })
    }

    fn properties(&self) -> impl Iterator<Item = Option<(&str, &str)>> {
        let all = self.properties.as_deref().unwrap_or_default().split(',');
        all.filter(|property| !property.trim().is_empty()).map(|property| property.trim().split_once('='))
    }

    /// The brokers, and the user and password that stand before one of them.
    fn places(&self) -> (String, Option<(String, String)>) {
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut user = None;
        let mut hosts = Vec::new();
        for place in self.servers.split(',').map(str::trim) {
            let (who, host) = place.rsplit_once('@').map_or((None, place), |(who, host)| (Some(who), host));
            let named = who.map(|who| who.split_once(':').unwrap_or((who, "")));
            user = user.or_else(|| named.map(|(name, password)| (plain(name), plain(password))));
            hosts.push(host);
        }
        (hosts.join(","), user)
    }

    /// What the backend is given.
    pub fn config(&self) -> KafkaConfig {
        let (brokers, user) = self.places();
        let mut config = KafkaConfig::new(brokers);
        macro_rules! set {
            ($($knob:ident => $setter:ident, $as:expr;)*) => {
                $(if let Some(value) = self.$knob.clone() {
                    config = config.$setter($as(value));
                })*
            };
        }
        let millis = Duration::from_millis;
        set! {
            prefix => prefix, String::from;
            client_name => name, String::from;
            connect_timeout_ms => connect_timeout, millis;
            request_timeout_ms => request_timeout, millis;
            socket_timeout_ms => socket_timeout, millis;
            linger_ms => linger, millis;
            publish_window => publish_window, usize::from;
            compression => compression, String::from;
            lease_ms => lease, millis;
            group_instance_id => group_instance_id, Some;
            max_poll_interval_ms => max_poll_interval, millis;
            fetch_queue_kilobytes => fetch_queue_kilobytes, usize::from;
            statistics_ms => statistics_interval, millis;
            min_insync_replicas => min_insync_replicas, Some;
            mode => mode, Mode::from;
            protocol => protocol, |protocol| match protocol {
                GroupProtocol::Cooperative => Protocol::Cooperative,
                GroupProtocol::Eager => Protocol::Eager,
                GroupProtocol::Broker => Protocol::Broker,
            };
        }
        for (name, value) in self.properties().flatten() {
            config = config.property(name, value);
        }
        let mechanism = match self.sasl.unwrap_or_default() {
            SaslMechanism::Plain => Mechanism::Plain,
            SaslMechanism::ScramSha256 => Mechanism::ScramSha256,
            SaslMechanism::ScramSha512 => Mechanism::ScramSha512,
        };
        let user = self.user.clone().map(|user| (user, self.password.clone().unwrap_or_default())).or(user);
        config.sasl(user.map(|(user, password)| Sasl::new(mechanism, user, password))).tls(Tls {
            required: self.tls_required.unwrap_or_default(),
            root_certificates: self.root_certificates.clone(),
            client_certificate: self.client_certificate.clone().zip(self.client_key.clone()),
            ..Tls::default()
        })
    }

    /// The brokers without what stands before an `@`.
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
        for url in ["kafka://u:hunter2@a/b", "kafka://u:hunter2@?x=1", "kafka://a?password=hunter2"] {
            let error = EventBusConfig::from_url(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
