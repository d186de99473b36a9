//! [`NatsBackend`]: the core's interface on JetStream.

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use eventbus_core::backend::{
    Backend, Capabilities, ConnectionState, GroupDescription, Health, Join, Membership, Outbound, TopicDescription,
};
use eventbus_core::{Error, ErrorKind, Group, Position, Result, Stamp, Ticket, Topic, TopicSpec};

use crate::config::NatsConfig;
use crate::connection::{Link, Signals};
use crate::producer::{Producer, Signalled};

/// A connection to JetStream, made by [`open`](Backend::open), as a backend of the core.
///
/// Put it under [`Bus`](eventbus_core::Bus) with [`Bus::connect`](eventbus_core::Bus::connect), or use
/// [`NatsEventBus`](crate::NatsEventBus).
pub struct NatsBackend {
    config: NatsConfig,
    link: OnceLock<Arc<Link>>,
    producer: Arc<Producer>,
}

impl NatsBackend {
    /// A backend with these settings, which are checked when it connects.
    #[must_use]
    pub fn new(config: NatsConfig) -> Self {
        let producer = Arc::new(Producer::new(&config));
        Self { config, link: OnceLock::new(), producer }
    }

    pub(crate) fn link(&self) -> Result<&Arc<Link>> {
        self.link.get().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the backend was not opened"))
    }
}

impl fmt::Debug for NatsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBackend").field("config", &self.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for NatsBackend {
    fn system(&self) -> &'static str {
        "nats"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn open(&self) -> Result<()> {
        self.config.validate()?;
        let signals = Signals::new(Box::new(Signalled(Arc::downgrade(&self.producer))));
        let link = Link::connect(&self.config, Arc::new(signals)).await?;
        self.producer.start(&link).await?;
        self.link.set(link).map_err(|_| Error::new(ErrorKind::Backend, "the backend was opened twice"))
    }

    async fn ensure_topic(&self, _: &TopicSpec) -> Result<TopicDescription> {
        Err(not_yet())
    }

    async fn describe_topic(&self, _: &Topic) -> Result<TopicDescription> {
        Err(not_yet())
    }

    async fn delete_topic(&self, _: &Topic) -> Result<()> {
        Err(not_yet())
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        Err(not_yet())
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        self.producer.submit(record, ticket);
    }

    async fn find_stamp(&self, _: &Topic, _: u32, _: Position, _: Stamp) -> Result<Option<Position>> {
        Err(not_yet())
    }

    async fn position_at(&self, _: &Topic, _: u32, _: u64) -> Result<Position> {
        Err(not_yet())
    }

    async fn join(&self, _: Join) -> Result<Arc<dyn Membership>> {
        Err(not_yet())
    }

    async fn list_groups(&self, _: &Topic) -> Result<Vec<Group>> {
        Err(not_yet())
    }

    async fn describe_group(&self, _: &Topic, _: &Group) -> Result<GroupDescription> {
        Err(not_yet())
    }

    async fn reset_group(&self, _: &Topic, _: &Group, _: &[(u32, Position)]) -> Result<()> {
        Err(not_yet())
    }

    async fn delete_group(&self, _: &Topic, _: &Group) -> Result<()> {
        Err(not_yet())
    }

    async fn health(&self) -> Health {
        Health::new(self.link.get().map_or(ConnectionState::Disconnected, |link| link.state()))
    }

    async fn close(&self) -> Result<()> {
        self.producer.close();
        if let Some(link) = self.link.get() {
            link.close().await;
        }
        Ok(())
    }
}

fn not_yet() -> Error {
    Error::new(ErrorKind::Unsupported, "not part of this backend yet")
}
