//! The harness between a test and the bus, so that nothing happens unrecorded.
//!
//! A [`Node`] is one process: a [`Bus`](eventbus_core::Bus) of its own over a backend of its own, with everything on
//! both sides of the bus observed:
//!
//! ```text
//! test ──► Publisher ──► Bus ──► Observed backend ──► broker      offers and outcomes; commits, claims, losses
//!                         └───► RecordingHandler                  handler calls
//!                         └───► RecordingHook                     dead letters, skips, copies, resets, losses
//! ```
//!
//! No part of it depends on the backend. Faults are injected below [`Observed`]: by the memory backend's own facility,
//! a proxy, a signal. [`read_back`] reads the log and the committed positions afterwards, by a [`LogReader`]: a client
//! of the test's own where there is a broker, else a connection that the bus under test never had.
//!
//! A record is made before what it announces and after what it reports; a [`Process`] that was killed records nothing
//! more, and nothing that it still does reaches the broker.

mod handler;
mod hooks;
mod node;
mod observed;
mod process;
mod publisher;
mod reader;

pub use handler::{Act, Holding, RecordingHandler, Script, Step, steadily};
pub use hooks::RecordingHook;
pub use node::Node;
pub use observed::Observed;
pub use process::Process;
pub(crate) use process::lock;
pub use publisher::{Numbers, Outcome, Publisher};
pub use reader::{BackendReader, LogReader, ReadBack, envelope_of, read_back};
