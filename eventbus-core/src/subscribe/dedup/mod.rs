//! Second copies, told from first ones: by stamp always (P3), by source and id where a subscription asks for that.

mod ids;
mod stamps;

pub(crate) use ids::RecentIds;
pub(crate) use stamps::{Sighting, StampWindow};
