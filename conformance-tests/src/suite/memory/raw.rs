//! Records that no bus wrote, in a log that holds envelopes: they are stored in disguise, and this layer takes the
//! disguise off on delivery, so that the bus meets bytes as it would on a broker.

use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::{Backend, Body, GroupEvent, Inbound, Join, Membership, Outbound};
use eventbus_core::backend::{ForwardBackend, ForwardMember};
use eventbus_core::wire::{Binding, WireRecord, header_name};
use eventbus_core::{Envelope, Key, ProducerId, Result, Stamp};

const DISGUISE: &str = "conformance.raw";

/// A binding as brokers with record keys and plain header values have it.
static BINDING: Binding = Binding::new("ce_").keyed(true);

/// Makes an envelope that stands for raw bytes.
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
            .map(|(name, value)| (header_name(name.trim_start_matches("raw-")), value.to_owned().into()))
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
impl ForwardBackend for WithRaw {
    fn inner(&self) -> &dyn Backend {
        &*self.0
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(MemberWithRaw(self.0.join(join).await?)))
    }
}

#[derive(Debug)]
struct MemberWithRaw(Arc<dyn Membership>);

#[async_trait]
impl ForwardMember for MemberWithRaw {
    fn inner(&self) -> &dyn Membership {
        &*self.0
    }

    async fn next(&self) -> Result<GroupEvent> {
        Ok(match self.0.next().await? {
            GroupEvent::Records(records) => GroupEvent::Records(records.into_iter().map(undisguised).collect()),
            other => other,
        })
    }
}
