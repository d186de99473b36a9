//! Helpers for unit tests of services that publish and handle events.
//!
//! A service takes an `Arc<dyn EventBus>`; its test gives it a [`MemoryEventBus`] and looks at what was published and
//! handled. With [`MemoryEventBus::for_tests`] under a paused clock no test waits for real time: back-offs, time-outs
//! and time-triggered commits pass as soon as nothing else is left to do.
//!
//! ```
//! use std::sync::Arc;
//! use eventbus_core::{Delivery, Envelope, EventBus, Subscribe, TopicSpec, handler_fn};
//! use eventbus_memory::MemoryEventBus;
//!
//! # async fn test() -> eventbus_core::Result<()> {
//! let bus = Arc::new(MemoryEventBus::for_tests()?);
//! bus.ensure_topic(&TopicSpec::new("orders").partitions(4)).await?;
//!
//! // The service under test: it answers each order with an invoice.
//! let answers = bus.clone();
//! let invoicing = handler_fn(move |order: Delivery| {
//!     let bus = answers.clone();
//!     async move {
//!         let key = order.envelope().key().cloned();
//!         let invoice = Envelope::builder("InvoiceSent", "/billing").key(key.ok_or_else(|| {
//!             eventbus_core::HandlerError::permanent("an order without a key")
//!         })?);
//!         bus.publish("invoices", invoice.build()?).await?.await?;
//!         Ok(())
//!     }
//! });
//! bus.ensure_topic(&TopicSpec::new("invoices")).await?;
//! let _billing = bus.subscribe(Subscribe::to("orders").group("billing"), invoicing).await?;
//!
//! // The events that it gets.
//! for event_type in ["OrderPlaced", "OrderChanged"] {
//!     bus.publish("orders", Envelope::builder(event_type, "/shop").key("order-42").build()?).await?;
//! }
//!
//! // The result that is expected.
//! bus.wait_until_handled("orders", "billing", 2).await;
//! bus.assert_handled_in_order("orders", "billing");
//! assert_eq!(bus.published("invoices").len(), 2);
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(test()).unwrap();
//! ```
//!
//! # When things go wrong
//!
//! [`MemoryEventBus::faults`] injects what networks and brokers do, and handlers can fail by themselves:
//!
//! ```
//! use eventbus_core::{Envelope, EventBus, FailurePolicy, HandlerError, Subscribe, TopicSpec, handler_fn};
//! use eventbus_memory::{MemoryEventBus, Scope, SubmitFault};
//!
//! # async fn test() -> eventbus_core::Result<()> {
//! let bus = MemoryEventBus::for_tests()?;
//! bus.ensure_topic(&TopicSpec::new("orders")).await?;
//! bus.faults().submit(SubmitFault::LoseConfirmation, Scope::topic("orders"));
//!
//! let fails = handler_fn(|_| async { Err(HandlerError::retry("no stock")) });
//! let options = Subscribe::to("orders").group("stock").attempts(3).then(FailurePolicy::DeadLetter);
//! let _stock = bus.subscribe(options, fails).await?;
//!
//! // The publish whose confirmation was lost is sent again, and one copy is stored.
//! bus.publish("orders", Envelope::builder("OrderPlaced", "/shop").key("7").build()?).await?.await?;
//! assert_eq!(bus.published("orders").len(), 1);
//!
//! bus.wait_until_idle("orders", "stock").await;
//! let letters = bus.dead_letters("orders", "stock")?;
//! assert_eq!((letters.len(), letters[0].attempts), (1, 3));
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(test()).unwrap();
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use eventbus_core::dead_letter::{self, DeadLetter};
use eventbus_core::{Delivery, Envelope, EventBus, Position, Result, Stamp, Topic};
use tokio::time::{Instant, sleep};

use crate::bus::MemoryEventBus;
pub use crate::probe::{Call, PATIENCE, Probe};
use crate::probe::{Seen, key_of};
use crate::world::MemoryWorld;

/// A record in a log, as [`MemoryWorld::published`] finds it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The partition.
    pub partition: u32,
    /// The position in its partition.
    pub position: Position,
    /// The stamp of the publish.
    pub stamp: Stamp,
    /// The time of storing, in milliseconds since the Unix epoch.
    pub stored_at: u64,
    /// The envelope.
    pub envelope: Envelope,
}

impl MemoryWorld {
    /// The records of a topic's log, in the order of storing over all partitions; empty if there is no such topic.
    #[must_use]
    pub fn published(&self, topic: &str) -> Vec<Published> {
        let Ok(topic) = topic.parse::<Topic>() else { return Vec::new() };
        self.0.step(|state, step| {
            let Ok(topic) = state.current(&topic, step.unix_millis) else { return Vec::new() };
            let logs = (0..).zip(&topic.logs);
            let mut records: Vec<(u64, Published)> = logs
                .flat_map(|(partition, log)| log.records().map(move |record| (partition, record)))
                .map(|(partition, record)| {
                    let (position, stamp, stored_at) = (record.position, record.stamp, record.stored_at);
                    let envelope = record.envelope.clone();
                    (record.serial, Published { partition, position, stamp, stored_at, envelope })
                })
                .collect();
            records.sort_by_key(|(serial, _)| *serial);
            records.into_iter().map(|(_, record)| record).collect()
        })
    }
}

/// Helpers for tests. Those that assert panic with what they found.
impl MemoryEventBus {
    /// The records of a topic's log, in the order of storing; empty if there is no such topic.
    #[must_use]
    pub fn published(&self, topic: &str) -> Vec<Published> {
        self.world().published(topic)
    }

    /// The deliveries that this bus's subscriptions in a group handled successfully, in the order of the handlers'
    /// ends.
    #[must_use]
    pub fn handled(&self, topic: &str, group: &str) -> Vec<Delivery> {
        self.probe.handled().into_iter().filter(|delivery| of(delivery, topic, group)).collect()
    }

    /// All attempts of this bus's subscriptions in a group, including failed ones.
    #[must_use]
    pub fn calls(&self, topic: &str, group: &str) -> Vec<Call> {
        self.probe.calls().into_iter().filter(|call| of(&call.delivery, topic, group)).collect()
    }

    /// The group's dead letters, in the order of their writing.
    ///
    /// # Errors
    /// `InvalidName` for an invalid topic or group name; `Undecodable` for a record that is no dead letter.
    pub fn dead_letters(&self, topic: &str, group: &str) -> Result<Vec<DeadLetter>> {
        let letters = dead_letter::topic_of(&topic.parse()?, &group.parse()?)?;
        self.published(letters.as_str()).iter().map(|record| DeadLetter::read(&record.envelope)).collect()
    }

    /// Waits until this bus handled `count` deliveries of a topic in a group, and returns all of them. Cancel safe.
    ///
    /// # Panics
    /// After [`PATIENCE`], saying what was published and handled.
    pub async fn wait_until_handled(&self, topic: &str, group: &str, count: usize) -> Vec<Delivery> {
        let handled = self.probe.wait_for(count, |delivery| of(delivery, topic, group)).await;
        handled.unwrap_or_else(|seen| {
            let published = self.published(topic).len();
            panic!("{group} on {topic}: expected {count} handled of {published} published, got {seen}")
        })
    }

    /// Waits until the group, in this bus or others, has finished and committed everything in the topic's log. Cancel
    /// safe.
    ///
    /// # Panics
    /// After [`PATIENCE`], saying which partitions are behind.
    pub async fn wait_until_idle(&self, topic: &str, group: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let behind = match self.describe_group(topic, group).await {
                Ok(description) => {
                    let behind = description.partitions.into_iter().filter(|partition| partition.lag > 0);
                    let said: Vec<String> = behind.map(|p| format!("partition {} by {}", p.partition, p.lag)).collect();
                    if said.is_empty() {
                        return;
                    }
                    format!("behind in {}", said.join(", "))
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                let calls = self.calls(topic, group);
                panic!("{group} on {topic} is not idle: {behind}; handled {}", Seen(calls));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asserts that this bus handled the group's envelopes of each key in the order of publishing. Repetitions may come
    /// later.
    ///
    /// # Panics
    /// Where an envelope was handled for the first time after a later one of its key, naming both.
    #[track_caller]
    pub fn assert_handled_in_order(&self, topic: &str, group: &str) {
        let mut newest: BTreeMap<(u32, Vec<u8>), Delivery> = BTreeMap::new();
        let mut seen: Vec<(u32, Position)> = Vec::new();
        for delivery in self.handled(topic, group) {
            let Some(key) = delivery.envelope().key().map(|key| key.as_bytes().to_vec()) else { continue };
            let place = (delivery.partition(), delivery.position());
            if let Some(later) = newest.get(&(place.0, key.clone())).filter(|newest| newest.position() > place.1) {
                let again = seen.contains(&place);
                assert!(
                    again,
                    "{group} on {topic}: of key {}, {} at {}:{} was handled after {} at {}:{}",
                    key_of(delivery.envelope()),
                    delivery.envelope().event_type(),
                    place.0,
                    place.1,
                    later.envelope().event_type(),
                    later.partition(),
                    later.position(),
                );
                continue;
            }
            seen.push(place);
            newest.insert((place.0, key), delivery);
        }
    }

    /// Asserts that a key's published envelopes have exactly these event types, in this order.
    ///
    /// # Panics
    /// Where they differ, showing both.
    #[track_caller]
    pub fn assert_published(&self, topic: &str, key: &str, event_types: &[&str]) {
        let published = self.published(topic);
        let of_key = published.iter().filter(|record| record.envelope.key().and_then(|key| key.as_str()) == Some(key));
        let found: Vec<&str> = of_key.map(|record| record.envelope.event_type()).collect();
        assert_eq!(found, event_types, "{topic}: what was published under {key} (left) is not what was expected");
    }
}

fn of(delivery: &Delivery, topic: &str, group: &str) -> bool {
    delivery.topic().as_str() == topic && delivery.group().as_str() == group
}
