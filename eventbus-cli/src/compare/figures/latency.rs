//! Latencies, as percentiles.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::median::median;

/// Percentiles of a latency, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

const CURVE: [f64; 14] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];

/// Percentiles of many spans.
#[derive(Debug)]
pub(crate) struct Spans {
    pub(crate) latency: Latency,
    /// Curve: percentile, and microseconds.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Spans {
    /// Takes spans in nanoseconds, to three significant digits; `None` if there are none.
    pub(crate) fn of(nanos: impl Iterator<Item = u64>) -> Option<Self> {
        let mut histogram = Histogram::<u64>::new(3).ok()?;
        for span in nanos {
            // The histogram grows as it needs to.
            histogram.record(span).ok()?;
        }
        if histogram.is_empty() {
            return None;
        }
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let at = |percentile| micros(histogram.value_at_percentile(percentile));
        // Too few messages have no such percentile: a curve over a hundred of them ends before 99.9.
        let told =
            |percentile: &f64| *percentile == 100.0 || (100.0 - percentile) / 100.0 * histogram.len() as f64 >= 0.999;
        Some(Self {
            latency: Latency {
                p50: at(50.0),
                p90: at(90.0),
                p99: at(99.0),
                p999: at(99.9),
                max: micros(histogram.max()),
            },
            curve: CURVE.into_iter().filter(told).map(|percentile| (percentile, at(percentile))).collect(),
        })
    }
}

impl Latency {
    /// Returns each percentile's median over several runs.
    pub(crate) fn median(of: &[Self]) -> Option<Self> {
        let each = |pick: fn(&Self) -> f64| median(of.iter().map(pick));
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
        let spans = Spans::of((1..=1_000).map(|micros| micros * 1_000)).unwrap();
        let latency = spans.latency;
        assert!((latency.p50 - 500.0).abs() < 2.0, "{latency:?}");
        assert!((latency.p999 - 999.0).abs() < 2.0, "{latency:?}");
        assert!((latency.max - 1_000.0).abs() < 1.0, "{latency:?}");
        assert!(Spans::of(std::iter::empty()).is_none());
        let known: Vec<f64> = spans.curve.iter().map(|(percentile, _)| *percentile).collect();
        assert_eq!(known[known.len() - 2..], [99.9, 100.0]);
    }
}
