//! The shipped pool and worker without a bus around them, and the shipped bus over a backend that keeps nothing, for
//! benchmarks and instruction counts. Not a public interface.

pub(crate) mod stored;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use crate::backend::{Body, Inbound, Lease};
use crate::bus::{Bus, BusConfig, EventBus};
use crate::model::{Envelope, Error, ErrorKind, Group, Position, ProducerId, Result, Stamp, Topic};
use crate::mutant::Seam;
use crate::observe::Hooks;
use crate::runtime::{Mutex, SystemEnv};
use crate::subscribe::HandleTelemetry;
use crate::subscribe::{
    Delivery, DeliveryContext, FinishedSet, Handler, NextAttempt, Opening, Pool, Scope, Settings, Workers, handler_fn,
};

/// Builds the workers' side of a subscription that owns partition 0, with nothing around it.
pub(crate) fn workers(handler: Arc<dyn Handler>, settings: Settings) -> Result<Workers> {
    let (topic, group): (Topic, Group) = ("measured".parse()?, "group".parse()?);
    let pool = Pool::new(settings.concurrency, settings.window, settings.commit_every as u64, Seam::default());
    let pool = pool.with_outage_guard(settings.outage_guard);
    let context = DeliveryContext {
        topic: topic.clone(),
        group: group.clone(),
        member: "member".into(),
        partition: 0,
        epoch: 1,
        incarnation: "one".into(),
    };
    pool.open(Opening {
        context: Arc::new(context),
        lease: Lease::unlimited(),
        watermark: Position::new(1),
        finished: FinishedSet::from_runs([]),
        budget_bytes: settings.budget_bytes,
        suspect_until: None,
        tried: None,
        dedup_by_id: false,
        seam: Seam::default(),
    });
    pool.set_concurrency(settings.concurrency);
    Ok(Workers {
        pool: Arc::new(pool),
        handler,
        settings,
        env: Arc::new(SystemEnv),
        hooks: Hooks::default(),
        telemetry: HandleTelemetry::new("measured", topic, group, None),
        partitions: 1,
        strict_partitions: false,
        scope: Scope { bus: 1, subscription: 1 },
        controls: Mutex::new(Vec::new()),
        stop: Mutex::new(None),
        seam: Seam::default(),
    })
}

fn named(keys: usize) -> Result<Vec<Envelope>> {
    (0..keys).map(|key| Envelope::builder("Measured", "/bench").key(format!("order-{key}")).build()).collect()
}

/// A pool with one partition, one worker and a handler that does nothing.
pub struct Dispatch {
    workers: Arc<Workers>,
    worker: Pin<Box<dyn Future<Output = ()> + Send>>,
    envelopes: Vec<Envelope>,
    next: u64,
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Dispatch {
    /// Builds a pool under the default settings, and envelopes of `keys` keys in turn.
    ///
    /// # Errors
    /// None, as the names are valid.
    pub fn new(keys: usize) -> Result<Self> {
        // The future holds something, as a real one does: an empty one would be boxed without an allocation.
        let handler = handler_fn(|delivery: Delivery| async move {
            drop(delivery);
            Ok(())
        });
        let workers = Arc::new(workers(handler, Settings::default())?);
        Ok(Self { worker: Box::pin(workers.clone().work(0)), workers, envelopes: named(keys)?, next: 1 })
    }

    /// Returns the next `count` records, as a backend would deliver them.
    pub fn records(&mut self, count: usize) -> Vec<Inbound> {
        let from = self.next;
        self.next += count as u64;
        (from..self.next)
            .map(|position| {
                let envelope = self.envelopes[position as usize % self.envelopes.len()].clone();
                let stamp = Stamp::new(ProducerId::new(1), position);
                Inbound::new(0, Position::new(position), 0, Body::Envelope(envelope)).stamped(Some(stamp))
            })
            .collect()
    }

    /// Offers records and lets the worker handle all of them: everything that happens to an envelope between the
    /// backend and the watermark.
    pub fn dispatch(&mut self, records: Vec<Inbound>) {
        self.look(records);
        let _ = self.worker.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Does what the session does with a batch, without the round trip of a commit.
    fn look(&self, records: Vec<Inbound>) -> Instant {
        let now = Instant::now();
        let pool = &self.workers.pool;
        pool.offer(records, now);
        if pool.duties(now).commit {
            pool.progress(false).iter().for_each(|progress| pool.committed(progress));
        }
        now
    }

    /// Takes records through the pool alone, without the worker.
    pub fn pass(&mut self, records: Vec<Inbound>) {
        let now = self.look(records);
        let mut done = None;
        while let NextAttempt::Run(job) = self.workers.pool.next(0, done.take(), now) {
            done = Some((job.lane, job.finished()));
        }
    }

    /// Whether every offered record is finished and the watermark stands behind the last one.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.workers.pool.progress_of(0).is_some_and(|progress| progress.next == Position::new(self.next))
    }
}

/// A bus whose backend answers inside the call, so that little but the key lanes is left of a publish.
#[derive(Debug)]
pub struct Publishes {
    bus: Bus,
    envelopes: Vec<Envelope>,
    next: usize,
}

impl Publishes {
    /// Builds a bus under the default configuration, and envelopes of `keys` keys in turn. Blocks until the topic is
    /// known.
    ///
    /// # Errors
    /// `Unavailable` where no thread or no runtime can be started.
    pub fn new(keys: usize) -> Result<Self> {
        let bus = Bus::new(Arc::new(stored::Stored::default()), BusConfig::new())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
        runtime.block_on(bus.ensure_topic(&crate::model::TopicSpec::new("measured")))?;
        Ok(Self { bus, envelopes: named(keys)?, next: 0 })
    }

    /// Publishes `count` envelopes, and returns how many of them were not confirmed within their calls.
    pub fn publish(&mut self, count: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut open = 0;
        for _ in 0..count {
            let envelope = self.envelopes[self.next % self.envelopes.len()].clone();
            self.next += 1;
            let mut publishing = std::pin::pin!(self.bus.publish("measured", envelope));
            let confirmed = match publishing.as_mut().poll(&mut cx) {
                Poll::Ready(Ok(confirmation)) => std::pin::pin!(confirmation).poll(&mut cx).is_ready(),
                Poll::Ready(Err(_)) | Poll::Pending => false,
            };
            open += usize::from(!confirmed);
        }
        open
    }
}
