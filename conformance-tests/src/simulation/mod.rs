//! The seeded simulation: the whole bus over the memory backend, on one thread with a paused clock, with everything
//! that chance decides drawn from one seed.
//!
//! [`simulate`] runs one schedule: processes that publish and handle, faults on both sides, a calm end in which
//! everything heals and is handled, and the judgement of the history. The same seed gives the same history, byte for
//! byte: time is tokio's paused clock, ids, jitter, latency and every decision come from generators that the seed
//! begins, and one thread takes tasks in the order in which they became ready.
//!
//! The faults that a schedule may meet are drawn, too (a schedule with all of them at once visits fewer odd corners
//! than many with a few each). [`Coverage`] counts in how many schedules each fault and each branch of the contract was
//! met.

mod chaos;
mod coverage;
mod dice;
mod plan;
mod real;
mod run;
mod script;
mod sim;
mod troubles;
mod watch;

pub use coverage::{BRANCHES, Coverage};
pub use dice::{Dice, SeededEnv};
pub use plan::{Options, Plan};
pub use real::{FileEvent, Folded, simulate_events};
pub use run::{Outcome, simulate};
