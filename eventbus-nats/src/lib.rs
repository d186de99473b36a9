//! The NATS JetStream backend: a stream per topic, a subject per partition, leases and progress in a key-value bucket.
//!
//! Who owns which partition, and everything else that is not about JetStream, is in the core, in
//! [`eventbus_core::toolkit::lease`] above all.
//!
//! A topic is one stream, its partitions are subjects; the stream's sequence is the position, shared by all partitions.
//! One record per (group, topic, partition) in a key-value bucket holds owner, epoch, watermark and note. It is the
//! authority: every write compares and swaps. Each ownership reads through consumers of its own, whose names are used
//! once, which acknowledge nothing and are removed when they end.
//!
//! # The rooms
//!
//! | file | what it keeps |
//! |---|---|
//! | `config` | the settings, and what is refused (S8) |
//! | `names` | what streams, subjects, buckets and keys are called, by the core's encoding |
//! | `connection`, `error`, `health` | the one connection, requests, what the server says |
//! | `topics` | streams as topics |
//! | `producer`, `answers` | submissions, and their fates (P1 to P3) |
//! | `store` | a topic's bucket, and what else the core's leases ask of JetStream (S3 to S5) |
//! | `consumer` | consumers that are used once, and what they bring (S3) |
//! | `wire` | envelopes as messages |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod answers;
mod backend;
mod bus;
mod config;
mod connection;
mod consumer;
mod error;
mod health;
mod in_flight;
mod labels;
mod names;
mod producer;
mod removals;
mod store;
mod tokens;
mod topics;
mod wire;

pub use backend::NatsBackend;
pub use bus::NatsEventBus;
pub use config::{Auth, NatsConfig, REFUSED, Tls};
pub use wire::BINDING;
