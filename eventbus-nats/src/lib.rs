//! The NATS JetStream backend: a stream per topic, a subject per partition, leases and progress in a key-value bucket.
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
//! | `names` | streams, subjects, buckets and keys: one encoding |
//! | `connection`, `error`, `health` | the one connection, requests, what the server says |
//! | `topics` | streams as topics |
//! | `producer`, `answers` | submissions, and their fates (P1 to P3) |
//! | `membership`, `spread` | events, members, who owns what (S5) |
//! | `bucket` | the bucket of a topic, and what it holds at a moment |
//! | `record` | one partition's record: compare-and-swap, read-back, lease (S4, S5) |
//! | `reader`, `consumer` | delivery without a record skipped (S3) |
//! | `groups` | progress and lag as seen from outside |
//! | `wire` | envelopes as messages |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod answers;
mod backend;
mod bucket;
mod bus;
mod config;
mod connection;
mod consumer;
mod error;
mod groups;
mod health;
mod membership;
mod names;
mod producer;
mod reader;
mod record;
mod spread;
mod topics;
mod wire;

pub use backend::NatsBackend;
pub use bus::NatsEventBus;
pub use config::{Auth, NatsConfig, REFUSED, Tls};
pub use wire::BINDING;
