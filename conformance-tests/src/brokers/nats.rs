//! nats-server.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use testcontainers::core::{Mount, WaitFor};
use testcontainers::{ContainerRequest, GenericImage, ImageExt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::container::Server;
use super::users::Users;

/// The folder of the users' file, inside the container.
const USERS: &str = "/etc/eventbus";

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

/// A NATS server with JetStream.
#[derive(Clone, Debug)]
pub struct NatsServer {
    version: NatsVersion,
    credentials: Option<(String, String)>,
    measured: bool,
    users: Option<Arc<Users>>,
}

impl NatsServer {
    /// A server that lets everybody in.
    #[must_use]
    pub const fn new(version: NatsVersion) -> Self {
        Self { version, credentials: None, measured: false, users: None }
    }

    /// A server that demands this user and password.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// A server whose permissions can be changed while it runs.
    ///
    /// # Errors
    /// If the host has no room for its configuration.
    pub fn governed(mut self) -> io::Result<Self> {
        self.users = Some(Arc::new(Users::new()?));
        Ok(self)
    }

    /// The users whose permissions can be changed.
    pub(crate) fn users(&self) -> Option<&Users> {
        self.users.as_deref()
    }

    /// A server that is measured: on the host's own network, since a published port takes each byte through a process
    /// of the engine's.
    #[must_use]
    pub const fn measured(mut self) -> Self {
        self.measured = true;
        self
    }
}

#[async_trait]
impl Server for NatsServer {
    fn kind(&self) -> String {
        format!("nats-{}", self.version)
    }

    fn variant(&self) -> String {
        let open = match &self.users {
            Some(users) => return format!("governed by {}", users.folder().display()),
            None if self.measured => "open, measured",
            None => "open",
        };
        self.credentials.as_ref().map_or(open.into(), |(user, password)| format!("{user}:{password}"))
    }

    fn inside(&self) -> u16 {
        4222
    }

    fn data(&self) -> &'static str {
        "/data"
    }

    fn is_on_host(&self) -> bool {
        self.measured
    }

    fn image(&self) -> (&'static str, &'static str) {
        ("nats", self.version.tag())
    }

    fn request(&self, image: GenericImage, port: u16, _: bool) -> ContainerRequest<GenericImage> {
        let ready = image.with_wait_for(WaitFor::message_on_stderr("Server is ready"));
        if let Some(users) = &self.users {
            let folder = Mount::bind_mount(users.folder().display().to_string(), USERS);
            return ready.with_mount(folder).with_cmd(["-c".to_owned(), Users::file(USERS)]);
        }
        let mut arguments: Vec<String> = ["-js", "-sd", "/data"].map(Into::into).into();
        if self.measured {
            arguments.extend(["-a".into(), "127.0.0.1".into(), "-p".into(), port.to_string()]);
        }
        if let Some((user, password)) = &self.credentials {
            arguments.extend(["--user".into(), user.clone(), "--pass".into(), password.clone()]);
        }
        ready.with_cmd(arguments)
    }

    async fn answers(&self, mut stream: TcpStream) -> std::io::Result<bool> {
        let mut words = [0; 5];
        stream.read_exact(&mut words).await?;
        Ok(&words == b"INFO ")
    }
}
