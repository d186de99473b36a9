//! Figures of a comparison: a [`Run`], and the [`Summary`] of several.

mod latency;
mod median;

use serde::{Deserialize, Serialize};

pub(crate) use self::latency::{Latency, Spans};
use self::median::{confidence, median};

/// Client that published and handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Client {
    #[default]
    Bus,
    /// The backend's own client library, pipelined as far as it goes: the measure of what the bus costs.
    Bare,
}

impl Client {
    /// Returns the client's name in tables, on this backend.
    pub(crate) fn on(self, backend: &str) -> String {
        match self {
            Self::Bus => backend.to_owned(),
            Self::Bare => format!("{backend}, bare"),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) backend: String,
    pub(crate) client: Client,
    /// Number of the round, from 1 on; in a summary, how many rounds there were.
    pub(crate) round: usize,
    pub(crate) messages: usize,
    pub(crate) confirmed: usize,
    pub(crate) handled: usize,
    /// Time from the first publish to the last handled message.
    pub(crate) seconds: f64,
    pub(crate) published_per_second: f64,
    pub(crate) handled_per_second: f64,
    pub(crate) publish_to_confirm_us: Option<Latency>,
    pub(crate) publish_to_handle_us: Option<Latency>,
    pub(crate) order_violations: usize,
    pub(crate) duplicates: usize,
    pub(crate) losses: usize,
    pub(crate) failed_publishes: usize,
    /// Deliveries of messages that were never published, or not with these bytes.
    pub(crate) foreign: usize,
    /// CPU time of the whole process, publishers and the check included.
    pub(crate) cpu_us_per_message: f64,
    /// Resident memory before the run, with its messages and with what earlier runs left in the allocator.
    pub(crate) start_memory_bytes: Option<u64>,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) peak_tasks: usize,
    /// Check that the run had, and its rules.
    pub(crate) check: String,
    /// How the run differs, on this backend, from what the workload asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// Time as a multiple of another time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to: Option<String>,
    /// The oracle's first violations of each rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) violations: Vec<String>,
    /// Data of the plots; only in a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<Detail>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Detail {
    /// Curve of the latency from publish to confirm: percentile, and microseconds.
    pub(crate) to_confirm: Vec<(f64, f64)>,
    /// Curve of the latency from publish to handle.
    pub(crate) to_handle: Vec<(f64, f64)>,
    pub(crate) over_time: Vec<Moment>,
    pub(crate) partitions: Vec<Share>,
}

/// Piece of a run's time: the latency from publish to handle, in microseconds, of the messages handled in it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// The middle of the piece, in seconds since the first publish.
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Share of one partition in a run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) topic: u32,
    pub(crate) partition: u32,
    pub(crate) messages: usize,
    /// Latency from publish to handle, in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Run {
    pub(crate) fn compared_to(&mut self, what: &str, ratio: f64) {
        self.ratio = Some(ratio);
        self.ratio_to = Some(what.to_owned());
    }

    /// Whether nothing was refuted, lost or refused.
    pub(crate) fn is_well(&self) -> bool {
        let counts = [self.order_violations, self.duplicates, self.losses, self.failed_publishes, self.foreign];
        counts == [0; 5] && self.violations.is_empty()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Range {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        Self { min: values.clone().fold(f64::INFINITY, f64::min), max: values.fold(0.0, f64::max) }
    }

    /// Returns whether the two ranges do not overlap.
    pub(crate) fn is_apart_from(self, other: Self) -> bool {
        self.max < other.min || other.max < self.min
    }
}

/// Summary of the rounds of one workload on one backend: medians of the measured figures, sums of the faults, the
/// highest of the peaks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    #[serde(flatten)]
    pub(crate) run: Run,
    pub(crate) published_range: Range,
    pub(crate) handled_range: Range,
    /// Confidence that the true median of `handled_per_second` lies within its range; `None` for a single round.
    pub(crate) confidence: Option<f64>,
    /// Handled per second as a multiple of the same client's on the first backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of_first_backend: Option<f64>,
    /// Handled per second as a multiple of the same backend's bare client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of_bare_client: Option<f64>,
}

impl Summary {
    pub(crate) fn of(runs: &[Run]) -> Option<Self> {
        let middle = |pick: fn(&Run) -> f64| median(runs.iter().map(pick)).unwrap_or_default();
        let sum = |pick: fn(&Run) -> usize| runs.iter().map(pick).sum();
        let latency =
            |pick: fn(&Run) -> Option<Latency>| Latency::median(&runs.iter().filter_map(pick).collect::<Vec<_>>());
        let seconds = middle(|run| run.seconds);
        // The plots are those of the round nearest to the median time.
        let nearest =
            |one: &&Run, other: &&Run| (one.seconds - seconds).abs().total_cmp(&(other.seconds - seconds).abs());
        let typical = runs.iter().min_by(nearest)?;
        let run = Run {
            round: runs.len(),
            seconds,
            published_per_second: middle(|run| run.published_per_second),
            handled_per_second: middle(|run| run.handled_per_second),
            cpu_us_per_message: middle(|run| run.cpu_us_per_message),
            publish_to_confirm_us: latency(|run| run.publish_to_confirm_us),
            publish_to_handle_us: latency(|run| run.publish_to_handle_us),
            confirmed: runs.iter().map(|run| run.confirmed).min().unwrap_or_default(),
            handled: runs.iter().map(|run| run.handled).min().unwrap_or_default(),
            order_violations: sum(|run| run.order_violations),
            duplicates: sum(|run| run.duplicates),
            losses: sum(|run| run.losses),
            failed_publishes: sum(|run| run.failed_publishes),
            foreign: sum(|run| run.foreign),
            peak_memory_bytes: runs.iter().filter_map(|run| run.peak_memory_bytes).max(),
            peak_tasks: runs.iter().map(|run| run.peak_tasks).max().unwrap_or_default(),
            ratio: median(runs.iter().filter_map(|run| run.ratio)),
            violations: runs.iter().flat_map(|run| run.violations.clone()).take(20).collect(),
            ..typical.clone()
        };
        Some(Self {
            published_range: Range::of(runs.iter().map(|run| run.published_per_second)),
            handled_range: Range::of(runs.iter().map(|run| run.handled_per_second)),
            confidence: confidence(runs.len()),
            of_first_backend: None,
            of_bare_client: None,
            run,
        })
    }

    /// Relates each summary of one workload to the first backend and to its own bare client.
    pub(crate) fn relate(of_workload: &mut [Self]) {
        let rates: Vec<(String, Client, f64)> = of_workload
            .iter()
            .map(|one| (one.run.backend.clone(), one.run.client, one.run.handled_per_second))
            .collect();
        let Some((first, ..)) = rates.first().cloned() else { return };
        let rate = |backend: &str, client| {
            rates.iter().find(|(of, by, _)| of == backend && *by == client).map(|(.., rate)| *rate)
        };
        for one in of_workload {
            let Run { backend, client, handled_per_second: handled, .. } = &one.run;
            if *backend != first {
                one.of_first_backend = rate(&first, *client).map(|first| handled / first);
            }
            if *client == Client::Bus {
                one.of_bare_client = rate(backend, Client::Bare).map(|bare| handled / bare);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_hides_nothing_that_went_wrong() {
        let run = |seconds, losses| Run { seconds, losses, ..Run::default() };
        let summary = Summary::of(&[run(1.0, 0), run(9.0, 1), run(2.0, 0)]).unwrap().run;
        assert_eq!((summary.seconds, summary.losses, summary.round), (2.0, 1, 3));
        assert!(!summary.is_well());
    }

    #[test]
    fn ratios_are_to_the_first_backend_and_to_the_own_bare_client() {
        let one = |backend: &str, client, handled_per_second| {
            let run = Run { backend: backend.into(), client, handled_per_second, ..Run::default() };
            Summary::of(&[run]).unwrap()
        };
        let mut all = [
            one("a", Client::Bus, 10.0),
            one("a", Client::Bare, 20.0),
            one("b", Client::Bus, 30.0),
            one("b", Client::Bare, 40.0),
        ];
        Summary::relate(&mut all);
        let told = all.map(|one| (one.of_first_backend, one.of_bare_client));
        assert_eq!(told, [(None, Some(0.5)), (None, None), (Some(3.0), Some(0.75)), (Some(2.0), None)]);
    }
}
