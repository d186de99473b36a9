//! The seam around publishing, in tower's shape: a layer wraps an inner [`Publish`].

use std::sync::Arc;

use super::confirmation::Publishing;
use crate::model::Envelope;

/// The inside of a [`PublishLayer`]: publishes one envelope.
pub trait Publish: Send + Sync + 'static {
    /// Publishes as [`EventBus::publish`](crate::EventBus::publish) does: the place is taken at the call. A layer that
    /// waits first gives up P1 for the envelopes that it delays. So change the envelope and pass it on, or refuse it
    /// ([`Publishing::failed`]).
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing;
}

/// A layer around publishing: middleware that changes envelopes or refuses them. Batches do not pass through it.
///
/// ```
/// use std::sync::Arc;
/// use eventbus_core::{Envelope, Publish, PublishLayer, Publishing};
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
/// impl Publish for WithTenant {
///     fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
///         match envelope.into_builder().tenant(self.0).build() {
///             Ok(envelope) => self.1.publish(topic, envelope),
///             Err(error) => Publishing::failed(error),
///         }
///     }
/// }
/// ```
pub trait PublishLayer: Send + Sync + 'static {
    /// Wraps `inner`; the result is what callers publish through.
    fn layer(&self, inner: Arc<dyn Publish>) -> Arc<dyn Publish>;
}
