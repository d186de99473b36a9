//! The one connection of a bus, and requests over it.
//!
//! The client has its own thread: it spends as much on a message (a map of its headers, above all) as the bus does, and
//! one thread for both was the limit.
//!
//! The client's task ends by itself where it panics at a message that it cannot take. That is a loss of the connection,
//! and a new client takes its place.
//!
//! Invariants: what the bus hears of the connection is said by the client in use; and [`Connectivity::breaks`] rises
//! with every loss, before anything of the next connection arrives. Code that relies on a connection without a break
//! compares it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::removals::Cleanup;
use crate::suspects::Suspects;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Request, RequestErrorKind, ServerError, Subscriber};
use bytes::Bytes;
use eventbus_core::backend::ConnectionState;
use eventbus_core::toolkit::credentials::readable;
use eventbus_core::toolkit::{Connectivity, OwnThread};
use eventbus_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::{Auth, NatsConfig};
use crate::error::{ApiError, Failure, Outcome};

/// The oldest server with all that is used: metadata, a stream's first sequence, named ephemeral consumers.
const OLDEST: (i64, i64, i64) = (2, 10, 0);

/// The pause before a server that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Notes an event of the client in the state of the connection.
fn heard(connection: &Connectivity, event: &Event) {
    match event {
        Event::Connected => connection.connected(),
        Event::Disconnected | Event::Closed => connection.lost(),
        Event::ServerError(ServerError::Other(text)) => {
            tracing::warn!(target: "eventbus", error = %text, "the server refuses");
            if let Some(subject) = denied_subject(text) {
                connection.denied(subject);
            }
        }
        Event::SlowConsumer(_) => {
            tracing::warn!(target: "eventbus", "the client dropped messages; reads begin anew")
        }
        // The client goes on trying, also with refused credentials: they may be accepted again. The error names its
        // kind only, so no secret is in it.
        Event::ClientError(error) => {
            tracing::warn!(target: "eventbus", %error, "no connection");
            connection.failed(error.to_string());
        }
        other => tracing::info!(target: "eventbus", event = %other, "connection"),
    }
}

/// Finds the subject of a missing permission to publish or to subscribe, in lower or upper case as servers word it.
fn denied_subject(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let begins = ["permissions violation for publish to \"", "permissions violation for subscription to \""];
    let start = begins.iter().find_map(|begin| lower.find(begin))?;
    text[start..].split('"').nth(1)
}

/// An open connection.
pub(crate) struct Link {
    client: RwLock<Arc<Client>>,
    /// The number of the client that may say how the connection is. It rises when a client ends.
    speaker: Arc<AtomicU64>,
    pub(crate) config: NatsConfig,
    /// Prefix of the subjects of acknowledgements.
    pub(crate) inbox: String,
    connection: Arc<Connectivity>,
    /// Removals at the server, which closing waits for.
    pub(crate) removals: Cleanup,
    /// The partitions that have records which the client cannot take.
    pub(crate) suspects: Suspects,
    /// The thread of all tasks that the client spawns.
    thread: OwnThread,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// An answer of JetStream's interface.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Refused {
        error: ApiError,
    },
    /// An error in a form that nobody knows is no success, whatever else the answer holds.
    Unknown {
        error: serde_json::Map<String, serde_json::Value>,
    },
    Done(T),
}

impl Link {
    /// Connects, and checks what the server can do.
    pub(crate) async fn connect(config: &NatsConfig, connection: Connectivity) -> Result<Arc<Self>> {
        let (connection, speaker) = (Arc::new(connection), Arc::new(AtomicU64::new(0)));
        let thread = OwnThread::start("eventbus-nats")?;
        let client = start_client(config, &connection, &speaker, &thread).await?;
        connection.connected();
        let inbox = client.new_inbox();
        let link = Arc::new(Self {
            client: RwLock::new(Arc::new(client)),
            speaker,
            config: config.clone(),
            inbox,
            connection,
            removals: Cleanup::default(),
            suspects: Suspects::default(),
            thread,
        });
        link.check()?;
        Ok(link)
    }

    /// The client in use.
    pub(crate) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Subscribes to the answers of publishes.
    pub(crate) async fn answers(&self) -> Result<Subscriber> {
        let subscribed = self.client().subscribe(format!("{}.*", self.inbox)).await;
        subscribed.map_err(|error| Error::new(ErrorKind::Unavailable, format!("no inbox: {error}")))
    }

    /// Notes that the task of this client ended: a loss of the connection, if the client is in use and was not closed.
    pub(crate) fn ended(&self, client: &Arc<Client>) {
        let number = self.speaker.load(Ordering::Acquire);
        if !Arc::ptr_eq(client, &self.client()) || self.state() == ConnectionState::Closed || number % 2 == 1 {
            return;
        }
        // An odd number is that of no client: until there is a new one, nobody speaks.
        if self.speaker.compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let why = "the client ended at a message that it cannot take";
            tracing::warn!(target: "eventbus", error = why, "the connection is lost; a new client takes its place");
            self.connection.lost();
            self.connection.failed(why.into());
        }
    }

    /// Makes a new client in the place of one that ended. Returns the subscription to its answers.
    pub(crate) async fn replace(&self) -> Result<Subscriber> {
        let client = start_client(&self.config, &self.connection, &self.speaker, &self.thread).await;
        let client = client.inspect_err(|error| {
            tracing::warn!(target: "eventbus", %error, "no connection");
            self.connection.failed(error.to_string());
        })?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
        let answers = self.answers().await?;
        self.connection.connected();
        Ok(answers)
    }

    /// Waits until the connection is lost or closed.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + use<> {
        let (mut state, connection, before) = (self.connection.watch(), Arc::clone(&self.connection), self.breaks());
        async move {
            let broken =
                |state: &ConnectionState| *state != ConnectionState::Connected || connection.breaks() != before;
            let _ = state.wait_for(broken).await;
        }
    }

    /// Waits until there is a connection, at most as long as a request may take.
    pub(crate) async fn until_up(&self) -> Outcome<()> {
        let mut state = self.connection.watch();
        let changed = state.wait_for(|state| *state != ConnectionState::Disconnected);
        match tokio::time::timeout(self.config.request_timeout, changed).await {
            Ok(Ok(state)) if *state == ConnectionState::Connected => Ok(()),
            Ok(_) => Err(Failure::Closed),
            Err(_) => Err(Failure::Unanswered("there is no connection".into())),
        }
    }

    pub(crate) fn breaks(&self) -> u64 {
        self.connection.breaks()
    }

    /// Checks what the server said of itself when connecting.
    fn check(&self) -> Result<()> {
        let client = self.client();
        let info = client.server_info();
        let (major, minor, patch) = OLDEST;
        if !client.is_server_compatible(major, minor, patch) {
            let message = format!("expected nats-server {major}.{minor} or newer");
            return Err(Error::new(ErrorKind::Unsupported, message).with("version", info.version));
        }
        if !info.headers {
            return Err(Error::new(ErrorKind::Unsupported, "the server does not allow headers"));
        }
        Ok(())
    }

    pub(crate) fn connection(&self) -> &Connectivity {
        &self.connection
    }

    /// Spawns a future on the client's thread, where the client's messages cost it no switch between threads.
    pub(crate) fn beside(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.thread.spawn(future);
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.connection().state()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state() == ConnectionState::Connected
    }

    /// Closes the connection. Nothing is sent any more.
    pub(crate) async fn close(&self) {
        if self.state() == ConnectionState::Connected {
            // A program that describes a group and ends would leave its consumers to the server for minutes.
            self.removals.ended(self.config.request_timeout).await;
        }
        self.connection().closed();
        let _ = tokio::time::timeout(self.config.request_timeout, self.client().drain()).await;
    }

    /// Sends a request to JetStream's interface. Ends within the request time-out, also while there is no connection.
    pub(crate) async fn api<T: DeserializeOwned>(&self, subject: &str, request: &impl Serialize) -> Outcome<T> {
        let mut body = serde_json::to_vec(request).map_err(|error| Failure::Unanswered(error.to_string()))?;
        if body == b"null" {
            // Some requests must be empty.
            body.clear();
        }
        let answer = self.ask(format!("$JS.API.{subject}"), Request::new().payload(body.into())).await?;
        read(&answer)
    }

    /// Sends a request to any subject. Returns the answer's payload.
    pub(crate) async fn ask(&self, subject: String, request: Request) -> Outcome<Bytes> {
        match self.state() {
            ConnectionState::Connected => {}
            ConnectionState::Closed => return Err(Failure::Closed),
            _ => return Err(Failure::Unanswered("there is no connection".into())),
        }
        let begun = Instant::now();
        match self.client().send_request(subject.clone(), request).await {
            Ok(message) => Ok(message.payload),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(Failure::NoResponders),
            Err(_) if self.connection.denied_since(&subject, begun) => Err(Failure::Denied(subject)),
            Err(error) => Err(Failure::Unanswered(format!("no answer: {error}"))),
        }
    }
}

pub(crate) fn read<T: DeserializeOwned>(answer: &[u8]) -> Outcome<T> {
    match serde_json::from_slice(answer) {
        Ok(Answer::Done(done)) => Ok(done),
        Ok(Answer::Refused { error }) => Err(Failure::Api(error)),
        Ok(Answer::Unknown { error }) => {
            let error = serde_json::Value::from(error);
            Err(Failure::Unanswered(format!("an error of the server that cannot be read: {error}")))
        }
        Err(error) => Err(Failure::Unanswered(format!("an answer that cannot be read: {error}"))),
    }
}

/// Starts a client with a connection. What it hears counts as long as `speaker` has the number that it takes here.
async fn start_client(
    config: &NatsConfig,
    connection: &Arc<Connectivity>,
    speaker: &Arc<AtomicU64>,
    thread: &OwnThread,
) -> Result<Client> {
    let number = speaker.load(Ordering::Acquire).next_multiple_of(2);
    let (events, speaks) = (Arc::clone(connection), Arc::clone(speaker));
    let options = options(config).event_callback(move |event| {
        if speaks.load(Ordering::Acquire) == number {
            heard(&events, &event);
        }
        std::future::ready(())
    });
    config.tls.check_files()?;
    let options = authorize(options, &config.auth).await?;
    let reached = thread.run(reach(options, config.clone())).await;
    let client = reached.ok_or_else(|| Error::new(ErrorKind::Backend, "the client's thread ended"))??;
    speaker.store(number, Ordering::Release);
    Ok(client)
}

fn options(config: &NatsConfig) -> ConnectOptions {
    let longest = config.reconnect_delay;
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .connection_timeout(config.connect_timeout)
        .request_timeout(Some(config.request_timeout))
        .ping_interval(config.ping_interval)
        // Room for a whole window at once: `submit` cannot wait.
        .client_capacity(config.publish_window + 4_096)
        .reconnect_delay_callback(move |attempts| match attempts {
            0 | 1 => Duration::ZERO,
            more => Duration::from_millis(1 << more.min(16)).min(longest),
        });
    let tls = &config.tls;
    options = options.require_tls(tls.required);
    if tls.first {
        options = options.tls_first();
    }
    if let Some(roots) = &tls.root_certificates {
        options = options.add_root_certificates(roots.clone());
    }
    if let Some((certificate, key)) = &tls.client_certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    options
}

async fn authorize(options: ConnectOptions, auth: &Auth) -> Result<ConnectOptions> {
    // The cause is left out: it may quote the file.
    let bad = |what: &'static str| Error::new(ErrorKind::Unauthorized, what);
    Ok(match auth.clone() {
        Auth::None => options,
        Auth::UserPassword(user, password) => options.user_and_password(user, password),
        Auth::Token(token) => options.token(token),
        Auth::Nkey(seed) => options.nkey(seed),
        Auth::Credentials(text) => options.credentials(&text).map_err(|_| bad("the credentials cannot be read"))?,
        Auth::CredentialsFile(path) => {
            readable("credentials_file", &path)?;
            let shown = path.display().to_string();
            let read = options.credentials_file(path).await;
            read.map_err(|_| bad("the credentials file cannot be read").with("file", shown))?
        }
    })
}

/// Connects, and tries again for as long as connecting may take: a server that is just starting accepts connections
/// before it says a word. A refusal by the server is not tried again.
async fn reach(options: ConnectOptions, config: NatsConfig) -> Result<Client> {
    let until = Instant::now() + config.connect_timeout;
    loop {
        let connected = options.clone().connect(config.servers.clone()).await.map_err(connect_error);
        match connected.map_err(|error| error.with("servers", config.servers.join(","))) {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() + RETRY < until => {
                tokio::time::sleep(RETRY).await;
            }
            reached => return reached,
        }
    }
}

fn connect_error(error: async_nats::ConnectError) -> Error {
    let kind = error.kind();
    let message = match kind {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            return Error::new(ErrorKind::Unauthorized, "the server does not accept the credentials");
        }
        ConnectErrorKind::ServerParse => {
            return Error::new(ErrorKind::InvalidConfig, "servers: a URL that cannot be read")
                .with("setting", "servers");
        }
        _ if kind == ConnectErrorKind::Tls || is_tls(&error) => {
            return Error::new(ErrorKind::Unauthorized, format!("TLS failed: {}", with_causes(&error)));
        }
        _ => format!("no server can be reached: {}", with_causes(&error)),
    };
    Error::new(ErrorKind::Unavailable, message)
}

/// Words an error with those of its causes that it does not repeat itself.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// Tells TLS errors by their kind: certificates that are not accepted come as invalid data.
fn is_tls(error: &async_nats::ConnectError) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_denied_subject_is_found_in_what_servers_say() {
        for (text, subject) in [
            (r#"Permissions Violation for Publish to "a.b""#, Some("a.b")),
            (r#"'Permissions Violation for Publish to "a.b"'"#, Some("a.b")),
            (r#"permissions violation for publish to "$js.api""#, Some("$js.api")),
            (r#"Permissions Violation for Subscription to "a.*" using queue "q""#, Some("a.*")),
            ("Maximum Connections Exceeded", None),
        ] {
            assert_eq!(denied_subject(text), subject, "{text}");
        }
    }
}
