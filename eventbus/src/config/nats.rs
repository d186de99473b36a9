//! Settings of the backend `nats`, and how they reach it.

use std::fmt;
use std::path::PathBuf;

use eventbus_nats::{Auth, NatsConfig, Tls};

use super::ConfigError;
use super::declare::{millis, section, with};
use super::knobs::{Knob, KnobKind, number};
use super::sections::ContentMode;

use KnobKind::{Flag, Text, Word};

section! {
    /// Section `[backend]` for JetStream. A setting without a value has the library's default. `Debug` shows nothing
    /// secret; serializing does, since its output is the configuration.
    pub struct NatsSection in Backend for NatsConfig {
        given {
            /// The servers, `HOST[:PORT]` with commas between them. A login before an `@` counts for all of them. With
            /// `tls://` in front the connection is encrypted.
            servers: String
        }
        /// what all names on the server begin with
        prefix: String = "eventbus", Text => NatsConfig::prefix;
        /// the user to connect as
        user: String = "none", Text;
        /// its password
        password: String = "none", Text;
        /// a token to connect with
        token: String = "none", Text => |config, token| config.auth(Auth::Token(token));
        /// the seed of an nkey to connect with
        nkey: String = "none", Text => |config, seed| config.auth(Auth::Nkey(seed));
        /// a credentials file to connect with
        credentials_file: PathBuf = "none", Text => |config, path| config.auth(Auth::CredentialsFile(path));
        /// refuse a connection that is not encrypted
        tls_required: bool = "false, with tls:// true", Flag;
        /// encrypt before the server's first word
        tls_first: bool = "false", Flag;
        /// a file with further authorities
        root_certificates: PathBuf = "the system's alone", Text;
        /// the client's certificate, for mutual TLS
        client_certificate: PathBuf = "none", Text;
        /// the key of the client's certificate
        client_key: PathBuf = "none", Text;
        /// the connection's name on the server
        client_name: String = "eventbus", Text => NatsConfig::name;
        /// connections: more than one are refused, they would break a key's order
        connections: usize = "1", number(1, 64) => NatsConfig::connections;
        /// how long connecting may take
        connect_timeout_ms: u64 = "5 s", number(10, 600_000) => millis(NatsConfig::connect_timeout);
        /// how long an answer of the server may take
        request_timeout_ms: u64 = "2 s", number(100, 60_000) => millis(NatsConfig::request_timeout);
        /// how long a publish waits before it is sent again
        publish_timeout_ms: u64 = "2 s", number(100, 60_000) => millis(NatsConfig::publish_timeout);
        /// records on their way over all keys, one a key
        publish_window: usize = "4096", number(1, 8_192) => NatsConfig::publish_window;
        /// records of a partition asked for and not yet taken
        fetch_batch: usize = "1000", number(1, 50_000) => NatsConfig::fetch_batch;
        /// how long a request for records stays open
        fetch_wait_ms: u64 = "30 s", number(2_000, 600_000) => millis(NatsConfig::fetch_wait);
        /// open requests that the server keeps for a reader
        max_waiting: usize = "16", number(4, 512) => NatsConfig::max_waiting;
        /// how often an idle server says that it is there
        heartbeat_ms: u64 = "1 s", number(100, 300_000) => millis(NatsConfig::heartbeat);
        /// when the server removes an idle reader
        inactive_threshold_ms: u64 = "5 min", number(30_000, 86_400_000) => millis(NatsConfig::inactive_threshold);
        /// how often the connection is probed
        ping_interval_ms: u64 = "2 s", number(100, 600_000) => millis(NatsConfig::ping_interval);
        /// the longest wait before connecting again
        reconnect_delay_ms: u64 = "250 ms", number(1, 60_000) => millis(NatsConfig::reconnect_delay);
        /// how envelopes are written as CloudEvents
        mode: ContentMode = "binary", Word(ContentMode::WORDS) => |config, mode| config.mode(mode.into());
    }
}

pub(super) const KNOBS: &[Knob] = NatsSection::KNOBS;

/// Returns the settings that only JetStream has: parameters of a URL, settings of `[backend]`.
#[must_use]
pub fn nats_knobs() -> &'static [Knob] {
    KNOBS
}

impl NatsSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let kinds = [self.user.is_some(), self.token.is_some(), self.nkey.is_some(), self.credentials_file.is_some()];
        let several = kinds.into_iter().filter(|given| *given).count() > 1;
        ConfigError::value_if(several, "user", "one of user, token, nkey and credentials_file", "several")?;
        let no_user = self.password.is_some() && self.user.is_none();
        ConfigError::value_if(no_user, "password", "a user with it", "no user")?;
        let one = self.client_certificate.is_some() != self.client_key.is_some();
        ConfigError::value_if(one, "client_key", "client_certificate and client_key together", "one of them")?;
        self.config().validate().map_err(|error| ConfigError::Backend { error })
    }

    /// Returns the backend's own configuration.
    pub(crate) fn config(&self) -> NatsConfig {
        let config = with(self.apply(NatsConfig::new(&*self.servers)), self.user.clone(), |config, user| {
            config.auth(Auth::UserPassword(user, self.password.clone().unwrap_or_default()))
        });
        config.tls(Tls {
            required: self.tls_required.unwrap_or_default(),
            first: self.tls_first.unwrap_or_default(),
            root_certificates: self.root_certificates.clone(),
            client_certificate: self.client_certificate.clone().zip(self.client_key.clone()),
        })
    }

    /// Returns the servers' URL without the login.
    pub(super) fn urls(&self) -> String {
        let hosts = self.config().servers().join(",");
        let scheme = if hosts.contains("tls://") { "tls" } else { "nats" };
        format!("{scheme}://{}", hosts.replace("nats://", "").replace("tls://", ""))
    }
}

impl fmt::Debug for NatsSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsSection").field(&self.config()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use eventbus_nats::REFUSED;

    use super::super::{BackendConfig, EventBusConfig, KnobKind};
    use super::*;

    fn section(url: &str) -> NatsSection {
        match EventBusConfig::from_url(url).unwrap_or_else(|error| panic!("{url}: {error}")).backend {
            BackendConfig::Nats(section) => *section,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_knob_reaches_the_backend_from_url_and_toml() {
        let default = NatsConfig::new("a:4222");
        for knob in KNOBS.iter().filter(|knob| !["connections", "password", "client_key"].contains(&knob.name)) {
            let value = match knob.kind {
                KnobKind::Number { least, most } => (least + 77).min(most).to_string(),
                KnobKind::Flag => "true".into(),
                KnobKind::Word(words) => words[1].into(),
                KnobKind::Text => "x1".into(),
            };
            let (also, also_toml) = match knob.name {
                "user" => ("&password=p", "password = \"p\"\n"),
                "client_certificate" => ("&client_key=k", "client_key = \"k\"\n"),
                _ => ("", ""),
            };
            let by_url = section(&format!("nats://a:4222?{}={value}{also}", knob.name));
            assert!(by_url.config() != default, "{}", knob.name);
            let written = if matches!(knob.kind, KnobKind::Number { .. } | KnobKind::Flag) {
                value
            } else {
                format!("{value:?}")
            };
            let toml =
                format!("[backend]\ntype = \"nats\"\nservers = \"a:4222\"\n{} = {written}\n{also_toml}", knob.name);
            assert_eq!(
                EventBusConfig::from_toml(&toml).unwrap().backend,
                BackendConfig::Nats(Box::new(by_url)),
                "{}",
                knob.name
            );
        }
    }

    #[test]
    fn every_setting_is_a_knob() {
        let written = serde_json::to_value(NatsSection::default()).unwrap();
        let mut known: BTreeSet<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
        known.remove("servers");
        assert_eq!(known, KNOBS.iter().map(|knob| knob.name).collect());
    }

    #[test]
    fn what_would_break_the_contract_is_refused_by_name_and_says_why() {
        for (name, why) in REFUSED {
            let error = EventBusConfig::from_url(&format!("nats://a?{name}=1")).unwrap_err();
            assert!(matches!(&error, ConfigError::Unsafe { name: n, .. } if n == name), "{error}");
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(crate::Error::from(error).kind(), crate::ErrorKind::UnsafeConfig);
            let toml = format!("[backend]\ntype = \"nats\"\nservers = \"a\"\n{name} = 1\n");
            assert!(matches!(EventBusConfig::from_toml(&toml), Err(ConfigError::Unsafe { .. })), "{name}");
        }
        let error = crate::Error::from(EventBusConfig::from_url("nats://a?connections=2").unwrap_err());
        assert_eq!(error.kind(), crate::ErrorKind::UnsafeConfig, "{error}");
        assert!(
            EventBusConfig::from_url("memory://a?ack_wait=1").unwrap_err().to_string().contains("unknown parameter")
        );
    }

    #[test]
    fn tls_is_a_scheme_of_its_own() {
        assert_eq!(section("tls://a:4222,b:1").servers, "tls://a:4222,tls://b:1");
        assert_eq!(section("nats://a:4222,b:1").servers, "a:4222,b:1");
        for text in ["nats://a:4222,b:1", "tls://a:1"] {
            assert_eq!(EventBusConfig::from_url(text).unwrap().backend.to_string(), text);
        }
        let toml = EventBusConfig::from_toml("[backend]\ntype = \"tls\"\nservers = \"a:4222,b:1\"\n").unwrap();
        assert_eq!(toml.backend, BackendConfig::Nats(Box::new(section("tls://a:4222,b:1"))));
    }

    #[test]
    fn secrets_are_never_printed() {
        for url in [
            "nats://u:hunter2@a:4222",
            "nats://hunter2@a",
            "nats://a?user=u&password=hunter2",
            "nats://a?token=hunter2",
            "nats://a?nkey=hunter2",
            "nats://u:hunter2@a:4222,u:hunter2@b?partitions=2",
        ] {
            let config = EventBusConfig::from_url(url).unwrap();
            let shown = format!("{config:?} {}", config.backend);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for place in [
            "u:hunter2,x@a:1",
            "u:x,hunter2@a:1",
            "u:x@hunter2,y@a:1",
            "u:1?hunter2@a:1",
            "u:1?fetch_batch=hunter2@a:1",
        ] {
            for scheme in ["nats", "tls"] {
                let error = EventBusConfig::from_url(&format!("{scheme}://{place}")).unwrap_err();
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains("hunter2") && shown.contains("percent-encoded"), "{shown}");
            }
        }
        for url in [
            "nats://u:hunter2@a/b",
            "nats://u:hunter2@?x=1",
            "nats://a?password=hunter2",
            "nats://a?token=hunter2&nkey=hunter2",
        ] {
            let error = EventBusConfig::from_url(url).unwrap_err();
            let shown =
                format!("{error} {error:?} {:?}", crate::Error::from(EventBusConfig::from_url(url).unwrap_err()));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
