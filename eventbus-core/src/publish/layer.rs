//! The seam around publishing, in tower's shape: a layer wraps what is inside.

use std::sync::Arc;

use super::confirmation::Publishing;
use crate::model::Envelope;

/// Publishes one envelope: the inside of a [`PublishLayer`].
pub trait Publish: Send + Sync + 'static {
    /// As [`EventBus::publish`](crate::EventBus::publish): the place is taken at the call. A layer that wants to wait
    /// first gives up P1 for what it delays, so change the envelope or refuse it ([`Publishing::failed`]), and pass it on.
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing;
}

/// Wraps publishing.
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
    /// Wraps `inner`.
    fn layer(&self, inner: Arc<dyn Publish>) -> Arc<dyn Publish>;
}
