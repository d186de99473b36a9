//! Layers around publishing: what they do to one envelope, they do to each of a batch.
#![allow(clippy::unwrap_used)] // tests, though not every function here is one

use std::sync::Arc;

use eventbus_core::{
    BatchPublishing, BusConfig, Envelope, Error, ErrorKind, EventBus, Publish, PublishLayer, Publishing, Threads,
    TopicSpec,
};
use eventbus_memory::MemoryEventBus;

/// Names a tenant in each envelope, and refuses those of a forbidden type.
struct Tenant;

struct WithTenant(Arc<dyn Publish>);

impl PublishLayer for Tenant {
    fn layer(&self, inner: Arc<dyn Publish>) -> Arc<dyn Publish> {
        Arc::new(WithTenant(inner))
    }
}

fn named(envelope: Envelope) -> Result<Envelope, Error> {
    match envelope.event_type() {
        "Forbidden" => Err(Error::new(ErrorKind::PermissionDenied, "not by this tenant")),
        _ => envelope.into_builder().tenant("acme").build(),
    }
}

impl Publish for WithTenant {
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
        match named(envelope) {
            Ok(envelope) => self.0.publish(topic, envelope),
            Err(error) => Publishing::failed(error),
        }
    }

    fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing {
        match envelopes.into_iter().map(named).collect() {
            Ok(envelopes) => self.0.publish_batch(topic, envelopes),
            Err(error) => BatchPublishing::failed(error),
        }
    }
}

fn of_type(event_type: &str) -> Envelope {
    Envelope::builder(event_type, "/shop").key("k").build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_batch_passes_its_layers_by() {
    let config = BusConfig::new().threads(Threads::Caller).publish_layer(Tenant);
    let bus = MemoryEventBus::builder().config(config).build().unwrap();
    bus.ensure_topic(&TopicSpec::new("orders").partitions(2)).await.unwrap();
    bus.publish("orders", of_type("One")).await.unwrap().await.unwrap();
    let batch = bus.publish_batch("orders", vec![of_type("Two"), of_type("Three")]).await.unwrap();
    batch.confirmed().await.into_receipts().unwrap();
    let refused = bus.publish_batch("orders", vec![of_type("Four"), of_type("Forbidden")]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    let stored = bus.published("orders");
    let stored: Vec<_> = stored.iter().map(|one| (one.envelope.event_type(), one.envelope.tenant())).collect();
    assert_eq!(stored, [("One", Some("acme")), ("Two", Some("acme")), ("Three", Some("acme"))]);
}
