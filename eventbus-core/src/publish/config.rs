//! The settings of publishing: [`PublishConfig`].

use std::time::Duration;

use crate::model::Result;
use crate::mutant::Seam;
use crate::validate::{invalid, within};

/// The settings of the publishing side. [`BusConfig`](crate::BusConfig) explains each.
#[derive(Debug, Clone)]
pub(crate) struct PublishConfig {
    pub(crate) budget_envelopes: usize,
    pub(crate) budget_bytes: usize,
    pub(crate) share: usize,
    pub(crate) waiting_limit: usize,
    pub(crate) sealed_limit: usize,
    pub(crate) retry_first: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) partitions: Option<u32>,
    pub(crate) recount: Duration,
    pub(crate) notice_after: Duration,
    pub(crate) seam: Seam,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            budget_envelopes: 10_000,
            budget_bytes: 64 << 20,
            share: 8,
            waiting_limit: 100_000,
            sealed_limit: 10_000,
            retry_first: Duration::from_millis(20),
            retry_max: Duration::from_secs(1),
            partitions: None,
            recount: Duration::from_secs(30),
            notice_after: Duration::from_secs(5),
            seam: Seam::default(),
        }
    }
}

impl PublishConfig {
    /// Checks every value (S8).
    pub(crate) fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("budget_envelopes", self.budget_envelopes),
            ("budget_bytes", self.budget_bytes),
            ("share", self.share),
            ("waiting_limit", self.waiting_limit),
            ("sealed_limit", self.sealed_limit),
        ] {
            within(name, &value, 1..)?;
        }
        if self.partitions == Some(0) {
            return Err(invalid("partitions", "expected at least 1"));
        }
        if self.recount.is_zero() {
            return Err(invalid("recount", "expected more than zero"));
        }
        if self.notice_after.is_zero() {
            return Err(invalid("notice_after", "expected more than zero"));
        }
        if self.retry_first.is_zero() || self.retry_max < self.retry_first {
            return Err(invalid("resend_backoff", "expected more than zero, and the first wait not above the longest"));
        }
        Ok(())
    }
}
