//! Members of a group in processes of their own, which can be killed and frozen as the operating system does it.
//!
//! ```text
//! test ──► MemberProcess ──stdin──► bin/member ──► Bus ──► broker
//!                        ◄─stdout─                 └─► RecordingHandler ──► a file that survives kill -9
//! ```
//!
//! A [`MemberSpec`], plain data, says what a member does; the history in its file says what it did. Its standard input
//! ends with the test, and the member with it, so that no member outlives a killed test.

mod process;
mod program;
mod spec;

pub use process::{MemberError, MemberProcess};
pub use program::run;
pub use spec::{MemberSpec, Work};
