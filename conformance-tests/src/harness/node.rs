//! One process under test: a bus over an observed backend.

use std::fmt;
use std::sync::Arc;

use eventbus_core::backend::Backend;
use eventbus_core::{Bus, BusConfig, EventBus, Result, Subscribe, Subscription};

use super::handler::{RecordingHandler, Script};
use super::hooks::RecordingHook;
use super::observed::Observed;
use super::process::Process;
use super::publisher::{Numbers, Publisher};
use crate::history::Recorder;

/// A process with a bus of its own. Dropping it drops the bus.
pub struct Node {
    process: Arc<Process>,
    bus: Arc<dyn EventBus>,
    publisher: Publisher,
}

impl Node {
    /// Starts a process on a backend of its own that is in this process. `number` must be new in this history.
    ///
    /// # Errors
    /// As [`Bus::new`].
    pub fn start(
        recorder: Arc<dyn Recorder>,
        number: u32,
        backend: Arc<dyn Backend>,
        numbers: Arc<Numbers>,
        config: BusConfig,
    ) -> Result<Self> {
        let process = Process::among(recorder, number, numbers.epochs());
        let observed = Arc::new(Observed::new(backend, process.clone()));
        let bus = Bus::new(observed, config.hook(RecordingHook::new(process.clone())))?;
        Ok(Self::on(bus, process, numbers))
    }

    /// Starts a process on a backend that has to be connected.
    ///
    /// # Errors
    /// As [`Bus::connect`].
    pub async fn connect(
        recorder: Arc<dyn Recorder>,
        number: u32,
        backend: Arc<dyn Backend>,
        numbers: Arc<Numbers>,
        config: BusConfig,
    ) -> Result<Self> {
        let process = Process::among(recorder, number, numbers.epochs());
        let observed = Arc::new(Observed::new(backend, process.clone()));
        let bus = Bus::connect(observed, config.hook(RecordingHook::new(process.clone()))).await?;
        Ok(Self::on(bus, process, numbers))
    }

    fn on(bus: Bus, process: Arc<Process>, numbers: Arc<Numbers>) -> Self {
        let bus: Arc<dyn EventBus> = Arc::new(bus);
        let publisher = Publisher::new(bus.clone(), process.clone(), numbers);
        Self { process, bus, publisher }
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The bus.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn EventBus> {
        &self.bus
    }

    /// The publisher of this process, on the record.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Subscribes with a recording handler that does what the script says.
    ///
    /// # Errors
    /// As [`EventBus::subscribe`].
    pub async fn subscribe(&self, options: Subscribe, script: impl Script) -> Result<Subscription> {
        self.bus.subscribe(options, Arc::new(RecordingHandler::new(self.process.clone(), script))).await
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("process", &self.process.number()).finish_non_exhaustive()
    }
}
