//! For authors of backends: what brokers of one kind have in common, so that a backend is only its broker.

mod admin;
mod connectivity;
pub mod coordinated;
pub mod credentials;
pub mod lease;
mod lifecycle;
pub mod pipeline;
pub mod settings;

pub use crate::runtime::{OwnThread, patiently, settled};
pub use admin::{gone, own, remove_each};
pub use connectivity::{Connectivity, OnConnection, client_statistics};
pub use lifecycle::{Members, Opened, closed};
