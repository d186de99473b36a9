//! The seam around publishing, in tower's shape: a layer wraps an inner [`Publish`].

use std::sync::Arc;

use super::batch_confirmation::BatchPublishing;
use super::confirmation::Publishing;
use crate::model::Envelope;

/// The inside of a [`PublishLayer`]: publishes one envelope.
pub trait Publish: Send + Sync + 'static {
    /// Publishes as [`EventBus::publish`](crate::EventBus::publish) does: the place is taken at the call. A layer that
    /// waits first gives up P1 for the envelopes that it delays. So change the envelope and pass it on, or refuse it
    /// ([`Publishing::failed`]).
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing;

    /// Publishes as [`EventBus::publish_batch`](crate::EventBus::publish_batch) does. What a layer does to an envelope,
    /// it does to each of a batch; a batch of which it refuses one, it refuses as a whole
    /// ([`BatchPublishing::failed`]).
    fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing;
}

/// A layer around publishing: middleware that changes envelopes or refuses them, one by one and in batches.
///
/// ```
/// use std::sync::Arc;
/// use eventbus_core::{BatchPublishing, Envelope, Error, Publish, PublishLayer, Publishing};
///
/// struct Tenant(&'static str);
/// struct WithTenant(&'static str, Arc<dyn Publish>);
///
/// impl PublishLayer for Tenant {
///     fn layer(&self, inner: Arc<dyn Publish>) -> Arc<dyn Publish> {
///         Arc::new(WithTenant(self.0, inner))
///     }
/// }
///
/// impl WithTenant {
///     fn add(&self, envelope: Envelope) -> Result<Envelope, Error> {
///         envelope.into_builder().tenant(self.0).build()
///     }
/// }
///
/// impl Publish for WithTenant {
///     fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
///         match self.add(envelope) {
///             Ok(envelope) => self.1.publish(topic, envelope),
///             Err(error) => Publishing::failed(error),
///         }
///     }
///
///     fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing {
///         match envelopes.into_iter().map(|envelope| self.add(envelope)).collect() {
///             Ok(envelopes) => self.1.publish_batch(topic, envelopes),
///             Err(error) => BatchPublishing::failed(error),
///         }
///     }
/// }
/// ```
pub trait PublishLayer: Send + Sync + 'static {
    /// Wraps `inner`; the result is what callers publish through.
    fn layer(&self, inner: Arc<dyn Publish>) -> Arc<dyn Publish>;
}
