//! Priority 1: flow, keys, publishing, handlers, life cycle and retention.

pub(super) mod flow;
pub(super) mod handlers;
pub(super) mod keys;
pub(super) mod life;
pub(super) mod publishing;
pub(in crate::suite) mod retention;
