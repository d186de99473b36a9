//! The conformance suite on a real Kafka broker, with groups under both protocols.
//!
//! Brokers run in containers, unless `EVENTBUS_TEST_KAFKA_URL` names one that runs already; cases that would harm that
//! one show as SKIP. No other case may be skipped, except for what the contract puts off or Kafka does not have: see
//! [`MISSING`].
//!
//! `EVENTBUS_SEED` is the seed of all that is drawn. `--test-threads` sets how many cases run at once: most of them
//! wait.

use std::process::ExitCode;
use std::sync::Arc;

use conformance_tests::suite::{Ability, GroupProtocol, KafkaProvider, Provider};

#[path = "trials/servers.rs"]
mod servers;
mod trials;

/// Abilities that one broker alone does not have, and those that the producer's numbering rules out: a record that is
/// held, or whose confirmation is held, holds those behind it in the partition, of whatever key.
const MISSING: [Ability; 9] = [
    Ability::Park,
    Ability::ChangeLeader,
    Ability::HoldPublish,
    Ability::BlackHoleKey,
    // The coordinator deletes a topic's offsets with the topic.
    Ability::KeepProgress,
    // A log loses records at its beginning only, a group with members keeps its progress, and readers are no state of
    // the broker's.
    Ability::RemoveRecord,
    Ability::RemoveProgress,
    Ability::RemoveReaders,
    // A compacted topic is one that is read with its gaps.
    Ability::SpoilTopic,
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
