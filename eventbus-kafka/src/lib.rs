//! The Kafka backend: partitions as they are, an idempotent producer whose every record gets its fate, a consumer group
//! whose hand-overs wait for the drain.
//!
//! A topic is a Kafka topic, a partition its partition, a position its offset. The group's coordinator decides about
//! ownership; the committed offset is the watermark, and the note is the offset's metadata.
//!
//! # The files
//!
//! | file | what it keeps |
//! |---|---|
//! | `config`, `properties` | the settings, librdkafka's properties, and what is refused (S8) |
//! | `connection`, `error` | the client for everything but records, blocking calls, errors of clients |
//! | `topics` | topics, and their limits for publishing |
//! | `producer`, `answers` | the client for records, and the meaning of its reports (P1 to P3) |
//! | `scan`, `reading`, `stamps` | logs read from outside, and an index of their stamps (P3) |
//! | `consumer`, `positions` | a member's client, under the core's `coordinated` (S3, S5) |
//! | `refusals` | what a coordinator's refusal of a member means (S5) |
//! | `note` | the metadata of a commit (S4, S5), fingerprints of records |
//! | `groups` | progress and lag as seen from outside |
//! | `wire`, `headers` | envelopes as records; headers that somebody else wrote |
//! | `backend`, `bus` | the interface that the engine calls, and the engine on top |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod answers;
mod backend;
mod bus;
mod config;
mod connection;
mod consumer;
mod error;
#[cfg(test)]
mod foreign_bytes;
mod groups;
mod headers;
mod note;
mod positions;
mod producer;
mod properties;
mod reading;
mod refusals;
mod scan;
mod stamps;
mod topics;
mod wire;

pub use backend::KafkaBackend;
pub use bus::KafkaEventBus;
pub use config::{KafkaConfig, Mechanism, Protocol, REFUSED, Sasl, Tls};
pub use wire::BINDING;
