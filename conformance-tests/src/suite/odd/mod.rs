//! Odd records and operators: what is stored or done by others stops no key in silence.

pub(super) mod ends;
pub(super) mod refusals;
