//! How a client reports what became of its records: [`DeliveryReports`].

use std::fmt;

use super::failure::DeliveryError;
use crate::model::Position;

/// The end of a client's reports, on the side of the producer.
pub(super) trait TakeReports: Send + Sync {
    /// As [`DeliveryReports::told`].
    fn told(&self, index: usize, result: Result<Position, DeliveryError>);

    /// As [`DeliveryReports::over`].
    fn over(&self);
}

/// Takes one client's reports, from any thread but not from inside [`Pipeline::give`](super::Pipeline::give). What comes after
/// the producer or the client's line is gone counts for nothing.
pub struct DeliveryReports(Box<dyn TakeReports>);

impl DeliveryReports {
    pub(super) fn new(to: impl TakeReports + 'static) -> Self {
        Self(Box::new(to))
    }

    /// What became of the record that was given under this index: where it is stored, or what went wrong. Records of a partition
    /// are reported as stored in their order. Does not block; tickets are told on this thread, and what may follow now is given.
    pub fn told(&self, index: usize, result: Result<Position, DeliveryError>) {
        self.0.told(index, result);
    }

    /// The client will get no further, for no fault of a record: it is ended and replaced as after a failure, and what it has not
    /// reported counts as perhaps stored. Does not block.
    pub fn over(&self) {
        self.0.over();
    }
}

impl fmt::Debug for DeliveryReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}
