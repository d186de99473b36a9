//! nats-server in a container.

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testcontainers::bollard::models::{Mount, MountType, NetworkConnectRequest, NetworkDisconnectRequest, PortBinding};
use testcontainers::bollard::query_parameters::{StartContainerOptions, StopContainerOptionsBuilder};
use testcontainers::core::{ContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::engine::{self, BrokerError, OWNER, PORT, SHARED, there};
use super::owner;
use super::ports::{self, Port};

const INSIDE: u16 = 4222;
/// The network that containers are in, if nothing else is said.
const NETWORK: &str = "bridge";
/// How long a server may take to answer.
const READY: Duration = Duration::from_secs(30);

/// A line of releases, by the tag of its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NatsVersion {
    /// 2.15, the newest.
    Newest,
    /// 2.10, the oldest that is supported.
    Oldest,
}

impl NatsVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Newest, Self::Oldest];

    /// The image's tag.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Newest => "2.15",
            Self::Oldest => "2.10",
        }
    }
}

impl fmt::Display for NatsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())
    }
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NatsOptions {
    /// User and password that it demands.
    pub credentials: Option<(String, String)>,
}

impl NatsOptions {
    /// A server that demands this user and password.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["-js", "-sd", "/data"].map(Into::into).into();
        if let Some((user, password)) = &self.credentials {
            arguments.extend(["--user".into(), user.clone(), "--pass".into(), password.clone()]);
        }
        arguments
    }
}

/// A server in a container. One of its own is removed with it, a shared one with the run.
#[derive(Debug)]
pub struct NatsBroker {
    id: String,
    port: u16,
    /// What is held as long as it is in use, where it is its user's own.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    _port: Port,
    /// One harmed broker at a time.
    _turn: File,
}

impl NatsBroker {
    /// The broker of this version that all share. It must not be harmed.
    ///
    /// # Errors
    /// Where there is no engine or no image, or the server does not answer.
    pub async fn shared(version: NatsVersion, options: NatsOptions) -> Result<Self, BrokerError> {
        there(async move {
            // One for each way to be let in: whoever asks with other credentials gets another server.
            let guard =
                options.credentials.as_ref().map_or("open".into(), |(user, password)| format!("{user}:{password}"));
            let what = format!("nats:{version} {guard}");
            let lock = ports::lock_file(&format!("shared-nats-{version}"))?;
            // Held until it is found or made, across the processes of the run. Short of a start, nobody waits for long.
            let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await;
            let _lock = lock.map_err(|error| BrokerError::Runtime(error.to_string()))?.map_err(BrokerError::Locks)?;
            let owner = owner::own();
            let is_it = |labels: &std::collections::HashMap<String, String>| {
                labels.get(OWNER) == Some(&owner) && labels.get(SHARED) == Some(&what)
            };
            let found = engine::labelled().await?.into_iter().find(|(_, labels)| is_it(labels));
            if let Some((id, labels)) = found
                && let Some(port) = labels.get(PORT).and_then(|port| port.parse().ok())
            {
                return Ok(Self { id, port, own: None });
            }
            let port = Port::take()?;
            let (id, number) = (start(version, &options, port.number, Some(what)).await?, port.number);
            held(port);
            Ok(Self { id, port: number, own: None })
        })
        .await
    }

    /// A broker of one's own, to be harmed. Waits until no other such of this version is in use on this host: the
    /// machine is not to be so busy with dying brokers that living ones seem dead.
    ///
    /// # Errors
    /// Where there is no engine or no image, or the server does not answer.
    pub async fn own(version: NatsVersion, options: NatsOptions) -> Result<Self, BrokerError> {
        there(async move {
            let turn = ports::lock_file(&format!("harmed-nats-{version}"))?;
            let turn = tokio::task::spawn_blocking(move || turn.lock().map(|()| turn)).await;
            let turn = turn.map_err(|error| BrokerError::Runtime(error.to_string()))?.map_err(BrokerError::Locks)?;
            let port = Port::take()?;
            let id = start(version, &options, port.number, None).await?;
            Ok(Self { id, port: port.number, own: Some(Own { _port: port, _turn: turn }) })
        })
        .await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Ends it as kill -9 does. Its data stays.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn kill(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move { engine::kill(&id).await }).await
    }

    /// Ends it in order: it is told, and given ten seconds.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn stop(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move {
            let options = StopContainerOptionsBuilder::new().t(10).build();
            Ok(engine::docker().await?.stop_container(&id, Some(options)).await?)
        })
        .await
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), and waits until it answers.
    ///
    /// # Errors
    /// What the engine says, or that the server does not answer.
    pub async fn start(&self) -> Result<(), BrokerError> {
        let (id, port) = (self.id.clone(), self.port);
        there(async move {
            engine::docker().await?.start_container(&id, None::<StartContainerOptions>).await?;
            answers(port).await
        })
        .await
    }

    /// Freezes it: connections stay and nothing is answered.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn pause(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move { Ok(engine::docker().await?.pause_container(&id).await?) }).await
    }

    /// Ends a freeze.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn unpause(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move { Ok(engine::docker().await?.unpause_container(&id).await?) }).await
    }

    /// Takes it off its network: nothing arrives and nothing leaves, and nobody is told.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn disconnect(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move {
            let request = NetworkDisconnectRequest { container: id, force: Some(true) };
            Ok(engine::docker().await?.disconnect_network(NETWORK, request).await?)
        })
        .await
    }

    /// Puts it back on its network.
    ///
    /// # Errors
    /// What the engine says, or that the server does not answer.
    pub async fn reconnect(&self) -> Result<(), BrokerError> {
        let (id, port) = (self.id.clone(), self.port);
        there(async move {
            let request = NetworkConnectRequest { container: id, endpoint_config: None };
            engine::docker().await?.connect_network(NETWORK, request).await?;
            answers(port).await
        })
        .await
    }
}

impl Drop for NatsBroker {
    fn drop(&mut self) {
        let Some(own) = self.own.take() else { return };
        let id = std::mem::take(&mut self.id);
        if let Ok(runtime) = engine::background() {
            runtime.spawn(async move {
                // What stays is swept.
                let _ = engine::remove(&id).await;
                drop(own);
            });
        }
    }
}

/// Ports of shared brokers are held until the process ends.
fn held(port: Port) {
    static HELD: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(port);
}

async fn start(
    version: NatsVersion,
    options: &NatsOptions,
    port: u16,
    shared: Option<String>,
) -> Result<String, BrokerError> {
    engine::docker().await?;
    let image = GenericImage::new("nats", version.tag())
        .with_exposed_port(ContainerPort::Tcp(INSIDE))
        .with_wait_for(WaitFor::message_on_stderr("Server is ready"))
        .with_cmd(options.arguments())
        .with_label(OWNER, owner::own())
        .with_label(PORT, port.to_string())
        .with_label(SHARED, shared.unwrap_or_default())
        .with_startup_timeout(READY)
        .with_host_config_modifier(move |host| {
            // Reachable from this host only, at a port that stays; data in a volume without a name, which goes with the
            // container.
            let binding = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
            host.publish_all_ports = Some(false);
            host.port_bindings = Some([(format!("{INSIDE}/tcp"), Some(vec![binding]))].into());
            let volume = Mount { typ: Some(MountType::VOLUME), target: Some("/data".into()), ..Mount::default() };
            host.mounts = Some(vec![volume]);
        });
    let container = image.start().await?;
    let id = container.id().to_owned();
    // It is removed by its id: a handle would do so in a runtime that may be gone by then.
    std::mem::forget(container);
    answers(port).await?;
    Ok(id)
}

/// Waits for the server's first words: a port that is open may be the engine's only.
async fn answers(port: u16) -> Result<(), BrokerError> {
    let began = Instant::now();
    loop {
        let last = match tokio::time::timeout(Duration::from_secs(2), first_words(port)).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "it says nothing that a NATS server says".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it says nothing".to_owned(),
        };
        if began.elapsed() > READY {
            return Err(BrokerError::Silent { port, seconds: READY.as_secs(), last });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn first_words(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut words = [0; 5];
    stream.read_exact(&mut words).await?;
    Ok(&words == b"INFO ")
}
