//! Handlers that wait for the test.

use std::fmt;
use std::sync::Arc;

use eventbus_core::Delivery;
use tokio::sync::watch;

use crate::harness::{Holding, Script, Step};

/// A gate for handlers, closed until the test opens it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Opens the gate, for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    fn wait(&self) -> Holding {
        let mut opened = self.0.subscribe();
        Box::pin(async move {
            // A gate that is gone holds nobody.
            let _ = opened.wait_for(|open| *open).await;
        })
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// A script whose chosen calls wait until a gate opens.
pub struct Gated<S, W> {
    script: S,
    gate: Gate,
    which: W,
}

impl<S, W> Gated<S, W>
where
    W: Fn(&Delivery, u64) -> bool + Send + Sync + 'static,
{
    /// Makes a script in which calls wait at the gate if `which` holds for them.
    pub fn new(script: S, gate: &Gate, which: W) -> Self {
        Self { script, gate: gate.clone(), which }
    }
}

impl<S, W> Script for Gated<S, W>
where
    S: Script,
    W: Fn(&Delivery, u64) -> bool + Send + Sync + 'static,
{
    fn step(&self, delivery: &Delivery, number: u64) -> Step {
        self.script.step(delivery, number)
    }

    fn hold(&self, delivery: &Delivery, number: u64) -> Option<Holding> {
        if (self.which)(delivery, number) {
            return Some(self.gate.wait());
        }
        self.script.hold(delivery, number)
    }
}

impl<S, W> fmt::Debug for Gated<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gated").field("gate", &self.gate).finish_non_exhaustive()
    }
}
