//! Publishing.

mod batch_confirmation;
mod budget;
mod completion;
mod config;
mod confirmation;
mod lanes;
mod layer;
mod seal;
mod telemetry;

pub use batch_confirmation::{BatchConfirmation, BatchOutcome, BatchPublishing, StoredPrefix};
pub(crate) use config::PublishConfig;
pub use confirmation::{Confirmation, Publishing};
pub(crate) use lanes::Lanes;
pub use layer::{Publish, PublishLayer};
pub(crate) use telemetry::Traced;
