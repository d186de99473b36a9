//! The conformance suite on real NATS servers, the newest and the oldest that is supported.
//!
//! Servers run in containers, unless `EVENTBUS_TEST_NATS_URL` names one that runs already; cases that would harm that
//! one show as SKIP. No other case may be skipped, except for what the contract puts off: see [`MISSING`].
//!
//! `EVENTBUS_SEED` is the seed of all that is drawn. `--test-threads` sets how many cases run at once: most of them
//! wait.

use std::process::ExitCode;
use std::sync::Arc;

use conformance_tests::brokers::NatsVersion;
use conformance_tests::suite::{Ability, NatsProvider, Provider};

#[path = "trials/servers.rs"]
mod servers;
mod trials;

/// Abilities that one server alone does not have, and one that streams do not have: their partitions are the bus's own.
const MISSING: [Ability; 3] = [Ability::Park, Ability::ChangeLeader, Ability::AddPartitions];

fn providers() -> Result<(Vec<Arc<dyn Provider>>, bool), String> {
    match std::env::var("EVENTBUS_TEST_NATS_URL") {
        Ok(url) => {
            let provider = NatsProvider::running(&url).map_err(|error| format!("EVENTBUS_TEST_NATS_URL: {error}"))?;
            Ok((vec![Arc::new(provider)], true))
        }
        Err(_) => {
            let of = |version| Arc::new(NatsProvider::containers(version)) as Arc<dyn Provider>;
            Ok((NatsVersion::ALL.into_iter().map(of).collect(), false))
        }
    }
}

fn main() -> ExitCode {
    servers::main(providers, &MISSING)
}
