//! What a bus is asked to do on the publishing side, and what it is built with: [`BusConfig`].

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

/// Settings of a bus, all with defaults; build it with [`Bus::new`](crate::Bus::new).
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

/// Where the bus's own work runs: renewals, intake, commits, timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Threads {
    /// On a thread of the bus's own, so that handlers which block their threads starve nothing. The default.
    #[default]
    Own,
    /// On the runtime that builds the bus. For tests with a paused clock, and for the simulation.
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
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most envelopes admitted and not yet answered. Default 10 000.
    pub fn budget_envelopes(mut self, envelopes: usize) -> Self {
        self.publish.budget_envelopes = envelopes;
        self
    }

    /// The most bytes admitted and not yet answered. Default 64 MiB.
    pub fn budget_bytes(mut self, bytes: usize) -> Self {
        self.publish.budget_bytes = bytes;
        self
    }

    /// One key may hold at most the budget divided by this, at least one envelope (P5). Default 8.
    pub fn share(mut self, divisor: usize) -> Self {
        self.publish.share = divisor;
        self
    }

    /// The most envelopes waiting for room before publishes fail with `Overloaded` (P5). Default 100 000.
    pub fn waiting_limit(mut self, envelopes: usize) -> Self {
        self.publish.waiting_limit = envelopes;
        self
    }

    /// The most keys of a topic sealed at once; beyond it the topic is (P2). Default 10 000.
    pub fn sealed_limit(mut self, keys: usize) -> Self {
        self.publish.sealed_limit = keys;
        self
    }

    /// The wait before a record is sent again, doubling from the first to the second. Default 20 ms to 1 s.
    pub fn resend_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.publish.retry_first = first;
        self.publish.retry_max = max;
        self
    }

    /// The number of partitions that a topic must have which this bus publishes to without having ensured it. Where it has
    /// another one, keyed publishes fail with `PartitionsChanged`. Default: the number that is found is taken.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.publish.partitions = Some(partitions);
        self
    }

    /// How often topics in use are looked at for a changed number of partitions, where the broker lets it change. Default 30 s.
    pub fn recount(mut self, every: Duration) -> Self {
        self.publish.recount = every;
        self
    }

    /// Where the bus's own work runs. Default [`Threads::Own`].
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Where time of day and randomness come from. Default [`SystemEnv`].
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = env;
        self
    }

    /// Adds a hook.
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Adds a layer around publishing; the one added last is outermost.
    pub fn publish_layer(mut self, layer: impl PublishLayer) -> Self {
        self.publish_layers.push(Arc::new(layer));
        self
    }

    /// Adds a layer around every handler; the one added last is outermost.
    pub fn handle_layer(mut self, layer: impl HandleLayer) -> Self {
        self.handle_layers.push(Arc::new(layer));
        self
    }

    /// Carries trace context between envelopes and the tracing system in use. Default none.
    pub fn propagator(mut self, propagator: impl Propagator) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// Breaks one thing, for the tests of the conformance suite.
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
