//! A probe: records what handlers were given, and how they ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::{Delivery, Envelope, HandleLayer, Handler, HandlerError, Result};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Time-out of the helpers that wait, before they say what is missing: a minute by tokio's clock.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One attempt of a handler that came to its end.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// The delivery that the handler was given.
    pub delivery: Delivery,
    /// The handler's error; `None` if it succeeded.
    pub error: Option<String>,
}

/// A recorder of what handlers are given and how they end.
///
/// Every [`MemoryEventBus`](crate::MemoryEventBus) has a probe around all its handlers, behind the methods of the bus.
/// A test's own probe goes around a single handler ([`around`](Self::around)), stands in for one ([`Handler`]: it
/// records and succeeds), or goes around all handlers of any bus
/// ([`BusConfig::handle_layer`](eventbus_core::BusConfig::handle_layer)). Clones share the record.
#[derive(Clone, Default)]
pub struct Probe {
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    calls: Mutex<Vec<Call>>,
    changed: Notify,
}

impl Probe {
    /// Makes a probe that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps a handler in this probe.
    #[must_use]
    pub fn around(&self, handler: Arc<dyn Handler>) -> Arc<dyn Handler> {
        Arc::new(Probed { probe: self.clone(), inner: handler })
    }

    /// All attempts that came to their end, in the order of their ends.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// The deliveries handled successfully, in the order of the handlers' ends.
    #[must_use]
    pub fn handled(&self) -> Vec<Delivery> {
        self.lock().iter().filter(|call| call.error.is_none()).map(|call| call.delivery.clone()).collect()
    }

    /// Waits until `count` deliveries were handled successfully, and returns all of them. Cancel safe.
    ///
    /// # Panics
    /// After [`PATIENCE`], saying what was handled.
    pub async fn wait_until_handled(&self, count: usize) -> Vec<Delivery> {
        self.wait_for(count, |_| true).await.unwrap_or_else(|seen| panic!("expected {count} handled, got {seen}"))
    }

    pub(crate) async fn wait_for(
        &self,
        count: usize,
        wanted: impl Fn(&Delivery) -> bool,
    ) -> Result<Vec<Delivery>, Seen> {
        let until = Instant::now() + PATIENCE;
        loop {
            let changed = self.record.changed.notified();
            let handled: Vec<Delivery> = self.handled().into_iter().filter(&wanted).collect();
            if handled.len() >= count {
                return Ok(handled);
            }
            if timeout_at(until, changed).await.is_err() {
                return Err(Seen(self.calls().into_iter().filter(|call| wanted(&call.delivery)).collect()));
            }
        }
    }

    fn end(&self, delivery: Delivery, error: Option<String>) {
        self.lock().push(Call { delivery, error });
        self.record.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.record.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("calls", &self.lock().len()).finish()
    }
}

#[async_trait]
impl Handler for Probe {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        self.end(delivery, None);
        Ok(())
    }
}

impl HandleLayer for Probe {
    fn layer(&self, inner: Arc<dyn Handler>) -> Arc<dyn Handler> {
        self.around(inner)
    }
}

struct Probed {
    probe: Probe,
    inner: Arc<dyn Handler>,
}

#[async_trait]
impl Handler for Probed {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let result = self.inner.handle(delivery.clone()).await;
        self.probe.end(delivery, result.as_ref().err().map(|error| error.message().to_owned()));
        result
    }
}

/// Calls as a failing test prints them.
pub(crate) struct Seen(pub(crate) Vec<Call>);

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.iter().filter(|call| call.error.is_none()).count())?;
        for Call { delivery, error } in &self.0 {
            let envelope = delivery.envelope();
            write!(f, "\n  {} {}", key_of(envelope), envelope.event_type())?;
            write!(f, " at {}:{} attempt {}", delivery.partition(), delivery.position(), delivery.attempt())?;
            write!(f, ": {}", error.as_deref().unwrap_or("handled"))?;
        }
        Ok(())
    }
}

pub(crate) fn key_of(envelope: &Envelope) -> String {
    envelope.key().map_or_else(|| "(no key)".into(), |key| String::from_utf8_lossy(key.as_bytes()).into_owned())
}
