//! The settings of a backend: [`NatsConfig`].
//!
//! Invariant: a configuration that would break the contract does not become a backend (S8). What is refused says why.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use eventbus_core::wire::Mode;
use eventbus_core::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;

/// How a bus shows who it is. No part of it is ever printed.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Auth {
    /// It does not, unless the URL says otherwise.
    #[default]
    None,
    /// A user and its password.
    UserPassword(String, String),
    /// A token.
    Token(String),
    /// The seed of a user's nkey (`SU…`).
    Nkey(String),
    /// The text of a credentials file (user JWT and seed).
    Credentials(String),
    /// A credentials file, read when connecting.
    CredentialsFile(PathBuf),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::UserPassword(..) => "UserPassword(..)",
            Self::Token(_) => "Token(..)",
            Self::Nkey(_) => "Nkey(..)",
            Self::Credentials(_) => "Credentials(..)",
            Self::CredentialsFile(_) => "CredentialsFile(..)",
        })
    }
}

/// How the connection is encrypted. Server certificates are checked against the system's roots and `root_certificates`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs)] // set as a whole
pub struct Tls {
    /// Refuses a connection that is not encrypted. Default: off, unless a URL begins with `tls://`.
    pub required: bool,
    /// Encrypts before the server's first word, where the server is configured so (`handshake_first`). Default: off.
    pub first: bool,
    /// A file with the certificates of further authorities, PEM.
    pub root_certificates: Option<PathBuf>,
    /// The files of the client's certificate and its key, PEM (mutual TLS).
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// Settings of a bus on JetStream, all but the servers with defaults. Checked by [`validate`](Self::validate) and by
/// whatever takes it.
///
/// ```
/// use eventbus_nats::NatsConfig;
///
/// let config = NatsConfig::new("nats://localhost:4222").prefix("shop");
/// config.validate()?;
/// # Ok::<(), eventbus_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct NatsConfig {
    /// Without what may be secret in a URL.
    pub(crate) servers: Vec<String>,
    pub(crate) auth: Auth,
    pub(crate) tls: Tls,
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) publish_window: usize,
    pub(crate) connections: usize,
    pub(crate) fetch_batch: usize,
    pub(crate) fetch_wait: Duration,
    pub(crate) max_waiting: usize,
    pub(crate) heartbeat: Duration,
    pub(crate) inactive_threshold: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) reconnect_delay: Duration,
    pub(crate) mode: Mode,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $name;
            self
        })*
    };
}

impl NatsConfig {
    /// A bus on these servers: `nats://` or `tls://` URLs, several with commas between them. A user and password, or a
    /// token, may stand before a host, percent-encoded; the first counts for all.
    pub fn new(servers: impl Into<String>) -> Self {
        let mut auth = Auth::None;
        let mut hosts = Vec::new();
        for server in servers.into().split(',').map(str::trim) {
            let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
            let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
            if let (Auth::None, Some(user)) = (&auth, user) {
                let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
                auth = match user.split_once(':') {
                    Some((user, password)) => Auth::UserPassword(plain(user), plain(password)),
                    None => Auth::Token(plain(user)),
                };
            }
            hosts.push(format!("{scheme}://{host}"));
        }
        let required = hosts.iter().any(|host| host.starts_with("tls://"));
        Self {
            servers: hosts,
            auth,
            tls: Tls { required, ..Tls::default() },
            name: "eventbus".into(),
            prefix: "eventbus".into(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
            publish_timeout: Duration::from_secs(2),
            publish_window: 4_096,
            connections: 1,
            fetch_batch: 1_000,
            fetch_wait: Duration::from_secs(30),
            max_waiting: 16,
            heartbeat: Duration::from_secs(1),
            inactive_threshold: Duration::from_secs(300),
            ping_interval: Duration::from_secs(2),
            reconnect_delay: Duration::from_millis(250),
            mode: Mode::Binary,
        }
    }

    /// The servers' URLs, without what may be secret in them.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Sets the name under which the server lists the connection. Default `eventbus`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what all subjects, streams and buckets begin with: buses with different prefixes see nothing of each other.
    /// 1 to 32 characters of `A-Z a-z 0-9 _ -`. Default `eventbus`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how the connection is encrypted; what a `tls://` URL asks for stays. Default: as the server and the URL ask.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Tls { required: tls.required || self.tls.required, ..tls };
        self
    }

    setters! {
        /// Sets how the bus shows who it is; goes before what a URL says. Default none.
        auth: Auth,
        /// How long connecting may take, each server; when opening, servers that cannot be reached are tried again for so
        /// long. Default 5 s.
        connect_timeout: Duration,
        /// How long the answer to a request to the server's interface may take. Default 2 s.
        request_timeout: Duration,
        /// How long a publish waits for its acknowledgement before it is sent again. Default 2 s.
        publish_timeout: Duration,
        /// The most records on their way over all keys; one a key. Default 4 096, at most 8 192: servers refuse what is
        /// beyond 10 000 over all their clients.
        publish_window: usize,
        /// Connections. Only 1 is safe so far: over several, one key would be published on rotating ones.
        connections: usize,
        /// The most records of one partition that were asked for and not yet taken. Default 1 000.
        fetch_batch: usize,
        /// How long a request for records stays open. Default 30 s.
        fetch_wait: Duration,
        /// The most open requests for records that the server keeps for a reader. Default 16.
        max_waiting: usize,
        /// How often an idle server says that it is there; two missing ones end a read. Default 1 s.
        heartbeat: Duration,
        /// After how long without an open request the server removes a reader. Default 5 min: longer than any stall.
        inactive_threshold: Duration,
        /// How often the connection is probed. Default 2 s.
        ping_interval: Duration,
        /// The longest wait before the next attempt to connect again. Default 250 ms.
        reconnect_delay: Duration,
        /// How envelopes are written; both ways are read. Default binary.
        mode: Mode,
    }

    /// Checks every value (S8).
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig`, naming the setting, what was expected and why.
    pub fn validate(&self) -> Result<()> {
        for server in &self.servers {
            let (scheme, host) = server.split_once("://").unwrap_or_default();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
            if !matches!(scheme, "nats" | "tls") || host.is_empty() || !host.chars().all(plain) {
                return Err(invalid("servers", "expected nats://HOST[:PORT] or tls://HOST[:PORT]".into()));
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if !(1..=32).contains(&self.prefix.len()) || !self.prefix.chars().all(plain) {
            return Err(invalid("prefix", format!("expected 1 to 32 of A-Z a-z 0-9 _ -, got {:?}", self.prefix)));
        }
        if self.connections != 1 {
            let why = "connections: expected 1: a key published over rotating connections has no order";
            return Err(Error::new(ErrorKind::UnsafeConfig, why).with("setting", "connections"));
        }
        self.validate_ranges()
    }

    fn validate_ranges(&self) -> Result<()> {
        for (name, value, most) in [
            ("publish_window", self.publish_window, 8_192),
            ("fetch_batch", self.fetch_batch, 50_000),
            ("max_waiting", self.max_waiting, 512),
        ] {
            let least = if name == "max_waiting" { 4 } else { 1 };
            if !(least..=most).contains(&value) {
                return Err(invalid(name, format!("expected {least} to {most}, got {value}")));
            }
        }
        let ms = Duration::from_millis;
        for (name, value, least, most) in [
            ("connect_timeout", self.connect_timeout, ms(10), ms(600_000)),
            ("request_timeout", self.request_timeout, ms(100), ms(60_000)),
            ("publish_timeout", self.publish_timeout, ms(100), ms(60_000)),
            ("fetch_wait", self.fetch_wait, ms(2_000), ms(600_000)),
            ("heartbeat", self.heartbeat, ms(100), self.fetch_wait / 2),
            ("inactive_threshold", self.inactive_threshold, ms(30_000), ms(86_400_000)),
            ("ping_interval", self.ping_interval, ms(100), ms(600_000)),
            ("reconnect_delay", self.reconnect_delay, ms(1), ms(60_000)),
        ] {
            if !(least..=most).contains(&value) {
                return Err(invalid(name, format!("expected {least:?} to {most:?}, got {value:?}")));
            }
        }
        Ok(())
    }
}

/// Settings of JetStream that would break the contract, and why. They are refused by name wherever settings
/// are read from text.
pub const REFUSED: &[(&str, &str)] = &[
    ("ack_wait", "readers acknowledge nothing, so nothing comes again out of its turn; progress is kept in a record"),
    ("max_ack_pending", "readers acknowledge nothing; fetch_batch bounds what is on its way"),
    ("max_deliver", "a record is delivered until it is finished, and tried again in place"),
    ("durable_name", "a reader's name is used once: a late word to an earlier one must meet nobody"),
    ("retention", "only limits: a work queue deletes what another group has not read"),
    ("discard", "only old: what a full topic refuses in the middle of a key would be a hole"),
    ("no_ack", "a publish that is never confirmed cannot be put in order"),
];

fn invalid(setting: &'static str, expected: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{setting}: {expected}")).with("setting", setting)
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConfig")
            .field("servers", &self.servers)
            .field("auth", &self.auth)
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let auth = [
            Auth::UserPassword("me".into(), "s3cret".into()),
            Auth::Token("s3cret".into()),
            Auth::Nkey("s3cret".into()),
            Auth::Credentials("s3cret".into()),
        ];
        for auth in auth {
            let config = NatsConfig::new("nats://u:s3cret@a:1,tls://s3cret@b:2,s3cret@c").auth(auth);
            assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
        }
    }

    #[test]
    fn credentials_of_a_url_are_taken_out_of_it() {
        let config = NatsConfig::new("tls://me:p%40ss@a:1, nats://b");
        assert_eq!(config.auth, Auth::UserPassword("me".into(), "p@ss".into()));
        assert_eq!(config.servers, ["tls://a:1", "nats://b"]);
        assert!(config.tls.required);
        assert_eq!(NatsConfig::new("tok@b:4").auth, Auth::Token("tok".into()));
    }

    #[test]
    fn what_would_break_the_contract_is_refused_by_name() {
        let config = NatsConfig::new("nats://a");
        assert!(config.validate().is_ok());
        let error = config.clone().connections(2).validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsafeConfig);
        assert!(error.to_string().contains("connections"), "{error}");
        for (wrong, name) in [
            (config.clone().publish_window(0), "publish_window"),
            (config.clone().publish_window(10_000), "publish_window"),
            (config.clone().fetch_batch(0), "fetch_batch"),
            (config.clone().max_waiting(1), "max_waiting"),
            (config.clone().heartbeat(Duration::ZERO), "heartbeat"),
            (config.clone().inactive_threshold(Duration::from_secs(1)), "inactive_threshold"),
            (config.clone().prefix("a.b"), "prefix"),
            (config.clone().prefix(""), "prefix"),
            (NatsConfig::new("http://a"), "servers"),
            (NatsConfig::new(""), "servers"),
        ] {
            let error = wrong.validate().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
