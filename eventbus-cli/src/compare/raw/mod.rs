//! Bare clients: the same workloads on a backend's own client, to show what the bus costs.
//!
//! A bare client publishes as many records at once as it can. It reads without a group, without progress, and without a
//! promise that any key's order survives a failure: it is the limit, not an alternative. Its records have the
//! attributes and headers that the bus writes.

#[cfg(feature = "kafka")]
mod kafka;
mod memory;
#[cfg(feature = "nats")]
mod nats;
mod race;

use std::sync::Arc;

use eventbus::config::BackendConfig;
use eventbus::{Error, ErrorKind, Result};

use self::race::Race;
use super::figures::Run;
use super::resources::Watch;
use super::targets::Target;
use super::workloads::{Workload, WorkloadSet};
use crate::interrupt::Interrupt;

/// Runs a workload once; `None` after an interrupt. Whatever it made on the broker is removed, however the run ends.
///
/// # Errors
/// `Unsupported` if the program has no bare client for the backend; what the broker says if it cannot be used at all.
pub(crate) async fn run(
    target: &Target,
    workload: &Workload,
    set: &WorkloadSet,
    interrupt: &Interrupt,
) -> Result<Option<Run>> {
    let race = Arc::new(Race::new(target, workload, set.plan(workload)?));
    let watch = Watch::start();
    let finished = match &target.config.backend {
        BackendConfig::Memory { .. } => memory::run(&race, interrupt).await?,
        #[cfg(feature = "nats")]
        BackendConfig::Nats(section) => nats::run(&race, section, interrupt).await?,
        #[cfg(feature = "kafka")]
        BackendConfig::Kafka(section) => kafka::run(&race, section, interrupt).await?,
        _ => return Err(Error::new(ErrorKind::Unsupported, "this program has no bare client for it: --no-bare")),
    };
    if !finished {
        return Ok(None);
    }
    let mut run = race.judge(target);
    watch.stop().told_by(&mut run);
    Ok(Some(run))
}

/// Returns whether this program has a bare client for the target's backend.
pub(crate) fn is_there_for(target: &Target) -> bool {
    match &target.config.backend {
        BackendConfig::Memory { .. } => true,
        #[cfg(feature = "nats")]
        BackendConfig::Nats(_) => true,
        #[cfg(feature = "kafka")]
        BackendConfig::Kafka(_) => true,
        _ => false,
    }
}

/// Asks a target's broker for its release.
pub(crate) async fn release(target: &Target) -> String {
    match &target.config.backend {
        #[cfg(feature = "nats")]
        BackendConfig::Nats(section) => nats::release(section).await.unwrap_or_else(|error| error.to_string()),
        #[cfg(feature = "kafka")]
        BackendConfig::Kafka(section) => kafka::release(section).await.unwrap_or_else(|error| error.to_string()),
        other => other.scheme().to_owned(),
    }
}
