//! Bus that a command is for, and the way to reach it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eventbus::admin::ConnectionState;
use eventbus::config::{InForce, Layers};
use eventbus::observe::BusEvent;
use eventbus::{BusConfig, ConfigError, EventBus, EventBusConfig};

use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::seconds;
use crate::voice::say;

/// How long the last calls to the broker may take when a command ends.
pub(crate) const GOODBYE: Duration = Duration::from_secs(5);

/// Which bus, and how long it may take to reach it.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The bus: memory://NAME, nats://HOST:4222, kafka://A:9092,B:9092; else EVENTBUS_URL
    #[arg(long, help_heading = "Bus", value_name = "URL")]
    url: Option<String>,
    /// A configuration file (TOML); what a URL says goes before it
    #[arg(long, help_heading = "Bus", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long connecting may take
    #[arg(long, help_heading = "Bus", value_name = "SECS", default_value = "10", value_parser = seconds::parse)]
    connect_timeout: Duration,
}

impl Target {
    /// Returns the configuration in force: the file, the environment and the URL laid over one another.
    pub(crate) fn configuration(&self) -> Result<EventBusConfig, Failure> {
        self.in_force().map(|in_force| in_force.config)
    }

    /// Returns the configuration in force with the origin of each value.
    pub(crate) fn in_force(&self) -> Result<InForce, Failure> {
        let mut layers = Layers::new();
        if let Some(file) = &self.config {
            layers = layers.file(file)?;
        }
        layers = layers.environment()?;
        if let Some(url) = &self.url {
            layers = layers.url(url)?;
        }
        layers.build().map_err(|error| match error {
            ConfigError::Missing { name: "backend", .. } => {
                Failure::usage("no bus: give --url URL or --config FILE, or set EVENTBUS_URL")
            }
            other => other.into(),
        })
    }

    /// Connects to the bus, with `customize` to add hooks.
    pub(crate) async fn connect(
        &self,
        config: &EventBusConfig,
        customize: impl FnOnce(BusConfig) -> BusConfig,
    ) -> Result<Arc<dyn EventBus>, Failure> {
        let connecting = config.connect_with(|bus| customize(bus).hook(notes));
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(bus)) => Ok(bus),
            Ok(Err(error)) => Err(Failure::from(error).about(&config.backend)),
            Err(_) => {
                let seconds = self.connect_timeout.as_secs_f64();
                Err(Failure::failed(format!("{}: not reached within {seconds} s", config.backend)))
            }
        }
    }
}

impl Target {
    /// Connects as [`connect`](Self::connect) does; `None` if the command is interrupted first.
    pub(crate) async fn connect_unless(
        &self,
        interrupt: &Interrupt,
        config: &EventBusConfig,
        customize: impl FnOnce(BusConfig) -> BusConfig,
    ) -> Result<Option<Arc<dyn EventBus>>, Failure> {
        tokio::select! {
            biased;
            () = interrupt.wait() => Ok(None),
            bus = self.connect(config, customize) => bus.map(Some),
        }
    }
}

/// Says that the connection is lost, and what is tried again for long; the return of both is logged.
fn notes(event: &BusEvent<'_>) {
    match event {
        BusEvent::Connection(ConnectionState::Disconnected) => say("the connection is lost; trying again"),
        BusEvent::Connection(ConnectionState::Connected) => tracing::info!("connected"),
        BusEvent::Retrying(retry) => say(retry),
        BusEvent::Recovered { operation, topic, age, .. } => {
            say(format_args!("{operation}: topic {topic}: it goes on, after {} s", age.as_secs()));
        }
        _ => {}
    }
}

/// Closes the bus. The command's work is done by now, so a failure here is only logged.
pub(crate) async fn leave(bus: &Arc<dyn EventBus>) {
    leave_within(bus, GOODBYE).await;
}

/// Closes the bus as [`leave`] does, with publishes ended after this time.
pub(crate) async fn leave_within(bus: &Arc<dyn EventBus>, within: Duration) {
    if let Err(error) = bus.close(within).await {
        tracing::warn!(%error, "the bus did not close in order");
    }
}

/// Warns if records end with the process. Returns whether they do.
pub(crate) fn warn_if_volatile(bus: &Arc<dyn EventBus>) -> bool {
    let volatile = !bus.capabilities().durable;
    if volatile {
        say("this bus is in memory: nothing outlives the process");
    }
    volatile
}
