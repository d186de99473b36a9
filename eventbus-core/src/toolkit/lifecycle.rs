//! Life of a backend from opening to closing: the state that opening makes, and the members that leave before it
//! closes.
//!
//! Invariant: no member joins after all were made to leave.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use futures_util::future::join_all;

use crate::backend::Membership;
use crate::model::{Error, ErrorKind, Result};
use crate::runtime::Mutex;

/// Makes the error of calls to a closed backend.
#[must_use]
pub fn error_closed() -> Error {
    Error::closed("backend")
}

/// State that [`open`](crate::backend::Backend::open) makes, such as a connection, and that every other call needs.
///
/// ```
/// use std::sync::Arc;
/// use eventbus_core::ErrorKind;
/// use eventbus_core::toolkit::Opened;
///
/// let connection = Opened::default();
/// assert_eq!(connection.get().unwrap_err().kind(), ErrorKind::Unavailable);
/// connection.set(Arc::new("connected"))?;
/// assert_eq!(**connection.get()?, "connected");
/// assert!(connection.set(Arc::new("again")).is_err());
/// # Ok::<(), eventbus_core::Error>(())
/// ```
pub struct Opened<T>(OnceLock<Arc<T>>);

impl<T> Default for Opened<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> fmt::Debug for Opened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Opened" } else { "NotOpened" })
    }
}

impl<T> Opened<T> {
    /// Returns the state.
    ///
    /// # Errors
    /// `Unavailable` before the backend is opened.
    pub fn get(&self) -> Result<&Arc<T>> {
        self.0.get().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the backend was not opened"))
    }

    /// Keeps the state.
    ///
    /// # Errors
    /// `Backend` where the backend was opened before; the first state stays.
    pub fn set(&self, made: Arc<T>) -> Result<()> {
        self.0.set(made).map_err(|_| Error::new(ErrorKind::Backend, "the backend was opened twice"))
    }
}

/// Members of a backend that must leave before it closes. None of them is kept alive by this.
///
/// ```
/// use std::sync::Arc;
/// use eventbus_core::backend::Membership;
/// use eventbus_core::toolkit::Members;
///
/// async fn example<M: Membership>(members: &Members<M>, member: M) -> eventbus_core::Result<Arc<M>> {
///     let joined = members.join(|| Ok(member))?;
///     // In the backend's `close`:
///     members.leave().await;
///     Ok(joined)
/// }
/// ```
pub struct Members<M>(Mutex<Option<Vec<Weak<M>>>>);

impl<M> Default for Members<M> {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl<M> fmt::Debug for Members<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

impl<M: Membership> Members<M> {
    /// Makes a member, under the lock that [`leave`](Self::leave) takes: `make` must not block.
    ///
    /// # Errors
    /// `Closed` once all were made to leave; the error of `make`.
    pub fn join(&self, make: impl FnOnce() -> Result<M>) -> Result<Arc<M>> {
        let mut members = self.0.lock();
        let members = members.as_mut().ok_or_else(error_closed)?;
        let member = Arc::new(make()?);
        members.retain(|known| known.strong_count() > 0);
        members.push(Arc::downgrade(&member));
        Ok(member)
    }

    /// Lets all members that still exist leave, at once, and waits for them, so that no group waits for a session to
    /// expire. An error of one does not keep the others. After a cancelled call some may not have left, but none joins.
    pub async fn leave(&self) {
        let members = self.0.lock().take().unwrap_or_default();
        let leaving = members.iter().filter_map(Weak::upgrade).map(|member| async move { member.leave().await });
        join_all(leaving).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::backend::{Commit, GroupEvent, LogState};
    use crate::model::Position;

    /// Counts how often it was made to leave.
    #[derive(Debug, Default)]
    struct Counting(Arc<AtomicUsize>);

    #[async_trait]
    impl Membership for Counting {
        async fn next(&self) -> Result<GroupEvent> {
            Err(error_closed())
        }

        async fn read(&self, _: u32, _: Position) -> Result<LogState> {
            Err(error_closed())
        }

        fn pause(&self, _: u32) {}

        fn resume(&self, _: u32) {}

        async fn commit(&self, _: Commit) -> Result<()> {
            Err(error_closed())
        }

        async fn release(&self, _: u32) -> Result<()> {
            Err(error_closed())
        }

        async fn leave(&self) -> Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(error_closed())
        }
    }

    #[tokio::test]
    async fn those_that_are_there_leave_once_and_none_joins_any_more() {
        let (members, left) = (Members::default(), Arc::new(AtomicUsize::new(0)));
        let join = || members.join(|| Ok(Counting(Arc::clone(&left))));
        let (_one, _two) = (join().unwrap(), join().unwrap());
        drop(join().unwrap());
        assert!(members.join(|| Err(Error::new(ErrorKind::Backend, "no"))).is_err());
        members.leave().await;
        assert_eq!(left.load(Ordering::Relaxed), 2);
        assert_eq!(join().unwrap_err().kind(), ErrorKind::Closed);
        members.leave().await;
        assert_eq!(left.load(Ordering::Relaxed), 2);
    }
}
