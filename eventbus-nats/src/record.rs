//! One partition's record in the bucket: owner, epoch, watermark and note, and the lease that goes with writing it
//! (S3 to S5).
//!
//! Invariants:
//! * every write compares and swaps: it names the revision that this ownership wrote or took over last. So whoever was
//!   superseded changes nothing, whatever it sends and however late it arrives;
//! * writes of one ownership take turns. One of unknown outcome is decided by reading back, by owner and nonce; one that
//!   lands late is found by the next write, which goes on from it;
//! * the lease counts from before the write was sent and ends a tenth before others may take over. It comes back only
//!   with a successful write.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Request;
use async_nats::header::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use eventbus_core::backend::{Commit, Committed, Lease};
use eventbus_core::{Error, ErrorKind, Position, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::connection::{Link, read};
use crate::error::{Failure, NO_MESSAGE, WRONG_LAST};

/// What the bucket holds of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) group: String,
    /// The member that owns the partition; empty where it is free.
    pub(crate) owner: String,
    /// Drawn for each ownership.
    pub(crate) nonce: u64,
    /// Counts the tries to write of this ownership.
    pub(crate) write: u64,
    /// How long without a write the owner is believed, in milliseconds.
    pub(crate) lease_ms: u64,
    pub(crate) epoch: u64,
    /// The next position to be handled; none before the first commit.
    pub(crate) next: Option<u64>,
    /// The note, base64.
    pub(crate) note: String,
}

impl Record {
    pub(crate) fn committed(&self) -> Option<Committed> {
        let note = STANDARD.decode(&self.note).map(Bytes::from).unwrap_or_default();
        self.next.map(|next| Committed { next: Position::new(next), epoch: self.epoch, note })
    }

    fn is_of(&self, other: &Self) -> bool {
        self.owner == other.owner && self.nonce == other.nonce
    }
}

/// What became of a write.
pub(crate) enum Swap {
    Done(u64),
    /// The record has another revision.
    Conflict,
    NotDone(Failure),
}

/// A place in the bucket.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) link: Arc<Link>,
    /// The bucket's stream.
    pub(crate) bucket: String,
    pub(crate) subject: String,
    /// How long an answer may take: a lost one must not cost the lease.
    pub(crate) patience: Duration,
}

impl Slot {
    /// Writes if the record still has this revision; 0 where there is none.
    pub(crate) async fn swap(&self, revision: u64, record: &Record) -> Swap {
        #[derive(Deserialize)]
        struct Ack {
            seq: u64,
        }
        let body = match serde_json::to_vec(record) {
            Ok(body) => body,
            Err(error) => return Swap::NotDone(Failure::Unanswered(error.to_string())),
        };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
        let request = Request::new().payload(body.into()).headers(headers).timeout(Some(self.patience));
        let answer = self.link.ask(self.subject.clone(), request).await;
        match answer.and_then(|answer| read::<Ack>(&answer)) {
            Ok(ack) => Swap::Done(ack.seq),
            Err(failure) if failure.is(WRONG_LAST) => Swap::Conflict,
            Err(failure) => Swap::NotDone(failure),
        }
    }

    /// The record and its revision, from the stream's leader.
    pub(crate) async fn get(&self) -> std::result::Result<Option<(u64, Record)>, Failure> {
        #[derive(Deserialize)]
        struct Got {
            message: GotMessage,
        }
        #[derive(Deserialize)]
        struct GotMessage {
            seq: u64,
            #[serde(default)]
            data: String,
        }
        let request = json!({ "last_by_subj": self.subject });
        match self.link.api::<Got>(&format!("STREAM.MSG.GET.{}", self.bucket), &request).await {
            Ok(Got { message }) => {
                let data = STANDARD.decode(&message.data).unwrap_or_default();
                let record = serde_json::from_slice(&data);
                let unreadable = |error| Failure::Unanswered(format!("a record that cannot be read: {error}"));
                record.map(|record| Some((message.seq, record))).map_err(unreadable)
            }
            Err(failure) if failure.is(NO_MESSAGE) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// A record that a member owns.
#[derive(Debug)]
pub(crate) struct Held {
    slot: Slot,
    lease: Lease,
    lease_time: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    revision: u64,
    record: Record,
    /// When the last successful write was sent.
    written: Instant,
    /// Tries to write so far.
    writes: u64,
    /// The epoch of a claim under this ownership, from its first try on.
    claimed: Option<u64>,
    /// Superseded or released.
    over: bool,
}

impl Held {
    /// An ownership that was just taken by a write sent at `sent`.
    pub(crate) fn new(slot: Slot, revision: u64, record: Record, sent: Instant) -> Self {
        let lease_time = Duration::from_millis(record.lease_ms);
        let lease = Lease::until(sent + lease_time - lease_time / 10);
        let writes = record.write;
        let state = Mutex::new(State { revision, record, written: sent, writes, claimed: None, over: false });
        Self { slot, lease, lease_time, state }
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Writes again if the lease would otherwise be at risk. `Fenced` where it is over.
    pub(crate) async fn renew(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        if !state.over && state.written.elapsed() < self.lease_time / 3 {
            return Ok(());
        }
        self.write(&mut state, |_| ()).await
    }

    pub(crate) async fn commit(&self, commit: &Commit) -> Result<()> {
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
        })
        .await
    }

    /// Gives the partition up. Whatever becomes of the write, this ownership is over.
    pub(crate) async fn release(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        self.lease.revoke();
        if state.over {
            return Ok(());
        }
        let released = self.write(&mut state, |record| record.owner.clear()).await;
        state.over = true;
        released
    }

    /// Ends it without a word to anybody: others wait until the lease has run out.
    pub(crate) async fn abandon(&self) {
        let mut state = self.state.lock().await;
        state.over = true;
        self.lease.revoke();
    }

    async fn write(&self, state: &mut State, change: impl Fn(&mut Record)) -> Result<()> {
        if state.over {
            return Err(fenced());
        }
        // Each turn goes on from an earlier write of ours that was found; more than two would be somebody else's doing.
        for _ in 0..3 {
            state.writes += 1;
            let mut record = state.record.clone();
            record.write = state.writes;
            change(&mut record);
            let sent = Instant::now();
            let unknown = match self.slot.swap(state.revision, &record).await {
                Swap::Done(revision) => return self.wrote(state, revision, record, sent),
                Swap::Conflict => Failure::Unanswered("the record's revision changed".into()),
                Swap::NotDone(failure @ Failure::Unanswered(_)) => failure,
                Swap::NotDone(failure) => return Err(retryable(failure)),
            };
            match self.slot.get().await.map_err(retryable)? {
                Some((revision, found)) if found.is_of(&record) && found.write == record.write => {
                    return self.wrote(state, revision, record, sent);
                }
                // A release is found by its nonce: its owner is gone.
                Some((revision, found)) if found.nonce == state.record.nonce && found.owner == state.record.owner => {
                    if revision == state.revision {
                        return Err(retryable(unknown));
                    }
                    (state.revision, state.record) = (revision, found);
                }
                _ => {
                    state.over = true;
                    self.lease.revoke();
                    return Err(fenced());
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the record changed under every try to write it"))
    }

    fn wrote(&self, state: &mut State, revision: u64, record: Record, sent: Instant) -> Result<()> {
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

/// The bucket is out of reach for a while: the core tries again.
fn retryable(failure: Failure) -> Error {
    let error = Error::from(failure);
    let lasting = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Closed);
    error.retryable(!lasting)
}
