//! Delivery: records filtered by the read that they belong to (S3, S6).
//!
//! Invariants:
//! * nothing is delivered before the core's `read`, and nothing after it that an earlier read fetched: each read has a
//!   number, and a record carries it until it is handed over;
//! * positions of a partition only rise within a read, and the client leaves none out: it goes on by itself after any
//!   trouble with the connection. If it cannot, because the log no longer has the next record, it says so, and the read
//!   is interrupted;
//! * the records that wait for the core are bounded.

use std::time::Duration;

use tokio::time::Instant;

use super::assignments::Rejoin;
use super::rebalance::{MemberItem, RebalanceListener};
use super::{Client, OVERSHOOT, not_held};
use crate::backend::{GroupEvent, Inbound};
use crate::model::{Error, ErrorKind, Position, Result};
use crate::runtime::sync::atomic::Ordering;

/// Records of a batch, each with the number of its read.
pub(super) type Batch = Vec<(u64, Inbound)>;

pub(super) const BATCH: usize = 512;

/// Records that may wait for the core before the thread fetches no more.
pub(super) const WAITING: usize = OVERSHOOT - BATCH;

/// The distance of positions whose records' fingerprints are kept. The first record of a batch is kept, too.
const PRINTED: u64 = 16;

/// The longest time until the client can seek in a partition that was just assigned.
pub(super) const SETTLES: Duration = Duration::from_secs(1);

impl<C: Client> RebalanceListener<C> {
    /// Returns whether so many records wait for the core that no more are fetched.
    pub(super) fn is_full(&self) -> bool {
        self.waiting().load(Ordering::Acquire) > WAITING
    }

    pub(super) fn accept(&self, record: &C::Record<'_>, batch: &mut Batch) {
        let (partition, position) = C::place(record);
        let read = {
            let mut state = self.state();
            let Some(held) = state.held.get_mut(&partition) else { return };
            if held.read == 0 || position < held.next {
                return;
            }
            held.next = position.next();
            held.compared = false;
            let told = batch.is_empty() || position.get() % PRINTED == 0;
            if told && held.seen.back().is_none_or(|print| print.at() < position) {
                held.seen.push_back(C::fingerprint(record));
            }
            held.read
        };
        batch.push((read, C::inbound(record)));
    }

    pub(super) fn flush(&self, batch: &mut Batch) {
        if !batch.is_empty() {
            self.waiting().fetch_add(batch.len(), Ordering::AcqRel);
            self.hand(MemberItem::Records(std::mem::take(batch)));
        }
    }

    /// Returns the records whose read is still under way.
    pub(super) fn current(&self, records: Batch) -> Vec<Inbound> {
        self.waiting().fetch_sub(records.len(), Ordering::AcqRel);
        let state = self.state();
        let under_way = |(read, record): &(u64, Inbound)| state.reads(record.partition, *read);
        records.into_iter().filter(under_way).map(|(_, record)| record).collect()
    }

    pub(super) fn begin(&self, client: &C, partition: u32, from: Position) -> Result<()> {
        self.seek(client, partition, from)?;
        {
            let mut state = self.state();
            state.reads += 1;
            let read = state.reads;
            let held = state.held.get_mut(&partition).ok_or_else(not_held)?;
            (held.read, held.next) = (read, from);
        }
        // The core begins each assignment unpaused, and may have paused the partition's last one until it heard of
        // this.
        client.pause(partition, false);
        Ok(())
    }

    fn seek(&self, client: &C, partition: u32, from: Position) -> Result<()> {
        let failed =
            |why: &dyn std::fmt::Display| Error::new(ErrorKind::Unavailable, format!("the read cannot begin: {why}"));
        let until = Instant::now() + if self.state().rejoin == Rejoin::No { SETTLES } else { Duration::ZERO };
        while !client.seek(partition, from).map_err(|error| failed(&error))? {
            // The partition was assigned a moment ago, and is not begun yet.
            if Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            // The client ends a partition whose log did not have the next record, and seeks in it only once it is
            // assigned anew.
            let mut state = self.state();
            if state.rejoin == Rejoin::No {
                state.rejoin = Rejoin::Wanted;
            }
            return Err(failed(&"the client has not begun the partition, or ended it"));
        }
        Ok(())
    }

    /// Tells the core that nothing is left below the end of a log. What stands between the last record and that end is
    /// no record: a transaction's marker, or what a transaction took back.
    pub(super) fn caught_up(&self, partition: u32, end: Option<Position>) {
        let state = self.state();
        if let Some(held) = state.held.get(&partition).filter(|held| held.read > 0) {
            let next = end.map_or(held.next, |end| end.max(held.next));
            self.hand(MemberItem::CaughtUp(held.read, partition, next));
        }
    }

    /// Breaks off the delivery of all partitions; the core reads again.
    pub(super) fn interrupt(&self) {
        let mut broken = Vec::new();
        for (partition, held) in &mut self.state().held {
            if std::mem::take(&mut held.read) > 0 {
                broken.push(*partition);
            }
        }
        if !broken.is_empty() {
            self.tell(GroupEvent::Interrupted(broken));
        }
    }
}
