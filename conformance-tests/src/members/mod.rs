//! Members of a group in processes of their own, which can be killed and frozen as the operating system does it.
//!
//! ```text
//! test ──► MemberProcess ──stdin──► bin/member ──► Bus ──► broker
//!                        ◄─stdout─                 └─► RecordingHandler ──► a file that survives kill -9
//! ```
//!
//! What a member does is told by a [`MemberSpec`], plain data; what it did is the history in its file. Its standard input
//! ends with the test, and the member with it, so that none outlives a test that was killed.

mod process;
mod program;
mod spec;

pub use process::{MemberError, MemberProcess};
pub use program::run;
pub use spec::{MemberSpec, Work};
