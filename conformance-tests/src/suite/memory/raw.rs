//! Records that no bus wrote, in a log that holds envelopes: they are stored in disguise, and this layer takes the disguise
//! off where they are delivered, so that the bus meets bytes as it would on a broker.

use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::{
    Backend, Body, Capabilities, Commit, GroupDescription, GroupEvent, Health, Inbound, Join, LogState, Membership,
    Outbound, TopicDescription,
};
use eventbus_core::wire::{Binding, WireRecord};
use eventbus_core::{Envelope, Group, Key, Position, ProducerId, Result, Stamp, Ticket, Topic, TopicSpec};

const DISGUISE: &str = "conformance.raw";

/// A binding as brokers with record keys and plain header values have it.
static BINDING: Binding = Binding::new("ce_").keyed(true);

/// An envelope that stands for raw bytes.
pub(super) fn disguise(topic: &str, partition: u32, record: WireRecord) -> Result<Outbound> {
    let mut builder = Envelope::builder(DISGUISE, "/raw").payload(record.payload);
    if let Some(key) = record.key {
        builder = builder.key(Key::from_bytes(key)?);
    }
    for (name, value) in record.headers {
        builder = builder.header(format!("raw-{name}"), String::from_utf8_lossy(&value));
    }
    let envelope = builder.build()?;
    // Foreign producers stamp nothing; the log wants a stamp, and the layer takes it off again.
    let stamp = Stamp::new(ProducerId::new(u128::MAX), uuid_like(envelope.id()));
    Ok(Outbound::new(topic.parse()?, partition, stamp, envelope))
}

fn uuid_like(id: &str) -> u64 {
    crate::history::digest(id.as_bytes())
}

fn undisguised(record: Inbound) -> Inbound {
    let Body::Envelope(envelope) = &record.body else { return record };
    if envelope.event_type() != DISGUISE {
        return record;
    }
    let wire = WireRecord {
        key: envelope.key().map(Key::to_bytes),
        headers: envelope
            .headers()
            .map(|(name, value)| (name.trim_start_matches("raw-").to_owned(), value.to_owned().into()))
            .collect(),
        payload: envelope.payload().clone(),
    };
    let body = Body::Encoded { record: wire, binding: &BINDING };
    Inbound::new(record.partition, record.position, record.stored_at, body)
}

#[derive(Debug)]
pub(super) struct WithRaw(Arc<dyn Backend>);

impl WithRaw {
    pub(super) fn new(inner: Arc<dyn Backend>) -> Self {
        Self(inner)
    }
}

#[async_trait]
impl Backend for WithRaw {
    fn system(&self) -> &'static str {
        self.0.system()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn open(&self) -> Result<()> {
        self.0.open().await
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription> {
        self.0.ensure_topic(spec).await
    }

    async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        self.0.describe_topic(topic).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.0.delete_topic(topic).await
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        self.0.list_topics().await
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        self.0.submit(record, ticket);
    }

    async fn find_stamp(
        &self,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
    ) -> Result<Option<Position>> {
        self.0.find_stamp(topic, partition, from, stamp).await
    }

    async fn position_at(&self, topic: &Topic, partition: u32, unix_millis: u64) -> Result<Position> {
        self.0.position_at(topic, partition, unix_millis).await
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(MemberWithRaw(self.0.join(join).await?)))
    }

    async fn list_groups(&self, topic: &Topic) -> Result<Vec<Group>> {
        self.0.list_groups(topic).await
    }

    async fn describe_group(&self, topic: &Topic, group: &Group) -> Result<GroupDescription> {
        self.0.describe_group(topic, group).await
    }

    async fn reset_group(&self, topic: &Topic, group: &Group, to: &[(u32, Position)]) -> Result<()> {
        self.0.reset_group(topic, group, to).await
    }

    async fn delete_group(&self, topic: &Topic, group: &Group) -> Result<()> {
        self.0.delete_group(topic, group).await
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

#[derive(Debug)]
struct MemberWithRaw(Arc<dyn Membership>);

#[async_trait]
impl Membership for MemberWithRaw {
    async fn next(&self) -> Result<GroupEvent> {
        Ok(match self.0.next().await? {
            GroupEvent::Records(records) => GroupEvent::Records(records.into_iter().map(undisguised).collect()),
            other => other,
        })
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        self.0.read(partition, from).await
    }

    fn pause(&self, partition: u32) {
        self.0.pause(partition);
    }

    fn resume(&self, partition: u32) {
        self.0.resume(partition);
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        self.0.commit(commit).await
    }

    async fn release(&self, partition: u32) -> Result<()> {
        self.0.release(partition).await
    }

    async fn leave(&self) -> Result<()> {
        self.0.leave().await
    }
}
