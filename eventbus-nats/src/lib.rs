//! The NATS JetStream backend: a stream per topic, a subject per partition, leases and progress in a key-value bucket.
//!
//! Ownership of partitions, and everything else that is not about JetStream, is in the core, in
//! [`eventbus_core::toolkit::lease`] above all.
//!
//! A topic is one stream, its partitions are subjects; the stream's sequence is the position, shared by all partitions.
//! One record per (group, topic, partition) in a key-value bucket holds owner, epoch, watermark and note. It is the
//! authority: every write compares and swaps. Each ownership reads through its own consumers: their names are used
//! once, they acknowledge nothing, and they are removed when they end.
//!
//! # The files
//!
//! | file | what it keeps |
//! |---|---|
//! | `config` | the settings, and what is refused (S8) |
//! | `names`, `tokens` | names of streams, subjects, buckets and keys, and their encoding |
//! | `connection`, `error`, `health` | the one connection, requests, errors and health |
//! | `topics`, `labels` | streams as topics, and the labels in their metadata |
//! | `unsafe_streams` | streams that are no topics, since they lose or move records (S8) |
//! | `producer`, `in_flight`, `late`, `answers` | submissions, and their fates (P1 to P3) |
//! | `store` | a topic's bucket, as the core's leases need it (S3 to S5) |
//! | `consumer`, `removals` | consumers that are used once, their messages (S3), their removal |
//! | `reader`, `suspects` | reads past records that the client cannot take (S2) |
//! | `wire`, `headers` | envelopes as messages |
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
mod headers;
mod health;
mod in_flight;
mod labels;
mod late;
mod names;
mod producer;
mod reader;
mod removals;
mod store;
mod suspects;
mod tokens;
mod topics;
mod unsafe_streams;
mod wire;

pub use backend::NatsBackend;
pub use bus::NatsEventBus;
pub use config::{Auth, NatsConfig, REFUSED, Tls};
pub use wire::BINDING;
