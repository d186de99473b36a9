//! The ordering contract as tests: history, oracle, cases, mutants, simulation.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "brokers")]
pub mod brokers;
pub mod file_history;
pub mod harness;
pub mod history;
#[cfg(feature = "brokers")]
pub mod members;
pub mod mutants;
pub mod oracle;
#[cfg(feature = "brokers")]
pub mod proxy;
pub mod simulation;
pub mod suite;
