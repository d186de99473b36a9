//! The settings of a backend: [`NatsConfig`].
//!
//! Invariant: a configuration that would break the contract does not become a backend (S8). Each refusal says why.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use eventbus_core::toolkit::credentials::Tls;
use eventbus_core::toolkit::settings::{
    UNCLEAR_LOGIN, invalid, is_server, millis, prefix, servers as read_servers, unsafe_setting, within,
};
use eventbus_core::wire::Mode;
use eventbus_core::{Result, settings};

/// The credentials of a bus. No part of them is ever printed.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Auth {
    /// No credentials, unless the URL has some.
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

settings! {
    /// Settings of a bus on JetStream; all but the servers have defaults. [`validate`](Self::validate) checks them, and
    /// so does connecting.
    ///
    /// ```
    /// use eventbus_nats::NatsConfig;
    ///
    /// let config = NatsConfig::new("nats://localhost:4222").prefix("shop");
    /// config.validate()?;
    /// # Ok::<(), eventbus_core::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[must_use]
    pub struct NatsConfig {
        given {
            /// The servers' URLs without their secrets.
            servers: Vec<String>,
            tls: Tls,
        }
        text {
            /// Sets the name under which the server lists the connection. Default `eventbus`.
            name = "eventbus";
            /// Sets the prefix of all subjects, streams and buckets: buses with different prefixes see nothing of each
            /// other. 1 to 32 characters of `A-Z a-z 0-9 _ -`. Default `eventbus`.
            prefix = "eventbus";
        }
        value {
            /// Sets the credentials, which go before those of a URL. Default none.
            auth: Auth = Auth::None;
            /// Sets the time that connecting to each server may take. When opening, servers that cannot be reached are
            /// tried again for as long. Default 5 s.
            connect_timeout: Duration = Duration::from_secs(5), in millis(10, 600_000);
            /// Sets the time-out of requests to the server's interface. Default 2 s.
            request_timeout: Duration = Duration::from_secs(2), in millis(100, 60_000);
            /// Sets the time that a publish waits for its acknowledgement before it is sent again. Default 2 s.
            publish_timeout: Duration = Duration::from_secs(2), in millis(100, 60_000);
            /// Sets the most records on their way over all keys; one a key. Default 4 096, at most 8 192: servers
            /// refuse more than 10 000 over all their clients.
            publish_window: usize = 4_096, in 1..=8_192;
            /// Sets the number of connections. Only 1 is safe so far: several would publish one key over rotating
            /// connections.
            connections: usize = 1;
            /// Sets the most records of one partition that are requested and not yet taken. Default 1 000.
            fetch_batch: usize = 1_000, in 1..=50_000;
            /// Sets the time that a request for records stays open. Default 30 s.
            fetch_wait: Duration = Duration::from_secs(30), in millis(2_000, 600_000);
            /// Sets the most open requests for records that the server keeps for a reader. Default 16.
            max_waiting: usize = 16, in 4..=512;
            /// Sets the interval of an idle server's heartbeats; two missing ones end a read. Default 1 s.
            heartbeat: Duration = Duration::from_secs(1);
            /// Sets the time without an open request after which the server removes a reader. Default 5 min: longer
            /// than any stall.
            inactive_threshold: Duration = Duration::from_secs(300), in millis(30_000, 86_400_000);
            /// Sets the interval at which the connection is probed. Default 2 s.
            ping_interval: Duration = Duration::from_secs(2), in millis(100, 600_000);
            /// Sets the longest wait before the next attempt to connect again. Default 250 ms.
            reconnect_delay: Duration = Duration::from_millis(250), in millis(1, 60_000);
            /// Sets how envelopes are written; both ways are read. Default binary.
            mode: Mode = Mode::Binary;
        }
    }
}

impl NatsConfig {
    /// Settings for a bus on these servers: `nats://` or `tls://` URLs, several with commas between them. A user and
    /// password, or a token, may stand before a host, percent-encoded; the first counts for all.
    pub fn new(servers: impl Into<String>) -> Self {
        let (urls, user) = read_servers(&servers.into(), "nats");
        let auth = match user {
            None => Auth::None,
            Some((user, Some(password))) => Auth::UserPassword(user, password),
            Some((token, None)) => Auth::Token(token),
        };
        let required = urls.iter().any(|url| url.starts_with("tls://"));
        Self::with_defaults(urls, Tls { required, ..Tls::default() }).auth(auth)
    }

    /// The servers' URLs, without their secrets.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Sets the encryption of the connection; what a `tls://` URL requires stays. Default: as the server and the URL
    /// ask.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Tls { required: tls.required || self.tls.required, ..tls };
        self
    }

    /// Checks every value (S8).
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig`, naming the setting, what was expected and why.
    pub fn validate(&self) -> Result<()> {
        if self.servers.iter().any(String::is_empty) {
            return Err(invalid("servers", UNCLEAR_LOGIN));
        }
        if !self.servers.iter().all(|server| is_server(server, &["nats", "tls"])) {
            return Err(invalid("servers", "expected nats://HOST[:PORT] or tls://HOST[:PORT], a port of 1 to 65535"));
        }
        prefix(&self.prefix, 1, "_-")?;
        if self.connections != 1 {
            let why = "expected 1: a key published over rotating connections has no order";
            return Err(unsafe_setting("connections", why));
        }
        self.check_ranges()?;
        within("heartbeat", &self.heartbeat, Duration::from_millis(100)..=self.fetch_wait / 2)
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

#[cfg(test)]
mod tests {
    use eventbus_core::ErrorKind;

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
            let config = NatsConfig::new("nats://u:s3cret@a:1,tls://u:s3cret@b:2").auth(auth);
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
