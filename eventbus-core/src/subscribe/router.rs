//! Router of events by type: [`Router`], a handler that passes each type of event to a handler of its own.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::{self, Future};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use metrics::{Counter, counter};

use super::handler::{Delivery, Handler, HandlerError};
use crate::model::{Codec, Error, ErrorKind, Event, Json};
use crate::runtime::Mutex;

type Routes = BTreeMap<String, Arc<dyn Handler>>;
type Handling<'a> = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

/// Reaction of a router to an event whose type has no handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnUnknownType {
    /// The event is finished unhandled, and counted: other types may share the topic. The default.
    #[default]
    Skip,
    /// The event is a permanent failure, so the subscription's failure policy decides (S2).
    Fail,
}

/// Handler that passes each type of event to a handler of its own.
///
/// Order is that of the subscription: a key's events are handled one after another, whatever their types (S1). A
/// payload that does not decode is a permanent failure naming type and id, so the failure policy decides without
/// further attempts. Envelopes of a type without a handler are skipped by default: finished, counted in the metric
/// `eventbus.router.skipped` and in [`skipped`](Self::skipped), and logged by `tracing` at debug level.
/// [`RouterBuilder::build`] makes the metric's handle: install a recorder before.
///
/// ```
/// use eventbus_core::{Delivery, Event, HandlerError, OnUnknownType, Router, handler_fn};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderPlaced {
///     total: u32,
/// }
///
/// impl Event for OrderPlaced {
///     const EVENT_TYPE: &'static str = "OrderPlaced";
/// }
///
/// async fn book(total: u32, epoch: u64) -> Result<(), HandlerError> {
///     // …
/// #   let _ = (total, epoch);
///     Ok(())
/// }
///
/// let router = Router::builder()
///     .on::<OrderPlaced, _, _>(|event, delivery: Delivery| async move { book(event.total, delivery.epoch()).await })
///     .on_type("OrderCancelled", handler_fn(|_delivery| async { Ok(()) }))
///     .unknown(OnUnknownType::Fail)
///     .build()?;
/// # let _ = router;
/// # Ok::<(), eventbus_core::Error>(())
/// ```
pub struct Router {
    routes: Routes,
    otherwise: Otherwise,
    skipped: AtomicU64,
    counter: Counter,
    /// The first types that were skipped, each of which was warned of.
    warned: Mutex<BTreeSet<String>>,
}

/// The most types that are warned of: a producer may write any number.
const WARNED: usize = 1_000;

enum Otherwise {
    Unknown(OnUnknownType),
    Handler(Arc<dyn Handler>),
}

impl Router {
    /// Starts a router without handlers, which skips every event.
    pub fn builder() -> RouterBuilder {
        RouterBuilder { routes: BTreeMap::new(), otherwise: Otherwise::Unknown(OnUnknownType::default()), error: None }
    }

    /// Returns how many envelopes were skipped because their type has no handler.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    fn skip(&self, delivery: &Delivery) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        self.counter.increment(1);
        let event_type = delivery.envelope().event_type();
        let mut warned = self.warned.lock();
        if warned.len() < WARNED && !warned.contains(event_type) {
            warned.insert(event_type.to_owned());
            tracing::warn!(
                target: "eventbus",
                topic = %delivery.topic(),
                group = %delivery.group(),
                event_type,
                "events of a type that has no handler are skipped",
            );
        }
        drop(warned);
        tracing::debug!(
            target: "eventbus",
            topic = %delivery.topic(),
            group = %delivery.group(),
            partition = delivery.partition(),
            position = %delivery.position(),
            event_type,
            id = delivery.envelope().id(),
            "skipped an event whose type has no handler",
        );
    }
}

#[async_trait]
impl Handler for Router {
    // Written without `async` so that the route's own future is the only one, boxed once.
    fn handle<'s, 'f>(&'s self, delivery: Delivery) -> Handling<'f>
    where
        's: 'f,
        Self: 'f,
    {
        if let Some(route) = self.routes.get(delivery.envelope().event_type()) {
            return route.handle(delivery);
        }
        match &self.otherwise {
            Otherwise::Handler(handler) => handler.handle(delivery),
            Otherwise::Unknown(OnUnknownType::Fail) => {
                let (event_type, id) = (delivery.envelope().event_type(), delivery.envelope().id());
                let error = format!("no handler for events of type {event_type:?} [id={id}]");
                Box::pin(future::ready(Err(HandlerError::permanent(error))))
            }
            Otherwise::Unknown(OnUnknownType::Skip) => {
                self.skip(&delivery);
                Box::pin(future::ready(Ok(())))
            }
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("types", &self.routes.keys().collect::<Vec<_>>())
            .field("otherwise", &self.otherwise)
            .field("skipped", &self.skipped())
            .finish()
    }
}

impl fmt::Debug for Otherwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(unknown) => unknown.fmt(f),
            Self::Handler(_) => f.write_str("Handler"),
        }
    }
}

/// Builder of a [`Router`]. Keeps the first error for [`build`](Self::build) to return.
#[must_use]
pub struct RouterBuilder {
    routes: Routes,
    otherwise: Otherwise,
    error: Option<Error>,
}

impl fmt::Debug for RouterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterBuilder")
            .field("types", &self.routes.keys().collect::<Vec<_>>())
            .field("otherwise", &self.otherwise)
            .field("error", &self.error)
            .finish()
    }
}

impl RouterBuilder {
    /// Handles events of the type [`E::EVENT_TYPE`](Event::EVENT_TYPE), read as JSON.
    pub fn on<E, F, Fut>(self, handle: F) -> Self
    where
        E: Event + Send + 'static,
        F: Fn(E, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.on_with(Json, handle)
    }

    /// Handles events as [`on`](Self::on) does, read by another codec.
    pub fn on_with<E, C, F, Fut>(self, codec: C, handle: F) -> Self
    where
        E: Event + Send + 'static,
        C: Codec,
        F: Fn(E, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.on_type(E::EVENT_TYPE, Typed { codec, handle, event: PhantomData })
    }

    /// Handles events of this type as envelopes, without decoding the payload.
    pub fn on_type(mut self, event_type: impl Into<String>, handler: impl Handler) -> Self {
        match self.routes.entry(event_type.into()) {
            Entry::Vacant(free) => {
                free.insert(Arc::new(handler));
            }
            Entry::Occupied(taken) => {
                let message = format!("events of type {:?} have a handler already", taken.key());
                self.error.get_or_insert(Error::new(ErrorKind::InvalidConfig, message).with("type", taken.key()));
            }
        }
        self
    }

    /// Sets the reaction to other types. Default [`OnUnknownType::Skip`]. Of this and [`fallback`](Self::fallback) the
    /// last call counts.
    pub fn unknown(mut self, unknown: OnUnknownType) -> Self {
        self.otherwise = Otherwise::Unknown(unknown);
        self
    }

    /// Handles all other types as envelopes. Of this and [`unknown`](Self::unknown) the last call counts.
    pub fn fallback(mut self, handler: impl Handler) -> Self {
        self.otherwise = Otherwise::Handler(Arc::new(handler));
        self
    }

    /// Makes the router.
    ///
    /// # Errors
    /// `InvalidConfig` naming the type that has two handlers.
    pub fn build(self) -> Result<Router, Error> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(Router {
                routes: self.routes,
                otherwise: self.otherwise,
                skipped: AtomicU64::new(0),
                counter: counter!("eventbus.router.skipped"),
                warned: Mutex::default(),
            }),
        }
    }
}

struct Typed<E, C, F> {
    codec: C,
    handle: F,
    event: PhantomData<fn() -> E>,
}

#[async_trait]
impl<E, C, F, Fut> Handler for Typed<E, C, F>
where
    E: Event + Send + 'static,
    C: Codec,
    F: Fn(E, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    // Written without `async`, as above: the user's future is boxed once.
    fn handle<'s, 'f>(&'s self, delivery: Delivery) -> Handling<'f>
    where
        's: 'f,
        Self: 'f,
    {
        match delivery.envelope().event::<E, _>(&self.codec) {
            Ok(event) => Box::pin((self.handle)(event, delivery)),
            Err(error) => Box::pin(future::ready(Err(HandlerError::permanent(error)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::model::{Envelope, Position};
    use crate::subscribe::handler::{DeliveryContext, handler_fn};

    #[derive(Serialize, Deserialize)]
    struct Placed {
        total: u32,
    }

    impl Event for Placed {
        const EVENT_TYPE: &'static str = "Placed";
    }

    type Log = Arc<Mutex<Vec<String>>>;

    fn note(log: &Log, what: &'static str) -> Arc<dyn Handler> {
        let log = log.clone();
        handler_fn(move |_| {
            log.lock().unwrap().push(what.into());
            async { Ok(()) }
        })
    }

    fn delivery(event_type: &str, payload: &'static str) -> Delivery {
        let context = DeliveryContext {
            topic: "orders".parse().unwrap(),
            group: "billing".parse().unwrap(),
            member: "m".into(),
            partition: 0,
            incarnation: "i".into(),
            epoch: 5,
        };
        Delivery {
            envelope: Envelope::builder(event_type, "/s").id("i-1").payload(payload).build().unwrap(),
            context: Arc::new(context),
            position: Position::new(1),
            attempt: 1,
            checked_at: tokio::time::Instant::now(),
            replayed: false,
        }
    }

    fn routes(log: &Log) -> RouterBuilder {
        let placed = log.clone();
        Router::builder()
            .on(move |event: Placed, delivery: Delivery| {
                let line = format!("placed {} at {}", event.total, delivery.position());
                placed.lock().unwrap().push(line);
                async { Ok(()) }
            })
            .on_type("Cancelled", note(log, "cancelled"))
    }

    #[tokio::test]
    async fn a_type_reaches_its_own_handler_and_no_other() {
        let log = Log::default();
        let router = routes(&log).fallback(note(&log, "fallback")).build().unwrap();
        for (event_type, payload) in [("Placed", r#"{"total":12}"#), ("Cancelled", ""), ("placed", "")] {
            router.handle(delivery(event_type, payload)).await.unwrap();
        }
        assert_eq!(*log.lock().unwrap(), ["placed 12 at 1", "cancelled", "fallback"]);
        assert_eq!(router.skipped(), 0);
    }

    #[tokio::test]
    async fn an_unknown_type_is_counted_and_never_lost_silently() {
        let log = Log::default();
        let router = routes(&log).build().unwrap();
        router.handle(delivery("Other", "")).await.unwrap();
        assert_eq!(router.skipped(), 1);
        assert!(log.lock().unwrap().is_empty());

        let router = routes(&log).unknown(OnUnknownType::Fail).build().unwrap();
        let error = router.handle(delivery("Other", "")).await.unwrap_err();
        assert!(error.is_permanent());
        assert!(error.message().contains("\"Other\"") && error.message().contains("i-1"), "{error:?}");
    }

    #[tokio::test]
    async fn a_payload_that_does_not_decode_is_not_tried_again() {
        let router = routes(&Log::default()).build().unwrap();
        let error = router.handle(delivery("Placed", r#"{"total":"x"}"#)).await.unwrap_err();
        assert!(error.is_permanent());
        assert!(error.message().contains("type=Placed") && error.message().contains("id=i-1"), "{error:?}");
    }

    #[test]
    fn two_handlers_of_one_type_are_refused() {
        let error = routes(&Log::default()).on_type("Placed", note(&Log::default(), "again")).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("type=Placed"), "{error}");
    }
}
