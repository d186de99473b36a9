//! Priority 2: the plain contract.

pub(super) mod answers;
pub(super) mod content;
pub(super) mod wire;
