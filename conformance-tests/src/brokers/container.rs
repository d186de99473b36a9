//! Servers of any kind in containers: how they are found, and what is done to them.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use testcontainers::bollard::models::{Mount, MountType, NetworkConnectRequest, NetworkDisconnectRequest, PortBinding};
use testcontainers::bollard::query_parameters::{StartContainerOptions, StopContainerOptionsBuilder};
use testcontainers::core::ContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerRequest, GenericImage, ImageExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::engine::{self, BrokerError, OWNER, PORT, SHARED, there};
use super::owner;
use super::ports::{self, Port};

/// The default network of containers.
const NETWORK: &str = "bridge";
/// Time within which a server must answer.
const READY: Duration = Duration::from_secs(60);

/// A kind of server, and how it is started.
#[async_trait]
pub trait Server: fmt::Debug + Send + Sync + 'static {
    /// Kind and release, fit for a file's name.
    fn kind(&self) -> String;

    /// Everything that distinguishes the server from others of its kind, such as its credentials.
    fn variant(&self) -> String;

    /// The port on which it listens, inside the container.
    fn inside(&self) -> u16;

    /// The folder of its data, inside the container.
    fn data(&self) -> &'static str;

    /// Whether the server is on the host's own network, where it listens at the host's port itself, with nothing
    /// between it and its clients. Such a server cannot be taken off its network.
    fn is_on_host(&self) -> bool {
        false
    }

    /// Completes the image with its command and settings, for clients at this port of the host. A shared server is
    /// never harmed.
    fn request(&self, image: GenericImage, port: u16, shared: bool) -> ContainerRequest<GenericImage>;

    /// The image's name and tag.
    fn image(&self) -> (&'static str, &'static str);

    /// Whether the other end of a new connection speaks as such a server does.
    async fn answers(&self, stream: TcpStream) -> std::io::Result<bool>;
}

/// A server in a container. One's own is removed with this handle, a shared one with the run.
#[derive(Debug)]
pub struct Broker {
    server: Arc<dyn Server>,
    id: String,
    port: u16,
    /// Locks that are held while it is in use; `None` for a shared server.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    _port: Port,
    /// The lock that lets one broker be harmed at a time.
    _turn: File,
}

/// Locks a lock file. Other processes of the run wait for it, and wait for long only while a server starts.
async fn locked(name: String) -> Result<File, BrokerError> {
    let lock = ports::lock_file(&name)?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await;
    lock.map_err(|error| BrokerError::Runtime(error.to_string()))?.map_err(BrokerError::Locks)
}

impl Broker {
    /// Finds or starts the server like this one that all share. It must not be harmed.
    ///
    /// # Errors
    /// Where there is no engine or no image, or the server does not answer.
    pub async fn shared(server: impl Server) -> Result<Self, BrokerError> {
        let server: Arc<dyn Server> = Arc::new(server);
        there(async move {
            let what = format!("{} {}", server.kind(), server.variant());
            // Held until it is found or made.
            let _lock = locked(format!("shared-{}", server.kind())).await?;
            let owner = owner::own();
            let is_it = |labels: &HashMap<String, String>| {
                labels.get(OWNER) == Some(&owner) && labels.get(SHARED) == Some(&what)
            };
            let found = engine::labelled().await?.into_iter().find(|(_, labels)| is_it(labels));
            if let Some((id, labels)) = found
                && let Some(port) = labels.get(PORT).and_then(|port| port.parse().ok())
            {
                return Ok(Self { server, id, port, own: None });
            }
            let port = Port::take()?;
            let (id, number) = (start(&*server, port.number, Some(what)).await?, port.number);
            held(port);
            Ok(Self { server, id, port: number, own: None })
        })
        .await
    }

    /// Starts a server of one's own, to be harmed. Waits until no other such server of this kind is in use on this
    /// host: a machine that is busy with dying brokers makes living ones seem dead.
    ///
    /// # Errors
    /// Where there is no engine or no image, or the server does not answer.
    pub async fn own(server: impl Server) -> Result<Self, BrokerError> {
        let server: Arc<dyn Server> = Arc::new(server);
        there(async move {
            let turn = locked(format!("harmed-{}", server.kind())).await?;
            let port = Port::take()?;
            let id = start(&*server, port.number, None).await?;
            Ok(Self { server, id, port: port.number, own: Some(Own { _port: port, _turn: turn }) })
        })
        .await
    }

    /// The address at which the broker listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Kills the broker as SIGKILL does. Its data stays.
    ///
    /// # Errors
    /// The engine's error.
    pub async fn kill(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move { engine::signal(&id, "KILL").await }).await
    }

    /// Has the broker read its configuration again, which goes on meanwhile.
    ///
    /// # Errors
    /// The engine's error.
    pub async fn reload(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move { engine::signal(&id, "HUP").await }).await
    }

    /// Stops the broker in order: it is told, and given ten seconds.
    ///
    /// # Errors
    /// The engine's error.
    pub async fn stop(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move {
            let options = StopContainerOptionsBuilder::new().t(10).build();
            Ok(engine::docker().await?.stop_container(&id, Some(options)).await?)
        })
        .await
    }

    /// Starts the broker again after [`kill`](Self::kill) or [`stop`](Self::stop), and waits until it answers.
    ///
    /// # Errors
    /// The engine's error, or that the server does not answer.
    pub async fn start(&self) -> Result<(), BrokerError> {
        let (server, id, port) = (self.server.clone(), self.id.clone(), self.port);
        there(async move {
            engine::docker().await?.start_container(&id, None::<StartContainerOptions>).await?;
            answers(&*server, port).await
        })
        .await
    }

    /// Freezes the broker: connections stay and nothing is answered.
    ///
    /// # Errors
    /// The engine's error.
    pub async fn pause(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move { Ok(engine::docker().await?.pause_container(&id).await?) }).await
    }

    /// Ends a freeze.
    ///
    /// # Errors
    /// The engine's error.
    pub async fn unpause(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move { Ok(engine::docker().await?.unpause_container(&id).await?) }).await
    }

    /// Takes the broker off its network: nothing arrives and nothing leaves, and nobody is told.
    ///
    /// # Errors
    /// The engine's error.
    pub async fn disconnect(&self) -> Result<(), BrokerError> {
        let id = self.id.clone();
        there(async move {
            let request = NetworkDisconnectRequest { container: id, force: Some(true) };
            Ok(engine::docker().await?.disconnect_network(NETWORK, request).await?)
        })
        .await
    }

    /// Puts the broker back on its network.
    ///
    /// # Errors
    /// The engine's error, or that the server does not answer.
    pub async fn reconnect(&self) -> Result<(), BrokerError> {
        let (server, id, port) = (self.server.clone(), self.id.clone(), self.port);
        there(async move {
            let request = NetworkConnectRequest { container: id, endpoint_config: None };
            engine::docker().await?.connect_network(NETWORK, request).await?;
            answers(&*server, port).await
        })
        .await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(own) = self.own.take() else { return };
        let id = std::mem::take(&mut self.id);
        if let Ok(runtime) = engine::background() {
            runtime.spawn(async move {
                // A container that stays is swept later.
                let _ = engine::remove(&id).await;
                drop(own);
            });
        }
    }
}

/// Holds the port of a shared broker until the process ends.
fn held(port: Port) {
    static HELD: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(port);
}

async fn start(server: &dyn Server, port: u16, shared: Option<String>) -> Result<String, BrokerError> {
    engine::docker().await?;
    let (inside, data, on_host) = (server.inside(), server.data(), server.is_on_host());
    let image = GenericImage::new(server.image().0, server.image().1).with_exposed_port(ContainerPort::Tcp(inside));
    let request = server
        .request(image, port, shared.is_some())
        .with_label(OWNER, owner::own())
        .with_label(PORT, port.to_string())
        .with_label(SHARED, shared.unwrap_or_default())
        .with_startup_timeout(READY)
        .with_host_config_modifier(move |host| {
            // Reachable from this host only, at a port that stays; data in a volume without a name, which goes with the
            // container.
            let binding = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
            host.publish_all_ports = Some(false);
            if on_host {
                host.network_mode = Some("host".into());
            } else {
                host.port_bindings = Some([(format!("{inside}/tcp"), Some(vec![binding]))].into());
            }
            let volume = Mount { typ: Some(MountType::VOLUME), target: Some(data.into()), ..Mount::default() };
            host.mounts.get_or_insert_default().push(volume);
        });
    let container = request.start().await?;
    let id = container.id().to_owned();
    // The container is removed by its id: a handle would do so in a runtime that may be gone by then.
    std::mem::forget(container);
    answers(server, port).await?;
    Ok(id)
}

/// Waits until the server itself answers: an open port may be the engine's only.
async fn answers(server: &dyn Server, port: u16) -> Result<(), BrokerError> {
    let began = Instant::now();
    let asked = async || server.answers(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?).await;
    loop {
        let last = match tokio::time::timeout(Duration::from_secs(2), asked()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "it says nothing that such a server says".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it says nothing".to_owned(),
        };
        if began.elapsed() > READY {
            return Err(BrokerError::Silent { port, seconds: READY.as_secs(), last });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
