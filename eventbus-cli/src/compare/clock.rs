//! When each message of a run was offered, confirmed and handled: the same clock for the bus and for a bare client.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::figures::{Detail, Moment, Run, Share, Spans};
use super::workloads::Plan;

/// Times are nanoseconds from the clock's making; this is none.
const NEVER: u64 = u64::MAX;
/// No partition.
const NOWHERE: u32 = u32::MAX;
/// Into how many pieces a run's time is cut to show latency over it.
const PIECES: u64 = 60;

/// The times of a run's messages. Written by publishers and handlers at once.
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

    /// Just before the publish; `due` is when it should have been, where it is behind its timetable.
    pub(crate) fn offered(&self, index: usize, due: Option<Instant>) {
        let at = due.map_or_else(|| self.now(), |due| self.nanos(due));
        self.offered_at[index].store(at, Ordering::Relaxed);
    }

    /// The broker's answer is known.
    pub(crate) fn confirmed(&self, index: usize) {
        self.confirmed_at[index].store(self.now(), Ordering::Relaxed);
    }

    /// The handler has returned. Whether it is the first time.
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

    /// When the first was offered.
    fn first(&self) -> u64 {
        self.offered_at.iter().map(|at| at.load(Ordering::Relaxed)).min().unwrap_or_default()
    }

    /// From the first publish to the last confirmed.
    pub(crate) fn publishing(&self) -> Duration {
        let last = self.confirmed_at.iter().filter_map(known).max();
        Duration::from_nanos(last.map_or(0, |last| last.saturating_sub(self.first())))
    }

    /// From the first publish, or from `began`, to the last handled of those that are `counted`.
    pub(crate) fn handling(&self, began: Option<u64>, counted: impl Fn(usize) -> bool) -> Duration {
        let last = (0..self.handled_at.len()).filter(|index| counted(*index));
        let last = last.filter_map(|index| known(&self.handled_at[index])).max();
        Duration::from_nanos(last.map_or(0, |last| last.saturating_sub(began.unwrap_or_else(|| self.first()))))
    }

    /// From offer to confirmation, of all that were confirmed.
    fn to_confirm(&self) -> Option<Spans> {
        Spans::of(spans(&self.offered_at, &self.confirmed_at).map(|(_, span)| span))
    }

    /// From offer to the end of handling, of all that were handled.
    fn to_handle(&self) -> Option<Spans> {
        Spans::of(spans(&self.offered_at, &self.handled_at).map(|(_, span)| span))
    }

    /// Puts into a run what the clock says of it; `began` as in [`handling`](Self::handling), which gave the time.
    pub(crate) fn tell(&self, run: &mut Run, plan: &Plan, began: Option<u64>, handling: Duration) {
        let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        run.seconds = handling.as_secs_f64();
        run.published_per_second = rate(run.confirmed, self.publishing());
        run.handled_per_second = rate(run.handled, handling);
        run.publish_to_confirm_us = self.to_confirm().map(|spans| spans.latency);
        run.publish_to_handle_us = self.to_handle().filter(|_| began.is_none()).map(|spans| spans.latency);
        run.detail = Some(self.detail(plan, began.is_some()));
    }

    /// What plots are drawn from. Where the log was filled beforehand, latency says nothing and is left out.
    fn detail(&self, plan: &Plan, prefilled: bool) -> Detail {
        Detail {
            to_confirm: self.to_confirm().map(|spans| spans.curve).unwrap_or_default(),
            to_handle: self.to_handle().filter(|_| !prefilled).map(|spans| spans.curve).unwrap_or_default(),
            over_time: if prefilled { Vec::new() } else { self.over_time() },
            partitions: self.partitions(plan),
        }
    }

    /// The run's time in pieces, by when messages were handled.
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

    /// What each partition had.
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

/// Of each that has both times: when it began, and how long it took.
fn spans(from: &[AtomicU64], to: &[AtomicU64]) -> impl Iterator<Item = (u64, u64)> {
    from.iter().zip(to).filter_map(move |(from, to)| {
        let (from, to) = (known(from)?, known(to)?);
        Some((from, to.saturating_sub(from)))
    })
}
