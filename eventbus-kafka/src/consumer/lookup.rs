//! What a member finds when partitions become its own: what is committed, and whether the log is still the same (S3).
//!
//! Invariant: an answer belongs to the assignment that it was asked for; what comes late changes nothing of a later one.

use super::*;

impl Seat {
    /// A coordinator that assigns by itself takes partitions away when their topic is deleted, and says no more: a member without
    /// any asks whether there is a topic still. Blocks.
    pub(super) fn end_without_topic(&self) {
        let Ok(metadata) = self.link.client().fetch_metadata(Some(&self.topic), self.link.timeout()) else { return };
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        let gone = |code: Code| matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic);
        if found.is_none_or(|found| found.error().is_some_and(|error| gone(error.into()))) {
            let error = Error::new(ErrorKind::UnknownTopic, "the topic was deleted");
            let _ = self.items.send(Item::Over(error));
        }
    }

    /// Looks up what the group has committed, and tells the core of its new partitions. Blocks.
    pub(super) fn announce(&self, partitions: &[u32], number: u64) {
        loop {
            let Some(consumer) = self.consumer() else { return };
            if !partitions.iter().any(|partition| self.state().holds(*partition, number)) {
                return;
            }
            match self.look_up(&consumer, partitions, number) {
                Ok(mut assignments) => {
                    let mut state = self.state();
                    assignments.retain(|assignment| state.announces(assignment.partition, number));
                    // Under the lock, so that a loss is told after it, and what is wanted back before it is not told of at all.
                    return self.tell(GroupEvent::Assigned(assignments));
                }
                Err(error) => {
                    tracing::debug!(target: "eventbus", %error, "committed offsets are asked for again");
                    drop(consumer);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn look_up(&self, consumer: &GroupConsumer, partitions: &[u32], number: u64) -> Result<Vec<Assignment>> {
        let failed = |error: KafkaError| to_core(&error, "asking for committed offsets");
        let list = self.list(partitions.iter().copied());
        let answer = consumer.committed_offsets(list, self.link.timeout()).map_err(failed)?;
        let mut found = Vec::new();
        for element in answer.elements() {
            element.error().map_err(failed)?;
            let partition = u32::try_from(element.partition()).unwrap_or_default();
            let log = watermarks(&self.link, &self.topic, partition).map_err(failed)?;
            let stored = Stored::decode(element.metadata()).unwrap_or_default();
            found.push(match element.offset() {
                Offset::Offset(next) => (partition, log, Some(stored.committed(wire::position(next))), stored),
                _ => (partition, log, None, Stored::default()),
            });
        }
        let asked: Vec<_> = found.iter().map(|(partition, log, _, stored)| (*partition, log, stored.print)).collect();
        let same = self.compare(&asked)?;
        let mut assignments = Vec::new();
        for (partition, mut log, committed, stored) in found {
            let same = same.get(&partition).copied().unwrap_or(true);
            log.incarnation = if same && !stored.incarnation.is_empty() { stored.incarnation } else { fresh() };
            let mut state = self.state();
            let Some(held) = state.held.get_mut(&partition).filter(|held| held.number == number) else { continue };
            held.incarnation.clone_from(&log.incarnation);
            held.print = stored.print.filter(|_| same);
            (held.epoch, held.compared) = (stored.epoch, true);
            assignments.push(Assignment::new(partition, log, committed, held.lease.clone()));
        }
        Ok(assignments)
    }

    /// Whether logs still have the records that were seen in them. What retention or compaction took tells nothing.
    fn compare(&self, asked: &[(u32, &LogState, Option<Print>)]) -> Result<HashMap<u32, bool>> {
        let mut same = HashMap::new();
        let mut wanted = Vec::new();
        for (partition, log, print) in asked {
            let Some(print) = print else { continue };
            match print.is_of(log) {
                Some(told) => drop(same.insert(*partition, told)),
                None => wanted.push((*partition, *print)),
            }
        }
        let places: Vec<_> = wanted.iter().map(|(partition, print)| (*partition, print.offset)).collect();
        let found = scan::prints(&self.link, &self.topic, &places)?;
        for (partition, print) in wanted {
            same.insert(partition, print.agrees_with(found.get(&partition)));
        }
        Ok(same)
    }

    /// The incarnation of the log as this member knows it, looked at anew: after trouble it may be another.
    pub(crate) fn incarnation(&self, partition: u32, log: &LogState) -> Result<String> {
        let (incarnation, print, number) = {
            let mut state = self.state();
            let held = state.held.get_mut(&partition).ok_or_else(not_held)?;
            if std::mem::take(&mut held.compared) {
                return Ok(held.incarnation.clone());
            }
            (held.incarnation.clone(), held.seen.back().copied().or(held.print), held.number)
        };
        if self.compare(&[(partition, log, print)])?.get(&partition).copied().unwrap_or(true) {
            return Ok(incarnation);
        }
        let fresh = fresh();
        let mut state = self.state();
        let held = state.held.get_mut(&partition).filter(|held| held.number == number).ok_or_else(not_held)?;
        held.incarnation.clone_from(&fresh);
        (held.print, held.seen) = (None, VecDeque::new());
        Ok(fresh)
    }
}

/// An incarnation that no log had before.
fn fresh() -> String {
    format!("{:016x}", rand::random::<u64>())
}
