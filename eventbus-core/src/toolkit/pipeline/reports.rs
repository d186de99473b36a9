//! Reports of a client on its records: [`DeliveryReports`].

use std::fmt;

use super::failure::DeliveryError;
use crate::model::Position;

/// Receiver of a client's reports, on the side of the producer.
pub(super) trait TakeReports: Send + Sync {
    /// Does as [`DeliveryReports::told`] says.
    fn told(&self, index: usize, result: Result<Position, DeliveryError>);

    /// Does as [`DeliveryReports::over`] says.
    fn over(&self);
}

/// Entry for one client's reports, from any thread but not from inside [`Pipeline::give`](super::Pipeline::give).
/// Reports after the producer or the client's line is gone are ignored.
pub struct DeliveryReports(Box<dyn TakeReports>);

impl DeliveryReports {
    pub(super) fn new(to: impl TakeReports + 'static) -> Self {
        Self(Box::new(to))
    }

    /// Reports the record that was given under this index: its position, or what went wrong. Records of a partition
    /// must be reported as stored in their order. Does not block; tells tickets on this thread, and gives the records
    /// that may follow now.
    pub fn told(&self, index: usize, result: Result<Position, DeliveryError>) {
        self.0.told(index, result);
    }

    /// Reports that the client will get no further, for no fault of a record: it is ended and replaced as after a
    /// failure, and its unreported records count as perhaps stored. Does not block.
    pub fn over(&self) {
        self.0.over();
    }
}

impl fmt::Debug for DeliveryReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryReports").finish_non_exhaustive()
    }
}
