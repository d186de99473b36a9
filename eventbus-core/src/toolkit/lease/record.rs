//! Record of one partition in the store: owner, epoch, watermark and note, and the lease that each write of it renews
//! (S3 to S5).
//!
//! Invariants:
//! * every write compares and swaps: it names the revision that this ownership wrote or took over last. So a superseded
//!   owner changes nothing, whatever it sends and however late it arrives;
//! * writes of one ownership take turns. A write of unknown outcome is decided by reading back, by owner and nonce; a
//!   write that lands late is found by the next one, which goes on from it;
//! * the lease counts from before the write was sent and ends a tenth before others may take over. It comes back only
//!   with a successful write.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::removed::KnownRemovals;
use super::{CasOutcome, LeaseStore, StoreKey};
use crate::backend::{Commit, Committed, Lease};
use crate::model::{Error, ErrorKind, Position, Result};

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    pub(super) group: String,
    /// The member that owns the partition; empty where it is free.
    pub(super) owner: String,
    /// A random number, drawn for each ownership.
    pub(super) nonce: u64,
    /// Tries to write in this ownership.
    pub(super) write: u64,
    /// The time for which the owner is believed alive without a write, in milliseconds.
    pub(super) lease_ms: u64,
    pub(super) epoch: u64,
    /// The next position to be handled; `None` before the first commit.
    pub(super) next: Option<u64>,
    /// The note, base64.
    pub(super) note: String,
    /// The number of removals above `next` that are no loss to the group; `None` where nobody has counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) removed: Option<u64>,
}

impl LeaseRecord {
    pub(super) fn committed(&self) -> Option<Committed> {
        let note = STANDARD.decode(&self.note).map(Bytes::from).unwrap_or_default();
        self.next.map(|next| Committed { next: Position::new(next), epoch: self.epoch, note })
    }

    fn is_of(&self, other: &Self) -> bool {
        self.owner == other.owner && self.nonce == other.nonce
    }
}

/// Heartbeat of a member, written again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    pub(super) group: String,
    pub(super) name: String,
    /// The time for which the member is believed alive without a heartbeat, in milliseconds.
    pub(super) lease_ms: u64,
}

/// Converts a lease's length to its stored form, in milliseconds.
pub(super) fn lease_ms(session: Duration) -> u64 {
    u64::try_from(session.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn encode(value: &impl Serialize) -> Result<Bytes> {
    let cannot = |error| Error::new(ErrorKind::Backend, "a record that cannot be written").caused_by(error);
    serde_json::to_vec(value).map(Bytes::from).map_err(cannot)
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    let cannot = |error| Error::new(ErrorKind::Unavailable, format!("a record that cannot be read: {error}"));
    serde_json::from_slice(value).map_err(cannot)
}

#[derive(Debug, Clone)]
pub(super) struct RecordPlace {
    pub(super) store: Arc<dyn LeaseStore>,
    pub(super) slot: StoreKey,
    /// The longest wait for an answer: a lost one must not cost the lease.
    pub(super) patience: Duration,
}

impl RecordPlace {
    /// Makes the place of a record whose owner has, or would have, a lease of this length.
    pub(super) fn new(store: &Arc<dyn LeaseStore>, slot: StoreKey, lease: Duration) -> Self {
        Self { store: Arc::clone(store), slot, patience: lease / 5 }
    }

    /// Writes if the record still has this revision; 0 where there is none.
    pub(super) async fn swap(&self, revision: u64, record: &LeaseRecord) -> CasOutcome {
        match encode(record) {
            Ok(value) => self.store.compare_and_swap(&self.slot, revision, value, self.patience).await,
            Err(error) => CasOutcome::NotDone(error),
        }
    }

    async fn get(&self) -> Result<Option<(u64, LeaseRecord)>> {
        let Some((revision, value)) = self.store.get(&self.slot).await? else { return Ok(None) };
        Ok(Some((revision, decode(&value)?)))
    }
}

#[derive(Debug)]
pub(super) struct HeldRecord {
    place: RecordPlace,
    lease: Lease,
    lease_time: Duration,
    /// The removals that were no loss to the group when this ownership began.
    known: KnownRemovals,
    state: Mutex<HeldState>,
}

#[derive(Debug)]
struct HeldState {
    revision: u64,
    record: LeaseRecord,
    /// The time at which the last successful write was sent.
    written: Instant,
    /// Tries to write so far.
    writes: u64,
    /// The epoch of a claim under this ownership, from its first try on.
    claimed: Option<u64>,
    /// Whether the core gave the partition up, whatever became of the write.
    given_up: bool,
    /// Whether the ownership is superseded or released.
    over: bool,
}

impl HeldRecord {
    /// Makes an ownership that was just taken by a write sent at `sent`.
    pub(super) fn new(
        place: RecordPlace,
        revision: u64,
        record: LeaseRecord,
        sent: Instant,
        known: KnownRemovals,
    ) -> Self {
        let lease_time = Duration::from_millis(record.lease_ms);
        let lease = Lease::until(sent + lease_time - lease_time / 10);
        let writes = record.write;
        let state = Mutex::new(HeldState {
            revision,
            record,
            written: sent,
            writes,
            claimed: None,
            given_up: false,
            over: false,
        });
        Self { place, lease, lease_time, known, state }
    }

    pub(super) fn known(&self) -> &KnownRemovals {
        &self.known
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Writes again if the lease would otherwise be at risk. `Fenced` where the ownership is over.
    pub(super) async fn renew(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        if !state.over && state.written.elapsed() < self.lease_time / 3 {
            return Ok(());
        }
        self.write(&mut state, |_| ()).await
    }

    pub(super) async fn commit(&self, commit: &Commit) -> Result<()> {
        let mut state = self.state.lock().await;
        let again = state.claimed == Some(commit.epoch);
        if !(again || commit.claim && commit.epoch > state.record.epoch) {
            let message = "the epoch has been superseded, or was not claimed under this ownership";
            let error = Error::new(ErrorKind::Fenced, message).with("epoch", commit.epoch);
            return Err(error.with("stored", state.record.epoch));
        }
        state.claimed = Some(commit.epoch);
        self.write(&mut state, |record| {
            record.epoch = commit.epoch;
            record.next = Some(commit.next.get());
            record.note = STANDARD.encode(&commit.note);
            record.removed = Some(self.known.count_from(commit.next));
        })
        .await
    }

    /// Gives the partition up. Whatever the outcome of the write, this ownership is over.
    pub(super) async fn release(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        self.release_locked(&mut state).await
    }

    async fn release_locked(&self, state: &mut HeldState) -> Result<()> {
        self.lease.revoke();
        state.given_up = true;
        if state.over {
            return Ok(());
        }
        let released = self.write(state, |record| record.owner.clear()).await;
        state.over = true;
        released
    }

    /// Ends the ownership of a member that leaves. A claimed partition that the core did not give up may have a handler
    /// that still runs: it is not released, and others wait until its lease has run out (S5).
    pub(super) async fn leave(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        if state.given_up || state.claimed.is_none() {
            return self.release_locked(&mut state).await;
        }
        state.over = true;
        self.lease.revoke();
        Ok(())
    }

    /// Ends the ownership without telling the store: others wait until the lease has run out.
    pub(super) async fn abandon(&self) {
        let mut state = self.state.lock().await;
        state.over = true;
        self.lease.revoke();
    }

    async fn write(&self, state: &mut HeldState, change: impl Fn(&mut LeaseRecord)) -> Result<()> {
        if state.over {
            return Err(fenced());
        }
        // Each turn goes on from an earlier write of this ownership; more than two would be another writer's.
        for _ in 0..3 {
            state.writes += 1;
            let mut record = state.record.clone();
            record.write = state.writes;
            change(&mut record);
            let sent = Instant::now();
            let unknown = match self.place.swap(state.revision, &record).await {
                CasOutcome::Done(revision) => return self.wrote(state, revision, record, sent),
                CasOutcome::Conflict => Error::new(ErrorKind::Unavailable, "the record's revision changed"),
                CasOutcome::Unknown(error) => error,
                CasOutcome::NotDone(error) => return Err(passing(error)),
            };
            match self.place.get().await.map_err(passing)? {
                Some((revision, found)) if found.is_of(&record) && found.write == record.write => {
                    return self.wrote(state, revision, record, sent);
                }
                // A release is recognised by its nonce: its owner is gone.
                Some((revision, found)) if found.is_of(&state.record) => {
                    if revision == state.revision {
                        return Err(passing(unknown));
                    }
                    (state.revision, state.record) = (revision, found);
                }
                found => {
                    state.over = true;
                    self.lease.revoke();
                    return Err(found.map_or_else(gone, |_| fenced()));
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the record changed under every try to write it"))
    }

    fn wrote(&self, state: &mut HeldState, revision: u64, record: LeaseRecord, sent: Instant) -> Result<()> {
        if !record.owner.is_empty() {
            self.lease.extend(sent + self.lease_time - self.lease_time / 10);
        }
        (state.revision, state.record, state.written) = (revision, record, sent);
        Ok(())
    }
}

fn fenced() -> Error {
    Error::new(ErrorKind::Fenced, "the partition is not owned by this member any more")
}

/// Makes the error of a record that was taken away from under its owner: nobody else's is there.
fn gone() -> Error {
    let message = "the group's record of the partition was removed, and with it the progress";
    Error::new(ErrorKind::LogReset, message)
}

/// Marks an error as retryable, for a store that is out of reach for a while, except where trying again cannot help: a
/// permission is missing, or the broker refuses the call as such.
pub(super) fn passing(error: Error) -> Error {
    let lasting = lasts(&error);
    error.retryable(!lasting)
}

/// Whether the same call will fail again, whenever it is made.
pub(super) fn lasts(error: &Error) -> bool {
    use ErrorKind::{Backend, Closed, LogReset, PermissionDenied, Refused, TooLarge, TopicMismatch, UnsafeConfig};
    matches!(
        error.kind(),
        PermissionDenied | Closed | Backend | LogReset | Refused | TooLarge | TopicMismatch | UnsafeConfig
    )
}
