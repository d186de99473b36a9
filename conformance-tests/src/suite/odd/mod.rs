//! Odd records and operators: what others write into a log, and what happens to a topic around a bus.

pub(super) mod front_door;
