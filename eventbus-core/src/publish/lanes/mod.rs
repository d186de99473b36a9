//! Key lanes: the way of an envelope from `publish` to the broker's answer (P1, P2, P3, P5).
//!
//! # The invariant
//!
//! **The envelopes of a key reach the backend in the order of the calls, and none does while an earlier one can still
//! turn out not to be stored.** The code cannot break this, because:
//!
//! - A publish takes its number and its place at the end of its key's queue in one critical section of the key's shard,
//!   in the call itself (P1). Nothing is ever inserted before the end.
//! - One function submits (`Shard::pump`), along a cursor that moves from the head to the end. Still under the shard's
//!   lock, it puts the record into its partition's [serial queue](serial_queue), on which one thread at a time works,
//!   in order. So the backend sees the order of the lane, whichever threads take part.
//! - Where the broker cannot pipeline, one record of a key is outstanding. Where it can, the backend guarantees that a
//!   record behind a hole is not stored. A record that comes back closes the lane in the critical section in which its
//!   fate is taken, and [`Ticket::stands`](crate::backend::Ticket::stands) catches a submission that crosses that fate.
//!   The lane opens when nothing of it is outstanding, at the first envelope whose fate is not known (P2).
//! - An envelope of unknown fate is sent again under its stamp. Before that, the log is read where the broker may have
//!   forgotten the stamp (P3), and where a *refused* envelope may be stored from an earlier try.
//! - A refusal ends everything behind it and seals the key in the same critical section, so no publish comes between
//!   ([`seal`](super::seal)).
//!
//! No future of a caller has a part in this. The thread that brings news (the caller's, the backend's or the driver's)
//! carries out what is decided. There is no task per message.
//!
//! ```text
//! publish ─► Shard (lock): number, seal, budget, queue ─► SerialQueue per partition ─► Backend::submit
//!                ▲  drive: tell what is over, pump                                      │
//!                ├──────────────── told(fate) ◄───────────────────────── Ticket ◄───────┘
//!                └── driver: described, backed off, searched
//! SerialQueue per shard ─► hooks, completion (Confirmation), room given back ─► SerialQueue of the ready ─► Shard
//! ```
//!
//! Locks, in this order: the table of topics, the one under which a topic's metadata are applied, a shard's, the
//! topic's description, and then at most one of the leaves (budget, permits, a serial queue, the driver's inbox, the
//! topic's seal, its partition counts, a publish's completion). Only a batch locks several shards of a topic at once,
//! in rising order. No backend, hook or caller's waker is called under any of these.

mod batch;
mod call;
mod driver;
mod effects;
mod errors;
mod find_stamp;
mod metadata;
mod partitions;
mod permits;
mod queues;
mod retries;
mod serial_queue;
mod shard;
mod shared;
mod topic;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use driver::LanesDriver;
use metadata::MetadataSource;
use shared::{Lifecycle, Shared};
use topic::{SHARDS, TopicLanes};

use super::batch_confirmation::BatchPublishing;
use super::confirmation::{Confirmation, Publishing};
use super::layer::Publish;
use crate::backend::{Backend, TopicDescription};
use crate::model::{Envelope, Key, Result, Stamp, Topic};
use crate::observe::Hooks;
use crate::publish::config::PublishConfig;
use crate::runtime::{Env, RwLock};

type Topics = RwLock<BTreeMap<Box<str>, Arc<TopicLanes>>>;

/// The publishing side of a bus. Dropping it resolves everything that is pending (S7).
pub(crate) struct Lanes {
    inner: Arc<AllLanes>,
}

/// All topics' lanes, shared with the driver, which may close them, too.
struct AllLanes {
    shared: Arc<Shared>,
    topics: Topics,
}

impl Lanes {
    /// Makes the lanes on a backend, and the driver that has to run for them. The configuration is a valid one.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        env: Arc<dyn Env>,
        config: PublishConfig,
        hooks: Hooks,
    ) -> (Arc<Self>, LanesDriver) {
        let shared = Shared::new(backend, env, config, hooks);
        let inner = Arc::new(AllLanes { shared: Arc::clone(&shared), topics: RwLock::default() });
        let (closing, topics) = (Arc::clone(&inner), Arc::downgrade(&inner));
        let topics = move || topics.upgrade().map_or_else(Vec::new, |inner| inner.all());
        let driver = LanesDriver::new(shared, topics, move || {
            closing.end();
        });
        (Arc::new(Self { inner }), driver)
    }

    #[cfg(test)]
    #[allow(dead_code)] // not used by the tests of explored schedules
    pub(crate) fn producer(&self) -> crate::model::ProducerId {
        self.inner.shared.producer()
    }

    /// Returns the number of publishes that are not over.
    pub(crate) fn pending(&self) -> usize {
        self.inner.shared.pending()
    }

    /// Publishes one envelope: it takes its place and is handed over, at the call.
    pub(crate) fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
        match self.inner.topic(topic) {
            Ok(topic) => Publishing::of(topic.publish(envelope)),
            Err(error) => Publishing::failed(error),
        }
    }

    /// Publishes several envelopes, in this order: all take their places at the call, or none does.
    pub(crate) fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing {
        match self.inner.topic(topic) {
            Ok(topic) => BatchPublishing::placed(topic.publish_batch(&envelopes), &envelopes),
            Err(error) => BatchPublishing::failed(error),
        }
    }

    /// Publishes an envelope that the bus itself has to write (a dead letter), under a given stamp and from the reserve
    /// of budget and permits. It is related to no other publish, seals nothing, and no seal stops it. It is not told as
    /// `Published`, since the caller reports it.
    pub(crate) fn publish_reserved(&self, topic: &Topic, stamp: Stamp, envelope: Envelope) -> Confirmation {
        match self.inner.topic(topic.as_str()) {
            Ok(topic) => Confirmation::of(topic.publish_reserved(stamp, envelope)),
            Err(error) => Confirmation::failed(error),
        }
    }

    /// Unseals a key; `None` unseals the topic, which is sealed when too many of its keys were (P2).
    ///
    /// # Errors
    /// `InvalidName` where `topic` is no valid name.
    pub(crate) fn resume(&self, topic: &str, key: Option<&Key>) -> Result<()> {
        self.inner.topic(topic).map(|topic| topic.resume(key))
    }

    /// Takes the description of a topic that was just ensured, so that it need not be described. The policy after a
    /// refusal is this description's.
    pub(crate) fn topic_ready(&self, description: &TopicDescription) -> Result<()> {
        self.inner.topic(&description.spec.topic).map(|topic| topic.apply(description, MetadataSource::Ensured))
    }

    /// Makes a topic's keys go by this number of partitions. See
    /// [`EventBus::accept_partitions`](crate::EventBus::accept_partitions).
    pub(crate) async fn accept_partitions(&self, topic: &Topic, partitions: u32) -> Result<()> {
        self.inner.topic(topic.as_str())?.accept_partitions(partitions).await
    }

    /// Forgets the metadata of a deleted topic: the next publish has it described again.
    pub(crate) fn forget_topic(&self, topic: &Topic) {
        if let Some(topic) = self.inner.topics.read().get(topic.as_str()) {
            topic.forget_metadata();
        }
    }

    /// Resolves everything that is pending, at once.
    pub(crate) fn end(&self) {
        self.inner.end();
    }

    /// Takes no more publishes, and waits for at most `deadline` until all are over. Then it ends the others: as
    /// `Unknown` where the envelope may be stored, as `Closed` where it certainly is not. Returns how many those were.
    ///
    /// Cancel safe: it can be called again, also at the same time.
    pub(crate) async fn close(&self, deadline: Duration) -> usize {
        self.inner.stop_intake();
        // The time-out bounds the wait only. Publishes that are left are ended, and so counted, below.
        let _ = tokio::time::timeout(deadline, self.inner.shared.idle()).await;
        self.inner.end()
    }
}

impl Publish for Lanes {
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
        Self::publish(self, topic, envelope)
    }

    fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing {
        Self::publish_batch(self, topic, envelopes)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

impl AllLanes {
    fn topic(&self, name: &str) -> Result<Arc<TopicLanes>> {
        if let Some(topic) = self.topics.read().get(name) {
            return Ok(Arc::clone(topic));
        }
        let checked: Topic = name.parse()?;
        let mut topics = self.topics.write();
        let topic = topics.entry(name.into()).or_insert_with(|| TopicLanes::new(checked, Arc::clone(&self.shared)));
        Ok(Arc::clone(topic))
    }

    fn stop_intake(&self) {
        self.shared.enter(Lifecycle::Closing);
        self.pass_all_shards();
    }

    /// Makes sure that every publish which did not see the new stage has its place when this returns.
    fn pass_all_shards(&self) {
        for topic in self.all() {
            (0..SHARDS).for_each(|shard| drop(topic.lock(shard)));
        }
    }

    fn all(&self) -> Vec<Arc<TopicLanes>> {
        self.topics.read().values().map(Arc::clone).collect()
    }

    /// Ends the lanes with everything in them. Returns how many publishes were not over.
    fn end(&self) -> usize {
        self.shared.enter(Lifecycle::Closed);
        self.pass_all_shards();
        let abandoned = self.all().iter().map(TopicLanes::abandon).sum();
        self.shared.dismiss();
        abandoned
    }
}
