//! Clock of a run: when each message was offered, confirmed and handled. The bus and the bare clients use the same one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::figures::{Detail, Moment, Run, Share, Spans};
use super::workloads::Plan;

/// Value of a time that is not set. All times are nanoseconds since the clock was made.
const NEVER: u64 = u64::MAX;
/// Value of a partition that is not set.
const NOWHERE: u32 = u32::MAX;
/// Number of pieces into which a run's time is cut to show latency over it.
const PIECES: u64 = 60;

/// Times of a run's messages. Publishers and handlers write them concurrently.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    offered_at: Vec<AtomicU64>,
    confirmed_at: Vec<AtomicU64>,
    handled_at: Vec<AtomicU64>,
    partition: Vec<AtomicU32>,
}

impl Clock {
    pub(crate) fn new(messages: usize) -> Self {
        let times = || (0..messages).map(|_| AtomicU64::new(NEVER)).collect();
        Self {
            origin: Instant::now(),
            offered_at: times(),
            confirmed_at: times(),
            handled_at: times(),
            partition: (0..messages).map(|_| AtomicU32::new(NOWHERE)).collect(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.nanos(Instant::now())
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(NEVER - 1)
    }

    /// Sets a message's offer, just before its publish. `due` is its time in the timetable, if the publisher is behind
    /// that.
    pub(crate) fn offered(&self, index: usize, due: Option<Instant>) {
        let at = due.map_or_else(|| self.now(), |due| self.nanos(due));
        self.offered_at[index].store(at, Ordering::Relaxed);
    }

    /// Sets a message's confirmation.
    pub(crate) fn confirmed(&self, index: usize) {
        self.confirmed_at[index].store(self.now(), Ordering::Relaxed);
    }

    /// Sets the end of a message's handling. Returns whether it was the first.
    pub(crate) fn handled(&self, index: usize, partition: u32, at: Instant) -> bool {
        self.partition[index].store(partition, Ordering::Relaxed);
        self.handled_at[index].swap(self.nanos(at), Ordering::AcqRel) == NEVER
    }

    pub(crate) fn was_handled(&self, index: usize) -> bool {
        self.handled_at[index].load(Ordering::Relaxed) != NEVER
    }

    pub(crate) fn was_confirmed(&self, index: usize) -> bool {
        self.confirmed_at[index].load(Ordering::Relaxed) != NEVER
    }

    fn first(&self) -> u64 {
        self.offered_at.iter().map(|at| at.load(Ordering::Relaxed)).min().unwrap_or_default()
    }

    pub(crate) fn publishing(&self) -> Duration {
        let last = self.confirmed_at.iter().filter_map(known).max();
        Duration::from_nanos(last.map_or(0, |last| last.saturating_sub(self.first())))
    }

    /// Returns the time from the first publish, or from `began`, to the last handled message among those that are
    /// `counted`.
    pub(crate) fn handling(&self, began: Option<u64>, counted: impl Fn(usize) -> bool) -> Duration {
        let last = (0..self.handled_at.len()).filter(|index| counted(*index));
        let last = last.filter_map(|index| known(&self.handled_at[index])).max();
        Duration::from_nanos(last.map_or(0, |last| last.saturating_sub(began.unwrap_or_else(|| self.first()))))
    }

    /// Returns the latencies from offer to confirmation, of all confirmed messages.
    fn to_confirm(&self) -> Option<Spans> {
        Spans::of(spans(&self.offered_at, &self.confirmed_at).map(|(_, span)| span))
    }

    /// Returns the latencies from offer to the end of handling, of all handled messages.
    fn to_handle(&self) -> Option<Spans> {
        Spans::of(spans(&self.offered_at, &self.handled_at).map(|(_, span)| span))
    }

    /// Writes the clock's figures into a run. `began` is as in [`handling`](Self::handling), which gave the time.
    pub(crate) fn tell(&self, run: &mut Run, plan: &Plan, began: Option<u64>, handling: Duration) {
        let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        run.seconds = handling.as_secs_f64();
        run.published_per_second = rate(run.confirmed, self.publishing());
        run.handled_per_second = rate(run.handled, handling);
        run.publish_to_confirm_us = self.to_confirm().map(|spans| spans.latency);
        run.publish_to_handle_us = self.to_handle().filter(|_| began.is_none()).map(|spans| spans.latency);
        run.detail = Some(self.detail(plan, began.is_some()));
    }

    /// Returns the data of the plots. With a log that was filled beforehand, latency to handle says nothing and is left
    /// out.
    fn detail(&self, plan: &Plan, prefilled: bool) -> Detail {
        Detail {
            to_confirm: self.to_confirm().map(|spans| spans.curve).unwrap_or_default(),
            to_handle: self.to_handle().filter(|_| !prefilled).map(|spans| spans.curve).unwrap_or_default(),
            over_time: if prefilled { Vec::new() } else { self.over_time() },
            partitions: self.partitions(plan),
        }
    }

    /// Returns the latency over the run's time, in pieces, by when messages were handled.
    fn over_time(&self) -> Vec<Moment> {
        let first = self.first();
        let last = self.handled_at.iter().filter_map(known).max().unwrap_or(first);
        let piece = (last - first) / PIECES + 1;
        let mut pieces: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (offered, span) in spans(&self.offered_at, &self.handled_at) {
            pieces.entry((offered + span - first) / piece).or_default().push(span);
        }
        let moment = |(number, spans): (u64, Vec<u64>)| {
            let latency = Spans::of(spans.into_iter())?.latency;
            let seconds = (number as f64 + 0.5) * piece as f64 / 1e9;
            Some(Moment { seconds, p50: latency.p50, p99: latency.p99, max: latency.max })
        };
        pieces.into_iter().filter_map(moment).collect()
    }

    fn partitions(&self, plan: &Plan) -> Vec<Share> {
        let mut spans: BTreeMap<(u32, u32), Vec<u64>> = BTreeMap::new();
        for (index, item) in plan.items.iter().enumerate() {
            let partition = self.partition[index].load(Ordering::Relaxed);
            let times = (known(&self.offered_at[index]), known(&self.handled_at[index]));
            if partition != NOWHERE
                && let (Some(offered), Some(handled)) = times
            {
                spans.entry((item.topic, partition)).or_default().push(handled.saturating_sub(offered));
            }
        }
        let share = |((topic, partition), spans): ((u32, u32), Vec<u64>)| {
            let messages = spans.len();
            let latency = Spans::of(spans.into_iter())?.latency;
            Some(Share { topic, partition, messages, p50: latency.p50, p99: latency.p99 })
        };
        spans.into_iter().filter_map(share).collect()
    }
}

fn known(at: &AtomicU64) -> Option<u64> {
    Some(at.load(Ordering::Relaxed)).filter(|at| *at != NEVER)
}

/// Returns the begin and the length of each span that has both times.
fn spans(from: &[AtomicU64], to: &[AtomicU64]) -> impl Iterator<Item = (u64, u64)> {
    from.iter().zip(to).filter_map(move |(from, to)| {
        let (from, to) = (known(from)?, known(to)?);
        Some((from, to.saturating_sub(from)))
    })
}
