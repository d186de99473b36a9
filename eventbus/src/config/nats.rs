//! The settings of the backend `nats`, and how they reach it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use eventbus_core::wire::Mode;
use eventbus_nats::{Auth, NatsConfig, REFUSED, Tls};
use serde::{Deserialize, Serialize};

use super::knobs::{Knob, flag, number, text, word};
use super::sections::ContentMode;
use super::{ConfigError, Section};

/// JetStream, and how it is reached. What is not said is the library's default; [`nats_knobs`](super::nats_knobs) tells
/// each one's. `Debug` shows nothing secret; serializing it does, since it is the configuration.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[allow(missing_docs)] // told once, in `KNOBS`
pub struct NatsSection {
    /// `HOST[:PORT]`, several with commas between them; what stands before an `@` counts for all. With `tls://` in front
    /// the connection is encrypted.
    pub servers: String,
    pub prefix: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub nkey: Option<String>,
    pub credentials_file: Option<PathBuf>,
    pub tls_required: Option<bool>,
    pub tls_first: Option<bool>,
    pub root_certificates: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub client_name: Option<String>,
    pub connections: Option<usize>,
    pub connect_timeout_ms: Option<u64>,
    pub request_timeout_ms: Option<u64>,
    pub publish_timeout_ms: Option<u64>,
    pub publish_window: Option<usize>,
    pub fetch_batch: Option<usize>,
    pub fetch_wait_ms: Option<u64>,
    pub max_waiting: Option<usize>,
    pub heartbeat_ms: Option<u64>,
    pub inactive_threshold_ms: Option<u64>,
    pub ping_interval_ms: Option<u64>,
    pub reconnect_delay_ms: Option<u64>,
    pub mode: Option<ContentMode>,
}

use Section::Backend;

/// All that may be set of it.
pub(super) const KNOBS: &[Knob] = &[
    text(Backend, "prefix", "what all names on the server begin with; eventbus"),
    text(Backend, "user", "the user to connect as; none"),
    text(Backend, "password", "its password; none"),
    text(Backend, "token", "a token to connect with; none"),
    text(Backend, "nkey", "the seed of an nkey to connect with; none"),
    text(Backend, "credentials_file", "a credentials file to connect with; none"),
    flag(Backend, "tls_required", "refuse a connection that is not encrypted; false, with tls:// true"),
    flag(Backend, "tls_first", "encrypt before the server's first word; false"),
    text(Backend, "root_certificates", "a file with further authorities; the system's alone"),
    text(Backend, "client_certificate", "the client's certificate, for mutual TLS; none"),
    text(Backend, "client_key", "the key of the client's certificate; none"),
    text(Backend, "client_name", "the connection's name on the server; eventbus"),
    number(Backend, "connections", 1, 64, "connections: more than one are refused, they would break a key's order; 1"),
    number(Backend, "connect_timeout_ms", 10, 600_000, "how long connecting may take; 5 s"),
    number(Backend, "request_timeout_ms", 100, 60_000, "how long an answer of the server may take; 2 s"),
    number(Backend, "publish_timeout_ms", 100, 60_000, "how long a publish waits before it is sent again; 2 s"),
    number(Backend, "publish_window", 1, 8_192, "records on their way over all keys, one a key; 4096"),
    number(Backend, "fetch_batch", 1, 50_000, "records of a partition asked for and not yet taken; 1000"),
    number(Backend, "fetch_wait_ms", 2_000, 600_000, "how long a request for records stays open; 30 s"),
    number(Backend, "max_waiting", 4, 512, "open requests that the server keeps for a reader; 16"),
    number(Backend, "heartbeat_ms", 100, 300_000, "how often an idle server says that it is there; 1 s"),
    number(Backend, "inactive_threshold_ms", 30_000, 86_400_000, "when the server removes an idle reader; 5 min"),
    number(Backend, "ping_interval_ms", 100, 600_000, "how often the connection is probed; 2 s"),
    number(Backend, "reconnect_delay_ms", 1, 60_000, "the longest wait before connecting again; 250 ms"),
    word(Backend, "mode", &["binary", "structured"], "how envelopes are written as CloudEvents; binary"),
];

/// Why a setting of JetStream has no place here, if it is one that would break the contract.
pub(super) fn refused(name: &str) -> Option<ConfigError> {
    let bare = name.strip_suffix("_ms").unwrap_or(name);
    let (name, why) = REFUSED.iter().find(|(refused, _)| *refused == bare)?;
    Some(ConfigError::Unsafe { name, why })
}

impl NatsSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let kinds = [self.user.is_some(), self.token.is_some(), self.nkey.is_some(), self.credentials_file.is_some()];
        let only = |name, expected: &str, got: &str| {
            Err(ConfigError::Value { name, expected: expected.into(), got: got.into() })
        };
        if kinds.into_iter().filter(|given| *given).count() > 1 {
            return only("user", "one of user, token, nkey and credentials_file", "several");
        }
        if self.password.is_some() && self.user.is_none() {
            return only("password", "a user with it", "no user");
        }
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return only("client_key", "client_certificate and client_key together", "one of them");
        }
        self.config().validate().map_err(|error| ConfigError::Backend { error })
    }

    /// What the backend is given.
    pub(crate) fn config(&self) -> NatsConfig {
        let mut config = NatsConfig::new(&*self.servers);
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
            token => auth, Auth::Token;
            nkey => auth, Auth::Nkey;
            credentials_file => auth, Auth::CredentialsFile;
            connections => connections, usize::from;
            connect_timeout_ms => connect_timeout, millis;
            request_timeout_ms => request_timeout, millis;
            publish_timeout_ms => publish_timeout, millis;
            publish_window => publish_window, usize::from;
            fetch_batch => fetch_batch, usize::from;
            fetch_wait_ms => fetch_wait, millis;
            max_waiting => max_waiting, usize::from;
            heartbeat_ms => heartbeat, millis;
            inactive_threshold_ms => inactive_threshold, millis;
            ping_interval_ms => ping_interval, millis;
            reconnect_delay_ms => reconnect_delay, millis;
            mode => mode, Mode::from;
        }
        if let Some(user) = self.user.clone() {
            config = config.auth(Auth::UserPassword(user, self.password.clone().unwrap_or_default()));
        }
        config.tls(Tls {
            required: self.tls_required.unwrap_or_default(),
            first: self.tls_first.unwrap_or_default(),
            root_certificates: self.root_certificates.clone(),
            client_certificate: self.client_certificate.clone().zip(self.client_key.clone()),
        })
    }

    /// The servers without what stands before an `@`.
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
