//! The conformance suite on a real Kafka broker, with groups under both protocols.
//!
//! Brokers run in containers, or `EVENTBUS_TEST_KAFKA_URL` names one that runs already; cases that would have to harm that
//! one show as SKIP. Nothing else may be skipped but what the contract puts off, or Kafka does not know: see [`MISSING`].
//!
//! `EVENTBUS_SEED` chooses what is drawn. `--test-threads` says how many cases run at once: most of them wait.

use std::process::ExitCode;
use std::sync::Arc;

use conformance_tests::suite::{Ability, GroupProtocol, KafkaProvider, Provider};

#[path = "trials/servers.rs"]
mod servers;
mod trials;

/// What one broker alone cannot do; and what it is to a producer that numbers what it sends to a partition: a record that is
/// held, or whose confirmation is, holds those behind it, of whatever key.
const MISSING: [Ability; 5] = [
    Ability::Park,
    Ability::ChangeLeader,
    Ability::HoldPublish,
    Ability::BlackHoleKey,
    // The coordinator forgets a topic's offsets with the topic.
    Ability::KeepProgress,
];

fn providers() -> Result<(Vec<Arc<dyn Provider>>, bool), String> {
    match std::env::var("EVENTBUS_TEST_KAFKA_URL") {
        Ok(url) => {
            let of = |protocol| Ok(Arc::new(KafkaProvider::running(&url, protocol)?) as Arc<dyn Provider>);
            let of = |protocol| {
                of(protocol).map_err(|error: eventbus_core::Error| format!("EVENTBUS_TEST_KAFKA_URL: {error}"))
            };
            Ok((GroupProtocol::ALL.into_iter().map(of).collect::<Result<_, _>>()?, true))
        }
        Err(_) => {
            let of = |protocol| Arc::new(KafkaProvider::containers(protocol)) as Arc<dyn Provider>;
            Ok((GroupProtocol::ALL.into_iter().map(of).collect(), false))
        }
    }
}

fn main() -> ExitCode {
    servers::main(providers, &MISSING)
}
