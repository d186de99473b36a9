//! [`Lease`]: until when an ownership holds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// The instant until which a backend vouches for an ownership. Shared between the backend, which extends it, and the
/// core, which reads it before every handler start (S5).
#[derive(Clone)]
pub struct Lease(Arc<LeaseInner>);

struct LeaseInner {
    base: Instant,
    /// Nanoseconds after `base`; 0 when revoked, `u64::MAX` without an end.
    until: AtomicU64,
}

impl Lease {
    /// A lease that holds until it is revoked.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::with(u64::MAX)
    }

    /// A lease until `deadline`.
    #[must_use]
    pub fn until(deadline: Instant) -> Self {
        let lease = Self::with(0);
        lease.extend(deadline);
        lease
    }

    fn with(until: u64) -> Self {
        Self(Arc::new(LeaseInner { base: Instant::now(), until: AtomicU64::new(until) }))
    }

    /// Moves the deadline forward, never back; count it from before the renewal was sent.
    pub fn extend(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.0.base).as_nanos();
        self.0.until.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Moves the deadline to this instant, also back: for a backend that can no longer vouch for as long as it said. Not to
    /// be called beside [`extend`](Self::extend) without a lock of the backend's own.
    pub fn end_at(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.0.base).as_nanos();
        self.0.until.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Ends the lease now. A later [`extend`](Self::extend) revives it, after a successful renewal in the same epoch.
    pub fn revoke(&self) {
        self.0.until.store(0, Ordering::Release);
    }

    /// Whether a handler may start now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.check(self.0.base).is_some()
    }

    /// The start check: when it was seen to hold; `None` where no handler may start. One without an end holds at `now` as
    /// at any time, and costs no look at the clock.
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
