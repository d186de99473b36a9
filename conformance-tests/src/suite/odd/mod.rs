//! Odd records and operators: what others store, or do to a topic, stops no key in silence.

pub(super) mod ends;
pub(super) mod front_door;
pub(super) mod refusals;
