//! Second copies recognised.

mod ids;
mod stamps;

pub(crate) use ids::Names;
pub(crate) use stamps::{Sighting, StampWindow};
