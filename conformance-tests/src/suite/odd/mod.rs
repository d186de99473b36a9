//! Odd records and operators: what others store, or do to a topic, stops no key in silence.

pub(super) mod ends;
mod foreign;
pub(super) mod front_door;
pub(super) mod headers;
pub(super) mod losses;
pub(super) mod operators;
pub(super) mod records;
pub(super) mod refusals;
pub(super) mod told;
