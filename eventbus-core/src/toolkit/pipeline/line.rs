//! Lines: in each, one client after another, and the records given to them. There is one line for each limit of
//! records, and one for each partition in quarantine.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::failure::{DeliveryError, DeliveryErrorKind};
use super::queue::PartitionQueue;
use crate::backend::{Fate, Ticket};
use crate::model::{Stamp, Topic};
use crate::runtime::Mutex;

/// A record that a line has taken, until its fate is told.
pub(super) struct Submission {
    pub(super) ticket: Ticket,
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) stamp: Stamp,
}

pub(super) type Failed = Vec<(Submission, DeliveryError)>;

/// Records whose fate is fixed, but not yet told.
type Back = Vec<(Submission, Fate)>;

/// A client and the records given to it, and the next client after its end.
pub(super) struct Line<C: Send + 'static> {
    pub(super) limit: usize,
    /// Whether the line sends one record at a time, for one partition.
    pub(super) alone: bool,
    pub(super) state: Mutex<LineState<C>>,
    /// Lets one caller at a time end a client: the second one finds every fate told.
    pub(super) ending: tokio::sync::Mutex<()>,
}

pub(super) struct LineState<C> {
    pub(super) client: Option<C>,
    pub(super) submissions: Slab<Submission>,
    /// The queues of this client, by topic and partition.
    queues: HashMap<Topic, HashMap<u32, PartitionQueue>>,
    /// Records that the client reported as failed.
    pub(super) failed: Failed,
    /// Records whose fates are told together with those of the failed ones.
    pub(super) back: Back,
    /// Whether the client has failed and is being replaced.
    pub(super) failing: bool,
}

impl<C> LineState<C> {
    pub(super) fn queue(&mut self, topic: &Topic, partition: u32) -> &mut PartitionQueue {
        self.queues.entry(topic.clone()).or_default().entry(partition).or_default()
    }

    pub(super) fn carries(&self, topic: &Topic) -> bool {
        self.queues.contains_key(topic)
    }

    /// Forgets a topic if none of its records is with this line. Returns whether it did.
    pub(super) fn let_go(&mut self, topic: &Topic) -> bool {
        let idle = self.queues.get(topic).is_none_or(|queues| queues.values().all(PartitionQueue::is_idle));
        if idle {
            self.queues.remove(topic);
        }
        idle
    }

    /// Takes out all records whose fates must be told after the client has ended.
    pub(super) fn drain(&mut self) -> (Failed, Back) {
        self.queues.values_mut().flat_map(HashMap::values_mut).for_each(|queue| drop(queue.stop()));
        let mut failed = std::mem::take(&mut self.failed);
        // A waiting record was never given. It is told like the others that the client did not report: the log is
        // searched.
        let unreported =
            || DeliveryError::new(DeliveryErrorKind::Unclear, "the client ended without a word on the record");
        failed.extend(self.submissions.drain().map(|submission| (submission, unreported())));
        (failed, std::mem::take(&mut self.back))
    }

    /// Lets the line go on with another client, once every fate is told.
    pub(super) fn go_on(&mut self) {
        self.queues.clear();
        self.failing = false;
    }
}

impl<C: Send + 'static> Line<C> {
    pub(super) fn new(limit: usize, alone: bool) -> Arc<Self> {
        let (queues, failed, back) = (HashMap::new(), Vec::new(), Vec::new());
        let state = LineState { client: None, submissions: Slab::new(), queues, failed, back, failing: false };
        Arc::new(Self { limit, alone, state: Mutex::new(state), ending: tokio::sync::Mutex::default() })
    }
}

impl<C: Send + 'static> Drop for Line<C> {
    /// Drops the client on a thread of its own: a client waits for its thread when it ends, and the last owner of a
    /// line may be just that thread, reporting.
    fn drop(&mut self) {
        let client = self.state.lock().client.take();
        if let Some(client) = client {
            std::thread::spawn(move || drop(client));
        }
    }
}
