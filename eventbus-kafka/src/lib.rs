//! The Kafka backend: partitions as they are, an idempotent producer that resolves what it sent, a consumer group whose
//! hand-overs wait for the drain.
//!
//! A topic is a Kafka topic, a partition its partition, a position its offset. The group's coordinator decides who owns what; the
//! committed offset is the watermark, and the note is the offset's metadata.
//!
//! # The rooms
//!
//! | file | what it keeps |
//! |---|---|
//! | `config` | the settings, and what is refused (S8) |
//! | `connection`, `error` | the client for everything but records, what blocks, and what clients say |
//! | `topics` | topics, and what publishing has to know of them |
//! | `producer`, `answers` | the client for records, and what its reports mean (P1 to P3) |
//! | `scan` | logs read from outside |
//! | `consumer` | a member's client, under the core's `coordinated` (S3, S5) |
//! | `note` | the core's line of text beside an offset (S4, S5), of Kafka's records |
//! | `groups` | progress and lag as seen from outside |
//! | `wire` | envelopes as records |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod answers;
mod backend;
mod bus;
mod config;
mod connection;
mod consumer;
mod error;
mod groups;
mod note;
mod producer;
mod reading;
mod scan;
mod stamps;
mod topics;
mod wire;

pub use backend::KafkaBackend;
pub use bus::KafkaEventBus;
pub use config::{KafkaConfig, Mechanism, Protocol, REFUSED, Sasl, Tls};
pub use wire::BINDING;
