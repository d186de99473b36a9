//! Priority 0: order and loss under fault.

pub(super) mod broker;
pub(super) mod churn;
pub(super) mod config;
pub(super) mod failure;
pub(super) mod log;
pub(super) mod members;
pub(super) mod mutants;
pub(super) mod order;
pub(super) mod outage;
pub(super) mod progress;
pub(super) mod publish;
pub(super) mod shutdown;
