//! Latencies, as percentiles.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Percentiles of a latency, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of these spans in nanoseconds, to three digits; none where there are none.
    pub(crate) fn of(nanos: impl Iterator<Item = u64>) -> Option<Self> {
        let mut histogram = Histogram::<u64>::new(3).ok()?;
        for span in nanos {
            // It grows as it needs to.
            histogram.record(span).ok()?;
        }
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(histogram.max()),
        })
    }

    /// Each percentile's median over several runs.
    pub(crate) fn median(of: &[Self]) -> Option<Self> {
        let each = |pick: fn(&Self) -> f64| super::report::median(of.iter().map(pick));
        Some(Self {
            p50: each(|one| one.p50)?,
            p90: each(|one| one.p90)?,
            p99: each(|one| one.p99)?,
            p999: each(|one| one.p999)?,
            max: each(|one| one.max)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_spans() {
        let latency = Latency::of((1..=1_000).map(|micros| micros * 1_000)).unwrap();
        assert!((latency.p50 - 500.0).abs() < 2.0, "{latency:?}");
        assert!((latency.p999 - 999.0).abs() < 2.0, "{latency:?}");
        assert!((latency.max - 1_000.0).abs() < 1.0, "{latency:?}");
        assert!(Latency::of(std::iter::empty()).is_none());
    }
}
