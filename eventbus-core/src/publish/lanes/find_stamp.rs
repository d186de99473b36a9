//! Whether an envelope of unknown fate is in the log (P3).

use std::sync::Arc;

use crate::backend::Backend;
use crate::model::{Position, Result, Stamp, Topic};

/// A stamp to be looked for.
pub(super) struct StampSearch {
    pub(super) partition: u32,
    pub(super) from: Position,
    pub(super) stamp: Stamp,
    /// The incarnation in which `from` is a position.
    pub(super) log: Arc<str>,
}

/// What the log says of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StampOutcome {
    /// It is there.
    At(Position),
    /// It is not, and never was in this log.
    Absent,
    /// It is not, but this is not the log that it was sent to first, or no longer all of it.
    Untold,
}

/// P3: reads the log from its end as known before the first send, unless it is another one by now: then that end says nothing,
/// and what was sent since may stand anywhere in it.
pub(super) async fn find_stamp(backend: &dyn Backend, topic: &Topic, search: &StampSearch) -> Result<StampOutcome> {
    let described = backend.describe_topic(topic).await?;
    let same = described.incarnation == *search.log;
    let from = if same { search.from } else { Position::ZERO };
    if let Some(position) = backend.find_stamp(topic, search.partition, from, search.stamp).await? {
        return Ok(StampOutcome::At(position));
    }
    // Looked at again: retention may have passed while the log was read.
    let described = backend.describe_topic(topic).await?;
    let first = described.partitions.get(search.partition as usize).map_or(Position::ZERO, |log| log.first);
    Ok(if same && first <= from { StampOutcome::Absent } else { StampOutcome::Untold })
}
