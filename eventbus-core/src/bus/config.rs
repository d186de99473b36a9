//! The settings of a bus, of its publishing side and of what it is built with: [`BusConfig`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Result;
use crate::mutant::Seam;
use crate::observe::{Hook, Propagator};
use crate::publish::{PublishConfig, PublishLayer};
use crate::runtime::{Env, SystemEnv};
use crate::subscribe::HandleLayer;

/// Settings of a bus, all with defaults. [`Bus::new`](crate::Bus::new) and [`Bus::connect`](crate::Bus::connect) check
/// them and build the bus.
#[derive(Clone)]
#[must_use]
pub struct BusConfig {
    pub(crate) publish: PublishConfig,
    pub(crate) threads: Threads,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) hooks: Vec<Arc<dyn Hook>>,
    pub(crate) publish_layers: Vec<Arc<dyn PublishLayer>>,
    pub(crate) handle_layers: Vec<Arc<dyn HandleLayer>>,
    pub(crate) propagator: Option<Arc<dyn Propagator>>,
    pub(crate) seam: Seam,
}

/// The place where the bus's own work runs: renewals, intake, commits, timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Threads {
    /// A thread of the bus's own, so that handlers which block their threads starve nothing. The default.
    #[default]
    Own,
    /// The runtime that builds the bus. For tests with a paused clock, and for the simulation.
    Caller,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            publish: PublishConfig::default(),
            threads: Threads::default(),
            env: Arc::new(SystemEnv),
            hooks: Vec::new(),
            publish_layers: Vec::new(),
            handle_layers: Vec::new(),
            propagator: None,
            seam: Seam::default(),
        }
    }
}

impl BusConfig {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the most envelopes that may be admitted and not yet answered. Default 10 000.
    pub fn budget_envelopes(mut self, envelopes: usize) -> Self {
        self.publish.budget_envelopes = envelopes;
        self
    }

    /// Sets the most bytes that may be admitted and not yet answered. Default 64 MiB.
    pub fn budget_bytes(mut self, bytes: usize) -> Self {
        self.publish.budget_bytes = bytes;
        self
    }

    /// Sets the divisor of a key's share: one key may hold at most the budget divided by it, or one envelope (P5).
    /// Default 8.
    pub fn share(mut self, divisor: usize) -> Self {
        self.publish.share = divisor;
        self
    }

    /// Sets the most envelopes that may wait for room before publishes fail with `Overloaded` (P5). Default 100 000.
    pub fn waiting_limit(mut self, envelopes: usize) -> Self {
        self.publish.waiting_limit = envelopes;
        self
    }

    /// Sets the most keys of a topic that are sealed singly; past it the topic itself is sealed (P2). Default 10 000.
    pub fn sealed_limit(mut self, keys: usize) -> Self {
        self.publish.sealed_limit = keys;
        self
    }

    /// Sets the wait before a record is sent again: it doubles from `first` to `max`, with full jitter. Default 20 ms
    /// to 1 s.
    pub fn resend_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.publish.retry_first = first;
        self.publish.retry_max = max;
        self
    }

    /// Sets the age of a retry at which hooks are told of it ([`BusEvent::Retrying`](crate::BusEvent::Retrying)): a
    /// publish that the broker does not store, and refuses only for now. Default 5 s.
    pub fn notice_after(mut self, age: Duration) -> Self {
        self.publish.notice_after = age;
        self
    }

    /// Sets the number of partitions that a topic must have if this bus publishes to it without having ensured it.
    /// Where the topic has another number, keyed publishes fail with `PartitionsChanged`. Default: the number that is
    /// found is taken.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.publish.partitions = Some(partitions);
        self
    }

    /// Sets how often the partitions of topics in use are counted, where the broker lets their number change. Default
    /// 30 s.
    pub fn recount(mut self, every: Duration) -> Self {
        self.publish.recount = every;
        self
    }

    /// Sets where the bus's own work runs. Default [`Threads::Own`].
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Sets the source of time of day and randomness. Default [`SystemEnv`].
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = env;
        self
    }

    /// Adds a hook, which is told of every [`BusEvent`](crate::BusEvent).
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Adds a layer around single publishes; the layer added last is outermost. Batches do not pass through it.
    pub fn publish_layer(mut self, layer: impl PublishLayer) -> Self {
        self.publish_layers.push(Arc::new(layer));
        self
    }

    /// Adds a layer around every handler; the layer added last is outermost.
    pub fn handle_layer(mut self, layer: impl HandleLayer) -> Self {
        self.handle_layers.push(Arc::new(layer));
        self
    }

    /// Sets the propagator, which carries trace context between envelopes and the tracing system in use. Default: none.
    pub fn propagator(mut self, propagator: impl Propagator) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// Puts one defect in force, for the tests of the conformance suite.
    #[cfg(feature = "mutants")]
    pub fn mutant(mut self, mutant: crate::Mutant) -> Self {
        self.seam = Seam(Some(mutant));
        self.publish.seam = self.seam;
        self
    }

    /// Checks every value (S8).
    pub(crate) fn validate(&self) -> Result<()> {
        self.publish.validate()
    }
}

impl fmt::Debug for BusConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusConfig")
            .field("publish", &self.publish)
            .field("threads", &self.threads)
            .field("hooks", &self.hooks.len())
            .field("publish_layers", &self.publish_layers.len())
            .field("handle_layers", &self.handle_layers.len())
            .finish_non_exhaustive()
    }
}
