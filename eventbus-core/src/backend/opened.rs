//! What a backend has only once it is open.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};

/// What [`open`](super::Backend::open) makes, such as a connection, and every other call needs.
///
/// ```
/// use std::sync::Arc;
/// use eventbus_core::ErrorKind;
/// use eventbus_core::backend::Opened;
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
    /// What was made.
    ///
    /// # Errors
    /// `Unavailable` before.
    pub fn get(&self) -> Result<&Arc<T>> {
        self.0.get().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the backend was not opened"))
    }

    /// Keeps what was made.
    ///
    /// # Errors
    /// `Backend` where something was made before; that stays.
    pub fn set(&self, made: Arc<T>) -> Result<()> {
        self.0.set(made).map_err(|_| Error::new(ErrorKind::Backend, "the backend was opened twice"))
    }
}
