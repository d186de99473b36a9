//! Second copies recognised.

mod ids;
mod stamps;

pub(crate) use ids::RecentIds;
pub(crate) use stamps::{Sighting, StampWindow};
