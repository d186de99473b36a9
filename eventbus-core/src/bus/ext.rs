//! [`EventBusExt`]: conveniences over [`EventBus`], for every bus and every wrapper around one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::EventBus;
use crate::model::{Codec, Envelope, Event, Json, Receipt, Result};
use crate::publish::{Confirmation, Publishing};
use crate::subscribe::{Delivery, HandlerError, Router, Subscribe, Subscription};

/// Conveniences that need nothing but [`EventBus`]. Implemented for every bus, `dyn EventBus` too.
///
/// ```
/// # use eventbus_core::{Delivery, EventBus, EventBusExt, Event, Result, Subscribe};
/// use std::borrow::Cow;
///
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderPlaced {
///     order: String,
/// }
///
/// impl Event for OrderPlaced {
///     const EVENT_TYPE: &'static str = "OrderPlaced";
///     fn key(&self) -> Option<Cow<'_, str>> {
///         Some(self.order.as_str().into())
///     }
/// }
///
/// # async fn example(bus: &dyn EventBus) -> Result<()> {
/// let options = Subscribe::to("orders").group("billing");
/// let billing = bus
///     .subscribe_event(options, |event: OrderPlaced, _: Delivery| async move {
///         println!("{}", event.order);
///         Ok(())
///     })
///     .await?;
/// let receipt = bus.publish_event("orders", "/shop", &OrderPlaced { order: "42".into() }).await?;
/// # drop((billing, receipt));
/// # Ok(())
/// # }
/// ```
pub trait EventBusExt: EventBus {
    /// Publishes and waits for the broker's answer. The place in the line is taken at the call (P1), as by
    /// [`publish`](EventBus::publish).
    fn publish_confirmed(&self, topic: &str, envelope: Envelope) -> Confirmed {
        Confirmed(Step::Room(self.publish(topic, envelope)))
    }

    /// Publishes a typed event as JSON, at the call (P1), and waits for the broker's answer.
    ///
    /// # Errors
    /// Through the future: `InvalidEnvelope` or `InvalidName` where the event makes no valid envelope, and those of
    /// [`publish`](EventBus::publish).
    fn publish_event<E: Event>(&self, topic: &str, source: &str, event: &E) -> Confirmed {
        self.publish_event_with(&Json, topic, source, event)
    }

    /// Publishes a typed event by another codec, otherwise as [`publish_event`](Self::publish_event).
    ///
    /// # Errors
    /// As [`publish_event`](Self::publish_event).
    fn publish_event_with<E: Event, C: Codec>(&self, codec: &C, topic: &str, source: &str, event: &E) -> Confirmed {
        match Envelope::of_event(event, source, codec).build() {
            Ok(envelope) => self.publish_confirmed(topic, envelope),
            Err(error) => Confirmed(Step::Room(Publishing::failed(error.with("topic", topic)))),
        }
    }

    /// Handles one type of event, read as JSON. Events of other types are finished unhandled and counted; for several
    /// types use a [`Router`]. A payload that does not decode goes to the failure policy without attempts (S2).
    ///
    /// # Errors
    /// As [`subscribe`](EventBus::subscribe).
    fn subscribe_event<E, F, Fut>(
        &self,
        options: Subscribe,
        handle: F,
    ) -> impl Future<Output = Result<Subscription>> + Send
    where
        E: Event + Send + 'static,
        F: Fn(E, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let router = Router::builder().on::<E, F, Fut>(handle).build();
        async move { self.subscribe(options, Arc::new(router?)).await }
    }
}

impl<B: EventBus + ?Sized> EventBusExt for B {}

/// A publish that is awaited to its end: it resolves into its [`Receipt`] or the error that ended it.
///
/// Cancel safe: dropping the future withdraws nothing.
#[derive(Debug)]
#[must_use = "the envelope is on its way, but nobody learns of a failure; `drop` it where that is meant"]
pub struct Confirmed(Step);

#[derive(Debug)]
enum Step {
    Room(Publishing),
    Answer(Confirmation),
}

impl Future for Confirmed {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                Step::Room(publishing) => match ready!(Pin::new(publishing).poll(cx)) {
                    Ok(confirmation) => self.0 = Step::Answer(confirmation),
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Step::Answer(confirmation) => return Pin::new(confirmation).poll(cx),
            }
        }
    }
}
