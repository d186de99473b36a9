//! Faults on demand: what networks, brokers and processes do to a bus, one call each.
//!
//! A fault is either *armed* for submissions or commits to come, within a [`Scope`], or done *at once* to a connection,
//! a member, a topic or the broker. Each one that takes effect is told to the observers before its effect can be seen.
//!
//! ```
//! use eventbus_memory::{MemoryWorld, Scope, SubmitFault};
//!
//! let world = MemoryWorld::new();
//! let faults = world.faults();
//! faults.on_fault(|fault| println!("{fault}"));
//! // The third submission of this key is stored, and its confirmation lost.
//! faults.submit(SubmitFault::LoseConfirmation, Scope::topic("orders").key("order-42").nth(3));
//! // The broker takes no dead letters until further notice.
//! let down = faults.submit(SubmitFault::NotStored, Scope::topic("orders.billing.dead").always());
//! faults.disarm(down);
//! ```

mod armed;
mod event;
mod handle;
mod scope;

pub(crate) use self::armed::Armed;
pub use self::armed::{CommitFault, OnCut, SubmitFault};
pub(crate) use self::event::Observer;
pub use self::event::{FaultEvent, FaultKind, FaultPlace};
pub use self::handle::Faults;
pub use self::scope::{FaultId, Scope};
