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
//! | file | what it keeps |
//! |---|---|
//! | `config` | the settings of a world |
//! | `topics`, `log`, `duplicates` | topics, their partitions' logs, the duplicate window (P3) |
//! | `producer` | submissions and their fates (P1, P2) |
//! | `membership`, `group`, `reader` | events, ownership (S5), delivery without a record skipped |
//! | `commit` | progress, behind the fence (S5) |
//! | `connection`, `health` | the link, cut or frozen or closed |
//! | `world`, `state`, `timers` | the one lock, and what happens later |
//! | `faults` | what goes wrong on demand |
//! | `bus`, `testing` | the engine on top, and what users' tests ask of it |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backend;
mod bus;
mod commit;
mod config;
mod connection;
mod duplicates;
mod faults;
mod group;
mod health;
mod log;
mod membership;
mod producer;
mod reader;
mod state;
pub mod testing;
mod timers;
mod topics;
mod world;

pub use backend::MemoryBackend;
pub use bus::{MemoryEventBus, MemoryEventBusBuilder};
pub use config::{Copies, Latency, MemoryConfig, Positions, Wait};
pub use faults::{CommitFault, FaultEvent, FaultId, FaultKind, Faults, OnCut, Place, Scope, SubmitFault};
pub use world::MemoryWorld;
