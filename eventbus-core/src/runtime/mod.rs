//! The ground of the engine: time of day and randomness ([`Env`]), locks that a schedule explorer can take over, a
//! thread with a runtime of its own, polling, and waits between tries.

mod backoff;
mod env;
mod poll;
pub(crate) mod sync;
mod thread;

pub(crate) use backoff::Waits;
pub use backoff::{Backoff, BackoffError, Jitter};
pub use env::{Env, SystemEnv};
pub use poll::{poll_until, poll_until_blocking};
pub(crate) use sync::{Mutex, RwLock};
pub use thread::OwnThread;
