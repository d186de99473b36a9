//! The Kafka backend: partitions as they are, an idempotent producer that resolves what it sent, a consumer group whose
//! hand-overs wait for the drain.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
