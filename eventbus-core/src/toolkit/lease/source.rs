//! Scan of a source: its present records are read, once.
//!
//! Invariant: the scan takes all records that were there, in order, or fails; records written meanwhile do not prolong
//! it.

use std::future::poll_fn;
use std::time::Duration;

use super::{Source, SourceEvent};
use crate::model::{Error, ErrorKind, Result};

/// Records requested at once.
const BATCH: u64 = 500;

/// Reads a source up to its last record of the moment, and gives each record to `take` until that returns false.
/// `records` is their number when the source was opened: later ones do not prolong the scan. Silence for longer than
/// `silence` is an error.
///
/// # Errors
/// `Unavailable` where a record is missing, or the source breaks off or falls silent. All records taken until then were
/// there. Cancel safe, for these.
///
/// ```
/// use std::time::Duration;
///
/// use eventbus_core::toolkit::lease::{Source, scan};
///
/// async fn all<R>(source: &mut impl Source<R>, records: u64) -> eventbus_core::Result<Vec<R>> {
///     let mut found = Vec::new();
///     scan(source, records, Duration::from_secs(3), |record| {
///         found.push(record);
///         true
///     })
///     .await?;
///     Ok(found)
/// }
/// ```
pub async fn scan<R>(
    source: &mut impl Source<R>,
    records: u64,
    silence: Duration,
    mut take: impl FnMut(R) -> bool,
) -> Result<()> {
    let broken = |why: String| Error::new(ErrorKind::Unavailable, why);
    let (mut left, mut asked, mut delivered) = (records, 0, 0);
    while left > 0 {
        if asked == 0 {
            asked = left.min(BATCH);
            source.request(usize::try_from(asked).unwrap_or(usize::MAX), None).await?;
        }
        let pulled = tokio::time::timeout(silence, poll_fn(|context| source.poll_next(context))).await;
        match pulled.map_err(|_| broken("the broker fell silent while records were read".into()))? {
            SourceEvent::Record { delivery, left: behind, record } => {
                delivered += 1;
                if delivery != delivered {
                    return Err(broken("a record was missing while records were read".into()));
                }
                (asked, left) = (asked - 1, left - 1);
                if !take(record) || behind == 0 {
                    return Ok(());
                }
            }
            SourceEvent::Alive => {}
            // Retention or a removal took the remaining records.
            SourceEvent::Ended(_) | SourceEvent::Full(_) => return Ok(()),
            SourceEvent::Broken(why) => return Err(broken(why)),
        }
    }
    Ok(())
}
