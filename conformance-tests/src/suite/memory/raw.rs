//! Records that no bus wrote, in a log that holds envelopes: they are stored in disguise, and this layer takes the
//! disguise off on delivery, so that the bus meets bytes as it would on a broker.

use std::sync::Arc;

use async_trait::async_trait;
use eventbus_core::backend::{Backend, Body, GroupEvent, Inbound, Join, Membership, Outbound};
use eventbus_core::backend::{ForwardBackend, ForwardMember};
use eventbus_core::wire::{Binding, WireRecord, header_name};
use eventbus_core::{Envelope, Error, ErrorKind, Key, ProducerId, Result, Stamp};

const DISGUISE: &str = "conformance.raw";

/// A binding as brokers with record keys and plain header values have it.
static BINDING: Binding = Binding::new("ce_").keyed(true);

/// What the payload of a disguise holds: the headers, and the payload.
type Disguised = (Vec<(String, Vec<u8>)>, Vec<u8>);

/// Makes an envelope that stands for raw bytes.
pub(super) fn disguise(topic: &str, partition: u32, record: WireRecord) -> Result<Outbound> {
    let headers = record.headers.into_iter().map(|(name, value)| (name.into_owned(), value.to_vec())).collect();
    let disguised: Disguised = (headers, record.payload.to_vec());
    let payload = serde_json::to_vec(&disguised).map_err(|error| Error::new(ErrorKind::Backend, error.to_string()))?;
    let mut builder = Envelope::builder(DISGUISE, "/raw").payload(payload);
    if let Some(key) = record.key {
        builder = builder.key(Key::from_bytes(key)?);
    }
    let envelope = builder.build()?;
    // Foreign producers stamp nothing; the log wants a stamp, and the layer takes it off again.
    let stamp = Stamp::new(ProducerId::new(u128::MAX), crate::history::digest(envelope.id().as_bytes()));
    Ok(Outbound::new(topic.parse()?, partition, stamp, envelope))
}

fn undisguised(record: Inbound) -> Inbound {
    let Body::Envelope(envelope) = &record.body else { return record };
    if envelope.event_type() != DISGUISE {
        return record;
    }
    let Ok((headers, payload)) = serde_json::from_slice::<Disguised>(envelope.payload()) else { return record };
    let wire = WireRecord {
        key: envelope.key().map(Key::to_bytes),
        headers: headers.into_iter().map(|(name, value)| (header_name(&name), value.into())).collect(),
        payload: payload.into(),
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
