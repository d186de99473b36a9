//! The in-memory backend: a partitioned log in the process, with groups, members and faults on demand.
//!
//! A [`MemoryWorld`] is a broker: topics of several partitions, groups that share them out among their members,
//! progress with its note, retention, a duplicate window. A [`MemoryBackend`] is one process's connection to it;
//! several connections stand for several processes. It behaves as servers do, failures included: [`Faults`] injects
//! them.
//!
//! Nothing here survives the process, and nothing blocks a publisher: unread records stay in memory, within the topic's
//! limits if it has any. A topic's number of replicas is kept and described, and has no effect.
//!
//! Everything is deterministic under a single-threaded runtime with a paused clock: time is tokio's, randomness and the
//! time of day come from the [`Env`](eventbus_core::Env) of the [`MemoryConfig`].
//!
//! [`MemoryEventBus`] is the whole bus on it; [`testing`] is for unit tests of services that use one.
//!
//! # The files
//!
//! From the ground up: each file imports only from those above it.
//!
//! | file | what it keeps |
//! |---|---|
//! | `config` | the settings of a world |
//! | `timers` | timers, by the time at which they are due |
//! | `faults/event`, `faults/scope`, `faults/armed` | faults on demand, and where they strike |
//! | `in_flight`, `step` | submissions on their way; effects that wait for the end of the lock |
//! | `log`, `duplicates`, `topic` | a topic, its partitions' logs, the duplicate window (P3) |
//! | `reader`, `group`, `delivery` | ownership (S5), delivery without a record skipped |
//! | `connection` | the links: up, cut, frozen or closed |
//! | `state` | all of these, and the changes that take several of them |
//! | `world` | the one lock around the state, its clock and its driver |
//! | `member`, `health`, `backend` | the interface that the engine calls |
//! | `faults/handle` | the handle that injects faults |
//! | `probe`, `bus`, `testing` | the engine on top, and the helpers for users' tests |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backend;
mod bus;
mod config;
mod connection;
mod delivery;
mod duplicates;
mod faults;
mod group;
mod health;
mod in_flight;
mod log;
mod member;
mod probe;
mod reader;
mod state;
mod step;
pub mod testing;
mod timers;
mod topic;
mod world;

pub use backend::MemoryBackend;
pub use bus::{MemoryEventBus, MemoryEventBusBuilder};
pub use config::{Copies, Latency, MemoryConfig, Positions, Wait};
pub use faults::{CommitFault, FaultEvent, FaultId, FaultKind, FaultPlace, Faults, OnCut, Scope, SubmitFault};
pub use world::MemoryWorld;
