//! The in-memory backend: a partitioned log in the process, with groups, members and faults on demand.
//!
//! A [`MemoryWorld`] is a broker: topics of several partitions, groups that share them out among their members, progress
//! with its note, retention, a duplicate window. A [`MemoryBackend`] is one process's connection to it; connect several and
//! there are several processes. It behaves like the servers do, down to what goes wrong: [`Faults`] injects it.
//!
//! Nothing here survives the process, and nothing here blocks a publisher: what is published and not yet read stays in
//! memory, within the topic's limits if it has any. A topic's number of replicas is kept and described, and means nothing.
//!
//! Everything is deterministic under a single-threaded runtime with a paused clock: time is tokio's, randomness and the
//! time of day come from the [`Env`](eventbus_core::Env) of the [`MemoryConfig`].
//!
//! [`MemoryEventBus`] is the whole bus on it; [`testing`] is for unit tests of services that use one.
//!
//! # The rooms
//!
//! From the ground up; each file knows only what stands above it here.
//!
//! | file | what it keeps |
//! |---|---|
//! | `config` | the settings of a world |
//! | `timers` | what happens later |
//! | `faults/event`, `faults/scope`, `faults/armed` | what goes wrong on demand |
//! | `in_flight`, `step` | submissions on their way; what is left to do after the lock |
//! | `log`, `duplicates`, `topic` | a topic, its partitions' logs, the duplicate window (P3) |
//! | `reader`, `group`, `delivery` | ownership (S5), delivery without a record skipped |
//! | `connection` | the links: up, cut, frozen or closed |
//! | `state` | all of these, and what is done to several of them |
//! | `world` | the one lock around it, its clock and its driver |
//! | `member`, `health`, `backend` | the interface that the engine calls |
//! | `faults/handle` | the handle that injects faults |
//! | `probe`, `bus`, `testing` | the engine on top, and what users' tests ask of it |
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
pub use faults::{CommitFault, FaultEvent, FaultId, FaultKind, Faults, OnCut, Place, Scope, SubmitFault};
pub use world::MemoryWorld;
