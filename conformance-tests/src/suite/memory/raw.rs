//! Records that no bus wrote, in a log that holds envelopes: they are stored in disguise, and this layer takes the disguise
//! off where they are delivered, so that the bus meets bytes as it would on a broker.

use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::{Body, Commit, GroupEvent, Inbound, LogState, Membership, Outbound};
use eventbus_core::wire::{Binding, WireRecord};
use eventbus_core::{Envelope, Key, Position, ProducerId, Result, Stamp};

use crate::suite::layer::Layer;

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

/// The layer.
#[derive(Debug)]
pub(super) struct WithRaw;

impl Layer for WithRaw {
    fn joined(&self, member: Arc<dyn Membership>) -> Arc<dyn Membership> {
        Arc::new(MemberWithRaw(member))
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
