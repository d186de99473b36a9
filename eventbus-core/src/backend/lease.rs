//! Leases on partitions, until which an ownership holds: [`Lease`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// The instant until which a backend vouches for an ownership. The backend extends it, and the core reads it before
/// every handler start (S5); clones share it.
#[derive(Clone)]
pub struct Lease(Arc<LeaseInner>);

struct LeaseInner {
    base: Instant,
    /// Nanoseconds after `base`; 0 when revoked, `u64::MAX` without an end.
    until: AtomicU64,
}

impl Lease {
    /// Makes a lease that holds until it is revoked.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::with(u64::MAX)
    }

    /// Makes a lease until `deadline`.
    #[must_use]
    pub fn until(deadline: Instant) -> Self {
        let lease = Self::with(0);
        lease.extend(deadline);
        lease
    }

    fn with(until: u64) -> Self {
        Self(Arc::new(LeaseInner { base: Instant::now(), until: AtomicU64::new(until) }))
    }

    /// Moves the deadline forward, never back. The caller counts the deadline from before the renewal was sent.
    pub fn extend(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.0.base).as_nanos();
        self.0.until.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Moves the deadline to this instant, also back: for a backend that can no longer vouch for as long as it said.
    /// The backend must not call this beside [`extend`](Self::extend) without a lock of its own.
    pub fn end_at(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.0.base).as_nanos();
        self.0.until.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Ends the lease now. After a successful renewal in the same epoch, [`extend`](Self::extend) revives it.
    pub fn revoke(&self) {
        self.0.until.store(0, Ordering::Release);
    }

    /// Returns whether a handler may start now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.check(self.0.base).is_some()
    }

    /// Performs the start check: returns when the lease was seen to hold, or `None` where no handler may start. A lease
    /// without an end holds at `now` as at any time, and is answered without reading the clock.
    pub(crate) fn check(&self, now: Instant) -> Option<Instant> {
        match self.0.until.load(Ordering::Acquire) {
            u64::MAX => Some(now),
            0 => None,
            until => {
                let at = Instant::now();
                (at.saturating_duration_since(self.0.base).as_nanos() < u128::from(until)).then_some(at)
            }
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("valid", &self.is_valid()).finish()
    }
}
