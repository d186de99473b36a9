//! The state that all topics' lanes share: the stamp counter, the budget, the permits, the driver's inbox.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use tokio::sync::Notify;

use super::driver::Inbox;
use super::effects;
use super::permits::Permits;
use super::queues::LaneKind;
use super::serial_queue::SerialQueue;
use super::shard::{LaneRef, TicketId};
use super::topic::TopicLanes;
use crate::backend::{Backend, Pipelining};
use crate::model::{ProducerId, Stamp};
use crate::mutant::{Mutant, Seam};
use crate::observe::Hooks;
use crate::publish::budget::{Budget, BudgetLimits};
use crate::publish::config::PublishConfig;
use crate::runtime::Env;
use crate::runtime::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// A grant that a lane was waiting for.
pub(super) enum Ready {
    Granted(Arc<TopicLanes>, TicketId),
    Permit(LaneRef, LaneKind),
}

/// The stage of the lanes' life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lifecycle {
    Open,
    /// No more publishes of users are taken; the bus's own still pass.
    Closing,
    Closed,
}

pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    env: Arc<dyn Env>,
    pub(super) config: PublishConfig,
    pub(super) hooks: Hooks,
    pub(super) max_record_bytes: Option<usize>,
    pub(super) resend_window: Option<Duration>,
    /// The most outstanding records of one key.
    pub(super) per_key: usize,
    producer: ProducerId,
    next: AtomicU64,
    pub(super) hasher: DefaultHashBuilder,
    budget: Budget<Ready>,
    /// The reserve of room, and below it of permits, that users cannot take: for what the bus itself must write (S2).
    reserve: Budget<Ready>,
    permits: Permits<LaneRef>,
    reserved_permits: Option<Permits<LaneRef>>,
    /// The grants that lanes were waiting for, worked on by one thread at a time and never nested: one grant leads to
    /// the next.
    pub(super) ready: SerialQueue<Ready>,
    pub(super) inbox: Inbox,
    pub(super) seam: Seam,
    lifecycle: AtomicU8,
    pending: AtomicUsize,
    idle: Notify,
}

impl Shared {
    pub(super) fn new(backend: Arc<dyn Backend>, env: Arc<dyn Env>, config: PublishConfig, hooks: Hooks) -> Arc<Self> {
        let (capabilities, seam) = (backend.capabilities(), config.seam);
        let limits = BudgetLimits {
            envelopes: config.budget_envelopes,
            bytes: config.budget_bytes,
            share: if seam.is(Mutant::NoShare) { 1 } else { config.share },
            waiting: config.waiting_limit,
        };
        // The number of dead letters is bounded by what is handled, and their writers must never be turned away.
        let record = capabilities.max_record_bytes.unwrap_or(limits.bytes);
        let own = limits.reserve();
        let reserve = BudgetLimits { bytes: own.bytes.max(record), waiting: usize::MAX, ..own };
        let in_flight = capabilities.in_flight.max(1);
        let reserved = if in_flight == 1 { 0 } else { (in_flight / 16).max(1) };
        let per_key = match capabilities.pipelining {
            Pipelining::OnePerKey if seam.is(Mutant::SeveralInFlight) => in_flight,
            Pipelining::OnePerKey => 1,
            Pipelining::PerPartition => (in_flight / config.share.max(1)).max(1),
        };
        let drawn = u128::from(env.random()) << 64 | u128::from(env.random());
        let producer = if seam.is(Mutant::CounterRestarted) { 1 } else { drawn };
        Arc::new(Self {
            max_record_bytes: capabilities.max_record_bytes,
            resend_window: capabilities.resend_window,
            per_key,
            producer: ProducerId::new(producer),
            next: AtomicU64::new(1),
            hasher: DefaultHashBuilder::default(),
            budget: Budget::new(limits),
            reserve: Budget::new(reserve),
            permits: Permits::new(in_flight - reserved),
            reserved_permits: (reserved > 0).then(|| Permits::new(reserved)),
            ready: SerialQueue::new(),
            inbox: Inbox::default(),
            lifecycle: AtomicU8::new(Lifecycle::Open as u8),
            pending: AtomicUsize::new(0),
            idle: Notify::new(),
            backend,
            env,
            config,
            hooks,
            seam,
        })
    }

    #[cfg(test)]
    #[allow(dead_code)] // not used by the tests of explored schedules
    pub(super) fn producer(&self) -> ProducerId {
        self.producer
    }

    /// Takes `count` numbers, and returns the first of them. To be called under the lock that orders their publishes.
    pub(super) fn numbers(&self, count: u64) -> u64 {
        self.next.fetch_add(count, Ordering::Relaxed)
    }

    pub(super) fn stamp(&self, number: u64) -> Stamp {
        Stamp::new(self.producer, number)
    }

    pub(super) fn budget(&self, kind: LaneKind) -> &Budget<Ready> {
        if kind == LaneKind::Reserved { &self.reserve } else { &self.budget }
    }

    pub(super) fn permits(&self, kind: LaneKind) -> &Permits<LaneRef> {
        let reserved = self.reserved_permits.as_ref().filter(|_| kind == LaneKind::Reserved);
        reserved.unwrap_or(&self.permits)
    }

    /// Returns a permit. True where a lane waited for it; that lane is [ready](Self::work_ready) now.
    pub(super) fn release_permit(&self, kind: LaneKind) -> bool {
        let Some(lane) = self.permits(kind).release() else { return false };
        self.ready.push(Ready::Permit(lane, kind));
        true
    }

    /// Lets the lanes go on that got the grants they waited for.
    pub(super) fn work_ready(&self) {
        self.ready.work(|ready| match ready {
            Ready::Granted(topic, place) => topic.granted(place),
            Ready::Permit(lane, kind) => lane.topic.permitted(&lane, kind),
        });
    }

    /// Forgets the lanes that stood in line, since each holds its topic and the topic holds this state; and stops the
    /// driver. To be called when the lanes are empty for good.
    pub(super) fn dismiss(&self) {
        self.permits.dismiss();
        if let Some(permits) = &self.reserved_permits {
            permits.dismiss();
        }
        self.inbox.stop();
    }

    pub(super) fn resend_delay(&self, attempt: u32) -> Duration {
        effects::delay(self.config.retry_first, self.config.retry_max, attempt, self.env.random())
    }

    pub(super) fn lifecycle(&self) -> Lifecycle {
        match self.lifecycle.load(Ordering::SeqCst) {
            0 => Lifecycle::Open,
            1 => Lifecycle::Closing,
            _ => Lifecycle::Closed,
        }
    }

    /// Moves to a stage. Stages only rise.
    pub(super) fn enter(&self, stage: Lifecycle) {
        self.lifecycle.fetch_max(stage as u8, Ordering::SeqCst);
    }

    pub(super) fn one_more(&self) {
        self.pending.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn one_less(&self) {
        // Nobody waits for this while the bus is open; a closing bus stops the intake before it looks.
        if self.pending.fetch_sub(1, Ordering::SeqCst) == 1 && self.lifecycle() != Lifecycle::Open {
            self.idle.notify_waiters();
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Waits until nothing is pending; to be called when the intake is closed.
    pub(super) async fn idle(&self) {
        loop {
            let mut notified = std::pin::pin!(self.idle.notified());
            notified.as_mut().enable();
            if self.pending() == 0 {
                return;
            }
            notified.await;
        }
    }
}
