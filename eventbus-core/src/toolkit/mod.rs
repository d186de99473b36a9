//! For authors of backends: what brokers of one kind have in common, so that a backend is only its broker.

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
