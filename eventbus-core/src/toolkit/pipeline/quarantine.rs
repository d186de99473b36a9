//! Quarantine of partitions: they go by lines of their own until the culprit of a refused batch is found.
//!
//! Invariant: a partition's own line takes nothing before every record that failed with the batch is told, takes nothing
//! more once the last suspect is settled, and is left only when no record of it is outstanding.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::model::{Stamp, Topic};

pub(super) type TopicPartition = (Topic, u32);

/// A partition in quarantine, with all that must end before it goes back to the common line.
struct QuarantinedPartition<L> {
    line: Option<Arc<L>>,
    suspects: HashSet<Stamp>,
    outstanding: usize,
    /// The time at which a suspect last came or was settled. Records that are no suspects do not count: under load
    /// there is always one.
    quiet_since: Option<Instant>,
    /// Whether some records that failed with the batch are not told yet.
    held: bool,
}

impl<L> QuarantinedPartition<L> {
    /// The longest wait for suspects that do not come again, because an earlier record was refused. If they come all
    /// the same, their batch is refused once more, and the quarantine begins anew.
    const WAITS: Duration = Duration::from_secs(5);

    /// Returns whether no suspect is waited for.
    fn is_cleared(&self) -> bool {
        let waited = || self.quiet_since.is_some_and(|since| since.elapsed() > Self::WAITS);
        !self.held && (self.suspects.is_empty() || waited())
    }

    fn is_over(&self) -> bool {
        self.outstanding == 0 && self.is_cleared()
    }
}

pub(super) enum Route<L> {
    /// The line of its topic's limit.
    Common,
    /// The partition's own line, in which the record is outstanding from now on.
    Own(Arc<L>),
    /// No line yet: what failed is not told, or what goes by the partition's own line has to end first.
    Held,
}

/// All partitions in quarantine. Nearly always there are none, and every record passes here.
pub(super) struct Quarantine<L> {
    partitions: HashMap<TopicPartition, QuarantinedPartition<L>>,
    /// The receiver of lines that are left: a client ends on a thread that may wait for it, never on the one that
    /// reports.
    left: UnboundedSender<Arc<L>>,
}

impl<L> Quarantine<L> {
    pub(super) fn new(left: UnboundedSender<Arc<L>>) -> Self {
        Self { partitions: HashMap::new(), left }
    }

    /// Returns the line by which a record goes; `make` makes one for its partition. A line that does not fit any more,
    /// since the topic's limit has changed, is left first.
    pub(super) fn route(
        &mut self,
        topic: &Topic,
        partition: u32,
        fits: impl FnOnce(&L) -> bool,
        make: impl FnOnce() -> Arc<L>,
    ) -> Route<L> {
        if self.partitions.is_empty() {
            return Route::Common;
        }
        let place = (topic.clone(), partition);
        self.end_if_over(&place);
        let Some(quarantined) = self.partitions.get_mut(&place) else { return Route::Common };
        // Under load the partition's own line, which sends one record at a time, would never be empty by itself.
        if quarantined.held || quarantined.is_cleared() {
            return Route::Held;
        }
        if quarantined.line.as_ref().is_some_and(|line| !fits(line)) {
            if quarantined.outstanding > 0 {
                return Route::Held;
            }
            quarantined.line.take().into_iter().for_each(|line| drop(self.left.send(line)));
        }
        quarantined.outstanding += 1;
        Route::Own(Arc::clone(quarantined.line.get_or_insert_with(make)))
    }

    pub(super) fn suspect(&mut self, place: TopicPartition, stamp: Stamp) {
        let quarantined = self.partitions.entry(place).or_insert_with(|| QuarantinedPartition {
            line: None,
            suspects: HashSet::new(),
            outstanding: 0,
            quiet_since: None,
            held: true,
        });
        quarantined.suspects.insert(stamp);
    }

    /// Opens these partitions' own lines: every record that failed with the batch is told.
    pub(super) fn open(&mut self, partitions: &HashSet<TopicPartition>) {
        for place in partitions {
            if let Some(quarantined) = self.partitions.get_mut(place) {
                quarantined.held = false;
                quarantined.quiet_since = Some(Instant::now());
            }
            self.end_if_over(place);
        }
    }

    /// Notes a record's fate. A record that is stored or condemned is a suspect no longer; any other comes again, and
    /// must be proved innocent.
    pub(super) fn judged(&mut self, topic: &Topic, partition: u32, stamp: Stamp, certain: bool) {
        self.settle(topic, partition, |quarantined| {
            let changed =
                if certain { quarantined.suspects.remove(&stamp) } else { quarantined.suspects.insert(stamp) };
            if changed {
                quarantined.quiet_since = Some(Instant::now());
            }
        });
    }

    /// Notes that a record that went by a partition's own line is told.
    pub(super) fn returned(&mut self, topic: &Topic, partition: u32) {
        self.settle(topic, partition, |quarantined| {
            quarantined.outstanding = quarantined.outstanding.saturating_sub(1)
        });
    }

    /// Changes a partition's state. With the last suspect the partition goes back to the common line.
    fn settle(&mut self, topic: &Topic, partition: u32, change: impl FnOnce(&mut QuarantinedPartition<L>)) {
        if self.partitions.is_empty() {
            return;
        }
        let place = (topic.clone(), partition);
        if let Some(quarantined) = self.partitions.get_mut(&place) {
            change(quarantined);
            self.end_if_over(&place);
        }
    }

    fn end_if_over(&mut self, place: &TopicPartition) {
        if self.partitions.get(place).is_some_and(QuarantinedPartition::is_over)
            && let Some(line) = self.partitions.remove(place).and_then(|quarantined| quarantined.line)
        {
            let _ = self.left.send(line);
        }
    }

    pub(super) fn lines(&self) -> Vec<Arc<L>> {
        self.partitions.values().filter_map(|quarantined| quarantined.line.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProducerId;

    fn quarantined(suspects: u64, outstanding: usize, quiet_since: Option<Instant>) -> QuarantinedPartition<()> {
        let suspects = (0..suspects).map(|n| Stamp::new(ProducerId::new(1), n)).collect();
        QuarantinedPartition { line: None, suspects, outstanding, quiet_since, held: false }
    }

    #[test]
    fn a_partition_waits_for_its_suspects_but_not_for_ones_that_stay_away() {
        let long_ago = Instant::now().checked_sub(2 * QuarantinedPartition::<()>::WAITS);
        assert!(quarantined(0, 0, None).is_over());
        assert!(!quarantined(0, 1, long_ago).is_over(), "a record of its own line is under way");
        assert!(!quarantined(1, 0, None).is_over(), "none came yet");
        assert!(!quarantined(1, 0, Some(Instant::now())).is_over());
        assert!(!quarantined(1, 1, long_ago).is_over());
        assert!(quarantined(1, 0, long_ago).is_over());
        assert!(!QuarantinedPartition { held: true, ..quarantined(0, 0, None) }.is_over(), "not all is told");
    }
}
