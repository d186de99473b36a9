//! The search of the log for an envelope of unknown fate, by its stamp (P3).

use std::sync::Arc;

use crate::backend::Backend;
use crate::model::{Position, Result, Stamp, Topic};

pub(super) struct StampSearch {
    pub(super) partition: u32,
    pub(super) from: Position,
    pub(super) stamp: Stamp,
    /// The incarnation in which `from` is a position.
    pub(super) log: Arc<str>,
}

/// The answer of the log to a search for a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StampOutcome {
    /// The stamp is there.
    At(Position),
    /// The stamp is not there, and never was in this log.
    Absent,
    /// The stamp is not there, but that proves nothing: the log is no longer the one that the search was made for, or
    /// it has lost records from `from` on.
    Untold,
}

/// Searches the log for a stamp (P3), from the log's end as known before the first send. Where the log is another one
/// by now, that end says nothing and the record may stand anywhere, so all of the log is read.
pub(super) async fn find_stamp(backend: &dyn Backend, topic: &Topic, search: &StampSearch) -> Result<StampOutcome> {
    let described = backend.describe_topic(topic).await?;
    let same = described.incarnation == *search.log;
    let from = if same { search.from } else { Position::ZERO };
    if let Some(position) = backend.find_stamp(topic, search.partition, from, search.stamp).await? {
        return Ok(StampOutcome::At(position));
    }
    // The topic is described again, since retention may have passed while the log was read.
    let described = backend.describe_topic(topic).await?;
    let first = described.log(search.partition)?.first;
    Ok(if same && first <= from { StampOutcome::Absent } else { StampOutcome::Untold })
}
