//! Second copies: found by stamp always (P3), by source and id where a subscription asks for it.

mod ids;
mod stamps;

pub(crate) use ids::RecentIds;
pub(crate) use stamps::{Sighting, StampWindow};
