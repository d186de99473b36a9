//! The conformance suite: every case of the ordering contract, each one function over one isolated bus world.
//!
//! [`CASES`] is the one list of all cases; the tests of a backend and the printed [`Matrix`] are both made from it, so
//! none can be forgotten. A backend's author writes a [`Provider`] and runs [`run_case`] for each case, or gives all of
//! it to a test runner, as this crate's own `tests/memory.rs` does.
//!
//! A case gets a [`Run`]: processes with a bus each, faults, and the history that the oracle judges in the end. It
//! states the abilities of the fixture that it needs. A missing one is a SKIP that names it; a case that asks for an
//! ability which it did not state fails, so nothing is ever skipped in silence.

mod ability;
#[cfg(feature = "brokers")]
mod backends;
mod call;
mod case;
mod common;
mod env;
mod failure;
mod fixture;
mod gate;
#[cfg(feature = "brokers")]
mod kafka;
#[cfg(feature = "brokers")]
mod limited;
mod matrix;
mod memory;
#[cfg(feature = "brokers")]
mod nats;
mod odd;
mod operator;
mod p0;
mod p1;
mod p2;
mod parity;
mod peer;
mod registry;
mod run;
mod runner;
#[cfg(feature = "brokers")]
mod served;

pub use ability::{Abilities, Ability, FaultError, Missing};
#[cfg(feature = "brokers")]
pub use backends::backend_at;
pub use call::Call;
pub use case::{Case, CaseRuntime, Priority};
pub use failure::Failure;
pub use fixture::{Armed, Clock, Connection, Fixture, Provider, PublishFault, Publishes, Setup, UnderWay};
pub use gate::{Gate, Gated};
#[cfg(feature = "brokers")]
pub use kafka::{GroupProtocol, KafkaProvider, RawRecord, kafka_config, produce};
pub use matrix::{Matrix, Outcome};
pub use memory::{MemoryKind, MemoryProvider};
#[cfg(feature = "brokers")]
pub use nats::{NatsProvider, nats_config};
pub use operator::{Operator, Right};
pub use p0::churn::may_come_again;
pub use p0::members::until_owns;
pub use parity::{Outcomes, drawn_script};
pub use peer::Peer;
pub use registry::CASES;
pub use run::Run;
pub use runner::{RunOptions, run_case};
