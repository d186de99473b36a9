//! Comparison of a report with an earlier one.
//!
//! Two figures differ only if the ranges of their rounds do not overlap. Any other difference may be due to the
//! machine.

use serde::Serialize;

use super::figures::{Client, Summary};

/// Change of one workload on one backend.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) workload: String,
    pub(crate) backend: String,
    pub(crate) client: Client,
    pub(crate) handled_per_second_before: f64,
    pub(crate) handled_per_second: f64,
    /// Rate now as a multiple of the rate before.
    pub(crate) ratio: f64,
    /// Whether there are ranges, and they do not overlap.
    pub(crate) is_certain: bool,
    /// Latency from publish to handle, the 99th percentile in microseconds.
    pub(crate) p99_before_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
}

impl Change {
    fn of(before: &Summary, now: &Summary) -> Self {
        let rounds = |one: &Summary| one.run.round > 1;
        let p99 = |one: &Summary| one.run.publish_to_handle_us.map(|latency| latency.p99);
        Self {
            workload: now.run.workload.clone(),
            backend: now.run.backend.clone(),
            client: now.run.client,
            handled_per_second_before: before.run.handled_per_second,
            handled_per_second: now.run.handled_per_second,
            ratio: now.run.handled_per_second / before.run.handled_per_second.max(f64::MIN_POSITIVE),
            is_certain: rounds(before) && rounds(now) && before.handled_range.is_apart_from(now.handled_range),
            p99_before_us: p99(before),
            p99_us: p99(now),
        }
    }

    /// Returns the verdict in words.
    pub(crate) const fn word(&self) -> &'static str {
        match (self.is_certain, self.ratio > 1.0) {
            (false, _) => "no difference that is sure",
            (true, true) => "faster",
            (true, false) => "slower",
        }
    }
}

/// Returns the changes of the workloads and backends that both reports have, in the order of `now`.
pub(crate) fn changes(before: &[Summary], now: &[Summary]) -> Vec<Change> {
    let same = |now: &&Summary, before: &&Summary| {
        let of = |one: &Summary| (one.run.workload.clone(), one.run.backend.clone(), one.run.client);
        of(now) == of(before)
    };
    let found = now.iter().filter_map(|now| {
        let before = before.iter().find(|before| same(&now, before))?;
        Some(Change::of(before, now))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::figures::{Range, Run};

    fn rounds(rates: &[f64]) -> Summary {
        let run = |rate: &f64| Run { handled_per_second: *rate, workload: "w".into(), ..Run::default() };
        Summary::of(&rates.iter().map(run).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn only_ranges_that_are_apart_differ() {
        let before = rounds(&[10.0, 11.0, 12.0]);
        for (now, word) in [
            (rounds(&[13.0, 14.0, 15.0]), "faster"),
            (rounds(&[7.0, 8.0, 9.0]), "slower"),
            (rounds(&[11.5, 14.0, 15.0]), "no difference that is sure"),
            (rounds(&[99.0]), "no difference that is sure"),
        ] {
            assert_eq!(Change::of(&before, &now).word(), word);
        }
        assert_eq!(before.handled_range, Range { min: 10.0, max: 12.0 });
    }
}
