//! One client after another, and the records that they were given. One line for each limit of records, and one for each partition
//! under suspicion.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::failure::{DeliveryError, DeliveryErrorKind};
use super::queue::PartitionQueue;
use crate::backend::{Fate, Ticket};
use crate::model::{Stamp, Topic};
use crate::runtime::Mutex;

/// A record that a line has taken, until it is told.
pub(super) struct Submission {
    pub(super) ticket: Ticket,
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) stamp: Stamp,
}

/// Records that a client reported as failed.
pub(super) type Failed = Vec<(Submission, DeliveryError)>;

/// Records whose fate is fixed, and still to be told.
type Back = Vec<(Submission, Fate)>;

/// A client and what it has been given, and the next client after its end.
pub(super) struct Line<C: Send + 'static> {
    pub(super) limit: usize,
    /// Sends one record at a time, for one partition.
    pub(super) alone: bool,
    pub(super) state: Mutex<LineState<C>>,
    /// A client is ended by one caller at a time: who comes second finds all of it told.
    pub(super) ending: tokio::sync::Mutex<()>,
}

/// What is behind a line's lock.
pub(super) struct LineState<C> {
    pub(super) client: Option<C>,
    pub(super) slots: Slab<Submission>,
    /// By topic and partition, of this client.
    courses: HashMap<Topic, HashMap<u32, PartitionQueue>>,
    /// What the client reported as failed.
    pub(super) failed: Failed,
    /// What is told together with these.
    pub(super) back: Back,
    /// The client has failed and is being replaced.
    pub(super) failing: bool,
}

impl<C> LineState<C> {
    pub(super) fn course(&mut self, topic: &Topic, partition: u32) -> &mut PartitionQueue {
        self.courses.entry(topic.clone()).or_default().entry(partition).or_default()
    }

    /// Whether records of the topic went by this client.
    pub(super) fn carries(&self, topic: &Topic) -> bool {
        self.courses.contains_key(topic)
    }

    /// Lets a topic go, if nothing of it is with this line; whether it did.
    pub(super) fn let_go(&mut self, topic: &Topic) -> bool {
        let idle = self.courses.get(topic).is_none_or(|courses| courses.values().all(PartitionQueue::is_idle));
        if idle {
            self.courses.remove(topic);
        }
        idle
    }

    /// The client has ended: all that is to be told of it.
    pub(super) fn drain(&mut self) -> (Failed, Back) {
        self.courses.values_mut().flat_map(HashMap::values_mut).for_each(|course| drop(course.stop()));
        let mut failed = std::mem::take(&mut self.failed);
        // What waits was never given, and is told as all else that the client did not report: the log is asked.
        let unreported =
            || DeliveryError::new(DeliveryErrorKind::Unclear, "the client ended without a word on the record");
        failed.extend(self.slots.drain().map(|slot| (slot, unreported())));
        (failed, std::mem::take(&mut self.back))
    }

    /// All was told: the line goes on with another client.
    pub(super) fn go_on(&mut self) {
        self.courses.clear();
        self.failing = false;
    }
}

impl<C: Send + 'static> Line<C> {
    pub(super) fn new(limit: usize, alone: bool) -> Arc<Self> {
        let (courses, failed, back) = (HashMap::new(), Vec::new(), Vec::new());
        let state = LineState { client: None, slots: Slab::new(), courses, failed, back, failing: false };
        Arc::new(Self { limit, alone, state: Mutex::new(state), ending: tokio::sync::Mutex::default() })
    }
}

impl<C: Send + 'static> Drop for Line<C> {
    /// A client waits for its thread when it ends, and the last to let go of a line may be just that thread, reporting.
    fn drop(&mut self) {
        let client = self.state.lock().client.take();
        if let Some(client) = client {
            std::thread::spawn(move || drop(client));
        }
    }
}
