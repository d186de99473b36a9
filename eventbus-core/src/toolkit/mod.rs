//! Toolkit for authors of backends: the parts that brokers of one kind have in common, so that a backend is only about
//! its broker.
//!
//! Nothing in the engine imports this module; it stands on the [interface](crate::backend) alone.
//!
//! | a broker that | uses |
//! |---|---|
//! | hands out no partitions, and has small records with compare-and-swap | [`lease`]: members, leases, hand-over, numbered reads, descriptions of groups |
//! | has a coordinator that assigns partitions, and a client that is polled | [`coordinated`]: hand-over that is answered late, leases by accepted commits, logs told apart by fingerprints |
//! | has a client that pipelines until its first failure | [`pipeline`]: the choice of a record's client, its replacement, refused batches narrowed down to their culprit |
//! | answers at any time | [`Members`] and [`Opened`]: the state that opening makes, and the members that leave before closing |
//! | has settings | [`settings!`](crate::settings), [`settings`] and [`credentials`]: declared once, checked, secrets never printed |
//! | keeps topics and groups under a prefix | [`names_under`], [`remove_each`], [`wait_until_gone`], [`poll_until`] |
//! | has a connection that comes and goes | [`Connectivity`], [`OnConnection`], [`client_statistics`]; [`OwnThread`] where its client needs a thread |

mod admin;
mod connectivity;
pub mod coordinated;
pub mod credentials;
pub mod lease;
mod lifecycle;
pub mod pipeline;
pub mod settings;

pub use crate::runtime::{OwnThread, poll_until, poll_until_blocking};
pub use admin::{names_under, remove_each, wait_until_gone};
pub use connectivity::{Connectivity, OnConnection, client_statistics};
pub use lifecycle::{Members, Opened, error_closed};
