//! Publishing.

mod batch_confirmation;
pub(crate) mod budget;
mod budget_gate;
pub(crate) mod budget_limits;
mod completion;
mod confirmation;
mod lanes;
mod layer;
mod seal;

pub use batch_confirmation::{BatchConfirmation, BatchOutcome, BatchPublishing, StoredPrefix};
pub use confirmation::{Confirmation, Publishing, Receipt, Withdrawal};
pub(crate) use lanes::Lanes;
pub use layer::{HandleLayer, Publish, PublishLayer};
